//! Measuring a network on photos: before, during and after a run.

use crate::console::Console;
use seedling_core::Result;
use seedling_core::data::{PhotoSource, Recipe, Skipped};
use seedling_core::eval::extract::{Extracted, Extractor, Look};
use seedling_core::eval::{Features, Measurement, Metric, Subject, measure};
use seedling_core::rng::{Purpose, Rng};

/// Figures, and the features they were computed from.
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

/// Everything that can be said of the photos in `sample`: with `views`, two fixed standard views
/// of each are made for alignment and instance discrimination.
///
/// # Errors
/// No photo can be read, or the features are not finite.
pub fn all(
    extractor: &Extractor<'_>,
    sample: &[usize],
    (seed, metric): (u64, Metric),
    (views, knn): (bool, bool),
    console: &Console,
    what: &str,
) -> Result<Measured> {
    let passes = if views { 3 } else { 1 };
    let bar = console.bar((sample.len() * passes) as u64, what);
    let mut pass = 0;
    let mut features = |photos: &[usize], look: &Look| {
        let before = pass * sample.len();
        pass += 1;
        extractor.features(photos, look, |done| {
            bar.set_position((before + done) as u64)
        })
    };
    let Extracted {
        features: plain,
        photos,
        skipped,
    } = features(sample, &Look::Plain)?;
    let mut pair = None;
    if views {
        let look = |number| -> Result<Look> {
            Ok(Look::View {
                recipe: Recipe::by_name("standard")?,
                number,
                seed,
            })
        };
        let (first, second) = (features(&photos, &look(0)?)?, features(&photos, &look(1)?)?);
        // A photo that vanished meanwhile would shift the rows.
        let whole = first.photos == photos && second.photos == photos;
        pair = whole.then_some((first.features, second.features));
    }
    bar.finish_and_clear();
    let labels = labels(extractor.source, &photos).filter(|_| knn);
    let subject = Subject {
        plain: &plain,
        views: pair.as_ref().map(|(first, second)| (first, second)),
        labels: labels.as_deref(),
    };
    Ok(Measured {
        figures: measure(&subject, metric, seed)?,
        features: plain,
        photos,
        skipped,
    })
}
