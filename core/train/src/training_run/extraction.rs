//! Extracting features of photos: for the closed form, and to measure. A call takes some photos and returns, so
//! that whoever drives the run can stop between; what was extracted is kept (`feature_cache`).

use super::TrainingRun;
use super::event::{Event, Observer};
use crate::records::{MeasureRecord, Record, When};
use crate::{Error, Result};
use seedling_data::PhotoSource;
use seedling_nn::encoder::LinearLayer;
use seedling_ssl::eval::extract::{self, EvalView, Extracted, Extractor};
use seedling_ssl::eval::tta::{self, FeatureModel};
use seedling_ssl::eval::{Features, Measured, Metric, collapse_warning, measured};
use seedling_ssl::whitening;
use std::sync::Arc;
use std::task::Poll;

/// Batches of one view that are computed by one call.
const BATCHES: usize = 8;

/// Views of a photo by which its neighbors in training are found.
const NEIGHBOR_VIEWS: usize = 2;

/// What a measurement has seen: plain photos, two views of each, and their classes.
pub(super) struct ExtractedViews {
    pub(super) plain: Extracted,
    views: Option<(Features, Features)>,
    labels: Option<Vec<u32>>,
}

/// A pass over photos, which are decoded once for all of its views.
pub(super) struct Pass<'a> {
    /// Its name among those of the run.
    pub(super) key: String,
    pub(super) source: &'a Arc<dyn PhotoSource>,
    pub(super) sample: &'a [usize],
    pub(super) views: &'a [EvalView],
}

/// The linear layer that a dataset's statistics come to, if any, and the views to measure by.
pub(super) type LayerAndViews = (Option<LinearLayer>, ExtractedViews);

impl TrainingRun {
    /// Extracts features of some more photos of a pass: all of them are seen where it returns `true`. `tell`
    /// hears how many of this pass were processed.
    pub(super) fn extract(
        &mut self,
        pass: &Pass<'_>,
        tell: &mut (dyn FnMut(usize) -> Result<()> + Send),
    ) -> Result<bool> {
        let asked = self.cache.processed(&pass.key);
        let left = pass.sample.get(asked..).unwrap_or_default();
        if left.is_empty() {
            return Ok(true);
        }
        let batches = (BATCHES / pass.views.len()).max(1);
        let some = batches * extract::batch(self.session.metadata().image_size);
        let some = &left[..left.len().min(some)];
        let extractor = self.extractor(&**pass.source);
        let found = self.session.on_threads(|| {
            extractor.readable(some, pass.views, |done| {
                self.cancel().check()?;
                tell(asked + done)
            })
        })?;
        self.cache.add(&pass.key, found)?;
        if !self.saved {
            // From here on there is something that would be missed.
            self.write_checkpoint()?;
            self.folder.keep();
            self.saved = true;
        }
        let whole = some.len() == left.len();
        if whole && let Some(seen) = self.cache.pass(&pass.key) {
            seen.check(pass.sample.len())?;
        }
        // Whoever has asked meanwhile need not wait for what is made of them.
        self.cancel().check()?;
        Ok(whole)
    }

