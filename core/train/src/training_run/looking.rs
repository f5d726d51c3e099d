//! Looking at photos: for the closed form, and to measure. A call looks at some photos and returns, so
//! that whoever drives the run can stop between; what was seen is kept (`seen`).

use super::TrainingRun;
use super::event::{Event, Observer};
use crate::records::{MeasureRecord, Record, When};
use crate::{Error, Result};
use seedling_data::PhotoSource;
use seedling_nn::encoder::LinearLayer;
use seedling_ssl::eval::extract::{self, Extracted, Extractor, Look};
use seedling_ssl::eval::looks::{self, Viewer};
use seedling_ssl::eval::{Features, Measured, Metric, collapse_warning, measured};
use seedling_ssl::whitening;
use std::sync::Arc;
use std::task::Poll;

/// Batches of one look that are computed by one call.
const BATCHES: usize = 8;

/// Looks at a photo by which its neighbors in training are found.
const NEIGHBOR_LOOKS: usize = 2;

/// What a measurement has seen: plain photos, two views of each, and their classes.
pub(super) struct Looks {
    pub(super) plain: Extracted,
    views: Option<(Features, Features)>,
    labels: Option<Vec<u32>>,
}

/// A pass over photos, which are decoded once for all of its looks.
pub(super) struct Pass<'a> {
    /// Its name among those of the run.
    pub(super) key: String,
    pub(super) source: &'a Arc<dyn PhotoSource>,
    pub(super) sample: &'a [usize],
    pub(super) looks: &'a [Look],
}

/// The linear layer that an album's statistics come to, if any, and the looks to measure by.
pub(super) type LayerAndLooks = (Option<LinearLayer>, Looks);

impl TrainingRun {
    /// Looks at some more photos of a pass: all of them are seen where it returns `true`. `tell` hears how
    /// many of this pass were looked at.
    pub(super) fn look(
        &mut self,
        pass: &Pass<'_>,
        tell: &mut (dyn FnMut(usize) -> Result<()> + Send),
    ) -> Result<bool> {
        let asked = self.seen.asked(&pass.key);
        let left = pass.sample.get(asked..).unwrap_or_default();
        if left.is_empty() {
            return Ok(true);
        }
        let batches = (BATCHES / pass.looks.len()).max(1);
        let some = batches * extract::batch(self.session.metadata().image_size);
        let some = &left[..left.len().min(some)];
        let extractor = self.extractor(&**pass.source);
        let found = self.session.on_threads(|| {
            extractor.readable(some, pass.looks, |done| {
                self.cancel().check()?;
                tell(asked + done)
            })
        })?;
        self.seen.add(&pass.key, found)?;
        if !self.saved {
            // From here on there is something that would be missed.
            self.write_checkpoint()?;
            self.folder.keep();
            self.saved = true;
        }
        let whole = some.len() == left.len();
        if whole && let Some(seen) = self.seen.pass(&pass.key) {
            seen.check(pass.sample.len())?;
        }
        // Whoever has asked meanwhile need not wait for what is made of them.
        self.cancel().check()?;
        Ok(whole)
    }

    /// Looks at some more of the photos that are trained on, with their mirror images and through the closed
    /// form: what is near by these features is to stay so. Training begins when all are looked at.
    pub(super) fn neighbors(&mut self, observer: &mut dyn Observer) -> Result<()> {
        const KEY: &str = "neighbors";
        let source = self.session.source().clone();
        let before = self.session.before();
        let closed_form = before.and_then(|before| before.closed_form.as_ref());
        let layer = closed_form.and_then(|found| found.layer.clone());
        let metadata = self.session.metadata();
        let (total, asked) = (source.len(), self.seen.asked(KEY));
        let all: Vec<usize> = (0..total).collect();
        let batches = BATCHES / NEIGHBOR_LOOKS * extract::batch(metadata.image_size);
        let some = &all[asked..total.min(asked + batches)];
        if !some.is_empty() {
            let viewer = Viewer {
                encoder: self.session.network(),
                image_size: metadata.image_size,
                normalize: &metadata.normalize,
                layer: layer.as_ref(),
            };
            let found = self.session.on_threads(|| {
                looks::look(&[viewer], NEIGHBOR_LOOKS, &*source, some, |done| {
                    self.cancel().check()?;
                    observer.event(Event::Measuring {
                        when: When::Before,
                        done: asked + done,
                        total,
                    })
                })
            })?;
            self.seen.add(KEY, found.with(|features| vec![features]))?;
        }
        if self.seen.asked(KEY) == total
            && let Some(found) = self.seen.take(KEY)
        {
            let features = found.features.first().ok_or_else(|| unseen(KEY))?;
            self.session.keep_in_mind(features, &found.photos)?;
            self.save(observer)?;
            self.seen.clear()?;
            self.go_on();
        }
        Ok(())
    }

    /// How photos are looked at now.
    pub(super) fn extractor<'a>(&'a self, source: &'a dyn PhotoSource) -> Extractor<'a> {
        Extractor {
            encoder: self.session.network(),
            source,
            image_size: self.session.metadata().image_size,
            normalize: &self.session.metadata().normalize,
        }
    }

