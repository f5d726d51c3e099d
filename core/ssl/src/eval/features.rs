//! A matrix of features: one row a photo.

use seedling_base::error::{Error, Result};

/// `rows` feature vectors of `dim` numbers each, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Number of vectors.
    pub rows: usize,
    /// Numbers in each.
    pub dim: usize,
    /// All numbers, row-major, `rows * dim` of them.
    pub values: Vec<f32>,
}

impl Features {
    /// `count` rows from row `first` on.
    pub(crate) fn block(&self, first: usize, count: usize) -> &[f32] {
        &self.values[first * self.dim..(first + count) * self.dim]
    }

    /// Wraps `values`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are `rows * dim` values.
    pub fn new(rows: usize, dim: usize, values: Vec<f32>) -> Result<Features> {
        if rows.checked_mul(dim) != Some(values.len()) {
            return Err(Error::Shape {
                tensor: "features".into(),
                expected: vec![rows, dim],
                got: vec![values.len()],
            });
        }
        Ok(Features { rows, dim, values })
    }

    /// Row `i`.
    ///
    /// # Panics
    /// As a slice does where `i` is not below [`Features::rows`].
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// Every row in turn (also where `dim` is 0).
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.rows).map(|i| self.row(i))
    }

    /// The named rows, in the order of `indices`, which must be below [`Features::rows`].
    pub fn select(&self, indices: &[usize]) -> Features {
        let mut values = Vec::with_capacity(indices.len() * self.dim);
        for &i in indices {
            values.extend_from_slice(self.row(i));
        }
        Features {
            rows: indices.len(),
            dim: self.dim,
            values,
        }
    }

    /// Every row scaled to unit length; a row of zeros stays zero.
    pub fn normalized(&self) -> Features {
        let mut out = self.clone();
        if self.dim > 0 {
            for row in out.values.chunks_exact_mut(self.dim) {
                let norm = squared_norm(row).sqrt();
                if norm > 0.0 {
                    let scale = 1.0 / norm;
                    row.iter_mut().for_each(|x| *x = (*x as f64 * scale) as f32);
                }
            }
        }
        out
    }

    /// Mean of all rows; empty sets give zeros.
    pub fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0f64; self.dim];
        for row in self.iter() {
            mean.iter_mut().zip(row).for_each(|(m, &x)| *m += x as f64);
        }
        let n = self.rows.max(1) as f64;
        mean.iter_mut().for_each(|m| *m /= n);
        mean
    }

    /// Refuses NaN and infinity, which would make every comparison below meaningless.
    ///
    /// # Errors
    /// [`Error::Training`] naming the first bad row.
    pub fn check_finite(&self) -> Result<()> {
        match self.values.iter().position(|x| !x.is_finite()) {
            None => Ok(()),
            Some(i) => Err(Error::Training(format!(
                "features are not finite (row {}): the weights have diverged; \
                 try a smaller lr, or other initial weights",
                i / self.dim.max(1)
            ))),
        }
    }

    /// Refuses a matrix whose shape is not that of `self`, or only another `dim` where
    /// `same_rows` is false.
    pub(crate) fn check_like(&self, other: &Features, name: &str, same_rows: bool) -> Result<()> {
        if self.dim == other.dim && (!same_rows || self.rows == other.rows) {
            return Ok(());
        }
        Err(Error::Shape {
            tensor: name.into(),
            expected: vec![if same_rows { self.rows } else { other.rows }, self.dim],
            got: vec![other.rows, other.dim],
        })
    }
}

/// |x|^2 in f64.
pub fn squared_norm(x: &[f32]) -> f64 {
    x.iter().map(|&v| v as f64 * v as f64).sum()
}

/// |a - b|^2 in f64, in one fixed order of additions (eight running sums, so that it vectorizes).
pub(crate) fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (a8, a1) = a.as_chunks::<8>();
    let (b8, b1) = b.as_chunks::<8>();
    for (x, y) in a8.iter().zip(b8) {
        for lane in 0..8 {
            let d = x[lane] as f64 - y[lane] as f64;
            sums[lane] += d * d;
        }
    }
    let rest: f64 = a1
        .iter()
        .zip(b1)
        .map(|(&x, &y)| (x as f64 - y as f64).powi(2))
        .sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_norms_and_refusals() {
        let f = Features::new(3, 2, vec![3.0, 4.0, 0.0, 0.0, 1e-30, 0.0]).unwrap();
        let unit = f.normalized();
        assert_eq!(unit.values, [0.6, 0.8, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(f.select(&[2, 0]).values, [1e-30, 0.0, 3.0, 4.0]);
        assert!(Features::new(2, 2, vec![0.0; 3]).is_err());
        assert!(f.check_finite().is_ok());
        let bad = Features::new(2, 1, vec![0.0, f32::NAN]).unwrap();
        assert!(
            bad.check_finite()
                .unwrap_err()
                .to_string()
                .contains("row 1")
        );
        assert_eq!(Features::new(2, 0, vec![]).unwrap().iter().count(), 2);
    }

    #[test]
    fn distance_handles_every_tail() {
        for n in 0..20 {
            let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let b: Vec<f32> = (0..n).map(|i| (2 * i) as f32).collect();
            let want: f64 = (0..n).map(|i| (i * i) as f64).sum();
            assert_eq!(squared_distance(&a, &b), want);
        }
    }
}
