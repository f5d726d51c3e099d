//! The largest number of each window, of an activation that is computed where it is read.

use cubecl::prelude::*;

use super::product::Windows;
use super::view::View;

/// y, and under which tap it lay; of equal ones it is the first.
#[cube(launch_unchecked)]
pub fn forward<F: Float>(
    x: &View<F, Const<1>>,
    windows: &Windows,
    y: &mut Array<F>,
    taps: &mut Array<u32>,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < y.len() {
        let (pixel, c) = (i / x.channels, i % x.channels);
        let (row, ox) = (pixel / windows.out_width, pixel % windows.out_width);
        let (image, oy) = (row / windows.out_height, row % windows.out_height);
        let mut largest = f32::min_value();
        let mut which = 0u32;
        for tap in 0..windows.kernel * windows.kernel {
            let down = oy * windows.stride + tap / windows.kernel;
            let across = ox * windows.stride + tap % windows.kernel;
            if down >= windows.pad_top && across >= windows.pad_left {
                let (down, across) = (down - windows.pad_top, across - windows.pad_left);
                if down < windows.height && across < windows.width {
                    let from = (image * windows.height + down) * windows.width + across;
                    let found = x.read(from, c)[0];
                    if found > largest {
                        largest = found;
                        which = tap as u32;
                    }
                }
            }
        }
        y[i] = F::cast_from(largest);
        taps[i] = which;
    }
}

/// dy behind x's activation: each input gathers what took it.
#[cube(launch_unchecked)]
pub fn back<F: Float>(
    x: &View<F, Const<1>>,
    windows: &Windows,
    taps: &Array<u32>,
    dy: &Array<F>,
    out: &mut Array<F>,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (pixel, c) = (i / x.channels, i % x.channels);
        let (row, column) = (pixel / windows.width, pixel % windows.width);
        let (image, line) = (row / windows.height, row % windows.height);
        let (under, beside) = (line + windows.pad_top, column + windows.pad_left);
        let mut sum = 0.0f32;
        for tap in 0..windows.kernel * windows.kernel {
            let (down, across) = (tap / windows.kernel, tap % windows.kernel);
            if under >= down && beside >= across {
                let (top, left) = (under - down, beside - across);
                let (oy, ox) = (top / windows.stride, left / windows.stride);
                let exact = top % windows.stride == 0 && left % windows.stride == 0;
                if exact && oy < windows.out_height && ox < windows.out_width {
                    let at = ((image * windows.out_height + oy) * windows.out_width + ox)
                        * x.channels
                        + c;
                    if taps[at] as usize == tap {
                        sum += f32::cast_from(dy[at]);
                    }
                }
            }
        }
        out[i] = F::cast_from(sum * x.derivative(pixel, c)[0]);
    }
}
