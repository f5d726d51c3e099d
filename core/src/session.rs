//! A run: `step()` is one optimizer step, and the caller owns the loop. Not calling it is a pause.
//!
//! A session owns photos, method, optimizer, schedule and threads, knows its place in the run, and
//! can be saved and resumed at every step with the same result to the bit. A step is taken wholly
//! or not at all: one that is cancelled leaves nothing, and is taken again by the next `step()`.

mod build;
pub mod finish;
pub mod memory;
mod thread;

pub use build::{Start, fit};
pub use thread::{on_own_threads, threads};

use crate::cancel::Cancel;
use crate::checkpoint::{self, Album, Before, Network, State};
use crate::config::Config;
use crate::data::{Batch, Loader, PhotoSource};
use crate::distill::{Distill, Teacher};
use crate::encoder::Encoder;
use crate::moco::{Moco, key_orders};
use crate::optim::Sgd;
use crate::params::{read, write};
use crate::queue::Queue;
use crate::schedule::Schedule;
use crate::step::{StepStats, Views};
use crate::weights::About;
use crate::{Error, Result};
use rayon::ThreadPool;
use std::borrow::Cow;
use std::iter::once;
use std::path::Path;
use std::sync::{Arc, RwLockReadGuard};

/// The two ways to train.
#[derive(Debug)]
pub enum Method {
    /// Contrast with one's own slowly moving copy.
    Moco(Box<Moco>),
    /// Learn from a larger network's view of the same images.
    Distill {
        /// Student and queue.
        distill: Box<Distill>,
        /// The larger network.
        teacher: Box<Teacher>,
    },
}

impl Method {
    /// The network that is trained.
    pub fn encoder(&self) -> &Encoder {
        match self {
            Method::Moco(moco) => &moco.query,
            Method::Distill { distill, .. } => &distill.student,
        }
    }

    /// The network behind the key encoder's queue, where it is trained along.
    fn key_encoder(&self) -> Option<&Encoder> {
        match self {
            Method::Moco(moco) => Some(&moco.key),
            Method::Distill { .. } => None,
        }
    }

    /// Batch norm's running statistics of whatever moves them.
    fn statistics(&self) -> Vec<Vec<f32>> {
        let networks = once(self.encoder()).chain(self.key_encoder());
        networks.map(|n| read(&n.params.buffers).clone()).collect()
    }

    fn set_statistics(&self, saved: &[Vec<f32>]) {
        let networks = once(self.encoder()).chain(self.key_encoder());
        for (network, saved) in networks.zip(saved) {
            write(&network.params.buffers).copy_from_slice(saved);
        }
    }

    fn queue(&self) -> &Queue {
        match self {
            Method::Moco(moco) => &moco.queue,
            Method::Distill { distill, .. } => &distill.queue,
        }
    }

    /// Photos per view that the method looks at.
    fn views(&self) -> usize {
        match self {
            Method::Moco(_) => 2,
            Method::Distill { .. } => 1,
        }
    }
}

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
    loader: Loader,
    method: Method,
    sgd: Sgd,
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
        let batch = match self.pending.take() {
            Some(batch) => batch,
            None => self.loader.next_batch()?,
        };
        let side = self.config.image_size;
        let (epoch, photos) = (batch.epoch, batch.photos.len());
        let views = Views {
            pixels: &batch,
            size: (side, side),
            photos: &batch.photos,
        };
        let before = self.method.statistics();
        let stats = match &mut self.method {
            Method::Moco(moco) => {
                moco.step(&views, &key_orders(self.config.seed, self.step, photos))
            }
            Method::Distill { distill, teacher } => teacher
                .embed_views(&views, distill.config.bn_group, &self.cancel)
                .and_then(|targets| distill.step(&views, &targets)),
        };
        let stats = match stats {
            Ok(stats) => stats,
            Err(error) => {
                self.method.set_statistics(&before);
                self.pending = Some(batch);
                return Err(error);
            }
        };
        self.loader.recycle(batch);
        let lr = self.schedule.lr(self.step as usize);
        self.update(stats.loss, lr)?;
        self.step += 1;
        Ok(Progress {
            step: self.step,
            steps: self.steps(),
            epoch,
            epoch_ends: self.step.is_multiple_of(self.loader.steps_per_epoch()),
            lr,
            stats,
            photos,
            skipped: self.loader.skipped().len(),
        })
    }

    /// Follows the gradient that the method left behind.
    fn update(&mut self, loss: f32, lr: f64) -> Result<()> {
        let params = &self.method.encoder().params;
        if !loss.is_finite() || !params.grads_are_finite()? {
            return Err(Error::Training(format!(
                "training diverged at step {} (loss {loss}); a lower lr than {} may help",
                self.step + 1,
                self.config.lr
            )));
        }
        let mut values = write(&params.values);
        let grads = params.grads();
        self.sgd.step(&mut values, &grads, lr as f32);
        drop((values, grads));
        if let Method::Moco(moco) = &self.method {
            moco.follow()?;
        }
        Ok(())
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
        self.loader.steps_per_epoch()
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
    pub fn encoder(&self) -> &Encoder {
        self.method.encoder()
    }

    /// Method, networks and queue.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Ids of the photos that could not be read so far, and why.
    pub fn skipped(&self) -> Vec<crate::data::Skipped> {
        self.loader.skipped()
    }

    /// Saves everything into the run folder `folder`, atomically (see [`checkpoint::save`]).
    ///
    /// # Errors
    /// The disk refuses; the checkpoint before is then still there.
    pub fn checkpoint(&self, folder: &Path) -> Result<()> {
        // Borrowed while they are written: copies would be the run's peak of memory.
        let trained = locked(self.method.encoder());
        let key = self.method.key_encoder().map(locked);
        let queue = self.method.queue();
        let teacher_centre: &[f32] = match &self.method {
            Method::Moco(_) => &[],
            Method::Distill { teacher, .. } => &teacher.centre,
        };
        let state = State {
            config: self.config.clone(),
            album: self.album.clone(),
            before: self.before.clone(),
            teacher: self.teacher.clone(),
            about: self.about.clone(),
            step: self.step,
            trained: network(&trained),
            key_encoder: key.as_ref().map(network).unwrap_or_default(),
            queue_keys: Cow::Borrowed(&queue.keys),
            queue_photos: Cow::Borrowed(&queue.photos),
            queue_next: queue.next as u64,
            velocity: Cow::Borrowed(&self.sgd.velocity),
            base: Cow::Borrowed(&self.sgd.base),
            teacher_centre: Cow::Borrowed(teacher_centre),
        };
        checkpoint::save(folder, &state)
    }
}

/// A network's numbers, read-locked.
type Locked<'a> = (RwLockReadGuard<'a, Vec<f32>>, RwLockReadGuard<'a, Vec<f32>>);

fn locked(encoder: &Encoder) -> Locked<'_> {
    (read(&encoder.params.values), read(&encoder.params.buffers))
}

fn network<'a>((values, buffers): &'a Locked<'_>) -> Network<'a> {
    Network {
        values: Cow::Borrowed(&values[..]),
        buffers: Cow::Borrowed(&buffers[..]),
    }
}
