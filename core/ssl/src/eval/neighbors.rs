//! Nearest rows, exactly, in bounded memory.
//!
//! Blocks of f32 products find candidates, with the rounding error of a product bounded; the
//! candidates' distances are then computed again in f64. So the result is what a brute-force
//! search in f64 gives, ties included (the smaller index first), at the speed of a GEMM.

use super::blocks::{BLOCK, blocks, products};
use super::features::{Features, squared_distance, squared_norm};
use rayon::prelude::*;
use seedling_base::error::Result;
use serde::{Deserialize, Serialize};

/// What "near" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Euclidean distance of features as they are (the paper's authors' choice).
    #[default]
    Euclidean,
    /// Euclidean distance of features scaled to unit length: the order of cosine similarity.
    Cosine,
}

impl Metric {
    /// The features in which plain Euclidean distance is this metric.
    pub(crate) fn prepare(self, features: &Features) -> std::borrow::Cow<'_, Features> {
        match self {
            Metric::Euclidean => std::borrow::Cow::Borrowed(features),
            Metric::Cosine => std::borrow::Cow::Owned(features.normalized()),
        }
    }
}

/// One row near a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// Its row.
    pub index: usize,
    /// Its squared distance from the query.
    pub squared: f64,
}

impl Neighbor {
    /// The cosine of the two rows, where both are of unit length: |a - b|^2 = 2 - 2 cos on the sphere.
    pub fn cosine(&self) -> f64 {
        1.0 - self.squared / 2.0
    }
}

/// Which rows of the base a query may not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclude {
    /// None.
    Nothing,
    /// Row i for query i: base and queries are the same set.
    Itself,
}

/// The `k` rows of `features` nearest to row `query`, itself left out, nearest first; fewer where
/// there are fewer, none where `query` is no row.
pub fn nearest(features: &Features, query: usize, k: usize, metric: Metric) -> Vec<Neighbor> {
    if query >= features.rows {
        return Vec::new();
    }
    let prepared = metric.prepare(features);
    let mut all: Vec<Neighbor> = (0..features.rows)
        .filter(|&i| i != query)
        .map(|index| Neighbor {
            index,
            squared: squared_distance(prepared.row(query), prepared.row(index)),
        })
        .collect();
    all.sort_by(order);
    all.truncate(k);
    all
}

/// For every query its `k` nearest rows of `base`, nearest first, handed to `judge` with the
/// query's number; the answers come back in the order of the queries. The lists themselves are
/// not kept, so memory is O(k) per running query.
///
/// # Errors
/// [`crate::Error::Shape`] where dimensions differ, [`crate::Error::Training`] where a number is
/// not finite.
pub fn search<T: Send>(
    queries: &Features,
    base: &Features,
    k: usize,
    metric: Metric,
    exclude: Exclude,
    judge: impl Fn(usize, &[Neighbor]) -> T + Sync,
) -> Result<Vec<T>> {
    base.check_like(queries, "query features", exclude == Exclude::Itself)?;
    queries.check_finite()?;
    base.check_finite()?;
    let (queries, base) = (metric.prepare(queries), metric.prepare(base));
    let (queries, base) = (queries.as_ref(), base.as_ref());
    let norms: Vec<f64> = base.iter().map(squared_norm).collect();
    let longest = norms.iter().copied().fold(0.0, f64::max).sqrt();
    let query_blocks: Vec<_> = blocks(queries.rows).collect();
    let answers: Vec<Vec<T>> = query_blocks
        .par_iter()
        .map_init(Vec::new, |dots, &(start, count)| {
            let mut lists: Vec<Candidates> = (start..start + count)
                .map(|i| Candidates::new(k, queries.row(i), longest))
                .collect();
            for (from, len) in blocks(base.rows) {
                products(
                    queries.block(start, count),
                    base.block(from, len),
                    base.dim,
                    dots,
                );
                for (i, list) in lists.iter_mut().enumerate() {
                    let skip = match exclude {
                        Exclude::Itself => start + i,
                        Exclude::Nothing => usize::MAX,
                    };
                    for (j, &dot) in dots[i * len..(i + 1) * len].iter().enumerate() {
                        // |query|^2 is the same for all rows of the base: left out.
                        let score = norms[from + j] - 2.0 * dot as f64;
                        if from + j != skip {
                            list.offer(from + j, score);
                        }
                    }
                }
            }
            lists
                .into_iter()
                .enumerate()
                .map(|(i, list)| {
                    let near = list.finish(queries.row(start + i), base);
                    judge(start + i, &near)
                })
                .collect()
        })
        .collect();
    Ok(answers.into_iter().flatten().collect())
}

