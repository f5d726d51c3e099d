//! How features lie on the unit sphere: alignment and uniformity (Wang and Isola, 2020) and
//! alignment within classes.
//!
//! Every function scales rows to unit length first, takes O(rows * dim) memory, adds up in f64 and
//! gives the same bits on any number of threads.

use super::blocks::{blocks, products};
use super::features::{Features, squared_distance};
use rayon::prelude::*;
use seedling_base::error::{Error, Result};
use seedling_base::rng::{Purpose, Rng};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rows in each of the random sets whose uniformities the paper's authors average.
pub const UNIFORMITY_SET: usize = 128;
/// Number of these sets.
pub const UNIFORMITY_SETS: usize = 3;

/// The label-free figures of a set of photos, and the one that needs classes. `None`: the photos
/// could not say (one photo only, no views made, no classes known).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Geometry {
    /// Mean squared distance between two views of a photo; smaller is tighter.
    pub alignment: Option<f64>,
    /// Log of the mean Gaussian potential over all pairs of photos; more negative is more spread.
    pub uniformity: Option<f64>,
    /// The same over 3 random sets of 128, averaged, as the paper's authors report it.
    pub uniformity_sampled: Option<f64>,
    /// Mean squared distance between photos of a class; smaller is more semantic.
    pub intra_class_alignment: Option<f64>,
    /// Percent of photos that are nearer to their own view than to any other photo.
    pub instance_discrimination: Option<f64>,
    /// Directions that tell photos apart, against what views of one photo differ in; see
    /// [`super::lidar()`].
    pub lidar: Option<f64>,
}

/// Mean |a - b|^2 over the pairs (row i of `first`, row i of `second`), two views of photo i.
/// `None` without rows.
///
/// # Errors
/// [`Error::Shape`] where the two differ in shape.
pub fn alignment(first: &Features, second: &Features) -> Result<Option<f64>> {
    first.check_like(second, "second views' features", true)?;
    if first.rows == 0 {
        return Ok(None);
    }
    let (a, b) = (first.normalized(), second.normalized());
    let sum: f64 = (0..a.rows)
        .map(|i| squared_distance(a.row(i), b.row(i)))
        .sum();
    Ok(Some(sum / a.rows as f64))
}

/// log mean exp(-2 |x - y|^2) over all pairs of different rows; `None` below two rows.
pub fn uniformity(features: &Features) -> Option<f64> {
    let n = features.rows;
    if n < 2 {
        return None;
    }
    let unit = features.normalized();
    let pairs: Vec<_> = blocks(n)
        .flat_map(|a| blocks(n).filter(move |b| b.0 >= a.0).map(move |b| (a, b)))
        .collect();
    // One sum per pair of blocks, added in the order of the list: no thread can change the bits.
    let sums: Vec<f64> = pairs
        .par_iter()
        .map_init(Vec::new, |dots, &((a0, na), (b0, nb))| {
            products(unit.block(a0, na), unit.block(b0, nb), unit.dim, dots);
            let mut sum = 0.0;
            for i in 0..na {
                // On the diagonal only the pairs above it: each pair once, none with itself.
                let from = if a0 == b0 { i + 1 } else { 0 };
                for &dot in &dots[i * nb + from..(i + 1) * nb] {
                    // |x - y|^2 = 2 - 2 x.y on the sphere; never negative.
                    let squared = (2.0 - 2.0 * dot as f64).max(0.0);
                    sum += (-2.0 * squared).exp();
                }
            }
            sum
        })
        .collect();
    let count = n as f64 * (n - 1) as f64 / 2.0;
    Some((sums.iter().sum::<f64>() / count).ln())
}

/// The mean of [`uniformity`] over [`UNIFORMITY_SETS`] random sets of [`UNIFORMITY_SET`] rows,
/// drawn by `seed`; that of the whole where it is no larger than one set.
pub fn uniformity_sampled(features: &Features, seed: u64) -> Option<f64> {
    if features.rows <= UNIFORMITY_SET {
        return uniformity(features);
    }
    let mut sum = 0.0;
    for set in 0..UNIFORMITY_SETS {
        let mut rows = Rng::new(seed, Purpose::Measure, 0, set as u64).permutation(features.rows);
        rows.truncate(UNIFORMITY_SET);
        sum += uniformity(&features.select(&rows))?;
    }
    Some(sum / UNIFORMITY_SETS as f64)
}

/// Mean |x - y|^2 over all pairs of a class, then over classes with at least two rows; `None`
/// where there is no such class. `labels` holds one class per row.
///
/// # Errors
/// [`Error::Shape`] where `labels` and rows differ in number.
pub fn intra_class_alignment(features: &Features, labels: &[u32]) -> Result<Option<f64>> {
    check_labels(features, labels)?;
    let unit = features.normalized();
    // Over the n(n-1)/2 pairs: sum |x - y|^2 = n sum |x|^2 - |sum x|^2. One pass, no pairs.
    let mut classes: BTreeMap<u32, (usize, f64, Vec<f64>)> = BTreeMap::new();
    for (row, &label) in unit.iter().zip(labels) {
        let (count, norms, sum) = classes
            .entry(label)
            .or_insert_with(|| (0, 0.0, vec![0.0; unit.dim]));
        *count += 1;
        for (s, &x) in sum.iter_mut().zip(row) {
            *s += x as f64;
            *norms += x as f64 * x as f64;
        }
    }
    let means: Vec<f64> = classes
        .values()
        .filter(|(count, ..)| *count > 1)
        .map(|(count, norms, sum)| {
            let n = *count as f64;
            let squared: f64 = sum.iter().map(|s| s * s).sum();
            ((n * norms - squared) / (n * (n - 1.0) / 2.0)).max(0.0)
        })
        .collect();
    let classes = means.len();
    Ok((classes > 0).then(|| means.iter().sum::<f64>() / classes as f64))
}

/// Refuses labels that are not one per row.
pub(crate) fn check_labels(features: &Features, labels: &[u32]) -> Result<()> {
    if labels.len() == features.rows {
        return Ok(());
    }
    Err(Error::Shape {
        tensor: "labels".into(),
        expected: vec![features.rows],
        got: vec![labels.len()],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_on_the_circle() {
        let f = Features::new(2, 2, vec![2.0, 0.0, 0.0, 5.0]).unwrap();
        let g = Features::new(2, 2, vec![1.0, 0.0, 3.0, 0.0]).unwrap();
        // Pairs: the same direction (0) and a right angle (2).
        assert!((alignment(&f, &g).unwrap().unwrap() - 1.0).abs() < 1e-12);
        assert!((uniformity(&f).unwrap() + 4.0).abs() < 1e-6);
        assert_eq!(uniformity_sampled(&f, 1), uniformity(&f));
        assert!((intra_class_alignment(&f, &[7, 7]).unwrap().unwrap() - 2.0).abs() < 1e-12);
        assert_eq!(intra_class_alignment(&f, &[0, 1]).unwrap(), None);
        assert!(intra_class_alignment(&f, &[0]).is_err());
        assert!(alignment(&f, &f.select(&[0])).is_err());
        assert_eq!(uniformity(&f.select(&[0])), None);
        assert_eq!(alignment(&f.select(&[]), &f.select(&[])).unwrap(), None);
    }
}