    /// The album's photos that its statistics are taken of.
    fn fit_sample(&self) -> Vec<usize> {
        let seed = self.session.config().seed;
        measured::sample(self.judged_on.0.len(), whitening::MAX_PHOTOS, seed)
    }

    /// The photos that are measured.
    fn measured_sample(&self) -> Vec<usize> {
        let config = self.session.config();
        measured::sample(self.measured_on.len(), config.measure_photos, config.seed)
    }

    /// Looks at the album and at the photos measured, with the weights as they are in this part of the run,
    /// and fits the linear layer, where one is asked for and the album has enough photos; pending where there
    /// are more photos to look at. Everything that was seen in the part is then forgotten.
    pub(super) fn extract_and_fit(
        &mut self,
        part: &'static str,
        when: When,
        observer: &mut dyn Observer,
    ) -> Result<Poll<LayerAndLooks>> {
        let whitening = self.session.config().whitening;
        let (source, sample) = (self.judged_on.0.clone(), self.fit_sample());
        // Where the photos measured are the album's, one pass does for both.
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
                looks: &[Look::Plain, Look::Mirrored],
            };
            let mut tell = |done| observer.event(Event::Measuring { when, done, total });
            if !self.look(&pass, &mut tell)? {
                return Ok(Poll::Pending);
            }
            let features = self.take(&pass)?.features;
            self.fitted = Some((part, self.fit(&features[0], &features[1])?));
        }
        let mirrored = whitening && together;
        let Poll::Ready((looks, mirrored)) =
            self.looks((part, when), (apart, mirrored), observer)?
        else {
            return Ok(Poll::Pending);
        };
        let layer = match mirrored {
            Some(mirrored) => self.fit(&looks.plain.features, &mirrored)?,
            None => self.fitted.take().and_then(|(_, layer)| layer),
        };
        Ok(Poll::Ready((layer, looks)))
    }

    /// Looks at the photos that are measured, and where asked for at their mirror images; pending where there
    /// are more. So many other photos were looked at `before`.
    pub(super) fn looks(
        &mut self,
        (part, when): (&str, When),
        (before, mirrored): (usize, bool),
        observer: &mut dyn Observer,
    ) -> Result<Poll<(Looks, Option<Features>)>> {
        let (source, sample) = (self.measured_on.clone(), self.measured_sample());
        let seed = self.session.config().seed;
        let mut looks = vec![
            Look::Plain,
            measured::view(0, seed)?,
            measured::view(1, seed)?,
        ];
        looks.extend(mirrored.then_some(Look::Mirrored));
        let pass = Pass {
            key: format!("{part} measured"),
            source: &source,
            sample: &sample,
            looks: &looks,
        };
        let total = before + sample.len();
        let mut tell = |done: usize| {
            let done = before + done;
            observer.event(Event::Measuring { when, done, total })
        };
        if !self.look(&pass, &mut tell)? {
            return Ok(Poll::Pending);
        }
        let mut found = self.take(&pass)?;
        let mirrored = match mirrored {
            true => found.features.pop(),
            false => None,
        };
        let (plain, views) = measured::plain_and_views(found);
        let looks = Looks {
            labels: measured::labels(&*source, &plain.photos),
            views,
            plain,
        };
        Ok(Poll::Ready((looks, mirrored)))
    }

    fn fit(&self, plain: &Features, mirrored: &Features) -> Result<Option<LinearLayer>> {
        self.session.on_threads(|| whitening::fit(plain, mirrored))
    }

    /// Figures of these looks.
    pub(super) fn figures(&self, looks: Looks) -> Result<Measured> {
        let how = (self.session.config().seed, Metric::Euclidean);
        let Looks {
            plain,
            views,
            labels,
        } = looks;
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

    /// What a pass of one look that is through has seen.
    pub(super) fn seen_once(&self, key: &str) -> Result<(&Features, &[usize])> {
        let pass = self.seen.pass(key);
        let features = pass.and_then(|pass| Some((pass.features.first()?, &*pass.photos)));
        features.ok_or_else(|| unseen(key))
    }

    /// What a pass that is through has seen, by each of its looks, which is then forgotten.
    fn take(&mut self, pass: &Pass<'_>) -> Result<Extracted<Vec<Features>>> {
        let found = self.seen.take(&pass.key);
        found
            .filter(|found| found.features.len() == pass.looks.len())
            .ok_or_else(|| unseen(&pass.key))
    }
}

fn unseen(what: &str) -> Error {
    Error::Training(format!("no photo was looked at for {what}"))
}

impl Looks {
    /// The same through a linear layer behind the features.
    pub(super) fn through(&self, layer: &LinearLayer) -> Result<Looks> {
        let through = |features: &Features| {
            let values = layer.apply(&features.values);
            Features::new(features.rows, layer.outputs(), values)
        };
        let views = match &self.views {
            None => None,
            Some((first, second)) => Some((through(first)?, through(second)?)),
        };
        Ok(Looks {
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
