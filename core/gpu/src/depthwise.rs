//! Depthwise convolution. A unit makes a strip of neighboring outputs: what it reads is computed once
//! and meets every tap that it lies under.

use cubecl::prelude::*;

use super::product::Windows;
use super::sums::UNITS;
use super::view::View;

/// Taps whose sums go through shared memory together: 12 KB of the 16 that any GPU has.
const CHUNK: usize = 3;

/// Outputs of a unit.
pub const STRIP: usize = 4;

/// The tap's weight of `N` channels; a weight is (channels, taps).
#[cube]
fn weight<N: Size>(
    w: &Array<f32>,
    at: usize,
    c: usize,
    tap: usize,
    #[comptime] taps: usize,
) -> Vector<f32, N> {
    let mut found = Vector::<f32, N>::empty();
    #[unroll]
    for lane in 0..N::value() {
        found[lane] = w[at + (c * N::value() + lane) * taps + tap];
    }
    found
}

/// z (images, out_height, out_width, channels).
#[cube(launch_unchecked)]
pub fn forward<F: Float, N: Size>(
    x: &View<F, N>,
    w: &Array<f32>,
    at: usize,
    windows: &Windows,
    z: &mut Array<Vector<F, N>>,
    images: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[define(F)] _type: StorageType,
) {
    let strips = windows.out_width.div_ceil(STRIP);
    let (place, c) = (ABSOLUTE_POS / x.channels, ABSOLUTE_POS % x.channels);
    let (row, strip) = (place / strips, place % strips);
    let (image, oy) = (row / windows.out_height, row % windows.out_height);
    if image < images {
        let ox = strip * STRIP;
        let mut sums = Array::<Vector<f32, N>>::new(STRIP);
        #[unroll]
        for s in 0..STRIP {
            sums[s] = Vector::new(0.0f32);
        }
        for down in 0..kernel {
            let y = oy * stride + down;
            if y >= windows.pad_top && y - windows.pad_top < windows.height {
                let from = (image * windows.height + y - windows.pad_top) * windows.width;
                let mut taps = Array::<Vector<f32, N>>::new(kernel);
                #[unroll]
                for across in 0..kernel {
                    taps[across] = weight::<N>(w, at, c, down * kernel + across, kernel * kernel);
                }
                #[unroll]
                for t in 0..(STRIP - 1) * stride + kernel {
                    let column = ox * stride + t;
                    if column >= windows.pad_left && column - windows.pad_left < windows.width {
                        let x = x.read(from + column - windows.pad_left, c);
                        #[unroll]
                        for s in 0..STRIP {
                            if comptime!(t >= s * stride && t - s * stride < kernel) {
                                sums[s] = fma(x, taps[comptime!(t - s * stride)], sums[s]);
                            }
                        }
                    }
                }
            }
        }
        #[unroll]
        for s in 0..STRIP {
            if ox + s < windows.out_width {
                z[(row * windows.out_width + ox + s) * x.channels + c] = Vector::cast_from(sums[s]);
            }
        }
    }
}

