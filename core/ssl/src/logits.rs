//! Logits on the host: how similar queries are to their positives and to every key of a queue.

use std::iter::once;

use rayon::prelude::*;
use seedling_nn::gemm::{MatMul, Matrix, gemm_columns};

use crate::queue::{NO_PHOTO, Queue};

/// What the log shows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Mean similarity of a query and its positive.
    pub positive: f32,
    /// Fraction of queries that are nearer to their positive than to every negative.
    pub accuracy: f32,
}

/// [x.k, x.Q] of n unit rows x; in place of these, later, what becomes of them (probabilities, gradients).
pub(crate) struct Logits {
    /// (n)
    positive: Vec<f32>,
    /// (n, size)
    queue: Vec<f32>,
    size: usize,
}

/// Those of one query.
pub(crate) struct Row<'a> {
    pub(crate) positive: &'a mut f32,
    pub(crate) queue: &'a mut [f32],
}

impl Logits {
    /// Of `rows` (n, dim), whose positives are `positives` (n, dim).
    pub(crate) fn new(rows: &[f32], positives: &[f32], queue: &Queue) -> Logits {
        let dim = queue.dim;
        let dot = |(a, b): (&[f32], &[f32])| {
            let products = a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64);
            products.sum::<f64>() as f32
        };
        let pairs = rows.chunks_exact(dim).zip(positives.chunks_exact(dim));
        Logits {
            positive: pairs.map(dot).collect(),
            ..Logits::without_positive(rows, &queue.keys, dim)
        }
    }

    /// x.Q of `rows` (n, dim) and `keys` (size, dim), and no positive.
    pub(crate) fn without_positive(rows: &[f32], keys: &[f32], dim: usize) -> Logits {
        let (n, size) = (rows.len() / dim, keys.len() / dim);
        let mut queue = vec![0.0; n * size];
        gemm_columns(
            MatMul {
                m: n,
                n: size,
                k: dim,
            },
            Matrix::rows(rows, dim),
            Matrix::rows(keys, dim).transposed(),
            &mut queue,
            false,
        );
        Logits {
            positive: vec![f32::NEG_INFINITY; n],
            queue,
            size,
        }
    }

    /// Leaves out (-inf) each query's keys of which `out` (query, key) says so.
    pub(crate) fn mask(&mut self, out: impl Fn(usize, usize) -> bool) {
        for (query, row) in self.queue.chunks_exact_mut(self.size).enumerate() {
            for (key, logit) in row.iter_mut().enumerate() {
                if out(query, key) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// Leaves out keys of the queries' own `photos`: another view of a photo is no negative of it.
    pub(crate) fn mask_own(&mut self, photos: &[u32], queue: &Queue) {
        self.mask(|query, key| photos[query] != NO_PHOTO && photos[query] == queue.photos[key]);
    }

    pub(crate) fn rows_mut(&mut self) -> impl IndexedParallelIterator<Item = Row<'_>> {
        self.positive
            .par_iter_mut()
            .zip(self.queue.par_chunks_exact_mut(self.size))
            .map(|(positive, queue)| Row { positive, queue })
    }

    /// Of logits, over a batch of which these queries may be a part.
    pub(crate) fn agreement(&self, batch: usize) -> Agreement {
        let rows = self.positive.iter().zip(self.queue.chunks_exact(self.size));
        let nearest = rows.filter(|(positive, queue)| queue.iter().all(|s| *positive > s));
        let positive = self.positive.iter().map(|&s| s as f64).sum::<f64>();
        Agreement {
            positive: (positive / batch as f64) as f32,
            accuracy: (nearest.count() as f64 / batch as f64) as f32,
        }
    }

    /// Where these are d loss / d (logit / t): d loss / d q = sum_j dlogit_j row_j / `divisor`, with row_0
    /// the positive.
    pub(crate) fn back(&self, positives: &[f32], queue: &Queue, divisor: f64) -> Vec<f32> {
        let (n, dim) = (self.positive.len(), queue.dim);
        let mut grad = positives.to_vec();
        for (row, dlogit) in grad.chunks_exact_mut(dim).zip(&self.positive) {
            row.iter_mut().for_each(|k| *k *= dlogit);
        }
        gemm_columns(
            MatMul {
                m: n,
                n: dim,
                k: self.size,
            },
            Matrix::rows(&self.queue, self.size),
            Matrix::rows(&queue.keys, dim),
            &mut grad,
            true,
        );
        let scale = 1.0 / divisor;
        grad.iter_mut()
            .for_each(|g| *g = (*g as f64 * scale) as f32);
        grad
    }
}

impl Row<'_> {
    fn iter(&self) -> impl Iterator<Item = f32> {
        once(*self.positive).chain(self.queue.iter().copied())
    }

    /// The positive, then the queue's.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        once(&mut *self.positive).chain(self.queue.iter_mut())
    }

    /// The logit of the positive (0), or of a row of the queue, counted from 1.
    pub(crate) fn get(&self, j: usize) -> f32 {
        match j.checked_sub(1) {
            None => *self.positive,
            Some(j) => self.queue[j],
        }
    }

    /// log sum_j exp(logit_j / t).
    pub(crate) fn log_sum_exp(&self, t: f64) -> f64 {
        let top = self.iter().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = self.iter().map(|s| ((s as f64 - top) / t).exp()).sum();
        sum.ln() + top / t
    }

    /// Logits become probabilities at temperature `t`, if any of them counts; says whether one does.
    pub(crate) fn softmax(&mut self, t: f64) -> bool {
        if self.iter().all(|s| s == f32::NEG_INFINITY) {
            return false;
        }
        let log_sum = self.log_sum_exp(t);
        self.iter_mut()
            .for_each(|s| *s = (*s as f64 / t - log_sum).exp() as f32);
        true
    }
}
