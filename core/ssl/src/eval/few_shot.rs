//! Classes from a few labeled photos: the nearest class mean (Tibshirani et al. 2002 without shrinkage;
//! prototypes of Snell et al. 2017), over seeded draws of the labeled photos.

use super::features::Features;
use super::geometry::check_labels;
use super::neighbors::{Metric, nearest_rows};
use crate::Result;
use rayon::prelude::*;
use seedling_base::rng::{Purpose, Rng};

/// Draws that are averaged over.
pub const DRAWS: u64 = 50;
/// The first random stream of the draws; those before belong to other measurements.
const STREAM: u64 = 100;

/// Photos that are asked about.
#[derive(Clone, Copy, Debug)]
pub enum Queries<'a> {
    /// Those of the labeled set that were not drawn.
    Others,
    /// A set of their own, with their classes.
    These(&'a Features, &'a [u32]),
}

/// Percent of the asked photos that are nearest to the mean of their class's `shots` labeled photos, which
/// are drawn from `labeled` [`DRAWS`] times. Classes with too few photos for a draw (and, for
/// [`Queries::Others`], one more to ask about) are left out, and photos of theirs are not asked about.
/// `None` below two such classes.
///
/// # Errors
/// [`crate::Error::Shape`] where labels or dimensions don't match, [`crate::Error::Training`] where a
/// feature is not finite.
pub fn few_shot(
    (labeled, labels): (&Features, &[u32]),
    queries: Queries<'_>,
    shots: usize,
    metric: Metric,
    seed: u64,
) -> Result<Option<f64>> {
    check_labels(labeled, labels)?;
    labeled.check_finite()?;
    let (queries, truth, apart) = match queries {
        Queries::Others => (labeled, labels, false),
        Queries::These(queries, truth) => (queries, truth, true),
    };
    check_labels(queries, truth)?;
    labeled.check_like(queries, "query features", false)?;
    queries.check_finite()?;
    let (labeled, queries) = (metric.prepare(labeled), metric.prepare(queries));
    let members = members(labels, shots + usize::from(!apart));
    let known = |label: u32| members.iter().position(|(class, _)| *class == label);
    let truth: Vec<Option<usize>> = truth.iter().map(|&label| known(label)).collect();
    if members.len() < 2 || truth.iter().all(Option::is_none) {
        return Ok(None);
    }
    let draws: Vec<Option<f64>> = (0..DRAWS)
        .into_par_iter()
        .map(|draw| {
            let mut rng = Rng::new(seed, Purpose::Measure, 0, STREAM + draw);
            let drawn: Vec<Vec<usize>> = members
                .iter()
                .map(|(_, rows)| {
                    let order = rng.permutation(rows.len());
                    order[..shots].iter().map(|&i| rows[i]).collect()
                })
                .collect();
            let predicted = nearest_class_mean(&labeled, &drawn, &queries);
            let mut taken = vec![false; queries.rows];
            if !apart {
                drawn.iter().flatten().for_each(|&row| taken[row] = true);
            }
            let queries = (0..queries.rows).filter(|&row| !taken[row]);
            let (mut right, mut total) = (0usize, 0usize);
            for row in queries {
                if let Some(truth) = truth[row] {
                    total += 1;
                    right += usize::from(predicted[row] as usize == truth);
                }
            }
            (total > 0).then(|| right as f64 / total as f64)
        })
        .collect();
    let found: Vec<f64> = draws.into_iter().flatten().collect();
    Ok((!found.is_empty()).then(|| 100.0 * found.iter().sum::<f64>() / found.len() as f64))
}

/// For every query the class (by its place in `drawn`, which has a list of rows of `labeled` a class)
/// whose mean is nearest; the first of equally near ones.
pub fn nearest_class_mean(
    labeled: &Features,
    drawn: &[Vec<usize>],
    queries: &Features,
) -> Vec<u32> {
    let means = drawn
        .iter()
        .flat_map(|rows| labeled.select(rows).mean())
        .map(|x| x as f32)
        .collect();
    let means = Features {
        rows: drawn.len(),
        dim: labeled.dim,
        values: means,
    };
    nearest_rows(queries, &means)
}

/// Classes with at least `least` rows, in their order, and the rows of each.
fn members(labels: &[u32], least: usize) -> Vec<(u32, Vec<usize>)> {
    let mut classes = std::collections::BTreeMap::<u32, Vec<usize>>::new();
    for (row, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(row);
    }
    let enough = classes.into_iter().filter(|(_, rows)| rows.len() >= least);
    enough.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_apart_are_told_from_one_photo_and_lone_ones_are_left_out() {
        let values = vec![0.0, 0.1, 0.2, 5.0, 5.1, 5.2, 99.0];
        let photos = Features::new(7, 1, values).unwrap();
        let labels = [0, 0, 0, 1, 1, 1, 2];
        let found = few_shot((&photos, &labels), Queries::Others, 1, Metric::Euclidean, 0);
        assert_eq!(found.unwrap(), Some(100.0));
        // Three of a class are too few for five.
        let found = few_shot((&photos, &labels), Queries::Others, 5, Metric::Euclidean, 0);
        assert_eq!(found.unwrap(), None);
        let test = Features::new(2, 1, vec![0.3, 4.0]).unwrap();
        let queries = Queries::These(&test, &[0, 0]);
        let found = few_shot((&photos, &labels), queries, 1, Metric::Euclidean, 0);
        assert_eq!(found.unwrap(), Some(50.0));
        assert!(few_shot((&photos, &[0]), Queries::Others, 1, Metric::Cosine, 0).is_err());
    }
}
