//! Count, mean and scatter of features, taken while photos are processed, and mergeable (Chan, Golub and
//! LeVeque 1979): of parts of a dataset, or of several.

use crate::eval::Features;
use crate::{Error, Result};
use seedling_nn::gemm::{MatMul, Matrix, gemm_columns};

/// Rows whose products are added up in f32.
const BLOCK: usize = 256;

/// What is known of the features seen so far. Takes 8 bytes for each pair of dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    count: usize,
    mean: Vec<f64>,
    /// Sum of (x - mean) (x - mean)^T: (dim, dim), symmetric.
    scatter: Vec<f64>,
}

impl Moments {
    /// Of no features of `dim` numbers yet.
    pub fn new(dim: usize) -> Moments {
        Moments {
            count: 0,
            mean: vec![0.0; dim],
            scatter: vec![0.0; dim * dim],
        }
    }

    /// Features seen.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their mean; zeros before there are any.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Their covariance, (dim, dim): the scatter over the count, in its memory.
    pub fn into_covariance(mut self) -> Vec<f64> {
        let n = self.count.max(1) as f64;
        self.scatter.iter_mut().for_each(|s| *s /= n);
        self.scatter
    }

    /// Adds these features. Bits depend on the calls and their order, never on threads.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] where they are of another length, [`crate::Error::Training`] where one is
    /// not finite.
    pub fn add(&mut self, features: &Features) -> Result<()> {
        let dim = self.mean.len();
        if features.dim != dim {
            return Err(Error::Shape {
                tensor: "features".into(),
                expected: vec![features.rows, dim],
                got: vec![features.rows, features.dim],
            });
        }
        features.check_finite()?;
        for start in (0..features.rows).step_by(BLOCK) {
            let rows: Vec<usize> = (start..features.rows.min(start + BLOCK)).collect();
            let mut block = features.select(&rows);
            let mean = block.mean();
            for row in block.values.chunks_exact_mut(dim) {
                row.iter_mut()
                    .zip(&mean)
                    .for_each(|(x, m)| *x = (f64::from(*x) - m) as f32);
            }
            let mut products = vec![0.0f32; dim * dim];
            let rows = Matrix::rows(&block.values, dim);
            let shape = MatMul {
                m: dim,
                n: dim,
                k: block.rows,
            };
            gemm_columns(shape, rows.transposed(), rows, &mut products, false);
            self.merge_parts(block.rows, &mean, products.iter().map(|&x| f64::from(x)));
        }
        Ok(())
    }

    /// Adds what another has seen, of features of the same length.
    pub fn merge(&mut self, other: &Moments) {
        debug_assert_eq!(self.mean.len(), other.mean.len());
        self.merge_parts(other.count, &other.mean, other.scatter.iter().copied());
    }

    fn merge_parts(&mut self, count: usize, mean: &[f64], scatter: impl Iterator<Item = f64>) {
        if count == 0 {
            return;
        }
        let (n, m) = (self.count as f64, count as f64);
        let delta: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        let between = n * m / (n + m);
        let dim = delta.len();
        for (i, (s, theirs)) in self.scatter.iter_mut().zip(scatter).enumerate() {
            *s += theirs + between * delta[i / dim] * delta[i % dim];
        }
        let ratio = m / (n + m);
        let means = self.mean.iter_mut().zip(&delta);
        means.for_each(|(mean, d)| *mean += ratio * d);
        self.count += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    fn features(rows: usize, dim: usize) -> Features {
        let mut rng = Rng::new(4, Purpose::Measure, 0, 0);
        // Far from the origin, where sums of squares would cancel.
        let values = (0..rows * dim).map(|i| 300.0 + (1.0 + (i % dim) as f32) * rng.normal());
        Features::new(rows, dim, values.collect()).unwrap()
    }

    #[test]
    fn moments_are_those_of_all_rows_however_they_come() {
        let (rows, dim) = (700, 5);
        let all = features(rows, dim);
        let mean = all.mean();
        let mut plain = vec![0.0f64; dim * dim];
        for row in all.iter() {
            for i in 0..dim {
                for j in 0..dim {
                    plain[i * dim + j] +=
                        (row[i] as f64 - mean[i]) * (row[j] as f64 - mean[j]) / rows as f64;
                }
            }
        }
        let mut whole = Moments::new(dim);
        whole.add(&all).unwrap();
        let part = |from: usize, to: usize| {
            let mut part = Moments::new(dim);
            let rows: Vec<usize> = (from..to).collect();
            part.add(&all.select(&rows)).unwrap();
            part
        };
        let mut merged = part(0, 3);
        merged.merge(&Moments::new(dim));
        merged.merge(&part(3, 699));
        merged.merge(&part(699, 700));
        for found in [&whole, &merged] {
            assert_eq!(found.count(), rows);
            for (a, b) in found.clone().into_covariance().iter().zip(&plain) {
                assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{a} {b}");
            }
            for (a, b) in found.mean().iter().zip(&mean) {
                assert!((a - b).abs() < 1e-9);
            }
        }
        assert!(whole.add(&features(2, 4)).is_err());
        let broken = Features::new(1, dim, vec![f32::NAN; dim]).unwrap();
        assert!(whole.add(&broken).is_err());
    }
}
