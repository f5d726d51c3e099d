//! A whole run, the same for a command line and a phone: measure, train, measure again,
//! leave weights. In its folder it keeps log, settings and checkpoints, so that it can be killed at
//! any moment and resumed.
//!
//! The caller owns the loop:
//!
//! ```ignore
//! while run.advance(&mut observer)? == Phase::Going {}
//! ```
//!
//! [`TrainingRun::cancel`] stops it within a micro-batch, from any thread; what was trained is saved.

mod ending;
mod event;
mod extraction;
mod feature_cache;
mod folder;
mod start;
mod watch;

pub use event::{Event, Observer, Waits};
pub use folder::{BUSY, CONFIG_FILE, RunFolder, forget};
pub use start::Sources;

use crate::checkpoint::{Before, ClosedForm, DatasetFingerprint};
use crate::records::{self, MeasureRecord, MetricsWriter, Record, StepRecord, When};
use crate::session::Session;
use crate::{Error, Result};
use ending::Ending;
use feature_cache::FeatureCache;
use seedling_base::atomic;
use seedling_base::cancel::CancelToken;
use seedling_data::{PhotoSource, Skipped};
use seedling_nn::encoder::LinearLayer;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use watch::Watch;

/// Where the closed form was asked for and is none.
const TOO_FEW: &str = "too few photos (or all alike) for statistics of the dataset: the features stay as the \
                       weights give them";

/// A run on its way.
pub struct TrainingRun {
    folder: RunFolder,
    session: Box<Session>,
    /// The photos to measure on: the session's, or held-out ones.
    measured_on: Arc<dyn PhotoSource>,
    /// The photos to judge by, and which of them were held out.
    selection: (Arc<dyn PhotoSource>, Vec<usize>),
    /// `adapt`, `pretrain` or `distill`.
    method: String,
    next: Next,
    /// What was seen of photos, in a part of the run that is not through yet.
    cache: FeatureCache,
    /// The linear layer that a part of the run came to, if any.
    fitted: Option<(&'static str, Option<LinearLayer>)>,
    ending: Ending,
    /// Whether there is a checkpoint.
    saved: bool,
    /// Photos that could not be read before training.
    unreadable: Vec<Skipped>,
    log: MetricsWriter,
    watch: Watch,
    /// Whether batches were seen to be smaller than asked for.
    short: bool,
    /// Whether a GPU has taken a step.
    compiled: bool,
    /// Seconds spent in [`TrainingRun::advance`].
    seconds: f64,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Before,
    Neighbors,
    Step,
    After,
    Nothing,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is more to do.
    Going,
    /// It was canceled. What was trained is saved; `advance` would continue, once the token is
    /// reset ([`CancelToken::reset`]).
    Canceled,
    /// Weights, measurements and log are complete.
    Done,
}

impl TrainingRun {
    /// Of `session`, measured on `measured_on`, in `folder`, which was opened new for a new session,
    /// or for resuming for one that was resumed. `method` is its name in log and weights.
    ///
    /// # Errors
    /// The folder cannot be written, or `measured_on` is not what a resumed run was measured on.
    pub fn new(
        folder: RunFolder,
        session: Box<Session>,
        measured_on: Arc<dyn PhotoSource>,
        method: &str,
    ) -> Result<TrainingRun> {
        // Before and after are compared: both have to be taken on the same photos.
        if let Some(before) = session.before()
            && before.photos != DatasetFingerprint::new(&*measured_on)
        {
            return Err(Error::NoPhotos(format!(
                "the photos to measure on are not those measured before training ({} then, {} \
                 now, or other names); name the same ones with --measure-on",
                before.photos.photos,
                measured_on.len()
            )));
        }
        // What was logged of a measurement that no checkpoint knows will be taken, and logged, again.
        let fresh = !folder.resumed || session.before().is_none() && session.steps_done() == 0;
        let log = match fresh {
            true => MetricsWriter::create(&folder.path)?,
            false => MetricsWriter::resume(&folder.path, session.steps_done())?,
        };
        let settings = session.config().to_toml();
        atomic::write(&folder.path.join(CONFIG_FILE), |file| {
            file.write_all(settings.as_bytes())
        })?;
        let resumed = folder.resumed;
        Ok(TrainingRun {
            cache: FeatureCache::open(&folder.path, resumed)?,
            fitted: None,
            ending: Ending::default(),
            saved: resumed,
            unreadable: Vec::new(),
            folder,
            session,
            selection: (measured_on.clone(), Vec::new()),
            measured_on,
            method: method.into(),
            next: Next::Before,
            log,
            watch: Watch::default(),
            short: false,
            compiled: false,
            seconds: 0.0,
        })
    }