    /// Extracts features of some more of the photos that are trained on, with their mirror images, through the
    /// closed form: what is near by these features is to stay so. Training begins when all are processed.
    pub(super) fn neighbors(&mut self, observer: &mut dyn Observer) -> Result<()> {
        const KEY: &str = "neighbors";
        let source = self.session.source().clone();
        let before = self.session.before();
        let closed_form = before.and_then(|before| before.closed_form.as_ref());
        let layer = closed_form.and_then(|found| found.layer.clone());
        let metadata = self.session.metadata();
        let (total, asked) = (source.len(), self.cache.processed(KEY));
        let all: Vec<usize> = (0..total).collect();
        let batches = BATCHES / NEIGHBOR_VIEWS * extract::batch(metadata.image_size);
        let some = &all[asked..total.min(asked + batches)];
        if !some.is_empty() {
            let model = FeatureModel {
                encoder: self.session.network(),
                image_size: metadata.image_size,
                normalize: &metadata.normalize,
                layer: layer.as_ref(),
            };
            let found = self.session.on_threads(|| {
                tta::extract(&[model], NEIGHBOR_VIEWS, &*source, some, |done| {
                    self.cancel().check()?;
                    observer.event(Event::Measuring {
                        when: When::Before,
                        done: asked + done,
                        total,
                    })
                })
            })?;
            self.cache.add(KEY, found.map(|features| vec![features]))?;
        }
        if self.cache.processed(KEY) == total
            && let Some(found) = self.cache.take(KEY)
        {
            let features = found.features.first().ok_or_else(|| missing(KEY))?;
            self.session.keep_in_mind(features, &found.photos)?;
            self.save(observer)?;
            self.cache.clear()?;
            self.go_on();
        }
        Ok(())
    }

    /// How photos are processed now.
    pub(super) fn extractor<'a>(&'a self, source: &'a dyn PhotoSource) -> Extractor<'a> {
        Extractor {
            encoder: self.session.network(),
            source,
            image_size: self.session.metadata().image_size,
            normalize: &self.session.metadata().normalize,
        }
    }

    /// The dataset's photos that its statistics are taken of.
    fn fit_sample(&self) -> Vec<usize> {
        let seed = self.session.config().seed;
        measured::sample(self.selection.0.len(), whitening::MAX_PHOTOS, seed)
    }

    /// The photos that are measured.
    fn measured_sample(&self) -> Vec<usize> {
        let config = self.session.config();
        measured::sample(self.measured_on.len(), config.measure_photos, config.seed)
    }

    /// Extracts features of the dataset's photos and of the photos measured, with the weights as they are in
    /// this part of the run, and fits the linear layer, where one is asked for and the dataset has enough
    /// photos; pending where there are more photos to take. Everything that was seen in the part is then
    /// forgotten.
    pub(super) fn extract_and_fit(
        &mut self,
        part: &'static str,
        when: When,
        observer: &mut dyn Observer,
    ) -> Result<Poll<LayerAndViews>> {
        let whitening = self.session.config().whitening;
        let (source, sample) = (self.selection.0.clone(), self.fit_sample());
        // Where the photos measured are the dataset's, one pass does for both.
        let together = Arc::ptr_eq(&source, &self.measured_on) && sample == self.measured_sample();
        let apart = match whitening && !together {
            true => sample.len(),
            false => 0,
        };
        if apart > 0
            && self
                .fitted
                .as_ref()
                .is_none_or(|(fitted, _)| *fitted != part)
        {
            let total = apart + self.measured_sample().len();
            let pass = Pass {
                key: format!("{part} fit"),
                source: &source,
                sample: &sample,
                views: &[EvalView::Plain, EvalView::Mirrored],
            };
            let mut tell = |done| observer.event(Event::Measuring { when, done, total });
            if !self.extract(&pass, &mut tell)? {
                return Ok(Poll::Pending);
            }
            let features = self.take_pass(&pass)?.features;
            self.fitted = Some((part, self.fit(&features[0], &features[1])?));
        }
        let mirrored = whitening && together;
        let Poll::Ready((views, mirrored)) =
            self.views((part, when), (apart, mirrored), observer)?
        else {
            return Ok(Poll::Pending);
        };
        let layer = match mirrored {
            Some(mirrored) => self.fit(&views.plain.features, &mirrored)?,
            None => self.fitted.take().and_then(|(_, layer)| layer),
        };
        Ok(Poll::Ready((layer, views)))
    }

