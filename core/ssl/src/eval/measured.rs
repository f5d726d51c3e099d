//! Measuring a network on photos: before, during and after a run.

use super::extract::{EvalView, Extracted, Extractor};
use super::{Features, Measurement, Metric, Subject, measure};
use crate::Result;
use seedling_base::rng::{Purpose, Rng};
use seedling_data::{PhotoSource, Recipe, Skipped};

/// Figures, and the features they were computed from.
#[derive(Clone, Debug)]
pub struct Measured {
    pub figures: Measurement,
    /// Features of the plain photos.
    pub features: Features,
    /// Which photo each row is of.
    pub photos: Vec<usize>,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
}

/// A fixed sample of at most `limit` photos (0: all), in their order.
pub fn sample(photos: usize, limit: usize, seed: u64) -> Vec<usize> {
    if limit == 0 || photos <= limit {
        return (0..photos).collect();
    }
    // Streams 0 to 3 of this purpose belong to the measurements and the report.
    let mut kept = Rng::new(seed, Purpose::Measure, 0, 4).permutation(photos);
    kept.truncate(limit);
    kept.sort_unstable();
    kept
}

/// The classes of these photos, where every one has one.
pub fn labels(source: &dyn PhotoSource, photos: &[usize]) -> Option<Vec<u32>> {
    photos
        .iter()
        .map(|&photo| source.label(photo).map(|label| label as u32))
        .collect()
}

/// How a measurement alters photos to see how steady features are: view `number` of two.
///
/// # Errors
/// None that a caller could make.
pub fn view(number: u64, seed: u64) -> Result<EvalView> {
    Ok(EvalView::Random {
        recipe: Recipe::by_name("standard")?,
        number,
        seed,
    })
}

/// Everything that can be said of the photos in `sample`: with `views`, two fixed standard views
/// of each are made for alignment and instance discrimination; with `knn`, kNN where classes are
/// known. `done` is told how many photos were processed, and may stop the work by an error.
///
/// # Errors
/// No photo can be read, the features are not finite, or what `done` says.
pub fn measure_photos(
    extractor: &Extractor<'_>,
    sample: &[usize],
    (seed, metric): (u64, Metric),
    (augmented, knn): (bool, bool),
    done: impl FnMut(usize) -> Result<()>,
) -> Result<Measured> {
    let views = [EvalView::Plain, view(0, seed)?, view(1, seed)?];
    let views = &views[..if augmented { 3 } else { 1 }];
    let found = extractor.readable(sample, views, done)?;
    found.check(sample.len())?;
    let labels = labels(extractor.source, &found.photos).filter(|_| knn);
    let (plain, views) = plain_and_views(found);
    figures(plain, views, labels.as_deref(), (seed, metric))
}

/// What was seen of plain photos, and of two views of each where there are any.
pub fn plain_and_views(
    found: Extracted<Vec<Features>>,
) -> (Extracted, Option<(Features, Features)>) {
    let mut views = None;
    let plain = found.map(|features| {
        let mut features = features.into_iter();
        let plain = features.next().unwrap_or_default();
        views = features.next().zip(features.next());
        plain
    });
    (plain, views)
}

/// What can be said of features that were taken: of plain photos, of two views of each, and with the class
/// of each.
///
/// # Errors
/// [`crate::Error::Shape`] where these do not fit each other, [`crate::Error::Training`] where a feature is
/// not finite.
pub fn figures(
    plain: Extracted,
    views: Option<(Features, Features)>,
    labels: Option<&[u32]>,
    (seed, metric): (u64, Metric),
) -> Result<Measured> {
    let subject = Subject {
        plain: &plain.features,
        views: views.as_ref().map(|(first, second)| (first, second)),
        labels,
    };
    Ok(Measured {
        figures: measure(&subject, metric, seed)?,
        features: plain.features,
        photos: plain.photos,
        skipped: plain.skipped,
    })
}
