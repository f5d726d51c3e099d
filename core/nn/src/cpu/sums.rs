//! What batch norm needs of a tensor, summed while its rows are in the cache.

use super::channelwise::{fold, grad_sums, moments, period, through_activation};
use super::norm::{GradSums, Moments};
use super::source::Source;
use crate::activation::with_act;

/// Rows summed in f32 before they join the f64 totals.
const FOLD_ROWS: usize = 1024;

/// The moments of rows as they come. Within a thousand rows, f32 sums of z - shift and its
/// square, where the shift is the first of these rows: what it is off the mean by is part of the
/// spread itself, so the subtraction at the end costs no more than three of f32's seven digits,
/// and usually none, however far from zero the mean is.
pub(super) struct MomentSums {
    shift: Vec<f32>,
    sum: Vec<f32>,
    square: Vec<f32>,
    pending: usize,
    total: Moments,
}

impl MomentSums {
    pub fn new(channels: usize) -> MomentSums {
        let p = period(channels);
        MomentSums {
            shift: vec![0.0; p],
            sum: vec![0.0; p],
            square: vec![0.0; p],
            pending: 0,
            total: Moments::zeros(channels),
        }
    }

    pub fn add(&mut self, z: &[f32]) {
        let channels = self.total.mean.len();
        if self.pending == 0 {
            for (shift, row) in self
                .shift
                .chunks_exact_mut(channels)
                .zip(std::iter::repeat(z))
            {
                shift.copy_from_slice(&row[..channels]);
            }
        }
        moments(z, &self.shift, &mut self.sum, &mut self.square);
        self.pending += z.len() / channels;
        if self.pending >= FOLD_ROWS {
            self.fold();
        }
    }

    fn fold(&mut self) {
        let channels = self.total.mean.len();
        let (mut sum, mut square) = (vec![0.0; channels], vec![0.0; channels]);
        fold(&self.sum, &mut sum);
        fold(&self.square, &mut square);
        self.total = std::mem::take(&mut self.total).merge(&Moments::of_shifted(
            self.pending,
            &self.shift[..channels],
            &sum,
            &square,
        ));
        self.sum.fill(0.0);
        self.square.fill(0.0);
        self.pending = 0;
    }

    pub fn finish(mut self) -> Moments {
        self.fold();
        self.total
    }
}

/// Combines the parts in order.
pub(super) fn merge_moments(parts: &[Moments], channels: usize) -> Moments {
    parts.iter().fold(Moments::zeros(channels), Moments::merge)
}

/// Sums of dy and dy * (z - mean) of rows as they come.
pub struct NormSums {
    grad: Vec<f32>,
    centered: Vec<f32>,
    pending: usize,
    total: GradSums,
}

impl NormSums {
    pub fn new(channels: usize) -> NormSums {
        let p = period(channels);
        NormSums {
            grad: vec![0.0; p],
            centered: vec![0.0; p],
            pending: 0,
            total: GradSums::zeros(channels),
        }
    }

    /// Takes `g` through the activation of `x` (whose stored rows are `z`) and sums it.
    pub fn through(&mut self, x: &Source, z: &[f32], g: &mut [f32]) {
        if let Some((norm, act)) = x.norm {
            with_act!(act, A => through_activation::<A>(
                g, z, &norm.scale, &norm.shift, &norm.mean, &mut self.grad, &mut self.centered,
            ));
            self.count(g.len());
        }
    }

    /// Sums a `g` that has no activation before it.
    pub fn add(&mut self, g: &[f32], z: &[f32], mean: &[f32]) {
        grad_sums(g, z, mean, &mut self.grad, &mut self.centered);
        self.count(g.len());
    }

    fn count(&mut self, len: usize) {
        self.pending += len / self.total.grad.len();
        if self.pending >= FOLD_ROWS {
            self.fold();
        }
    }

    fn fold(&mut self) {
        fold(&self.grad, &mut self.total.grad);
        fold(&self.centered, &mut self.total.centered);
        self.grad.fill(0.0);
        self.centered.fill(0.0);
        self.pending = 0;
    }

    pub fn finish(mut self) -> GradSums {
        self.fold();
        self.total
    }
}