    /// What is trained.
    pub fn session(&self) -> &Session {
        &*self.session
    }

    /// Where it lives.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Whether it continues with an earlier process's run.
    pub fn resumed(&self) -> bool {
        self.folder.resumed
    }

    /// Stops it when it is asked to.
    pub fn cancel(&self) -> &CancelToken {
        self.session.cancel()
    }

    /// Whether the run could be resumed if it ended now.
    pub fn is_saved(&self) -> bool {
        self.saved
    }

    /// Does the next thing: a measurement, a step (with what follows it), or the end.
    ///
    /// # Errors
    /// Photos, disk or training; one line says what and what to do. A new run that fails before its
    /// first step leaves no folder.
    pub fn advance(&mut self, observer: &mut dyn Observer) -> Result<Phase> {
        let start = observer.seconds();
        let outcome = self.cancel().check().and_then(|()| {
            // A run that continues has been measured before: what follows is the thing to do.
            if self.next == Next::Before && self.before(observer)? {
                return Ok(());
            }
            match self.next {
                Next::Before | Next::Nothing => Ok(()),
                Next::Neighbors => self.neighbors(observer),
                Next::Step => self.step(observer),
                Next::After => self.after(observer, start),
            }
        });
        self.seconds += observer.seconds() - start;
        match outcome {
            Ok(()) if self.next == Next::Nothing => Ok(Phase::Done),
            Ok(()) => Ok(Phase::Going),
            Err(Error::Canceled) => {
                if self.is_saved() {
                    self.save(observer)?;
                }
                Ok(Phase::Canceled)
            }
            Err(error) => {
                if !self.folder.resumed && self.session.steps_done() == 0 {
                    self.folder.give_up();
                }
                Err(error)
            }
        }
    }

    /// The measurement before training: taken, or what an earlier part of the run took and the
    /// log has lost. Says whether photos were processed for it.
    fn before(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let Some(before) = self.session.before().cloned() else {
            if self.session.steps_done() > 0 {
                return Err(Error::file(
                    &self.folder.path,
                    "the measurement before training is missing, and can't be taken any more; start a new run",
                ));
            }
            if self.take_before(observer)? {
                self.go_on();
            }
            return Ok(true);
        };
        let log = records::read(&self.folder.path.join(records::FILE_NAME))?;
        let logged = |r: &Record| matches!(r, Record::Measure(m) if m.when == When::Before);
        if !log.iter().any(logged) {
            let closed_form = before.closed_form.iter().map(|found| &found.figures);
            let figures = std::iter::once(&before.figures).chain(closed_form);
            for figures in figures {
                let record = self.as_written(figures)?;
                self.append(&Record::Measure(record), observer)?;
            }
        }
        self.go_on();
        Ok(false)
    }

    /// The measurement of the initial weights, and of the closed form behind them. Says whether it is taken:
    /// to be called again until it is.
    fn take_before(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let Poll::Ready((layer, views)) = self.extract_and_fit("before", When::Before, observer)?
        else {
            return Ok(false);
        };
        let through = layer.as_ref().map(|layer| views.through(layer));
        self.unreadable = views.plain.skipped.clone();
        let plain = self.figures(views)?;
        let record = self.record(When::Before, &plain, observer)?;
        drop(plain);
        let figures = self.written(record)?;
        let closed_form = match through.transpose()? {
            Some(views) => {
                let measured = self.figures(views)?;
                let record = self.record(When::ClosedForm, &measured, observer)?;
                let figures = self.written(record)?;
                Some(ClosedForm { layer, figures })
            }
            None => None,
        };
        if closed_form.is_none() && self.session.config().whitening {
            observer.event(Event::Note(TOO_FEW))?;
        }
        let photos = DatasetFingerprint::new(&*self.measured_on);
        self.session.took_before(Before {
            photos,
            figures,
            closed_form,
        });
        self.save(observer)?;
        self.folder.keep();
        self.saved = true;
        self.cache.clear()?;
        Ok(true)
    }

    /// A measurement as a checkpoint keeps it.
    fn written(&self, record: Box<MeasureRecord>) -> Result<String> {
        serde_json::to_string(&Record::Measure(record)).map_err(|e| {
            let reason = format!("a measurement can't be written ({e})");
            Error::file(&self.folder.path, reason)
        })
    }

