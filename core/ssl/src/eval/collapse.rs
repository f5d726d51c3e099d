//! Collapse: an encoder that gives every photo nearly the same embedding has learned nothing,
//! whatever its loss says.

use super::blocks::{blocks, products};
use super::features::Features;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How much of the sphere the embeddings still use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collapse {
    /// Mean over dimensions of the unit embeddings' standard deviation, times sqrt(dim): 1 for a
    /// uniform sphere, 0 for a point.
    pub std_ratio: f64,
    /// (sum of eigenvalues)^2 / sum of their squares, of the unit embeddings' covariance: the
    /// number of directions in use, at most min(rows - 1, dim).
    pub effective_rank: f64,
    /// Ratio of the largest eigenvalue to their sum.
    pub largest_ratio: f64,
}

/// Below this ratio the mean cosine between embeddings is above about 0.99.
const POINT: f64 = 0.1;
/// Above this ratio the embeddings lie on a line.
const LINE: f64 = 0.95;
/// Fewer rows say nothing about a distribution.
const MIN_ROWS: usize = 8;

/// Measures the embeddings (or features), scaled to unit length; `None` below two rows.
pub fn collapse(embeddings: &Features) -> Option<Collapse> {
    let (n, dim) = (embeddings.rows, embeddings.dim);
    if n < 2 || dim == 0 {
        return None;
    }
    let mut centered = embeddings.normalized();
    let mean = centered.mean();
    let mut variance = vec![0.0f64; dim];
    for row in centered.values.chunks_exact_mut(dim) {
        for ((x, m), v) in row.iter_mut().zip(&mean).zip(&mut variance) {
            let deviation = *x as f64 - m;
            *v += deviation * deviation;
            *x = deviation as f32;
        }
    }
    let trace: f64 = variance.iter().sum::<f64>() / n as f64;
    let std = variance.iter().map(|v| (v / n as f64).sqrt()).sum::<f64>() / dim as f64;
    // f32 rows of unit length cannot differ by less than their rounding.
    let (effective_rank, largest_ratio) = if trace < 1e-13 {
        (0.0, 1.0)
    } else {
        let squares = squared_gram(&centered) / (n as f64 * n as f64);
        (
            trace * trace / squares,
            largest_eigenvalue(&centered) / trace,
        )
    };
    Some(Collapse {
        std_ratio: std * (dim as f64).sqrt(),
        effective_rank,
        largest_ratio,
    })
}

/// One line for the log where the embeddings have collapsed, `None` where all is well or fewer
/// than eight rows are there to judge by.
pub fn collapse_warning(embeddings: &Features) -> Option<String> {
    if embeddings.rows < MIN_ROWS {
        return None;
    }
    if embeddings.check_finite().is_err() {
        return Some("the embeddings are not finite: training has diverged (lower lr)".into());
    }
    let c = collapse(embeddings)?;
    if c.std_ratio < POINT {
        return Some(format!(
            "the embeddings have collapsed to nearly one point: their spread is {:.1} % of an even \
             one (try a lower lr, a larger queue or other initial weights)",
            100.0 * c.std_ratio
        ));
    }
    (c.largest_ratio > LINE && embeddings.dim > 2).then(|| {
        format!(
            "the embeddings have collapsed to a line: one direction holds {:.0} % of their \
             variance (try a lower lr, a larger queue or other initial weights)",
            100.0 * c.largest_ratio
        )
    })
}

/// Sum over all pairs of rows, with themselves too, of their squared inner product: the sum of the
/// squared eigenvalues of rows . rows^T.
fn squared_gram(rows: &Features) -> f64 {
    let pairs: Vec<_> = blocks(rows.rows)
        .flat_map(|a| {
            blocks(rows.rows)
                .filter(move |b| b.0 >= a.0)
                .map(move |b| (a, b))
        })
        .collect();
    let sums: Vec<f64> = pairs
        .par_iter()
        .map_init(Vec::new, |dots, &((a0, na), (b0, nb))| {
            products(rows.block(a0, na), rows.block(b0, nb), rows.dim, dots);
            let sum: f64 = dots.iter().map(|&d| d as f64 * d as f64).sum();
            // A block above the diagonal stands for its mirror image too.
            if a0 == b0 { sum } else { 2.0 * sum }
        })
        .collect();
    sums.iter().sum()
}

/// Largest eigenvalue of the covariance of centered rows, by power iteration (30 rounds bring the
/// ratio well within a percent; a tie between two eigenvalues does no harm to the value).
fn largest_eigenvalue(rows: &Features) -> f64 {
    let start = rows
        .iter()
        .max_by(|a, b| {
            let (a, b) = (
                super::features::squared_norm(a),
                super::features::squared_norm(b),
            );
            a.total_cmp(&b)
        })
        .unwrap_or(&[]);
    let mut direction: Vec<f64> = start.iter().map(|&x| x as f64).collect();
    let mut value = 0.0;
    for _ in 0..30 {
        let norm = direction.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm == 0.0 {
            return 0.0;
        }
        direction.iter_mut().for_each(|x| *x /= norm);
        let mut next = vec![0.0f64; rows.dim];
        for row in rows.iter() {
            let dot: f64 = row.iter().zip(&direction).map(|(&x, d)| x as f64 * d).sum();
            next.iter_mut()
                .zip(row)
                .for_each(|(s, &x)| *s += dot * x as f64);
        }
        value = next.iter().zip(&direction).map(|(a, b)| a * b).sum::<f64>() / rows.rows as f64;
        direction = next;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    fn gaussian(rows: usize, dim: usize, offset: f32) -> Features {
        let mut rng = Rng::new(3, Purpose::Measure, 0, 0);
        let values = (0..rows * dim).map(|_| rng.normal() + offset).collect();
        Features { rows, dim, values }
    }

    #[test]
    fn sphere_point_and_line_are_told_apart() {
        let sphere = collapse(&gaussian(600, 16, 0.0)).unwrap();
        assert!((sphere.std_ratio - 1.0).abs() < 0.02);
        assert!((sphere.effective_rank - 16.0).abs() < 1.0);
        assert!(sphere.largest_ratio < 0.12);
        assert_eq!(collapse_warning(&gaussian(600, 16, 0.0)), None);

        assert!(
            collapse_warning(&gaussian(64, 16, 50.0))
                .unwrap()
                .contains("one point")
        );
        let same = Features::new(9, 3, [1.0, 2.0, 3.0].repeat(9)).unwrap();
        let c = collapse(&same).unwrap();
        assert!(c.std_ratio < 1e-6 && c.effective_rank == 0.0 && c.largest_ratio == 1.0);

        let line: Vec<f32> = (0..20).flat_map(|i| [1.0, 0.1 * i as f32, 0.0]).collect();
        let line = Features::new(20, 3, line).unwrap();
        assert!(collapse_warning(&line).unwrap().contains("a line"));
        assert_eq!(collapse_warning(&line.select(&[0, 1])), None);
    }
}
