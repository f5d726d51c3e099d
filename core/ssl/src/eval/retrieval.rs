//! Accuracies of nearest-neighbor search: instance discrimination, kNN and best-NN.

use super::features::{Features, squared_distance};
use super::geometry::check_labels;
use super::neighbors::{Exclude, Metric, Neighbor, search};
use seedling_base::error::Result;
use serde::{Deserialize, Serialize};

/// The largest k of best-NN.
pub const MAX_K: usize = 101;

/// kNN accuracies of one set of features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Knn {
    /// The best of `per_k`, in percent.
    pub best_nn: f64,
    /// The (smallest) k that reaches it.
    pub k: usize,
    /// k = 1, 3, ... 101, as far as there are neighbors, and top-1 accuracy in percent.
    pub per_k: Vec<(usize, f64)>,
    /// `train-test` or `leave-one-out`.
    pub protocol: Protocol,
    /// What "near" meant.
    pub metric: Metric,
}

/// Which photos are asked and which may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Test photos ask, train photos answer.
    TrainTest,
    /// Every photo asks all others.
    LeaveOneOut,
}

impl Protocol {
    /// The name it has in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::TrainTest => "train-test",
            Protocol::LeaveOneOut => "leave-one-out",
        }
    }
}

/// kNN of `test` rows among `train` rows: plain majority vote, ties to the smallest label, the
/// order of equally near rows that of their numbers. `None` where either set is empty.
///
/// # Errors
/// [`crate::Error::Shape`] where labels or dimensions don't match, [`crate::Error::Training`]
/// where a feature is not finite.
pub fn knn(
    (train, train_labels): (&Features, &[u32]),
    (test, test_labels): (&Features, &[u32]),
    metric: Metric,
) -> Result<Option<Knn>> {
    check_labels(train, train_labels)?;
    check_labels(test, test_labels)?;
    let depth = MAX_K.min(train.rows);
    let correct = search(
        test,
        train,
        depth,
        metric,
        Exclude::Nothing,
        |query, near| votes(near, train_labels, test_labels[query]),
    )?;
    Ok(summarize(&correct, depth, Protocol::TrainTest, metric))
}

/// kNN of every row among all others. `None` below two rows. Errors as [`knn`].
pub fn knn_leave_one_out(
    features: &Features,
    labels: &[u32],
    metric: Metric,
) -> Result<Option<Knn>> {
    let depth = MAX_K.min(features.rows.saturating_sub(1));
    let correct = votes_leave_one_out(features, &[labels], metric)?;
    let correct: Vec<_> = correct.into_iter().flatten().collect();
    Ok(summarize(&correct, depth, Protocol::LeaveOneOut, metric))
}

/// For several labelings of the rows, whose neighbors are looked for once: whether the vote of a
/// row's neighbors is right, at the k that is best for all. Errors as [`knn`].
pub fn right_leave_one_out_each(
    features: &Features,
    labelings: &[&[u32]],
    metric: Metric,
) -> Result<Vec<Vec<bool>>> {
    let rows = votes_leave_one_out(features, labelings, metric)?;
    let ks = rows.first().and_then(|row| row.first()).map_or(0, Vec::len);
    let each = (0..labelings.len()).map(|labeling| {
        let right = |k: usize| rows.iter().map(move |row| row[labeling][k]);
        let count = |k: usize| right(k).filter(|right| *right).count();
        let best = (0..ks).reduce(|best, k| if count(k) > count(best) { k } else { best });
        best.map_or_else(Vec::new, |k| right(k).collect())
    });
    Ok(each.collect())
}

/// For every row, labeling and k: whether the vote of the nearest others is right.
fn votes_leave_one_out(
    features: &Features,
    labelings: &[&[u32]],
    metric: Metric,
) -> Result<Vec<Vec<Vec<bool>>>> {
    for labels in labelings {
        check_labels(features, labels)?;
    }
    let depth = MAX_K.min(features.rows.saturating_sub(1));
    let judge = |query: usize, near: &[Neighbor]| -> Vec<Vec<bool>> {
        let all = labelings.iter();
        all.map(|labels| votes(near, labels, labels[query]))
            .collect()
    };
    search(features, features, depth, metric, Exclude::Itself, judge)
}

