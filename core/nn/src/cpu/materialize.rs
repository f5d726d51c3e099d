//! Tensors that are stored as they are read: act(norm(z)), or the sum of two; and back.

use super::channelwise::{affine_add, apply, multiply_derivative};
use super::norm::GradSums;
use super::source::{PerImage, Source, by_image};
use super::sums::NormSums;
use crate::activation::{Act, with_act};
use crate::parallel::{map_parts, pieces, split, tile_rows, tiles};
use crate::workspace::Workspace;
use std::ops::Range;

/// y = x as it is read.
pub fn forward(x: &Source, y: &mut [f32]) {
    let c = x.channels;
    let pieces = pieces(x.z.len() / c, 1);
    let outs = split(y, &pieces, c);
    map_parts(pieces, outs, |rows, y| x.copy(rows, y));
}

/// In place: g becomes dy behind the activation of `x`; returns batch norm's sums.
pub fn backward(x: &Source, g: &mut [f32]) -> GradSums {
    let c = x.channels;
    let pieces = pieces(g.len() / c, 1);
    let gs = split(g, &pieces, c);
    let tile = tile_rows(2 * c);
    let parts = map_parts(pieces, gs, |piece, g| {
        let first = piece.start;
        let mut sums = NormSums::new(c);
        for rows in tiles(piece, tile) {
            let g = &mut g[(rows.start - first) * c..(rows.end - first) * c];
            sums.through(x, &x.z[rows.start * c..rows.end * c], g);
        }
        sums.finish()
    });
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}

/// y = act(x + other), each as it is read.
pub fn add(x: &Source, other: &Source, act: Act, y: &mut [f32], workspace: &Workspace) {
    each_sum(
        x,
        other,
        y,
        workspace,
        |sum, y| with_act!(act, A => apply::<A>(sum, y)),
    );
}

/// dy = dy * act'(x + other), in place.
pub fn add_back(x: &Source, other: &Source, act: Act, dy: &mut [f32], workspace: &Workspace) {
    each_sum(
        x,
        other,
        dy,
        workspace,
        |sum, dy| with_act!(act, A => multiply_derivative::<A>(sum, dy)),
    );
}

/// Calls `each` with tiles of x + other and of `out`.
fn each_sum(
    x: &Source,
    other: &Source,
    out: &mut [f32],
    workspace: &Workspace,
    each: impl Fn(&[f32], &mut [f32]) + Sync + Send,
) {
    let c = x.channels;
    let pieces = pieces(x.z.len() / c, 1);
    let outs = split(out, &pieces, c);
    let tile = tile_rows(3 * c);
    map_parts(pieces, outs, |piece, out| {
        let most = tile.min(piece.len()) * c;
        let (mut sum, mut scratch) = (workspace.alloc(most), workspace.alloc(most));
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let sum = &mut sum[..rows.len() * c];
            let other = other.tile(rows.clone(), &mut scratch);
            sum_of(x, rows.clone(), other, sum);
            each(
                sum,
                &mut out[(rows.start - first) * c..(rows.end - first) * c],
            );
        }
    });
}

/// x's rows as they are read, plus `other`.
fn sum_of(x: &Source, rows: Range<usize>, other: &[f32], sum: &mut [f32]) {
    match (x.norm, x.gate) {
        (Some((norm, Act::Identity)), None) => {
            let z = &x.z[rows.start * x.channels..rows.end * x.channels];
            affine_add(z, &norm.scale, &norm.shift, other, sum);
        }
        _ => {
            x.copy(rows, sum);
            for (a, b) in sum.iter_mut().zip(other) {
                *a += b;
            }
        }
    }
}

/// y = x times its images' numbers.
pub fn scale_images(x: &[f32], factors: &PerImage, channels: usize, y: &mut [f32]) {
    let pieces = pieces(x.len() / channels, 1);
    let outs = split(y, &pieces, channels);
    map_parts(pieces, outs, |rows, y| {
        let first = rows.start;
        for (image, part) in by_image(rows, factors.rows_per_image()) {
            // Of one image all numbers are the same.
            let factor = factors.image(image)[0];
            let x = &x[part.start * channels..part.end * channels];
            let y = &mut y[(part.start - first) * channels..(part.end - first) * channels];
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * factor);
        }
    });
}
