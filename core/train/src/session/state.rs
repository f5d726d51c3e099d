//! What a session knows besides the numbers on its backend: photos, settings, and its place in the run.

use crate::Result;
use crate::checkpoint::{Before, DatasetFingerprint};
use crate::config::Config;
use crate::schedule::Schedule;
use crate::start::{Start, TeacherSource};
use crate::weights::ModelMetadata;
use rayon::ThreadPool;
use seedling_base::cancel::CancelToken;
use seedling_data::{Batch, Loader, LoaderConfig, PhotoSource, Position, Skipped};
use std::sync::Arc;

/// What a run is made of, and how far it is.
pub struct RunState {
    pub(super) config: Config,
    pub(super) metadata: ModelMetadata,
    pub(super) source: Arc<dyn PhotoSource>,
    pub(super) dataset: DatasetFingerprint,
    pub(super) before: Option<Before>,
    /// SHA-256 of the teacher's weights, where there is one.
    pub(super) teacher: Option<String>,
    loading: LoaderConfig,
    /// Made when the first step asks for a batch: a run that only extracts features makes none.
    loader: Option<Loader>,
    pub(super) schedule: Schedule,
    pub(super) step: u64,
    /// The photos of a step that was canceled.
    pub(super) pending: Option<Batch>,
    pub(super) cancel: CancelToken,
    pub(super) pool: Arc<ThreadPool>,
}

impl RunState {
    /// At the first step of a run from `start` over the photos of `source`, on `pool`'s threads.
    ///
    /// # Errors
    /// The teacher's file can't be read any more.
    pub(super) fn new(
        mut config: Config,
        metadata: ModelMetadata,
        source: Arc<dyn PhotoSource>,
        start: &Start<'_>,
        pool: Arc<ThreadPool>,
    ) -> Result<RunState> {
        let threads = pool.current_num_threads();
        config.threads = threads;
        let mut loading = LoaderConfig::new(
            config.views.clone(),
            config.image_size,
            config.batch_size,
            config.seed,
        );
        loading.microbatch = config.bn_group;
        loading.views = match start.teacher {
            Some(_) => config.method.views(),
            None => 2,
        };
        loading.threads = threads;
        loading.ahead = config.prefetch;
        loading.cache_mb = config.cache_mb;
        loading.normalize = metadata.normalize;
        let epoch = (source.len() / config.batch_size.max(1)).max(1);
        let steps = match config.steps {
            0 => config.epochs.saturating_mul(epoch),
            steps => steps,
        };
        let schedule = Schedule {
            peak: config.lr,
            decay: config.schedule,
            warmup_steps: config.warmup_steps
                + (config.warmup_epochs * epoch as f64).round() as usize,
            steps,
            steps_per_epoch: epoch,
        };
        Ok(RunState {
            loading,
            loader: None,
            dataset: DatasetFingerprint::new(&*source),
            before: None,
            teacher: start
                .teacher
                .as_ref()
                .map(TeacherSource::digest)
                .transpose()?,
            config,
            metadata,
            source,
            schedule,
            step: 0,
            pending: None,
            cancel: start.cancel.clone(),
            pool,
        })
    }

    /// The same where views are made by the backend.
    pub(super) fn with_undrawn(mut self, undrawn: bool) -> RunState {
        self.loading.undrawn = undrawn;
        self
    }

    /// The batch of the next step.
    ///
    /// # Errors
    /// Too few photos are readable.
    pub(super) fn next_batch(&mut self) -> Result<Batch> {
        match self.pending.take() {
            Some(batch) => Ok(batch),
            None => self.loader()?.next_batch(),
        }
    }

    /// What makes batches, at the place of the next step.
    pub(super) fn loader(&mut self) -> Result<&mut Loader> {
        let loader = match self.loader.take() {
            Some(loader) => loader,
            None => {
                let epoch = self.schedule.steps_per_epoch as u64;
                let position = Position {
                    epoch: self.step / epoch,
                    step: self.step % epoch,
                };
                Loader::new(self.source.clone(), self.loading.clone(), position)?
            }
        };
        Ok(self.loader.insert(loader))
    }

    /// Gives a batch's memory back to the loader.
    pub(super) fn recycle(&mut self, batch: Batch) {
        if let Some(loader) = &self.loader {
            loader.recycle(batch);
        }
    }

    /// How many photos could not be read so far.
    pub(super) fn skipped_count(&self) -> usize {
        self.loader.as_ref().map_or(0, Loader::skipped_count)
    }

    /// Ids of the photos that could not be read so far, and why.
    pub(super) fn skipped(&self) -> Vec<Skipped> {
        self.loader.as_ref().map_or_else(Vec::new, Loader::skipped)
    }
}
