//! MoCo v2 (He et al. 2020, Chen et al. 2020) on one device, in micro-batches.
//!
//! The paper's runs used 8 GPUs, each with its own batch-norm statistics and with keys shuffled
//! across them. Negatives come from the queue only, so the loss is separable per query: a batch
//! of `batch` photos runs here as `batch / bn_group` groups one after another, gradients added
//! up (`microbatch.rs`). That is MoCo on so many devices exactly, in the memory of one group.

use crate::loss::{Contrast, Neighbours, Target};
use crate::microbatch::{self, Side};
use crate::ops::TrainingBackend;
use crate::queue::Queue;
use crate::step::{StepStats, Views};
use seedling_base::cancel::Cancel;
use seedling_base::error::{Error, Result};
use seedling_base::rng::{Purpose, Rng};
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::{Encoder, Mode};

/// The method's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MocoConfig {
    /// Temperature of the loss.
    pub temperature: f32,
    /// How slowly the key encoder follows: key <- m key + (1 - m) query.
    pub key_momentum: f32,
    /// Average both directions instead of querying with the first view only.
    pub symmetric: bool,
    /// Photos per micro-batch: those that share batch-norm statistics.
    pub bn_group: usize,
    /// How batch norm behaves in both encoders.
    pub mode: Mode,
    /// Leave a query's own photo out of its negatives.
    pub mask_own_photo: bool,
    /// Part of the target that goes to initial neighbours, and its temperature ([`Neighbours`]).
    pub neighbours: f32,
    pub neighbour_temperature: f32,
    /// Part of the target that goes to the nearest keys of the queue, and to how many.
    pub smoothing: f32,
    pub smoothing_keys: usize,
}

/// Query encoder, key encoder and queue.
#[derive(Debug)]
pub struct Moco<B: TrainingBackend = Cpu> {
    pub query: Encoder<B>,
    pub key: Encoder<B>,
    pub queue: Queue<B::Flat>,
    /// The album as the initial weights see it, where it is to be kept in mind (see
    /// [`Neighbours::album`]).
    pub album: Option<B::Flat>,
    pub config: MocoConfig,
    /// Looked at before every micro-batch.
    pub cancel: Cancel,
}

impl<B: TrainingBackend> Moco<B> {
    /// Takes a query encoder with its initial values; the key encoder starts as its copy.
    ///
    /// # Errors
    /// If the encoders differ, have no projection head, or the queue's rows have another length.
    pub fn new(
        query: Encoder<B>,
        key: Encoder<B>,
        queue: Queue<B::Flat>,
        config: MocoConfig,
    ) -> Result<Moco<B>> {
        if query.architecture != key.architecture || query.architecture.head.is_none() {
            return Err(Error::Config(
                "MoCo needs two encoders of one architecture, with a projection head".into(),
            ));
        }
        let dim = query.output_dim();
        if queue.size() == 0 || queue.dim != dim {
            return Err(Error::Config(format!(
                "MoCo needs a queue of rows of {dim} numbers"
            )));
        }
        if config.bn_group == 0 {
            return Err(Error::Config("bn_group must be at least 1".into()));
        }
        key.params.copy_from(&query.params)?;
        Ok(Moco {
            query,
            key,
            queue,
            album: None,
            config,
            cancel: Cancel::default(),
        })
    }

    /// One step up to, but without, the optimizer's: leaves the batch's mean gradient in
    /// `query.params.grads` and enqueues the keys. `key_order` says in which order the keys of
    /// each direction are encoded (see [`key_orders`]).
    ///
    /// # Errors
    /// The views have no pixels, or someone has cancelled: parameters and queue are then as they
    /// were, running statistics may have moved.
    pub fn step(&mut self, views: &Views, key_order: &[Vec<usize>; 2]) -> Result<StepStats> {
        self.query.params.zero_grads()?;
        let batch = views.photos.len();
        let mut stats = StepStats::default();
        if self.config.symmetric {
            let keys_1 = self.keys(views, 0, &key_order[0])?;
            let keys_2 = self.keys(views, 1, &key_order[1])?;
            self.queries(views, 0, &keys_2, 2 * batch, &mut stats)?;
            self.queries(views, 1, &keys_1, 2 * batch, &mut stats)?;
            self.enqueue(&keys_1, views.photos)?;
            self.enqueue(&keys_2, views.photos)?;
        } else {
            let keys = self.keys(views, 1, &key_order[0])?;
            self.queries(views, 0, &keys, batch, &mut stats)?;
            self.enqueue(&keys, views.photos)?;
        }
        Ok(stats)
    }

    /// After the optimizer's step: key <- m key + (1 - m) query (equation 2, algorithm 1).
    ///
    /// # Errors
    /// The backend's.
    pub fn follow(&self) -> Result<()> {
        self.key.params.follow(
            &self.query.params,
            self.config.key_momentum,
            self.query.frozen_parameters(),
        )
    }

    /// Unit keys (batch, dim) of `view` in the batch's order, encoded in micro-batches of a
    /// shuffled one: a query and its key must not share batch-norm statistics, or they give the
    /// answer away.
    fn keys(&self, views: &Views, view: usize, order: &[usize]) -> Result<B::Buf> {
        let backend = self.key.backend();
        let (mut groups, mut done) = (Vec::new(), 0);
        for (rows, count) in microbatch::together(backend, order, self.config.bn_group) {
            self.cancel.check()?;
            let images = views.images(backend, view, rows)?;
            let first = microbatch::pass(Side::Key, view, done);
            let mode = self.config.mode.at_pass(first, count);
            groups.push(self.key.embed(&images, mode)?);
            done += count;
        }
        backend.gather(&groups, order, self.key.output_dim())
    }

    /// Loss and gradient of queries from `view`. `total` is the number of queries that the loss is
    /// averaged over.
    fn queries(
        &self,
        views: &Views,
        view: usize,
        keys: &B::Buf,
        total: usize,
        stats: &mut StepStats,
    ) -> Result<()> {
        let contrast = Contrast {
            positives: keys,
            queue: &self.queue,
            photos: self.config.mask_own_photo.then_some(views.photos),
            temperature: self.config.temperature,
            target: match &self.album {
                None if self.config.smoothing > 0.0 => Target::Nearest {
                    share: self.config.smoothing,
                    count: self.config.smoothing_keys,
                },
                None => Target::Positive,
                Some(album) => Target::Neighbours(Neighbours {
                    album,
                    photos: views.photos,
                    share: self.config.neighbours,
                    temperature: self.config.neighbour_temperature,
                }),
            },
            batch: total,
        };
        let groups = (self.config.mode, self.config.bn_group, &self.cancel);
        microbatch::learn(&self.query, groups, (views, view), &contrast, stats)
    }

    fn enqueue(&mut self, keys: &B::Buf, photos: &[u32]) -> Result<()> {
        let backend = self.key.backend();
        backend.enqueue(&mut self.queue, keys, photos)
    }
}

/// The key orders of step `step`: a random one for each direction.
pub fn key_orders(seed: u64, step: u64, batch: usize) -> [Vec<usize>; 2] {
    [0, 1].map(|direction| Rng::new(seed, Purpose::Shuffle, step, direction).permutation(batch))
}
