//! Clusters of features by k-means (k-means++ seeding; Arthur and Vassilvitskii 2007), and how pure
//! they are against known classes.

use super::features::{Features, squared_distance};
use super::geometry::check_labels;
use super::neighbors::nearest_rows;
use crate::Result;
use seedling_base::rng::Rng;
use std::collections::BTreeMap;

/// Rounds at most: the rest moves single rows.
const ROUNDS: usize = 50;

/// The cluster of each row, out of `count`. Bits depend on rows and `rng`, never on threads.
pub fn k_means(rows: &Features, count: usize, rng: &mut Rng) -> Vec<u32> {
    let mut means = seeds(rows, count, rng);
    let mut clusters = vec![0; rows.rows];
    for _ in 0..ROUNDS {
        let found = nearest_rows(rows, &means);
        let settled = found == clusters;
        clusters = found;
        if settled {
            break;
        }
        means = means_of(rows, &clusters, &means);
    }
    clusters
}

/// Percent of rows whose class is the most frequent one of their cluster (Manning, Raghavan and
/// Schütze 2008, section 16.3). `None` without rows.
///
/// # Errors
/// [`crate::Error::Shape`] where `clusters` and `labels` differ in length.
pub fn purity(clusters: &[u32], labels: &[u32]) -> Result<Option<f64>> {
    if clusters.len() != labels.len() {
        return Err(crate::Error::Shape {
            tensor: "labels".into(),
            expected: vec![clusters.len()],
            got: vec![labels.len()],
        });
    }
    if labels.is_empty() {
        return Ok(None);
    }
    let mut counts: BTreeMap<u32, BTreeMap<u32, usize>> = BTreeMap::new();
    for (&cluster, &label) in clusters.iter().zip(labels) {
        *counts.entry(cluster).or_default().entry(label).or_default() += 1;
    }
    let largest = counts.values().filter_map(|classes| classes.values().max());
    Ok(Some(
        100.0 * largest.sum::<usize>() as f64 / labels.len() as f64,
    ))
}

/// [`purity`] of as many clusters as there are classes, averaged over one clustering for each of
/// `rngs`. `None` below two rows.
///
/// # Errors
/// As [`purity`].
pub fn mean_purity(
    features: &Features,
    labels: &[u32],
    rngs: impl Iterator<Item = Rng>,
) -> Result<Option<f64>> {
    check_labels(features, labels)?;
    if features.rows < 2 || features.dim == 0 {
        return Ok(None);
    }
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let (mut sum, mut runs) = (0.0, 0);
    for mut rng in rngs {
        let clusters = k_means(features, classes.len(), &mut rng);
        sum += purity(&clusters, labels)?.unwrap_or_default();
        runs += 1;
    }
    Ok((runs > 0).then(|| sum / f64::from(runs)))
}

/// Rows far from those chosen before, each with a probability as its squared distance.
fn seeds(rows: &Features, count: usize, rng: &mut Rng) -> Features {
    let mut chosen = vec![rng.below(rows.rows)];
    let mut squared = vec![f64::INFINITY; rows.rows];
    while chosen.len() < count {
        let last = rows.row(chosen[chosen.len() - 1]);
        for (i, nearest) in squared.iter_mut().enumerate() {
            *nearest = nearest.min(squared_distance(rows.row(i), last));
        }
        let mut left = f64::from(rng.uniform()) * squared.iter().sum::<f64>();
        let next = squared.iter().position(|&s| {
            left -= s;
            left < 0.0
        });
        // Rounding may leave a little; and where all rows are alike, any will do.
        chosen.push(next.unwrap_or_else(|| rng.below(rows.rows)));
    }
    rows.select(&chosen)
}

/// The clusters' means; a cluster that has lost all its rows stays where it was.
fn means_of(rows: &Features, clusters: &[u32], before: &Features) -> Features {
    let mut sums = vec![0.0f64; before.values.len()];
    let mut sizes = vec![0usize; before.rows];
    for (row, &cluster) in rows.iter().zip(clusters) {
        let cluster = cluster as usize;
        sizes[cluster] += 1;
        let sum = &mut sums[cluster * rows.dim..(cluster + 1) * rows.dim];
        sum.iter_mut()
            .zip(row)
            .for_each(|(s, &x)| *s += f64::from(x));
    }
    let mut means = before.clone();
    for (cluster, &size) in sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
        let range = cluster * rows.dim..(cluster + 1) * rows.dim;
        let pairs = means.values[range.clone()].iter_mut().zip(&sums[range]);
        pairs.for_each(|(mean, sum)| *mean = (sum / size as f64) as f32);
    }
    means
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::Purpose;

    #[test]
    fn purity_counts_each_clusters_largest_class() {
        // Clusters {a a b}, {b}, {a b b}: 2 + 1 + 2 of 7.
        let (clusters, labels) = ([0, 0, 0, 1, 2, 2, 2], [5, 5, 9, 9, 5, 9, 9]);
        let found = purity(&clusters, &labels).unwrap().unwrap();
        assert!((found - 500.0 / 7.0).abs() < 1e-9);
        assert_eq!(purity(&[], &[]).unwrap(), None);
        assert!(purity(&[0], &[]).is_err());
    }

    #[test]
    fn clusters_that_are_there_are_pure_on_any_number_of_threads() {
        let mut rng = Rng::new(1, Purpose::Init, 0, 0);
        let values = (0..400 * 5).map(|i| {
            let far = if i % 5 == (i / 5) % 4 { 9.0 } else { 0.0 };
            far + rng.normal()
        });
        let rows = Features::new(400, 5, values.collect()).unwrap();
        let labels: Vec<u32> = (0..400).map(|i| i % 4).collect();
        let streams = || (0..3).map(|i| Rng::new(0, Purpose::Measure, 0, i));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| mean_purity(&rows, &labels, streams()).unwrap().unwrap())
        };
        assert!(on(1) > 80.0, "{}", on(1));
        assert_eq!(on(1), on(4));
    }
}
