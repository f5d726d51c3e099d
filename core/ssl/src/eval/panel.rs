//! The panel: what an app asks of features, in six figures where there are classes. One figure alone
//! misleads: full whitening raises best-NN and ruins mean average precision.

use super::clusters::mean_purity;
use super::features::Features;
use super::few_shot::{Queries, few_shot};
use super::neighbors::{Exclude, Metric};
use super::ranking::ranking;
use crate::Result;
use seedling_base::rng::{Purpose, Rng};
use serde::{Deserialize, Serialize};

/// Clusterings that purity is averaged over.
const CLUSTERINGS: u64 = 3;
/// The first random stream of the clusterings.
const STREAM: u64 = 90;

/// Figures in percent, all of features scaled to unit length; `None` where there are too few photos.
/// Best-NN, the seventh, is [`super::Knn`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Panel {
    /// See [`super::ranking::Ranking`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision_at_10: Option<f64>,
    /// See [`super::ranking::Ranking`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_average_precision: Option<f64>,
    /// See [`few_shot`]: one labeled photo a class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_shot: Option<f64>,
    /// See [`few_shot`]: five.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub five_shot: Option<f64>,
    /// See [`few_shot`]: twenty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub twenty_shot: Option<f64>,
    /// See [`mean_purity`]: clusters of the photos that are asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purity: Option<f64>,
}

/// Leave-one-out: every photo asks all others. `seed` fixes the draws, so figures that are to be compared
/// take the same one.
///
/// # Errors
/// [`crate::Error::Shape`] where labels don't match, [`crate::Error::Training`] where a feature is not
/// finite.
pub fn panel(features: &Features, labels: &[u32], seed: u64) -> Result<Panel> {
    compute((features, labels), None, seed)
}

/// The photos of `test` ask those of `train`.
///
/// # Errors
/// As [`panel`].
pub fn panel_train_test(
    train: (&Features, &[u32]),
    test: (&Features, &[u32]),
    seed: u64,
) -> Result<Panel> {
    compute(train, Some(test), seed)
}

fn compute(
    index: (&Features, &[u32]),
    test: Option<(&Features, &[u32])>,
    seed: u64,
) -> Result<Panel> {
    // Every figure is of directions, best-NN apart: long features would outweigh others in means.
    let metric = Metric::Cosine;
    let (queries, exclude, shots_for) = match test {
        None => (index, Exclude::Itself, Queries::Others),
        Some(test) => (test, Exclude::Nothing, Queries::These(test.0, test.1)),
    };
    let ranking = ranking(index, queries, metric, exclude)?;
    let shots = |shots| few_shot(index, shots_for, shots, metric, seed);
    let rngs = (0..CLUSTERINGS).map(|i| Rng::new(seed, Purpose::Measure, 0, STREAM + i));
    Ok(Panel {
        precision_at_10: ranking.map(|found| found.precision_at_10),
        mean_average_precision: ranking.and_then(|found| found.mean_average_precision),
        one_shot: shots(1)?,
        five_shot: shots(5)?,
        twenty_shot: shots(20)?,
        purity: mean_purity(&queries.0.normalized(), queries.1, rngs)?,
    })
}
