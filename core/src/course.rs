//! The course of a run, the same for a command line and a phone: measure, train, measure again,
//! leave weights. In its folder it keeps log, settings and checkpoints, so that it can be killed at
//! any moment and gone on with.
//!
//! The caller owns the loop:
//!
//! ```ignore
//! while course.advance(&mut observer)? == Phase::Going {}
//! ```
//!
//! [`Course::cancel`] stops it within a micro-batch, from any thread; what was trained is saved.

mod beginning;
mod event;
mod folder;
mod watch;

pub use beginning::Sources;
pub use event::{Event, Observer};
pub use folder::{CONFIG_FILE, RunFolder, forget};

use crate::atomic;
use crate::cancel::Cancel;
use crate::checkpoint::{Album, Before};
use crate::data::PhotoSource;
use crate::eval::extract::{Extracted, Extractor, Look};
use crate::eval::{Metric, collapse_warning, measure_photos, measured};
use crate::records::{
    self, MeasureRecord, MetricsWriter, Record, RunRecord, StepRecord, VerdictRecord, When,
};
use crate::session::Session;
use crate::verdict::Jury;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use watch::Watch;

/// A run on its way.
pub struct Course {
    folder: RunFolder,
    session: Session,
    /// The photos to measure on: the session's, or held-out ones.
    measured_on: Arc<dyn PhotoSource>,
    /// The photos to judge by, and which of them were held out.
    judged_on: (Arc<dyn PhotoSource>, Vec<usize>),
    /// `adapt`, `pretrain` or `distill`.
    method: String,
    next: Next,
    log: MetricsWriter,
    watch: Watch,
    /// Whether batches were seen to be smaller than asked for.
    short: bool,
    /// Seconds spent in [`Course::advance`].
    seconds: f64,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Before,
    Step,
    After,
    Nothing,
}

/// How far a course is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is more to do.
    Going,
    /// It was cancelled. What was trained is saved; `advance` would go on, once the wish is
    /// forgotten ([`Cancel::forget`]).
    Cancelled,
    /// Weights, measurements and log are complete.
    Done,
}

impl Course {
    /// Of `session`, measured on `measured_on`, in `folder`, which was opened new for a new session,
    /// or for resuming for one that was resumed. `method` is its name in log and weights.
    ///
    /// # Errors
    /// The folder cannot be written, or `measured_on` is not what a resumed run was measured on.
    pub fn new(
        folder: RunFolder,
        session: Session,
        measured_on: Arc<dyn PhotoSource>,
        method: &str,
    ) -> Result<Course> {
        // Before and after are compared: both have to be taken on the same photos.
        if let Some(before) = session.before()
            && before.photos != Album::of(&*measured_on)
        {
            return Err(Error::NoPhotos(format!(
                "the photos to measure on are not those measured before training ({} then, {} \
                 now, or other names); name the same ones with --measure-on",
                before.photos.photos,
                measured_on.len()
            )));
        }
        let log = match folder.resumed {
            false => MetricsWriter::create(&folder.path)?,
            true => MetricsWriter::resume(&folder.path, session.steps_done())?,
        };
        Ok(Course {
            folder,
            session,
            judged_on: (measured_on.clone(), Vec::new()),
            measured_on,
            method: method.into(),
            next: Next::Before,
            log,
            watch: Watch::default(),
            short: false,
            seconds: 0.0,
        })
    }

    /// What is trained.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where it lives.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Whether it goes on with an earlier process's run.
    pub fn resumed(&self) -> bool {
        self.folder.resumed
    }

    /// Stops it when it is asked to.
    pub fn cancel(&self) -> &Cancel {
        self.session.cancel()
    }

    /// Whether the run could be resumed if it ended now.
    pub fn is_saved(&self) -> bool {
        self.session.before().is_some()
    }

