//! A run: `step()` is one optimizer step, and the caller owns the loop. Not calling it is a pause.
//!
//! A session owns photos, method, optimizer, schedule and threads, knows its place in the run, and
//! can be saved and resumed at every step with the same result to the bit. A step is taken wholly
//! or not at all: one that is cancelled leaves nothing, and is taken again by the next `step()`.

mod build;
pub mod finish;
pub mod forecast;
pub mod memory;
mod neighbours;
pub(crate) mod plan;
mod run;
mod thread;
mod trainer;
mod untrained;

pub use build::{Foreign, Guide, Start, fit};
pub(crate) use build::{moco_config, optimizer, training_mode};
pub use thread::{helpful, on_own_threads, threads};

use crate::checkpoint::{self, Album, Before, Numbers, State};
use crate::config::Config;
use crate::schedule::Schedule;
use crate::weights::About;
use crate::{Error, Result};
use rayon::ThreadPool;
use seedling_base::cancel::Cancel;
use seedling_data::{Batch, Loader, LoaderConfig, PhotoSource, Position, Skipped};
use seedling_nn::encoder::FeatureNet;
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;
use std::sync::Arc;
use trainer::Trainer;

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The epoch this step belongs to, counted from 0.
    pub epoch: u64,
    /// Whether it was its epoch's last.
    pub epoch_ends: bool,
    /// The learning rate it was taken with.
    pub lr: f64,
    /// Loss, agreement and spread.
    pub stats: StepStats,
    /// Photos in its batch.
    pub photos: usize,
    /// Photos found unreadable so far.
    pub skipped: usize,
}

/// A run in progress.
pub struct Session {
    config: Config,
    about: About,
    source: Arc<dyn PhotoSource>,
    album: Album,
    before: Option<Before>,
    /// SHA-256 of the teacher's weights, where there is one.
    teacher: Option<String>,
    loading: LoaderConfig,
    /// Made when the first step asks for a batch: a run that only looks at photos makes none.
    loader: Option<Loader>,
    /// All that is on the engine.
    trainer: Box<dyn Trainer>,
    schedule: Schedule,
    step: u64,
    /// The photos of a step that was cancelled.
    pending: Option<Batch>,
    cancel: Cancel,
    pool: Arc<ThreadPool>,
}

impl Session {
    /// Takes one optimizer step.
    ///
    /// # Errors
    /// Someone has cancelled, and nothing has happened; too few photos are readable; or loss or
    /// gradient is not finite: the parameters are then as they were before the step, and whoever
    /// holds a checkpoint can go back to it.
    pub fn step(&mut self) -> Result<Progress> {
        let pool = self.pool.clone();
        pool.install(|| self.step_here())
    }

    fn step_here(&mut self) -> Result<Progress> {
        if self.wants_neighbours() {
            let album = self.album_in_mind()?;
            self.trainer.keep_in_mind(album)?;
        }
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => self.loader()?.next_batch()?,
        };
        let side = self.config.image_size;
        let (epoch, photos) = (batch.epoch, batch.photos.len());
        let views = Views {
            pixels: &batch,
            size: (side, side),
            photos: &batch.photos,
        };
        let stats = match self.trainer.learn(&views, self.step) {
            Ok(stats) => stats,
            Err(error) => {
                self.pending = Some(batch);
                return Err(error);
            }
        };
        let skipped = self.loader.as_ref().map_or(0, |loader| {
            loader.recycle(batch);
            loader.skipped().len()
        });
        let lr = self.schedule.lr(self.step as usize);
        if !stats.loss.is_finite() || !self.trainer.update(lr as f32)? {
            return Err(Error::Training(format!(
                "training diverged at step {} (loss {}); a lower lr than {} may help",
                self.step + 1,
                stats.loss,
                self.config.lr
            )));
        }
        self.step += 1;
        Ok(Progress {
            step: self.step,
            steps: self.steps(),
            epoch,
            epoch_ends: self.step.is_multiple_of(self.steps_per_epoch()),
            lr,
            stats,
            photos,
            skipped,
        })
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.step >= self.steps()
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.schedule.steps as u64
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.schedule.steps_per_epoch as u64
    }

    /// Stops the step, or whatever else of this session runs, when it is asked to; from any thread.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Does `work` on this session's threads, and waits for it.
    pub fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }

    /// The settings, resolved.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What is trained, and how pixels become its inputs.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The photos.
    pub fn source(&self) -> &Arc<dyn PhotoSource> {
        &self.source
    }

    /// The measurement before training, where it was taken ([`Session::took_before`]).
    pub fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    /// Takes the measurement before training into the checkpoints.
    pub fn took_before(&mut self, before: Before) {
        self.before = Some(before);
    }

    /// The network that is trained, for measurements between steps.
    pub fn network(&self) -> &dyn FeatureNet {
        self.trainer.network()
    }

    /// Shows `see` all numbers that training changes, as a checkpoint keeps them.
    ///
    /// # Errors
    /// The engine's, or what `see` says.
    pub fn numbers(&self, see: &mut dyn FnMut(Numbers<'_>) -> Result<()>) -> Result<()> {
        self.trainer.numbers(see)
    }

    /// Ids of the photos that could not be read so far, and why.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.loader.as_ref().map_or_else(Vec::new, Loader::skipped)
    }

    /// What makes batches, at the place of the next step.
    fn loader(&mut self) -> Result<&mut Loader> {
        let loader = match self.loader.take() {
            Some(loader) => loader,
            None => {
                let epoch = self.steps_per_epoch();
                let position = Position {
                    epoch: self.step / epoch,
                    step: self.step % epoch,
                };
                Loader::new(self.source.clone(), self.loading.clone(), position)?
            }
        };
        Ok(self.loader.insert(loader))
    }

    /// Saves everything into the run folder `folder`, atomically (see [`checkpoint::save`]).
    ///
    /// # Errors
    /// The disk refuses; the checkpoint before is then still there.
    pub fn checkpoint(&self, folder: &Path) -> Result<()> {
        self.trainer.numbers(&mut |numbers| {
            let state = State {
                config: self.config.clone(),
                album: self.album.clone(),
                before: self.before.clone(),
                teacher: self.teacher.clone(),
                about: self.about.clone(),
                step: self.step,
                // Borrowed while they are written: copies would be the run's peak of memory.
                numbers,
            };
            checkpoint::save(folder, &state)
        })
    }
}
