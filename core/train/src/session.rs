//! A run: `step()` is one optimizer step, and the caller owns the loop. Not calling it is a pause.
//!
//! A session owns photos, method, optimizer, schedule and threads, knows its place in the run, and
//! can be saved and resumed at every step with the same result to the bit. A step is taken wholly
//! or not at all: one that is canceled leaves nothing, and is taken again by the next `step()`.

mod build;
pub mod finish;
mod neighbors;
mod open;
mod state;
mod trained;
mod trainer;
mod untrained;

pub use crate::start::{Foreign, Start, TeacherSource};
pub use crate::threads::{helpful, on_own_threads, threads};
pub use build::fit;
pub use state::RunState;
pub use trainer::Trainer;

use crate::checkpoint::{self, Before, State};
use crate::config::Config;
use crate::weights::ModelMetadata;
use crate::{Error, Result};
use seedling_base::cancel::CancelToken;
use seedling_data::{PhotoSource, Skipped};
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A run in progress, on whatever backend.
pub type Session = dyn Trainer;

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

impl Session {
    /// Waits for the photos of the next step, which does so itself otherwise: as where the dataset has to be
    /// embedded before, so that no photos are decoded beside that.
    ///
    /// # Errors
    /// Too few photos are readable.
    pub fn prepare(&mut self) -> Result<()> {
        if self.wants_neighbors() {
            return Ok(());
        }
        let pool = self.state().pool.clone();
        pool.install(|| {
            let state = self.state_mut();
            state.pending = Some(state.next_batch()?);
            Ok(())
        })
    }

    /// How long a GPU has been waited for so far; nothing on a CPU.
    pub fn waited_for_gpu(&self) -> Option<Duration> {
        self.launch_stats().map(|stats| stats.waited)
    }

    /// Takes one optimizer step.
    ///
    /// # Errors
    /// Someone has canceled, and nothing has happened; too few photos are readable; or loss or
    /// gradient is not finite: the parameters are then as they were before the step, and whoever
    /// holds a checkpoint can go back to it.
    pub fn step(&mut self) -> Result<Progress> {
        let pool = self.state().pool.clone();
        pool.install(|| {
            if self.wants_neighbors() {
                let embeddings = self.initial_embeddings()?;
                self.set_initial_embeddings(embeddings)?;
            }
            let state = self.state_mut();
            let batch = state.next_batch()?;
            let (side, step) = (state.config.image_size, state.step);
            let lr = state.schedule.lr(step as usize);
            let views = Views {
                pixels: &batch,
                size: (side, side),
                photos: &batch.photos,
            };
            let stats = self.learn(&views, step, lr as f32);
            let (epoch, photos) = (batch.epoch, batch.photos.len());
            let state = self.state_mut();
            if matches!(stats, Ok(_) | Err(Error::Training(_))) {
                state.recycle(batch);
            } else {
                state.pending = Some(batch);
            }
            let stats = stats?;
            state.step += 1;
            Ok(Progress {
                step: state.step,
                steps: state.schedule.steps as u64,
                epoch,
                epoch_ends: state
                    .step
                    .is_multiple_of(state.schedule.steps_per_epoch as u64),
                lr,
                stats,
                photos,
                skipped: state.skipped_count(),
            })
        })
    }

    /// Whether all steps are done.
    pub fn is_done(&self) -> bool {
        self.steps_done() >= self.steps()
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.state().step
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> u64 {
        self.state().schedule.steps as u64
    }

    /// Steps of one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.state().schedule.steps_per_epoch as u64
    }

    /// Stops the step, or whatever else of this session runs, when it is asked to; from any thread.
    pub fn cancel(&self) -> &CancelToken {
        &self.state().cancel
    }

    /// Does `work` on this session's threads, and waits for it.
    pub fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.state().pool.install(work)
    }

    /// The settings, resolved.
    pub fn config(&self) -> &Config {
        &self.state().config
    }

    /// What is trained, and how pixels become its inputs.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.state().metadata
    }

    /// The photos.
    pub fn source(&self) -> &Arc<dyn PhotoSource> {
        &self.state().source
    }

    /// The measurement before training, where it was taken (`Session::took_before`).
    pub fn before(&self) -> Option<&Before> {
        self.state().before.as_ref()
    }

    /// Takes the measurement before training into the checkpoints.
    pub fn took_before(&mut self, before: Before) {
        self.state_mut().before = Some(before);
    }

    /// Ids of the photos that could not be read so far, and why.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.state().skipped()
    }

    /// Saves everything into the run folder `folder`, atomically (see [`checkpoint::save`]).
    ///
    /// # Errors
    /// The disk refuses; the checkpoint before is then still there.
    pub fn checkpoint(&self, folder: &Path) -> Result<()> {
        let run = self.state();
        self.with_training_state(&mut |training| {
            let state = State {
                config: run.config.clone(),
                dataset: run.dataset.clone(),
                before: run.before.clone(),
                teacher: run.teacher.clone(),
                metadata: run.metadata.clone(),
                step: run.step,
                // Borrowed while they are written: copies would be the run's peak of memory.
                training,
            };
            checkpoint::save(folder, &state)
        })
    }
}
