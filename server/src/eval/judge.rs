//! All that is asked of one weight file.

use super::probe::{self, ProbeFigures};
use super::{EvalArgs, Loaded, Protocol};
use crate::console::Console;
use seedling_core::Result;
use seedling_core::data::{PhotoSource, Skipped};
use seedling_core::eval::extract::{EvalView, Extractor};
use seedling_core::eval::measured::{self, Measured};
use seedling_core::eval::{Features, Measurement, knn, measure_photos, panel_train_test};
use seedling_report::eval_page::Triangles;
use std::sync::Arc;

/// Classes that t-SNE shows (as the paper does), and photos of each: with two views of a photo, 900 points.
const MAP_CLASSES: usize = 10;
const MAP_PHOTOS: usize = 30;

/// Photos, as they are shared.
pub(super) type Source = Arc<dyn PhotoSource>;

/// What is asked, of which weights and photos.
pub(super) struct Judge<'a> {
    pub(super) args: &'a EvalArgs,
    pub(super) loaded: &'a Loaded,
    pub(super) whole: &'a Source,
    /// For training and for testing, where the dataset has such halves.
    pub(super) halves: Option<(&'a Source, &'a Source)>,
    pub(super) console: &'a Console,
}

/// What was found.
pub(super) struct Judged {
    /// What tells these weights from the others.
    pub(super) name: String,
    /// As the command line has them.
    pub(super) weights: String,
    pub(super) arch: &'static str,
    pub(super) image_size: usize,
    pub(super) photos: usize,
    /// Of the test half, or of all photos.
    pub(super) figures: Measurement,
    /// Of as many photos of the training half, by leave-one-out.
    pub(super) train: Option<Measurement>,
    pub(super) linear: Option<ProbeFigures>,
    pub(super) transfer: Option<ProbeFigures>,
    pub(super) skipped: Vec<Skipped>,
    /// For the page.
    pub(super) triangles: Option<Triangles>,
}

impl Judge<'_> {
    /// Asks everything.
    ///
    /// # Errors
    /// No photo can be read, or the features are not finite.
    pub(super) fn judge(&self, name: String, weights: &str) -> Result<Judged> {
        let test = self.halves.map_or(self.whole, |(_, test)| test);
        let classes = self.args.wants(Protocol::Knn) || self.args.wants(Protocol::Panel);
        let all: Vec<usize> = (0..test.len()).collect();
        let alone = classes && self.halves.is_none();
        let mut found = self.measure(test, &all, alone, "measure")?;
        let mut train_figures = None;
        if let Some((train, _)) = self.halves {
            if classes {
                self.ask_train_half(train, test, &mut found)?;
            }
            let sample = measured::sample(train.len(), test.len(), self.seed());
            let train = self.measure(train, &sample, classes, "train half")?;
            train_figures = Some(train.figures);
        }
        if classes && found.figures.panel.is_none() {
            self.console
                .note("no class folders here: neighbors and classes cannot be judged");
        }
        let mut skipped = found.skipped;
        let mut probe = |protocol| match self.args.wants(protocol) {
            true => probe::run(self, protocol, &mut skipped),
            false => Ok(None),
        };
        let (linear, transfer) = (probe(Protocol::Linear)?, probe(Protocol::Transfer)?);
        let wanted = self.args.page.is_some() || self.args.triangles.is_some();
        let triangles = wanted.then(|| self.triangles(test)).transpose()?;
        for figures in [&mut found.figures].into_iter().chain(&mut train_figures) {
            figures.knn.take_if(|_| !self.args.wants(Protocol::Knn));
            figures.panel.take_if(|_| !self.args.wants(Protocol::Panel));
        }
        let arch = self.loaded.file.metadata.architecture.arch;
        Ok(Judged {
            name,
            weights: weights.into(),
            arch: arch.name(),
            image_size: self.loaded.image_size,
            photos: found.photos.len(),
            figures: found.figures,
            train: train_figures,
            linear,
            transfer,
            skipped,
            triangles,
        })
    }

    pub(super) fn seed(&self) -> u64 {
        self.loaded.config.seed
    }

    pub(super) fn extractor<'a>(&'a self, source: &'a Source) -> Extractor<'a> {
        Extractor {
            encoder: &*self.loaded.encoder,
            source: &**source,
            image_size: self.loaded.image_size,
            normalize: &self.loaded.file.metadata.normalize,
        }
    }

    /// Geometry where it is wanted; classes, where they are asked for, by leave-one-out.
    fn measure(
        &self,
        source: &Source,
        sample: &[usize],
        classes: bool,
        name: &str,
    ) -> Result<Measured> {
        let views = self.args.wants(Protocol::Geometry) || self.args.page.is_some();
        let how = (self.seed(), self.args.metric());
        let bar = self.console.bar(sample.len() as u64, name);
        let extractor = self.extractor(source);
        let found = measure_photos(&extractor, sample, how, (views, classes || views), |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(found)
    }

    /// Neighbors and panel of the `test` half, which asks all of the training half.
    fn ask_train_half(&self, train: &Source, test: &Source, found: &mut Measured) -> Result<()> {
        let all: Vec<usize> = (0..train.len()).collect();
        let bar = self.console.bar(all.len() as u64, "neighbors");
        let extracted = self
            .extractor(train)
            .features(&all, &EvalView::Plain, |done| {
                bar.set_position(done as u64);
                Ok(())
            })?;
        bar.finish_and_clear();
        found.skipped.extend(extracted.skipped);
        let labels = (
            measured::labels(&**train, &extracted.photos),
            measured::labels(&**test, &found.photos),
        );
        (found.figures.knn, found.figures.panel) = match labels {
            (Some(train_labels), Some(test_labels)) => {
                let train = (&extracted.features, &train_labels[..]);
                let test = (&found.features, &test_labels[..]);
                let panel = panel_train_test(train, test, self.seed())?;
                (knn(train, test, self.args.metric())?, Some(panel))
            }
            _ => (None, None),
        };
        Ok(())
    }

    /// Photos of some classes and two views of each, for t-SNE (the paper's figure 2).
    fn triangles(&self, source: &Source) -> Result<Triangles> {
        let seed = self.seed();
        let classes = source.classes().len().min(MAP_CLASSES);
        let mut chosen = Vec::new();
        if classes == 0 {
            chosen = measured::sample(source.len(), MAP_CLASSES * MAP_PHOTOS, seed);
        }
        for class in 0..classes {
            let members: Vec<usize> = (0..source.len())
                .filter(|&photo| source.label(photo) == Some(class))
                .collect();
            let sample = measured::sample(members.len(), MAP_PHOTOS, seed);
            chosen.extend(sample.into_iter().map(|place| members[place]));
        }
        let views = [
            EvalView::Plain,
            measured::view(0, seed)?,
            measured::view(1, seed)?,
        ];
        let bar = self.console.bar(chosen.len() as u64, "t-SNE");
        let found = self.extractor(source).readable(&chosen, &views, |done| {
            bar.set_position(done as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        let labels = found
            .photos
            .iter()
            .map(|&photo| source.label(photo).unwrap_or(0));
        let labels = labels.collect();
        let dim = self.loaded.encoder.feature_dim();
        let rows = found.features.iter().map(|features| features.rows).sum();
        let values = found
            .features
            .into_iter()
            .flat_map(|features| features.values);
        let features = Features::new(rows, dim, values.collect())?;
        Ok(Triangles {
            features,
            labels,
            classes: source.classes().iter().take(classes).cloned().collect(),
        })
    }
}
