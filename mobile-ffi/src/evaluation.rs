//! What weights see in photos, in figures.

use crate::error::Result;
use crate::listener::{ExtractionProgress, Listener, Stop};
use crate::photos::{DECODE_MB, Photos};
use crate::progress::Stage;
use crate::weights::Weights;
use seedling_core::data::PhotoSource;
use seedling_core::eval::{Metric, collapse_warning, measure_photos};
use seedling_core::session::on_own_threads;
use std::sync::Arc;

/// Figures of some weights on some photos. What there are too few photos for is `None`.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Evaluation {
    /// Photos that were processed.
    pub photos: i32,
    /// Photos that could not be read.
    pub unreadable: i32,
    /// With a class for every photo ([`Photos::label`]): how often a photo's nearest others name its class,
    /// in percent. Higher is better.
    pub best_nn: Option<f64>,
    /// With a class for every photo: how many of the ten photos most like a photo are of its class, in percent.
    /// Higher is better, here and in the four that follow.
    pub precision_at_10: Option<f64>,
    /// How near the top all photos of a photo's class are ranked (mean average precision).
    pub mean_average_precision: Option<f64>,
    /// How many photos are told right from one labeled photo of each class.
    pub one_shot: Option<f64>,
    /// The same from five.
    pub five_shot: Option<f64>,
    /// How many photos are of the commonest class of their cluster.
    pub purity: Option<f64>,
    /// How often a photo is nearer to an altered copy of itself than to any other photo, in percent.
    /// Higher is better.
    pub instance_discrimination: Option<f64>,
    /// Squared distance of two altered copies of a photo. Lower is better.
    pub alignment: Option<f64>,
    /// How evenly photos spread over the sphere of directions. Lower is better.
    pub uniformity: Option<f64>,
    /// In how many directions photos differ.
    pub effective_rank: Option<f64>,
    /// What is wrong with the features, where they have collapsed: a line for a log.
    pub collapse: Option<String>,
}

/// Measures weights on photos, with their classes where [`Photos::label`] has told all of them, and without.
/// Extracts features of three views of every photo: some thirty milliseconds each. Call it from a background
/// thread. `stop` ends it early.
#[uniffi::export]
pub fn evaluate(
    weights: Arc<Weights>,
    photos: Arc<Photos>,
    threads: i32,
    listener: Option<Arc<dyn Listener>>,
    stop: Option<Arc<Stop>>,
) -> Result<Evaluation> {
    let encoder = weights.network()?;
    let source = photos.source(DECODE_MB);
    let extractor = weights.extractor(&*encoder, &*source);
    let all: Vec<usize> = (0..source.len()).collect();
    let mut progress = ExtractionProgress::new(Stage::Measuring, listener, stop);
    // The seed of `seedling eval`: the same figures.
    let how = (0, Metric::Euclidean);
    let measured = on_own_threads(threads.max(0) as usize, || {
        measure_photos(&extractor, &all, how, (true, true), |done| {
            progress.photos(done, all.len())
        })
    })??;
    let figures = &measured.figures;
    let panel = figures.panel.unwrap_or_default();
    Ok(Evaluation {
        photos: measured.photos.len() as i32,
        unreadable: measured.skipped.len() as i32,
        best_nn: figures.knn.as_ref().map(|knn| knn.best_nn),
        precision_at_10: panel.precision_at_10,
        mean_average_precision: panel.mean_average_precision,
        one_shot: panel.one_shot,
        five_shot: panel.five_shot,
        purity: panel.purity,
        instance_discrimination: figures.geometry.instance_discrimination,
        alignment: figures.geometry.alignment,
        uniformity: figures.geometry.uniformity,
        effective_rank: figures.collapse.as_ref().map(|found| found.effective_rank),
        collapse: collapse_warning(&measured.features),
    })
}
