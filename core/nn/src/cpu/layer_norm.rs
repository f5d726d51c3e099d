//! Layer norm of rows, computed where they are read.

use rayon::prelude::*;

use crate::layer::LayerNorm;

/// Mean and 1 / sqrt(var + eps) of each row.
#[derive(Debug)]
pub struct RowStats {
    mean: Vec<f32>,
    inv_std: Vec<f32>,
}

impl RowStats {
    /// Of rows of `dim` numbers.
    pub fn compute(x: &[f32], dim: usize, eps: f32) -> RowStats {
        let (mean, inv_std) = x
            .par_chunks_exact(dim)
            .map(|row| {
                let (sum, n) = (row.iter().map(|x| *x as f64).sum::<f64>(), dim as f64);
                let mean = sum / n;
                let squares = row.iter().map(|x| (*x as f64 - mean).powi(2));
                let var = squares.sum::<f64>() / n;
                (mean as f32, (1.0 / (var + eps as f64).sqrt()) as f32)
            })
            .unzip();
        RowStats { mean, inv_std }
    }
}

/// A layer's numbers, with the statistics of the rows that it norms.
#[derive(Clone, Copy)]
pub struct Normed<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    stats: &'a RowStats,
}

impl<'a> Normed<'a> {
    /// Of rows whose statistics are `stats`.
    pub fn new(layer: &LayerNorm, values: &'a [f32], stats: &'a RowStats) -> Normed<'a> {
        Normed {
            weight: &values[layer.weight.clone()],
            bias: &values[layer.bias.clone()],
            stats,
        }
    }

    /// y of `x`, whose first row is the `first` of all.
    pub fn forward(&self, x: &[f32], first: usize, y: &mut [f32]) {
        let dim = self.weight.len();
        let rows = x.chunks_exact(dim).zip(y.chunks_exact_mut(dim));
        for (i, (x, y)) in rows.enumerate() {
            let (mean, inv_std) = (self.stats.mean[first + i], self.stats.inv_std[first + i]);
            let numbers = y.iter_mut().zip(x).zip(self.weight.iter().zip(self.bias));
            numbers.for_each(|((y, x), (w, b))| *y = (x - mean) * inv_std * w + b);
        }
    }

    /// dx in place of dy; adds to the gradients of weight and bias.
    pub fn backward(
        &self,
        x: &[f32],
        first: usize,
        dy: &mut [f32],
        (dweight, dbias): (&mut [f32], &mut [f32]),
    ) {
        let dim = self.weight.len();
        for (i, (x, dy)) in x
            .chunks_exact(dim)
            .zip(dy.chunks_exact_mut(dim))
            .enumerate()
        {
            let (mean, inv_std) = (self.stats.mean[first + i], self.stats.inv_std[first + i]);
            let (mut sum, mut product) = (0.0f64, 0.0f64);
            let layer = self
                .weight
                .iter()
                .zip(dweight.iter_mut().zip(dbias.iter_mut()));
            for ((dy, x), (w, (dw, db))) in dy.iter_mut().zip(x).zip(layer) {
                let unit = (x - mean) * inv_std;
                *dw += *dy * unit;
                *db += *dy;
                *dy *= w;
                sum += *dy as f64;
                product += (*dy * unit) as f64;
            }
            let (sum, product) = ((sum / dim as f64) as f32, (product / dim as f64) as f32);
            for (dy, x) in dy.iter_mut().zip(x) {
                *dy = (*dy - sum - (x - mean) * inv_std * product) * inv_std;
            }
        }
    }
}
