//! The end of a run: statistics, the verdict, the closed form behind what is kept, and the weights.

use super::event::{Event, Observer};
use super::extraction::Pass;
use super::{Next, TrainingRun};
use crate::checkpoint::ClosedForm;
use crate::records::{Record, RunRecord, VerdictRecord, When};
use crate::{Error, Result};
use seedling_nn::encoder::LinearLayer;
use seedling_ssl::eval::extract::EvalView;
use seedling_ssl::eval::neighborhood::LEAST_PHOTOS;
use seedling_ssl::eval::{Features, measured};
use seedling_ssl::verdict::{Untrained, Verdict, WeightSelector};
use std::path::{Path, PathBuf};
use std::task::Poll;

/// Its part of the run, in the names of passes over photos.
const PART: &str = "after";

/// How far the end of a run is, in this process.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// Whether batch norm's statistics were taken again.
    estimated: bool,
    /// The interpolation weight, once it is decided.
    interpolation: Option<f64>,
}

impl TrainingRun {
    /// Statistics, interpolation, and what comes of them. A checkpoint of a run that is stopped in here holds
    /// what was trained, without interpolation. To be called again until the run is done.
    pub(super) fn after(&mut self, observer: &mut dyn Observer, start: f64) -> Result<()> {
        if !self.session.config().trains() {
            return self.untrained(observer, start);
        }
        if !self.ending.estimated {
            self.session.reestimate_statistics()?;
            self.ending.estimated = true;
        }
        let interpolation = match (
            self.ending.interpolation,
            self.session.config().selects_weights(),
        ) {
            (Some(interpolation), _) => interpolation,
            (None, false) => self.session.config().interpolation,
            (None, true) => match self.select(observer)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(interpolation) => interpolation,
            },
        };
        self.ending.interpolation = Some(interpolation);
        let trained = self.session.interpolate(interpolation as f32)?;
        let finished = match interpolation > 0.0 || self.session.config().interpolation == 0.0 {
            true => self.trained(observer, start),
            // The initial weights: what was measured before holds.
            false => self.untrained(observer, start),
        };
        if finished.is_err() || self.next != Next::Nothing {
            self.session.undo_interpolation(trained.as_ref())?;
        }
        finished
    }

    /// The end of a run that leaves the initial weights, with the closed form behind them.
    fn untrained(&mut self, observer: &mut dyn Observer, start: f64) -> Result<()> {
        let before = self.session.before();
        let before = before.ok_or_else(|| Error::Training("nothing was measured".into()))?;
        let (layer, figures) = match &before.closed_form {
            Some(ClosedForm { layer, figures }) => (layer.clone(), figures),
            None => (None, &before.figures),
        };
        let mut record = self.as_written(figures)?;
        record.when = When::After;
        record.step = self.session.steps_done();
        let weights = self.save_weights(layer.as_ref())?;
        let config = self.session.config();
        if !config.trains() {
            let few = self.selection.0.len() < config.train_from;
            let train_from = config.train_from;
            let verdict = Verdict {
                untrained: Some(match few {
                    true => Untrained::FewPhotos { train_from },
                    false => Untrained::NoSteps,
                }),
                photos: self.selection.0.len(),
                closed_form: layer.is_some(),
                ..Verdict::default()
            };
            self.decided(verdict, observer)?;
        }
        self.append(&Record::Measure(record), observer)?;
        self.finish(weights, observer, start)
    }

    /// Writes down what was decided.
    fn decided(&mut self, verdict: Verdict, observer: &mut dyn Observer) -> Result<()> {
        let record = Record::Verdict(VerdictRecord {
            step: self.session.steps_done(),
            accepted: verdict.accepted(),
            sentence: verdict.sentence(),
            verdict,
        });
        self.append(&record, observer)
    }

    /// The end of a run that leaves what it has trained, with a closed form of its own behind it.
    fn trained(&mut self, observer: &mut dyn Observer, start: f64) -> Result<()> {
        let Poll::Ready((layer, views)) = self.extract_and_fit(PART, When::After, observer)? else {
            return Ok(());
        };
        let views = match &layer {
            Some(layer) => views.through(layer)?,
            None => views,
        };
        let measured = self.figures(views)?;
        let weights = self.save_weights(layer.as_ref())?;
        let record = self.record(When::After, &measured, observer)?;
        if let Some(warning) = record.collapse {
            observer.event(Event::Warning(&warning))?;
        }
        self.finish(weights, observer, start)
    }

    /// The interpolation weight that serves best: `interpolation`, half of it, or 0.
    fn select(&mut self, observer: &mut dyn Observer) -> Result<Poll<f64>> {
        let interpolation = self.session.config().interpolation;
        let mut weights = &[0.0, interpolation / 2.0, interpolation][..];
        for candidate in 0..weights.len() {
            if !self.extract_with(weights[candidate], (candidate, weights.len()), observer)? {
                return Ok(Poll::Pending);
            }
            if self.cached(&selection_key(0))?.1.len() < LEAST_PHOTOS {
                // Nothing can be told from so few.
                weights = &weights[..1];
                break;
            }
        }
        let (_, photos) = self.cached(&selection_key(0))?;
        let out = &self.selection.1;
        let rows = photos.iter().enumerate();
        let held = rows.filter_map(|(row, photo)| out.binary_search(photo).ok().map(|_| row));
        let features = (0..weights.len())
            .map(|candidate| Ok(self.cached(&selection_key(candidate))?.0))
            .collect::<Result<Vec<&Features>>>()?;
        let verdict = self.session.on_threads(|| {
            let mut selector = WeightSelector::new(features[0], held.collect())?;
            for (&interpolation, features) in weights.iter().zip(&features).skip(1) {
                selector.add(interpolation, features)?;
            }
            Ok::<_, Error>(selector.decide())
        })?;
        let before = self.session.before();
        let closed_form = before.and_then(|before| before.closed_form.as_ref());
        let verdict = Verdict {
            closed_form: closed_form.is_some_and(|found| found.layer.is_some()),
            ..verdict
        };
        (0..weights.len()).for_each(|candidate| drop(self.cache.take(&selection_key(candidate))));
        let interpolation = verdict.interpolation;
        self.decided(verdict, observer)?;
        Ok(Poll::Ready(interpolation))
    }

    /// Extracts features of some of the selection photos with interpolated weights; the network is then
    /// what it was. Says whether all photos are done. This is number `candidate` of `candidates` weights.
    fn extract_with(
        &mut self,
        interpolation: f64,
        (candidate, candidates): (usize, usize),
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let (source, config) = (self.selection.0.clone(), self.session.config());
        let sample = measured::sample(source.len(), config.measure_photos, config.seed);
        let pass = Pass {
            key: selection_key(candidate),
            source: &source,
            sample: &sample,
            views: &[EvalView::Plain],
        };
        if self.cache.processed(&pass.key) == sample.len() {
            return Ok(true);
        }
        let trained = self.session.interpolate(interpolation as f32)?;
        let total = candidates * sample.len();
        let whole = self.extract(&pass, &mut |done| {
            let done = candidate * sample.len() + done;
            observer.event(Event::Selecting { done, total })
        });
        self.session.undo_interpolation(trained.as_ref())?;
        whole
    }

    /// The log's last line.
    fn finish(&mut self, weights: PathBuf, observer: &mut dyn Observer, start: f64) -> Result<()> {
        let skipped = match self.session.skipped() {
            found if found.is_empty() => std::mem::take(&mut self.unreadable),
            found => found,
        };
        let facts = RunRecord {
            step: self.session.steps_done(),
            method: self.method.clone(),
            photos: Some(self.selection.0.len() as u64),
            trained_on: Some(self.session.source().len() as u64),
            skipped: Some(skipped.len() as u64),
            left_out: Some(self.session.source().left_out().len() as u64),
            seconds: Some(self.seconds + observer.seconds() - start),
            peak_memory_mb: observer.peak_memory_mb(),
        };
        self.append(&Record::Run(facts.clone()), observer)?;
        self.log.sync()?;
        self.cache.clear()?;
        self.next = Next::Nothing;
        observer.event(Event::Finished {
            weights: &weights,
            facts: &facts,
            skipped: &skipped,
        })
    }

    /// With how they came about in their header.
    fn save_weights(&self, layer: Option<&LinearLayer>) -> Result<PathBuf> {
        let config = self.session.config();
        let from = match config.init.as_str() {
            "random" => "random weights".to_string(),
            "shipped" => "the shipped weights".to_string(),
            path => Path::new(path)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
        };
        let teacher = match self.method.as_str() {
            "distill" => {
                let file = Path::new(&config.teacher).file_name().unwrap_or_default();
                format!(", teacher {}", file.to_string_lossy())
            }
            _ => String::new(),
        };
        let trained = match self.session.steps() {
            0 => format!("untrained, from {from}"),
            steps => format!(
                "{steps} steps of {} photos out of {} at {} px from {from}{teacher}",
                config.batch_size,
                self.session.source().len(),
                config.image_size
            ),
        };
        let fitted = match layer {
            None => String::new(),
            Some(_) => format!(
                "; a linear layer from the statistics of {} photos",
                self.selection
                    .0
                    .len()
                    .min(seedling_ssl::whitening::MAX_PHOTOS)
            ),
        };
        let made = format!(
            "seedling {} {}: {trained}{fitted}, seed {}",
            env!("CARGO_PKG_VERSION"),
            self.method,
            config.seed
        );
        self.session.save_weights(&self.folder.path, &made, layer)
    }
}

/// The key of a pass with what the verdict is asked about.
fn selection_key(candidate: usize) -> String {
    format!("select {candidate}")
}