    /// Does the next thing: a measurement, a step (with what follows it), or the end.
    ///
    /// # Errors
    /// Photos, disk or training; one line says what and what to do. A new run that fails before its
    /// first step leaves no folder.
    pub fn advance(&mut self, observer: &mut dyn Observer) -> Result<Phase> {
        let start = observer.seconds();
        let outcome = self.cancel().check().and_then(|()| match self.next {
            Next::Before => self.before(observer),
            Next::Step => self.step(observer),
            Next::After => self.after(observer, start),
            Next::Nothing => Ok(()),
        });
        self.seconds += observer.seconds() - start;
        match outcome {
            Ok(()) if self.next == Next::Nothing => Ok(Phase::Done),
            Ok(()) => Ok(Phase::Going),
            Err(Error::Cancelled) => {
                if self.is_saved() {
                    self.save(observer)?;
                }
                Ok(Phase::Cancelled)
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
    /// log has lost.
    fn before(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let settings = self.session.config().to_toml();
        atomic::write(&self.folder.path.join(CONFIG_FILE), |file| {
            file.write_all(settings.as_bytes())
        })?;
        let log = records::read(&self.folder.path.join(records::FILE_NAME))?;
        let logged = |r: &Record| matches!(r, Record::Measure(m) if m.when == When::Before);
        if !log.iter().any(logged) {
            match self.session.before() {
                Some(before) => {
                    let record = serde_json::from_str(&before.figures).map_err(|e| {
                        let reason =
                            format!("its measurement before training is not readable ({e})");
                        Error::file(&self.folder.path, reason)
                    })?;
                    self.append(&record, observer)?;
                }
                None if self.session.steps_done() > 0 => {
                    return Err(Error::file(
                        self.folder.path.join(records::FILE_NAME),
                        "the measurement before training is missing, and can't be taken any more; \
                         put the log back, or start a new run",
                    ));
                }
                None => self.take_before(observer)?,
            }
        }
        self.go_on();
        Ok(())
    }

    fn take_before(&mut self, observer: &mut dyn Observer) -> Result<()> {
        let record = self.measure(When::Before, observer)?;
        let figures = serde_json::to_string(&Record::Measure(record)).map_err(|e| {
            let reason = format!("a measurement can't be written ({e})");
            Error::file(&self.folder.path, reason)
        })?;
        let photos = Album::of(&*self.measured_on);
        self.session.took_before(Before { photos, figures });
        self.save(observer)?;
        // From here on the run can be resumed, whatever becomes of this process.
        self.folder.keep();
        Ok(())
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
        let progress = self.session.step()?;
        let photos_per_second = progress.photos as f64 / (observer.seconds() - start).max(1e-9);
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
        })?;
        let asked = self.session.config().batch_size;
        if progress.photos < asked && !self.short {
            self.short = true;
            observer.event(Event::Note(&format!(
                "too few photos can be read for batches of {asked}: training with {} at a time",
                progress.photos
            )))?;
        }
        if let Some(warning) = self.watch.look(&progress) {
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

    /// Statistics, mix, and what comes of them. A checkpoint of a run that is stopped in here holds
    /// what was trained, unmixed.
    fn after(&mut self, observer: &mut dyn Observer, start: f64) -> Result<()> {
        self.session.reestimate_statistics()?;
        let share = match self.session.config().judges() {
            true => self.judge(observer)?,
            false => self.session.config().mix,
        };
        let mixed = self.session.mix(share)?;
        let finished = self.finish(observer, start);
        if finished.is_err() {
            self.session.unmix(&mixed)?;
        }
        finished
    }

    /// The share of what training has changed that serves best: `mix`, half of it, or nothing.
    fn judge(&mut self, observer: &mut dyn Observer) -> Result<f64> {
        let (mix, seed) = (self.session.config().mix, self.session.config().seed);
        let initial = self.features_of(0.0, (0, 3), observer)?;
        let out = &self.judged_on.1;
        let rows = initial.photos.iter().enumerate();
        let held = rows.filter_map(|(row, photo)| out.binary_search(photo).ok().map(|_| row));
        let mut jury = Jury::new(&initial.features, held.collect(), seed)?;
        if jury.can_judge() {
            for (look, share) in [mix / 2.0, mix].into_iter().enumerate() {
                let features = self.features_of(share, (1 + look, 3), observer)?;
                jury.hear(share, &features.features)?;
            }
        }
        let verdict = jury.decide();
        let share = verdict.share;
        let record = Record::Verdict(VerdictRecord {
            step: self.session.steps_done(),
            accepted: verdict.accepted(),
            sentence: verdict.sentence(),
            verdict,
        });
        self.append(&record, observer)?;
        Ok(share)
    }

    /// Features of the photos to judge by with a share of what training has changed; the network
    /// is then what it was. `look` out of how many it is.
    fn features_of(
        &mut self,
        share: f64,
        (look, looks): (usize, usize),
        observer: &mut dyn Observer,
    ) -> Result<Extracted> {
        let mixed = self.session.mix(share)?;
        let found = {
            let (session, config) = (&self.session, self.session.config());
            let album = &*self.judged_on.0;
            let extractor = self.extractor(album);
            let sample = measured::sample(album.len(), config.measure_photos, config.seed);
            let total = looks * sample.len();
            session.on_threads(|| {
                extractor.features(&sample, &Look::Plain, |done| {
                    self.cancel().check()?;
                    let done = look * sample.len() + done;
                    observer.event(Event::Judging { done, total })
                })
            })
        };
        self.session.unmix(&mixed)?;
        found
    }

    fn extractor<'a>(&'a self, source: &'a dyn PhotoSource) -> Extractor<'a> {
        Extractor {
            encoder: self.session.network(),
            source,
            image_size: self.session.about().image_size,
            normalise: &self.session.about().normalise,
        }
    }

    /// Weights, the measurement after training, and the log's last line.
    fn finish(&mut self, observer: &mut dyn Observer, start: f64) -> Result<()> {
        let weights = self.save_weights()?;
        if let Some(warning) = self.measure(When::After, observer)?.collapse {
            observer.event(Event::Warning(&warning))?;
        }
        let skipped = self.session.skipped();
        let facts = RunRecord {
            step: self.session.steps(),
            method: self.method.clone(),
            photos: Some(self.session.source().len() as u64),
            skipped: Some(skipped.len() as u64),
            seconds: Some(self.seconds + observer.seconds() - start),
            peak_memory_mb: observer.peak_memory_mb(),
        };
        self.append(&Record::Run(facts.clone()), observer)?;
        self.log.sync()?;
        self.next = Next::Nothing;
        observer.event(Event::Finished {
            weights: &weights,
            facts: &facts,
            skipped: &skipped,
        })
    }

    fn go_on(&mut self) {
        self.next = match self.session.is_done() {
            true => Next::After,
            false => Next::Step,
        };
    }

    /// On the session's threads, with the same sample and views each time; logged, and shown to
    /// the observer.
    fn measure(&mut self, when: When, observer: &mut dyn Observer) -> Result<Box<MeasureRecord>> {
        let (session, config) = (&self.session, self.session.config());
        let extractor = self.extractor(&*self.measured_on);
        let photos = self.measured_on.len();
        let sample = measured::sample(photos, config.measure_photos, config.seed);
        let how = (config.seed, Metric::Euclidean);
        let measured = session.on_threads(|| {
            measure_photos(&extractor, &sample, how, (true, true), |done, total| {
                self.cancel().check()?;
                observer.event(Event::Measuring { when, done, total })
            })
        })?;
        let mut record = MeasureRecord::new(session.steps_done(), when, &measured.figures);
        record.collapse = collapse_warning(&measured.features);
        let record = Box::new(record);
        self.append(&Record::Measure(record.clone()), observer)?;
        observer.event(Event::Measured {
            when,
            measured: &measured,
            source: &*self.measured_on,
        })?;
        Ok(record)
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

    /// With how they came about in their header.
    fn save_weights(&self) -> Result<PathBuf> {
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
        let made = format!(
            "seedling {} {}: {} steps of {} photos out of {} at {} px from {from}{teacher}, seed {}",
            env!("CARGO_PKG_VERSION"),
            self.method,
            self.session.steps(),
            config.batch_size,
            self.session.source().len(),
            config.image_size,
            config.seed
        );
        self.session.save_weights(&self.folder.path, &made)
    }
}

#[cfg(test)]
mod tests;
