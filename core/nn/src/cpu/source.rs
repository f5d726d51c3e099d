//! Tensors that are computed where they are read: activations from a convolution's raw output,
//! and its gradient from what was stored behind the activation.

use std::ops::Range;

use super::channelwise::{
    GatedNorm, activate, activate_gated, gated_norm_grad, norm_grad, period, pooled_norm_grad,
};
use super::norm::{NormGrad, NormState};
use crate::activation::{Act, with_act};

/// A number per image and channel, repeated to a full period per image.
#[derive(Debug)]
pub struct PerImage {
    values: Vec<f32>,
    period: usize,
    rows_per_image: usize,
}

impl PerImage {
    /// From (images, channels) numbers; an image has `rows_per_image` rows.
    pub fn new(values: &[f32], channels: usize, rows_per_image: usize) -> PerImage {
        let period = period(channels);
        PerImage {
            values: values
                .chunks_exact(channels)
                .flat_map(|image| image.iter().copied().cycle().take(period))
                .collect(),
            period,
            rows_per_image,
        }
    }

    /// Of one image, repeated to a full period.
    pub(super) fn image(&self, index: usize) -> &[f32] {
        &self.values[index * self.period..][..self.period]
    }

    pub(super) fn rows_per_image(&self) -> usize {
        self.rows_per_image
    }
}

/// Splits a range of rows at image boundaries: (image, rows).
pub fn by_image(
    rows: Range<usize>,
    rows_per_image: usize,
) -> impl Iterator<Item = (usize, Range<usize>)> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        (start < rows.end).then(|| {
            let image = start / rows_per_image;
            let end = ((image + 1) * rows_per_image).min(rows.end);
            let part = start..end;
            start = end;
            (image, part)
        })
    })
}

/// An operation's input: (rows, channels), read as act(z * scale + shift) * gate.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The stored tensor.
    pub z: &'a [f32],
    pub channels: usize,
    /// Batch norm and activation to apply on reading; `None` reads z itself.
    pub norm: Option<(&'a NormState, Act)>,
    /// Squeeze-excite's gate.
    pub gate: Option<&'a PerImage>,
}

impl<'a> Source<'a> {
    /// A tensor that is read as it is stored.
    pub fn plain(z: &'a [f32], channels: usize) -> Self {
        Source {
            z,
            channels,
            norm: None,
            gate: None,
        }
    }

    /// A convolution's raw output, read through batch norm and activation.
    pub fn normed(z: &'a [f32], norm: &'a NormState, act: Act) -> Self {
        Source {
            z,
            channels: norm.channels,
            norm: Some((norm, act)),
            gate: None,
        }
    }

    /// Whether it is read as it is stored.
    pub fn is_plain(&self) -> bool {
        self.norm.is_none() && self.gate.is_none()
    }

    /// Rows `rows`, computed into `scratch` unless they are stored as they are read.
    pub fn tile<'s>(&'s self, rows: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        if self.is_plain() {
            return &self.z[rows.start * self.channels..rows.end * self.channels];
        }
        let len = rows.len() * self.channels;
        self.copy(rows, &mut scratch[..len]);
        &scratch[..len]
    }

    /// Rows `rows`, always computed or copied into `out`.
    pub fn copy(&self, rows: Range<usize>, out: &mut [f32]) {
        let c = self.channels;
        let z = &self.z[rows.start * c..rows.end * c];
        match (self.norm, self.gate) {
            (Some((norm, act)), None) => {
                with_act!(act, A => activate::<A>(z, &norm.scale, &norm.shift, out))
            }
            (Some((norm, act)), Some(gate)) => {
                for (image, part) in by_image(rows.clone(), gate.rows_per_image) {
                    let here = (part.start - rows.start) * c..(part.end - rows.start) * c;
                    with_act!(act, A => activate_gated::<A>(
                        &z[here.clone()], &norm.scale, &norm.shift, gate.image(image), &mut out[here],
                    ))
                }
            }
            _ => out.copy_from_slice(z),
        }
    }
}

/// The gradient with respect to a convolution's raw output, computed where it is read.
#[derive(Clone, Copy)]
pub enum GradSource<'a> {
    /// `dy` lies behind the activation: dz = a * dy + b * z + c.
    Normed {
        dy: &'a [f32],
        z: &'a [f32],
        grad: &'a NormGrad,
    },
    /// `g` lies behind the gate: dy = (g * gate + pool) * act'(u).
    Gated {
        g: &'a [f32],
        z: &'a [f32],
        norm: &'a NormState,
        act: Act,
        gate: &'a PerImage,
        pool: &'a PerImage,
        grad: &'a NormGrad,
    },
    /// Only a pooled branch flows back: dy = pool * act'(u).
    Pooled {
        z: &'a [f32],
        norm: &'a NormState,
        act: Act,
        pool: &'a PerImage,
        grad: &'a NormGrad,
    },
}

impl GradSource<'_> {
    /// Computes dz of `rows`, each of `channels` numbers, into `out`.
    pub fn copy(&self, rows: Range<usize>, channels: usize, out: &mut [f32]) {
        let span = rows.start * channels..rows.end * channels;
        match *self {
            GradSource::Normed { dy, z, grad } => {
                norm_grad(&dy[span.clone()], &z[span], &grad.a, &grad.b, &grad.c, out);
            }
            GradSource::Gated {
                g,
                z,
                norm,
                act,
                gate,
                pool,
                grad,
            } => {
                for (image, part) in by_image(rows.clone(), pool.rows_per_image) {
                    let at = part.start * channels..part.end * channels;
                    let here = at.start - span.start..at.end - span.start;
                    let k = coefficients(norm, gate.image(image), pool.image(image), grad);
                    with_act!(act, A => gated_norm_grad::<A>(
                        &g[at.clone()], &z[at], &k, &mut out[here],
                    ))
                }
            }
            GradSource::Pooled {
                z,
                norm,
                act,
                pool,
                grad,
            } => {
                for (image, part) in by_image(rows.clone(), pool.rows_per_image) {
                    let at = part.start * channels..part.end * channels;
                    let here = at.start - span.start..at.end - span.start;
                    let k = coefficients(norm, &[], pool.image(image), grad);
                    with_act!(act, A => pooled_norm_grad::<A>(&z[at], &k, &mut out[here]))
                }
            }
        }
    }
}

fn coefficients<'a>(
    norm: &'a NormState,
    gate: &'a [f32],
    pool: &'a [f32],
    grad: &'a NormGrad,
) -> GatedNorm<'a> {
    GatedNorm {
        scale: &norm.scale,
        shift: &norm.shift,
        gate,
        pool,
        a: &grad.a,
        b: &grad.b,
        c: &grad.c,
    }
}