/// Whether the vote is right at k = 1, 3, 5, ...
fn votes(near: &[Neighbor], labels: &[u32], truth: u32) -> Vec<bool> {
    let mut counts: Vec<(u32, usize)> = Vec::new();
    let mut winner = (0u32, 0usize);
    let mut right = Vec::with_capacity(near.len().div_ceil(2));
    for (i, neighbor) in near.iter().enumerate() {
        let label = labels[neighbor.index];
        let count = match counts.iter_mut().find(|(l, _)| *l == label) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                counts.push((label, 1));
                1
            }
        };
        // Counts only grow, so only the label just counted can take over.
        if count > winner.1 || (count == winner.1 && label < winner.0) {
            winner = (label, count);
        }
        if i % 2 == 0 {
            right.push(winner.0 == truth);
        }
    }
    right
}

fn summarize(
    correct: &[Vec<bool>],
    depth: usize,
    protocol: Protocol,
    metric: Metric,
) -> Option<Knn> {
    if correct.is_empty() || depth == 0 {
        return None;
    }
    let per_k: Vec<(usize, f64)> = (0..depth.div_ceil(2))
        .map(|j| {
            let right = correct.iter().filter(|votes| votes[j]).count();
            (2 * j + 1, 100.0 * right as f64 / correct.len() as f64)
        })
        .collect();
    let &(k, best_nn) = per_k
        .iter()
        .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
    Some(Knn {
        best_nn,
        k,
        per_k,
        protocol,
        metric,
    })
}

/// Percent of photos whose own view is nearer than every other plain photo: an N-way choice over
/// the whole set. Row i of `plain` is photo i as it is; row i of each of `views` is an augmented
/// view of it, and the percentages of several sets of views are averaged. `None` below two photos
/// or without views.
///
/// # Errors
/// [`crate::Error::Shape`] where shapes differ, [`crate::Error::Training`] where a feature is not
/// finite.
pub fn instance_discrimination(
    plain: &Features,
    views: &[&Features],
    metric: Metric,
) -> Result<Option<f64>> {
    for view in views {
        plain.check_like(view, "views' features", true)?;
        view.check_finite()?;
    }
    if plain.rows < 2 || views.is_empty() {
        return Ok(None);
    }
    let rivals = search(plain, plain, 1, metric, Exclude::Itself, |_, near| {
        near.first().map_or(f64::INFINITY, |n| n.squared)
    })?;
    let queries = metric.prepare(plain);
    let mut right = 0usize;
    for view in views {
        let view = metric.prepare(view);
        right += (0..plain.rows)
            .filter(|&i| squared_distance(queries.row(i), view.row(i)) < rivals[i])
            .count();
    }
    Ok(Some(
        100.0 * right as f64 / (plain.rows * views.len()) as f64,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(xs: &[f32]) -> Features {
        Features::new(xs.len(), 1, xs.to_vec()).unwrap()
    }

    #[test]
    fn votes_break_ties_towards_the_smallest_label() {
        // Query at 0: neighbors 9, 2, 5 by distance; at k = 3 each has one vote: label 2 wins.
        let train = line(&[1.0, 2.0, 3.0]);
        let knn = knn(
            (&train, &[9, 2, 5]),
            (&line(&[0.0]), &[2]),
            Metric::Euclidean,
        )
        .unwrap()
        .unwrap();
        assert_eq!(knn.per_k, [(1, 0.0), (3, 100.0)]);
        assert_eq!((knn.best_nn, knn.k), (100.0, 3));
    }

    #[test]
    fn small_sets_are_measured_as_far_as_they_go() {
        assert_eq!(
            knn_leave_one_out(&line(&[1.0]), &[0], Metric::Euclidean).unwrap(),
            None
        );
        assert_eq!(
            knn_leave_one_out(&line(&[]), &[], Metric::Euclidean).unwrap(),
            None
        );
        let two = knn_leave_one_out(&line(&[1.0, 1.0]), &[3, 3], Metric::Cosine).unwrap();
        assert_eq!(two.unwrap().per_k, [(1, 100.0)]);
        assert!(knn_leave_one_out(&line(&[f32::NAN, 0.0]), &[0, 0], Metric::Euclidean).is_err());
    }

    #[test]
    fn a_view_must_beat_every_other_photo() {
        let plain = line(&[0.0, 1.0, 10.0]);
        // Equal distance is not nearer; the second is nearer; the third is far off.
        let views = line(&[-1.0, 1.5, 30.0]);
        let got = instance_discrimination(&plain, &[&views], Metric::Euclidean).unwrap();
        assert!((got.unwrap() - 100.0 / 3.0).abs() < 1e-9);
        let both = instance_discrimination(&plain, &[&views, &plain], Metric::Euclidean).unwrap();
        assert!((both.unwrap() - 400.0 / 6.0).abs() < 1e-9);
        assert_eq!(
            instance_discrimination(&plain, &[], Metric::Euclidean).unwrap(),
            None
        );
    }
}
