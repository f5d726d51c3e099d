//! Looking at photos: for the closed form, and to measure. A call looks at some photos and returns, so
//! that whoever drives the course can stop between; what was seen is kept (`seen`).

use super::Course;
use super::event::{Event, Observer};
use crate::data::PhotoSource;
use crate::encoder::LinearLayer;
use crate::eval::extract::{self, Extracted, Extractor, Look};
use crate::eval::looks::{self, Viewer};
use crate::eval::{Features, Measured, Metric, collapse_warning, measured};
use crate::records::{MeasureRecord, Record, When};
use crate::whitening;
use crate::{Error, Result};
use std::borrow::Cow;
use std::sync::Arc;
use std::task::Poll;

/// Batches that are looked at by one call.
const BATCHES: usize = 8;

/// Looks at a photo by which its neighbours in training are found.
const NEIGHBOUR_LOOKS: usize = 2;

/// What a measurement has seen: plain photos, two views of each, and their classes.
pub(super) struct Looks {
    pub(super) plain: Extracted,
    views: Option<(Features, Features)>,
    labels: Option<Vec<u32>>,
}

/// A pass over photos.
pub(super) struct Pass<'a> {
    /// Its name among those of the run.
    pub(super) key: String,
    pub(super) source: &'a Arc<dyn PhotoSource>,
    pub(super) sample: &'a [usize],
    pub(super) look: Look,
}