    /// What [`TrainingRun::written`] has written.
    fn as_written(&self, figures: &str) -> Result<Box<MeasureRecord>> {
        let refuse = |why: &str| {
            let reason = format!("its measurement before training is not readable ({why})");
            Error::file(&self.folder.path, reason)
        };
        match serde_json::from_str(figures) {
            Ok(Record::Measure(record)) => Ok(record),
            Ok(_) => Err(refuse("another record")),
            Err(e) => Err(refuse(&e.to_string())),
        }
    }

    /// Saves what was trained, where the run can be resumed at all.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn save_now(&mut self) -> Result<()> {
        match self.is_saved() && self.next != Next::Nothing {
            true => self.write_checkpoint(),
            false => Ok(()),
        }
    }

    fn step(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let start = observer.seconds();
        self.session.prepare()?;
        let (ready, waited) = (observer.seconds(), self.session.waited_for_gpu());
        if waited.is_some() && !self.compiled {
            self.compiled = true;
            observer.event(Event::Compiling {
                done: self.session.steps_done(),
                steps: self.session.steps(),
            })?;
        }
        let progress = self.session.step()?;
        let seconds = (observer.seconds() - start).max(1e-9);
        let photos_per_second = progress.photos as f64 / seconds;
        let gpu = self.session.waited_for_gpu().zip(waited);
        let waits = Waits {
            photos: (ready - start) / seconds,
            gpu: gpu.map(|(after, before)| (after - before).as_secs_f64() / seconds),
        };
        self.append(
            &Record::Step(StepRecord {
                step: progress.step,
                epoch: progress.epoch,
                loss: f64::from(progress.stats.loss),
                lr: progress.lr,
                images_per_second: Some(photos_per_second),
                accuracy: Some(100.0 * f64::from(progress.stats.agreement.accuracy)),
                peak_memory_mb: None,
            }),
            observer,
        )?;
        observer.event(Event::Step {
            progress: &progress,
            photos_per_second,
            waits,
        })?;
        let asked = self.session.config().batch_size;
        if progress.photos < asked && !self.short {
            self.short = true;
            observer.event(Event::Note(&format!(
                "too few photos can be read for batches of {asked}: training with {} at a time",
                progress.photos
            )))?;
        }
        if let Some(warning) = self.watch.check(&progress) {
            observer.event(Event::Warning(&warning))?;
        }
        self.go_on();
        let config = self.session.config();
        let (every, measure_every) = (config.checkpoint_every as u64, config.measure_every as u64);
        let mut measure = false;
        if progress.epoch_ends {
            let mean_loss = self.watch.mean_loss();
            observer.event(Event::Epoch {
                progress: &progress,
                mean_loss,
            })?;
            let due = measure_every > 0 && (progress.epoch + 1).is_multiple_of(measure_every);
            measure = due && !self.session.is_done();
        }
        // What was trained is safe before anything else is done.
        if measure || self.session.is_done() || every > 0 && progress.step.is_multiple_of(every) {
            self.save(observer)?;
        }
        if measure {
            self.measure(When::During, observer)?;
        }
        Ok(())
    }

    fn go_on(&mut self) {
        let behind = self
            .session
            .before()
            .is_some_and(|b| b.closed_form.is_some());
        self.next = match self.session.is_done() {
            true => Next::After,
            // Without a closed form the session finds neighbors itself.
            false if behind && self.session.wants_neighbors() => Next::Neighbors,
            false => Next::Step,
        };
    }

    /// Measures the weights as they are, between steps.
    fn measure(&mut self, when: When, observer: &mut dyn Observer) -> Result<()> {
        let views = loop {
            let part = ("during", when);
            if let Poll::Ready((views, _)) = self.views(part, (0, false), observer)? {
                break views;
            }
        };
        let measured = self.figures(views)?;
        self.record(when, &measured, observer)?;
        self.cache.clear()
    }

    fn append(&mut self, record: &Record, observer: &mut dyn Observer) -> Result<()> {
        self.log.append(record)?;
        observer.event(Event::Record(record))
    }

    /// The log first: what it holds beyond a checkpoint is dropped on resuming, never missing.
    fn write_checkpoint(&mut self) -> Result<()> {
        self.log.sync()?;
        self.session.checkpoint(&self.folder.path)
    }

    fn save(&mut self, observer: &mut dyn Observer) -> Result<()> {
        self.write_checkpoint()?;
        let step = self.session.steps_done();
        observer.event(Event::Saved { step })
    }
}

#[cfg(test)]
mod tests;
