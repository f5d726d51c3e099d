//! Global average pooling of an activation that is computed where it is read.

use rayon::prelude::*;

use super::channelwise::{activated_sum, derivative_sums, fold, period};
use super::norm::{GradSums, NormState};
use super::source::Source;
use crate::activation::{Act, with_act};

/// Means over the rows of each image: (images, channels).
pub fn forward(x: &Source, rows_per_image: usize, out: &mut [f32]) {
    let c = x.channels;
    let (p, ones, zeros) = (period(c), vec![1.0; period(c)], vec![0.0; period(c)]);
    let (scale, shift, act) = match x.norm {
        Some((norm, act)) => (&norm.scale, &norm.shift, act),
        None => (&ones, &zeros, Act::Identity),
    };
    out.par_chunks_exact_mut(c)
        .zip(x.z.par_chunks_exact(rows_per_image * c))
        .for_each(|(out, z)| {
            let mut sum = vec![0.0; p];
            with_act!(act, A => activated_sum::<A>(z, scale, shift, &mut sum));
            let mut total = vec![0.0f64; c];
            fold(&sum, &mut total);
            for (out, total) in out.iter_mut().zip(&total) {
                *out = (total / rows_per_image as f64) as f32;
            }
        });
}

/// The gradient of the means of a stored tensor, at every row.
pub fn spread(dy: &[f32], channels: usize, rows_per_image: usize, out: &mut [f32]) {
    let scale = 1.0 / rows_per_image as f32;
    out.par_chunks_exact_mut(rows_per_image * channels)
        .zip(dy.par_chunks_exact(channels))
        .for_each(|(rows, dy)| {
            for row in rows.chunks_exact_mut(channels) {
                row.iter_mut().zip(dy).for_each(|(x, g)| *x = g * scale);
            }
        });
}

/// Batch norm's sums where nothing but the pooled branch flows back: `dpool` (images, channels)
/// is the gradient at each position (already divided by the number of rows).
pub fn backward_sums(
    z: &[f32],
    norm: &NormState,
    act: Act,
    dpool: &[f32],
    rows_per_image: usize,
) -> GradSums {
    let c = norm.channels;
    let p = period(c);
    let parts: Vec<GradSums> = z
        .par_chunks_exact(rows_per_image * c)
        .zip(dpool.par_chunks_exact(c))
        .map(|(z, dpool)| {
            let (mut derivative, mut centered) = (vec![0.0; p], vec![0.0; p]);
            with_act!(act, A => derivative_sums::<A>(
                z, &norm.scale, &norm.shift, &norm.mean, &mut derivative, &mut centered,
            ));
            let mut sums = GradSums::zeros(c);
            fold(&derivative, &mut sums.grad);
            fold(&centered, &mut sums.centered);
            for ((a, b), g) in sums.grad.iter_mut().zip(&mut sums.centered).zip(dpool) {
                *a *= *g as f64;
                *b *= *g as f64;
            }
            sums
        })
        .collect();
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}