/// dx (images, height, width, channels), plus `shortcut`, or through the activation of `through`.
#[cube(launch_unchecked)]
pub fn back<F: Float, N: Size>(
    dz: &View<F, N>,
    w: &Array<f32>,
    at: usize,
    windows: &Windows,
    shortcut: &ComptimeOption<Array<Vector<F, N>>>,
    through: &ComptimeOption<View<F, N>>,
    dx: &mut Array<Vector<F, N>>,
    images: usize,
    #[comptime] kernel: usize,
    #[comptime] stride: usize,
    #[define(F)] _type: StorageType,
) {
    let strips = windows.width.div_ceil(STRIP);
    let (place, c) = (ABSOLUTE_POS / dz.channels, ABSOLUTE_POS % dz.channels);
    let (row, strip) = (place / strips, place % strips);
    let (image, y) = (row / windows.height, row % windows.height);
    if image < images {
        let x = strip * STRIP;
        let mut sums = Array::<Vector<f32, N>>::new(STRIP);
        #[unroll]
        for s in 0..STRIP {
            sums[s] = Vector::new(0.0f32);
        }
        for down in 0..kernel {
            let under = y + windows.pad_top;
            if under >= down
                && (under - down).is_multiple_of(stride)
                && (under - down) / stride < windows.out_height
            {
                let from =
                    (image * windows.out_height + (under - down) / stride) * windows.out_width;
                let mut taps = Array::<Vector<f32, N>>::new(kernel);
                #[unroll]
                for across in 0..kernel {
                    taps[across] = weight::<N>(w, at, c, down * kernel + across, kernel * kernel);
                }
                #[unroll]
                for t in 0..STRIP + kernel - 1 {
                    // Where the window would have to begin.
                    let begin = x + windows.pad_left + t;
                    if begin >= kernel - 1 {
                        let begin = begin - (kernel - 1);
                        if begin.is_multiple_of(stride) && begin / stride < windows.out_width {
                            let dz = dz.read(from + begin / stride, c);
                            #[unroll]
                            for s in 0..STRIP {
                                if comptime!(s + kernel > t && s + kernel - 1 - t < kernel) {
                                    let across = comptime!(s + kernel - 1 - t);
                                    sums[s] = fma(dz, taps[across], sums[s]);
                                }
                            }
                        }
                    }
                }
            }
        }
        #[unroll]
        for s in 0..STRIP {
            if x + s < windows.width {
                let to = row * windows.width + x + s;
                let mut sum = sums[s];
                #[comptime]
                if let ComptimeOption::Some(shortcut) = shortcut {
                    sum += Vector::cast_from(shortcut[to * dz.channels + c]);
                }
                #[comptime]
                if let ComptimeOption::Some(x) = through {
                    sum *= x.derivative(to, c);
                }
                dx[to * dz.channels + c] = Vector::cast_from(sum);
            }
        }
    }
}

/// Parts (pieces, taps, channels) of the weight's gradient. Cubes are (blocks of channels, pieces of
/// `piece` rows of outputs), units (`lanes` channels, rows).
#[cube(launch_unchecked)]
pub fn weight_gradient<F: Float, N: Size>(
    dz: &View<F, N>,
    x: &View<F, N>,
    windows: &Windows,
    parts: &mut Array<Vector<f32, N>>,
    rows: usize,
    piece: usize,
    #[comptime] kernel: usize,
    #[comptime] lanes: usize,
    #[define(F)] _type: StorageType,
) {
    let taps = comptime!(kernel * kernel);
    let deep = comptime!(UNITS / lanes);
    let mut shared = SharedMemory::<Vector<f32, N>>::new(comptime!(UNITS * CHUNK));
    let lane = UNIT_POS as usize % lanes;
    let depth = UNIT_POS as usize / lanes;
    let c = CUBE_POS_X as usize * lanes + lane;
    let here = c < dz.channels;
    let first = CUBE_POS_Y as usize * piece;
    let end = min(first + piece, rows);
    let mut totals = Array::<Vector<f32, N>>::new(taps);
    #[unroll]
    for tap in 0..taps {
        totals[tap] = Vector::new(0.0f32);
    }
    if here {
        let mut row = first + depth;
        while row < end {
            let dz = dz.read(row, c);
            let (line, ox) = (row / windows.out_width, row % windows.out_width);
            let (image, oy) = (line / windows.out_height, line % windows.out_height);
            #[unroll]
            for down in 0..kernel {
                let y = oy * windows.stride + down;
                if y >= windows.pad_top && y - windows.pad_top < windows.height {
                    let from = (image * windows.height + y - windows.pad_top) * windows.width;
                    #[unroll]
                    for across in 0..kernel {
                        let column = ox * windows.stride + across;
                        if column >= windows.pad_left && column - windows.pad_left < windows.width {
                            let x = x.read(from + column - windows.pad_left, c);
                            let tap = comptime!(down * kernel + across);
                            totals[tap] = fma(dz, x, totals[tap]);
                        }
                    }
                }
            }
            row += deep;
        }
    }
    // Some taps at a time go through what the units share.
    #[unroll]
    for chunk in 0..comptime!(taps.div_ceil(CHUNK)) {
        let first = comptime!(chunk * CHUNK);
        let count = comptime!(CHUNK.min(taps - first));
        #[unroll]
        for t in 0..count {
            shared[t * UNITS + UNIT_POS as usize] = totals[first + t];
        }
        sync_cube();
        if depth == 0 && here {
            for t in 0..count {
                let mut sum = shared[t * UNITS + lane];
                for d in 1..deep {
                    sum += shared[t * UNITS + d * lanes + lane];
                }
                let tap = first + t;
                parts[(CUBE_POS_Y as usize * taps + tap) * dz.channels + c] = sum;
            }
        }
        sync_cube();
    }
}