    /// Extracts features of the photos that are measured, and where asked for of their mirror images; pending
    /// where there are more. So many other photos were processed `before`.
    pub(super) fn views(
        &mut self,
        (part, when): (&str, When),
        (before, mirrored): (usize, bool),
        observer: &mut dyn Observer,
    ) -> Result<Poll<(ExtractedViews, Option<Features>)>> {
        let (source, sample) = (self.measured_on.clone(), self.measured_sample());
        let seed = self.session.config().seed;
        let mut views = vec![
            EvalView::Plain,
            measured::view(0, seed)?,
            measured::view(1, seed)?,
        ];
        views.extend(mirrored.then_some(EvalView::Mirrored));
        let pass = Pass {
            key: format!("{part} measured"),
            source: &source,
            sample: &sample,
            views: &views,
        };
        let total = before + sample.len();
        let mut tell = |done: usize| {
            let done = before + done;
            observer.event(Event::Measuring { when, done, total })
        };
        if !self.extract(&pass, &mut tell)? {
            return Ok(Poll::Pending);
        }
        let mut found = self.take_pass(&pass)?;
        let mirrored = match mirrored {
            true => found.features.pop(),
            false => None,
        };
        let (plain, views) = measured::plain_and_views(found);
        let views = ExtractedViews {
            labels: measured::labels(&*source, &plain.photos),
            views,
            plain,
        };
        Ok(Poll::Ready((views, mirrored)))
    }

    fn fit(&self, plain: &Features, mirrored: &Features) -> Result<Option<LinearLayer>> {
        self.session.on_threads(|| whitening::fit(plain, mirrored))
    }

    /// Figures of these views.
    pub(super) fn figures(&self, views: ExtractedViews) -> Result<Measured> {
        let how = (self.session.config().seed, Metric::Euclidean);
        let ExtractedViews {
            plain,
            views,
            labels,
        } = views;
        self.session
            .on_threads(|| measured::figures(plain, views, labels.as_deref(), how))
    }

    /// The record of a measurement, logged, and shown to the observer.
    pub(super) fn record(
        &mut self,
        when: When,
        measured: &Measured,
        observer: &mut dyn Observer,
    ) -> Result<Box<MeasureRecord>> {
        let step = self.session.steps_done();
        let mut record = MeasureRecord::new(step, when, &measured.figures);
        record.collapse = collapse_warning(&measured.features);
        let record = Box::new(record);
        self.append(&Record::Measure(record.clone()), observer)?;
        observer.event(Event::Measured {
            when,
            measured,
            source: &*self.measured_on,
        })?;
        Ok(record)
    }

    /// What a pass of one view that is through has seen.
    pub(super) fn cached(&self, key: &str) -> Result<(&Features, &[usize])> {
        let pass = self.cache.pass(key);
        let features = pass.and_then(|pass| Some((pass.features.first()?, &*pass.photos)));
        features.ok_or_else(|| missing(key))
    }

    /// What a pass that is through has seen, by each of its views, which is then forgotten.
    fn take_pass(&mut self, pass: &Pass<'_>) -> Result<Extracted<Vec<Features>>> {
        let found = self.cache.take(&pass.key);
        found
            .filter(|found| found.features.len() == pass.views.len())
            .ok_or_else(|| missing(&pass.key))
    }
}

fn missing(what: &str) -> Error {
    Error::Training(format!("no photo was processed for {what}"))
}

impl ExtractedViews {
    /// The same through a linear layer behind the features.
    pub(super) fn through(&self, layer: &LinearLayer) -> Result<ExtractedViews> {
        let through = |features: &Features| {
            let values = layer.apply(&features.values);
            Features::new(features.rows, layer.outputs(), values)
        };
        let views = match &self.views {
            None => None,
            Some((first, second)) => Some((through(first)?, through(second)?)),
        };
        Ok(ExtractedViews {
            plain: Extracted {
                features: through(&self.plain.features)?,
                photos: self.plain.photos.clone(),
                skipped: self.plain.skipped.clone(),
            },
            views,
            labels: self.labels.clone(),
        })
    }
}
