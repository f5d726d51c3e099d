//! The largest number of each window, of an activation that is computed where it is read.

use super::norm::GradSums;
use super::source::Source;
use super::sums::NormSums;
use crate::parallel::{map_parts, pieces, split};
use crate::window::Window;
use crate::workspace::Workspace;
use seedling_base::simd::dispatch;

/// y (n, out_height, out_width, c) and the taps that were largest, from x (n, height, width, c). Of
/// equal ones it is the first.
pub fn forward(x: &Source, window: &Window, y: &mut [f32], taps: &mut [u8], workspace: &Workspace) {
    let (c, out_row) = (window.channels, window.out_width * window.channels);
    let out_image = window.out_height * window.out_width;
    let pieces = pieces(y.len() / c, out_image);
    let ys = split(y, &pieces, c);
    let taps = split(taps, &pieces, c);
    let parts = ys.into_iter().zip(taps).collect();
    map_parts(
        pieces,
        parts,
        |piece, (y, taps): (&mut [f32], &mut [u8])| {
            let in_image = window.height * window.width;
            let mut image = workspace.alloc(in_image * c);
            let outs = y.chunks_exact_mut(out_image * c);
            for (i, (y, taps)) in outs.zip(taps.chunks_exact_mut(out_image * c)).enumerate() {
                let first = (piece.start / out_image + i) * in_image;
                x.copy(first..first + in_image, &mut image);
                let rows = y
                    .chunks_exact_mut(out_row)
                    .zip(taps.chunks_exact_mut(out_row));
                for (oy, (y, taps)) in rows.enumerate() {
                    row(&image, window, oy, y, taps);
                }
            }
        },
    );
}

fn row(image: &[f32], window: &Window, oy: usize, y: &mut [f32], taps: &mut [u8]) {
    let c = window.channels;
    let outs = y.chunks_exact_mut(c).zip(taps.chunks_exact_mut(c));
    for (ox, (y, taps)) in outs.enumerate() {
        y.fill(f32::NEG_INFINITY);
        taps.fill(0);
        for tap in 0..window.kernel * window.kernel {
            let Some(from) = under(window, oy, ox, tap) else {
                continue;
            };
            largest(&image[from * c..][..c], tap as u8, y, taps);
        }
    }
}

dispatch! {
/// Takes x where it is larger, or no number.
fn largest(x: &[f32], tap: u8, y: &mut [f32], taps: &mut [u8]) {
    for ((y, t), x) in y.iter_mut().zip(taps.iter_mut()).zip(x) {
        let taken = (*x > *y) | x.is_nan();
        *y = if taken { *x } else { *y };
        *t = if taken { tap } else { *t };
    }
}
}

/// The pixel under a tap, if it lies inside.
fn under(window: &Window, oy: usize, ox: usize, tap: usize) -> Option<usize> {
    let y = (oy * window.stride + tap / window.kernel).checked_sub(window.pad_top)?;
    let x = (ox * window.stride + tap % window.kernel).checked_sub(window.pad_left)?;
    (y < window.height && x < window.width).then(|| y * window.width + x)
}

/// dy behind x's activation, written to `out`, and its norm's sums.
pub fn backward(x: &Source, window: &Window, taps: &[u8], dy: &[f32], out: &mut [f32]) -> GradSums {
    let c = window.channels;
    let (in_image, out_image) = (
        window.height * window.width,
        window.out_height * window.out_width,
    );
    let pieces = pieces(out.len() / c, in_image);
    let outs = split(out, &pieces, c);
    let parts = map_parts(pieces, outs, |piece, out| {
        let mut sums = NormSums::new(c);
        let mut places = vec![None; window.kernel * window.kernel];
        for (i, g) in out.chunks_exact_mut(in_image * c).enumerate() {
            let image = piece.start / in_image + i;
            g.fill(0.0);
            let at = image * out_image * c..(image + 1) * out_image * c;
            let from = dy[at.clone()].chunks_exact(c).zip(taps[at].chunks_exact(c));
            for (position, (dy, taps)) in from.enumerate() {
                let (oy, ox) = (position / window.out_width, position % window.out_width);
                for (tap, place) in places.iter_mut().enumerate() {
                    *place = under(window, oy, ox, tap);
                }
                for (ch, (dy, tap)) in dy.iter().zip(taps).enumerate() {
                    if let Some(to) = places[usize::from(*tap)] {
                        g[to * c + ch] += dy;
                    }
                }
            }
            let z = &x.z[image * in_image * c..(image + 1) * in_image * c];
            sums.through(x, z, g);
        }
        sums.finish()
    });
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}
