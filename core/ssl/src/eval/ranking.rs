//! Rankings: all photos in the order in which a search would show them, and how many of them are
//! right. Precision at 10 and mean average precision (Manning, Raghavan and Schütze 2008, section 8.4).

use super::blocks::{blocks, products};
use super::features::{Features, squared_norm};
use super::geometry::check_labels;
use super::neighbors::{Exclude, Metric};
use crate::Result;
use rayon::prelude::*;

/// Results that a person looks at.
pub const FIRST: usize = 10;
/// Queries ranked at a time by one thread: a row of similarities to the whole index each.
const QUERIES: usize = 32;

/// How right rankings are, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranking {
    /// Of the first [`FIRST`] results (of all, where there are fewer), how many are of the query's class.
    pub precision_at_10: f64,
    /// Average precision, the mean over queries whose class the index holds: precision at every result
    /// of the query's class, averaged.
    pub mean_average_precision: Option<f64>,
}

/// Ranks the rows of `index` for every query; of equally near ones the smaller row comes first. Each
/// set comes with a class for every row. `None` without queries or index.
///
/// Takes 8 bytes per row of the index, query and thread, for some queries at a time.
///
/// # Errors
/// [`crate::Error::Shape`] where labels or dimensions don't match, [`crate::Error::Training`] where a
/// feature is not finite.
pub fn ranking(
    (index, labels): (&Features, &[u32]),
    (queries, truth): (&Features, &[u32]),
    metric: Metric,
    exclude: Exclude,
) -> Result<Option<Ranking>> {
    check_labels(index, labels)?;
    check_labels(queries, truth)?;
    index.check_like(queries, "query features", exclude == Exclude::Itself)?;
    index.check_finite()?;
    queries.check_finite()?;
    let others = index.rows - usize::from(exclude == Exclude::Itself).min(index.rows);
    if queries.rows == 0 || others == 0 {
        return Ok(None);
    }
    let (index, queries) = (metric.prepare(index), metric.prepare(queries));
    let (index, queries) = (index.as_ref(), queries.as_ref());
    let norms: Vec<f64> = index.iter().map(squared_norm).collect();
    let starts: Vec<usize> = (0..queries.rows).step_by(QUERIES).collect();
    let judged: Vec<Vec<(f64, Option<f64>)>> = starts
        .par_iter()
        .map_init(Vec::new, |dots, &start| {
            let count = QUERIES.min(queries.rows - start);
            let mut far = vec![0.0f32; count * index.rows];
            for (from, len) in blocks(index.rows) {
                products(
                    queries.block(start, count),
                    index.block(from, len),
                    index.dim,
                    dots,
                );
                for (far, dots) in far.chunks_exact_mut(index.rows).zip(dots.chunks_exact(len)) {
                    for (j, &dot) in dots.iter().enumerate() {
                        far[from + j] = (norms[from + j] - 2.0 * f64::from(dot)) as f32;
                    }
                }
            }
            let one = |i: usize| {
                let query = start + i;
                let far = &far[i * index.rows..(i + 1) * index.rows];
                let itself = (exclude == Exclude::Itself).then_some(query);
                let mut order: Vec<u32> = (0..index.rows as u32)
                    .filter(|&row| itself != Some(row as usize))
                    .collect();
                order.sort_unstable_by(|&a, &b| {
                    far[a as usize].total_cmp(&far[b as usize]).then(a.cmp(&b))
                });
                judge(
                    order
                        .iter()
                        .map(|&row| labels[row as usize] == truth[query]),
                )
            };
            (0..count).map(one).collect()
        })
        .collect();
    let judged: Vec<_> = judged.into_iter().flatten().collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = values.fold((0.0, 0), |(sum, n), x| (sum + x, n + 1));
        (n > 0).then(|| 100.0 * sum / f64::from(n))
    };
    Ok(Some(Ranking {
        precision_at_10: mean(&mut judged.iter().map(|(p, _)| *p)).unwrap_or_default(),
        mean_average_precision: mean(&mut judged.iter().filter_map(|(_, ap)| *ap)),
    }))
}

/// Precision of the first results, and average precision where anything is right.
fn judge(right: impl Iterator<Item = bool>) -> (f64, Option<f64>) {
    let (mut seen, mut found, mut first, mut sum) = (0usize, 0usize, 0usize, 0.0);
    for right in right {
        seen += 1;
        if right {
            found += 1;
            first += usize::from(seen <= FIRST);
            sum += found as f64 / seen as f64;
        }
    }
    let precision = first as f64 / FIRST.min(seen).max(1) as f64;
    (precision, (found > 0).then(|| sum / found as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_by_hand() {
        let index = Features::new(4, 1, vec![1.0, 2.0, 3.0, 9.0]).unwrap();
        let query = Features::new(1, 1, vec![0.0]).unwrap();
        let rank = |labels: &[u32]| {
            let found = ranking(
                (&index, labels),
                (&query, &[7]),
                Metric::Euclidean,
                Exclude::Nothing,
            );
            found.unwrap().unwrap()
        };
        // Right at places 1 and 3: (1/1 + 2/3) / 2.
        let found = rank(&[7, 0, 7, 0]);
        assert_eq!(found.precision_at_10, 50.0);
        assert!(
            (found.mean_average_precision.unwrap() - 100.0 * (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-9
        );
        let none = rank(&[0; 4]);
        assert_eq!(
            (none.precision_at_10, none.mean_average_precision),
            (0.0, None)
        );
        let alone = ranking(
            (&query, &[0]),
            (&query, &[0]),
            Metric::Cosine,
            Exclude::Itself,
        );
        assert_eq!(alone.unwrap(), None);
    }
}