/// The row of `base` that is nearest to each of `queries` by Euclidean distance, in f32; the first of equally
/// near ones. For few rows, base say: [`search`] is exact, and finds more than one.
pub(crate) fn nearest_rows(queries: &Features, base: &Features) -> Vec<u32> {
    let norms: Vec<f64> = base.iter().map(squared_norm).collect();
    let found: Vec<Vec<u32>> = blocks(queries.rows)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map_init(Vec::new, |dots, (start, len)| {
            let mut best = vec![(0u32, f64::INFINITY); len];
            for (from, count) in blocks(base.rows) {
                products(
                    queries.block(start, len),
                    base.block(from, count),
                    base.dim,
                    dots,
                );
                for (best, dots) in best.iter_mut().zip(dots.chunks_exact(count)) {
                    for (j, &dot) in dots.iter().enumerate() {
                        // |query|^2 is the same for all rows of the base: left out.
                        let distance = norms[from + j] - 2.0 * f64::from(dot);
                        if distance < best.1 {
                            *best = ((from + j) as u32, distance);
                        }
                    }
                }
            }
            best.into_iter().map(|(row, _)| row).collect()
        })
        .collect();
    found.into_iter().flatten().collect()
}

/// Nearest first; of equals the smaller row first.
pub fn order(a: &Neighbor, b: &Neighbor) -> std::cmp::Ordering {
    a.squared.total_cmp(&b.squared).then(a.index.cmp(&b.index))
}

/// Rows that may be among a query's `k` nearest, as far as f32 can tell.
struct Candidates {
    k: usize,
    /// Twice the largest error of a score: two rows closer than this may be in either order.
    slack: f64,
    /// Scores above this cannot be among the nearest.
    limit: f64,
    /// When to prune.
    full: usize,
    /// Row and score.
    rows: Vec<(usize, f64)>,
}

impl Candidates {
    fn new(k: usize, query: &[f32], longest: f64) -> Candidates {
        // A sum of n products in f32, in any order, is off by at most n eps |a||b| (n eps << 1);
        // the score holds it twice, and the extra 4 covers the products' own rounding.
        let eps = (query.len() + 4) as f64 * f32::EPSILON as f64 * 0.5;
        let error = 2.0 * eps * squared_norm(query).sqrt() * longest;
        Candidates {
            k,
            slack: 2.0 * error,
            limit: f64::INFINITY,
            full: 2 * k + BLOCK / 2,
            rows: Vec::new(),
        }
    }

    fn offer(&mut self, row: usize, score: f64) {
        // Written so that an overflowed product (NaN) stays and is decided in f64.
        if score > self.limit {
            return;
        }
        self.rows.push((row, score));
        if self.rows.len() >= self.full {
            self.prune();
            // Many equal photos: wait longer next time, so that pruning stays linear.
            self.full = self.full.max(2 * self.rows.len());
        }
    }

    fn prune(&mut self) {
        if self.k == 0 {
            self.rows.clear();
        } else if self.rows.len() > self.k {
            let (_, kth, _) = self
                .rows
                .select_nth_unstable_by(self.k - 1, |a, b| a.1.total_cmp(&b.1));
            let limit = kth.1 + self.slack;
            if limit.is_finite() {
                self.limit = self.limit.min(limit);
                self.rows
                    .retain(|&(_, score)| score <= limit || score.is_nan());
            }
        }
    }

    fn finish(mut self, query: &[f32], base: &Features) -> Vec<Neighbor> {
        self.prune();
        let mut exact: Vec<Neighbor> = self
            .rows
            .iter()
            .map(|&(index, _)| Neighbor {
                index,
                squared: squared_distance(query, base.row(index)),
            })
            .collect();
        exact.sort_unstable_by(order);
        exact.truncate(self.k);
        exact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    #[test]
    fn equals_brute_force_with_ties_and_large_offsets() {
        // Three blocks of rows, on a grid (many exact ties) far from the origin (cancellation).
        let mut rng = Rng::new(5, Purpose::Measure, 0, 0);
        let (rows, dim) = (600, 5);
        let values = (0..rows * dim)
            .map(|_| 1000.0 + rng.below(4) as f32)
            .collect();
        let f = Features::new(rows, dim, values).unwrap();
        for metric in [Metric::Euclidean, Metric::Cosine] {
            for k in [0, 1, 7, 101, 599, 1000] {
                let found =
                    search(&f, &f, k, metric, Exclude::Itself, |_, near| near.to_vec()).unwrap();
                for query in (0..rows).step_by(37) {
                    assert_eq!(found[query], nearest(&f, query, k, metric));
                }
            }
        }
        let own = search(&f, &f, 1, Metric::Euclidean, Exclude::Nothing, |_, n| n[0]).unwrap();
        assert!(own.iter().all(|n| n.squared == 0.0));
    }
}