impl Course {
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
        let batch = extract::batch(self.session.about().image_size);
        let some = &left[..left.len().min(BATCHES * batch)];
        let extractor = self.extractor(&**pass.source);
        let found = self.session.on_threads(|| {
            extractor.readable(some, &pass.look, |done| {
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
        Ok(whole)
    }

    /// Looks at some more of the photos that are trained on, with their mirror images and through the closed
    /// form: what is near by these features is to stay so. Training begins when all are looked at.
    pub(super) fn neighbours(&mut self, observer: &mut dyn Observer) -> Result<()> {
        const KEY: &str = "neighbours";
        let source = self.session.source().clone();
        let before = self.session.before();
        let closed_form = before.and_then(|before| before.closed_form.as_ref());
        let layer = closed_form.and_then(|found| found.layer.clone());
        let about = self.session.about();
        let (total, asked) = (source.len(), self.seen.asked(KEY));
        let all: Vec<usize> = (0..total).collect();
        let some = &all[asked..total.min(asked + BATCHES * extract::batch(about.image_size))];
        if !some.is_empty() {
            let viewer = Viewer {
                encoder: self.session.network(),
                image_size: about.image_size,
                normalise: &about.normalise,
                layer: layer.as_ref(),
            };
            let found = self.session.on_threads(|| {
                looks::look(&[viewer], NEIGHBOUR_LOOKS, &*source, some, |done| {
                    self.cancel().check()?;
                    observer.event(Event::Measuring {
                        when: When::Before,
                        done: asked + done,
                        total,
                    })
                })
            })?;
            self.seen.add(KEY, found)?;
        }
        if self.seen.asked(KEY) == total
            && let Some(found) = self.seen.take(KEY)
        {
            self.session.keep_in_mind(&found.features, &found.photos)?;
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
            image_size: self.session.about().image_size,
            normalise: &self.session.about().normalise,
        }
    }

    /// The album's photos that its statistics are taken of.
    fn album_sample(&self) -> Vec<usize> {
        let seed = self.session.config().seed;
        measured::sample(self.judged_on.0.len(), whitening::MAX_PHOTOS, seed)
    }

    /// The photos that are measured.
    fn measured_sample(&self) -> Vec<usize> {
        let config = self.session.config();
        measured::sample(self.measured_on.len(), config.measure_photos, config.seed)
    }

    /// Whether the photos measured are those that statistics are taken of: then one look does for both.
    fn one_sample(&self) -> bool {
        Arc::ptr_eq(&self.judged_on.0, &self.measured_on)
            && self.album_sample() == self.measured_sample()
    }

    /// Photos that [`Course::layer`] and [`Course::looks`] look at together.
    fn looks_in_all(&self) -> usize {
        let (album, measured) = (self.album_sample().len(), self.measured_sample().len());
        match (self.session.config().whitening, self.one_sample()) {
            (false, _) => 3 * measured,
            (true, true) => 4 * measured,
            (true, false) => 2 * album + 3 * measured,
        }
    }

    /// The key of the plain album, and of the photos measured.
    fn plain_keys(&self, part: &str) -> (String, String) {
        let album = format!("{part} album plain");
        let measured = match self.one_sample() && self.session.config().whitening {
            true => album.clone(),
            false => format!("{part} measured plain"),
        };
        (album, measured)
    }

    /// The linear layer that the album's statistics come to with the weights as they are, in this part of
    /// the run; pending where there are more photos to look at. The layer is `None` where the album has
    /// too few photos, or none is asked for.
    pub(super) fn layer(
        &mut self,
        part: &'static str,
        when: When,
        observer: &mut dyn Observer,
    ) -> Result<Poll<Option<LinearLayer>>> {
        if !self.session.config().whitening {
            return Ok(Poll::Ready(None));
        }
        if let Some((fitted, layer)) = &self.fitted
            && *fitted == part
        {
            return Ok(Poll::Ready(layer.clone()));
        }
        let (album, sample) = (self.judged_on.0.clone(), self.album_sample());
        let total = self.looks_in_all();
        let (plain, shared) = self.plain_keys(part);
        let mirrored = format!("{part} album mirrored");
        for (i, (key, look)) in [(&plain, Look::Plain), (&mirrored, Look::Mirrored)]
            .into_iter()
            .enumerate()
        {
            let pass = Pass {
                key: key.clone(),
                source: &album,
                sample: &sample,
                look,
            };
            let mut tell = |done: usize| {
                let done = i * sample.len() + done;
                observer.event(Event::Measuring { when, done, total })
            };
            if !self.look(&pass, &mut tell)? {
                return Ok(Poll::Pending);
            }
        }
        let layer = {
            let (plain, mirrored) = (self.pass(&plain)?, self.pass(&mirrored)?);
            let (plain, mirrored) = common_rows(plain, mirrored);
            self.session
                .on_threads(|| whitening::fit(&plain, &mirrored))?
        };
        drop(self.seen.take(&mirrored));
        if shared != plain {
            drop(self.seen.take(&plain));
        }
        self.fitted = Some((part, layer.clone()));
        Ok(Poll::Ready(layer))
    }

    /// What it takes to measure the weights as they are, in this part of the run; pending where there are
    /// more photos to look at. Everything that was seen in the part is then forgotten.
    pub(super) fn looks(
        &mut self,
        part: &'static str,
        when: When,
        observer: &mut dyn Observer,
    ) -> Result<Poll<Looks>> {
        let (source, sample) = (self.measured_on.clone(), self.measured_sample());
        let (total, seed) = (self.looks_in_all(), self.session.config().seed);
        // What the layer took, where it did.
        let before = total - 3 * sample.len();
        let plain = self.plain_keys(part).1;
        let keys = [
            plain.clone(),
            format!("{part} first view"),
            format!("{part} second view"),
        ];
        for (i, key) in keys.iter().enumerate() {
            let readable = match i {
                0 => None,
                _ => Some(self.pass(&plain)?.photos.clone()),
            };
            let pass = Pass {
                key: key.clone(),
                source: &source,
                sample: readable.as_deref().unwrap_or(&sample),
                look: match i {
                    0 => Look::Plain,
                    i => measured::view(i as u64 - 1, seed)?,
                },
            };
            let mut tell = |done: usize| {
                let done = before + i * sample.len() + done;
                observer.event(Event::Measuring { when, done, total })
            };
            if !self.look(&pass, &mut tell)? {
                return Ok(Poll::Pending);
            }
        }
        let [plain, first, second] = keys;
        let (plain, first, second) = (
            self.seen.take(&plain),
            self.seen.take(&first),
            self.seen.take(&second),
        );
        let (Some(plain), Some(first), Some(second)) = (plain, first, second) else {
            return Err(unseen("a measurement"));
        };
        // A photo that vanished meanwhile would shift the rows.
        let whole = first.photos == plain.photos && second.photos == plain.photos;
        Ok(Poll::Ready(Looks {
            labels: measured::labels(&*source, &plain.photos),
            views: whole.then_some((first.features, second.features)),
            plain,
        }))
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

    /// What a pass that is through has seen.
    pub(super) fn pass(&self, key: &str) -> Result<&Extracted> {
        self.seen.pass(key).ok_or_else(|| unseen(key))
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

/// Features of the photos that both passes could read, row by row.
fn common_rows<'a>(
    plain: &'a Extracted,
    mirrored: &'a Extracted,
) -> (Cow<'a, Features>, Cow<'a, Features>) {
    if plain.photos == mirrored.photos {
        return (
            Cow::Borrowed(&plain.features),
            Cow::Borrowed(&mirrored.features),
        );
    }
    let rows = |of: &Extracted, others: &Extracted| {
        let kept: Vec<usize> = (0..of.photos.len())
            .filter(|&row| others.photos.binary_search(&of.photos[row]).is_ok())
            .collect();
        Cow::Owned(of.features.select(&kept))
    };
    (rows(plain, mirrored), rows(mirrored, plain))
}
