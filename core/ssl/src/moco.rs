//! MoCo v2 (He et al. 2020, Chen et al. 2020) on one device, to be read beside algorithm 1.
//!
//! The paper's runs used 8 GPUs, each with its own batch-norm statistics and with keys shuffled
//! across them. Negatives come from the queue only, so the loss is separable per query: a batch
//! of `batch` photos runs here as `batch / bn_group` micro-batches one after another, gradients added
//! up ([`MicroBatches`]). That is MoCo on so many devices exactly, in the memory of one.

use seedling_base::rng::{Purpose, Rng};
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::Encoder;

use crate::loss::{Contrast, Regression, Target};
use crate::microbatch::MicroBatches;
use crate::ops::TrainingBackend;
use crate::queue::Queue;
use crate::step::{Learned, StepStats, Views};
use crate::{Error, Result};

/// The method's numbers.
#[derive(Clone, Debug)]
pub struct MocoConfig {
    /// Momentum of the key encoder (equation 2).
    pub m: f32,
    /// Temperature of the loss (equation 1).
    pub tau: f32,
    /// Average both directions instead of querying with the first view only.
    pub symmetric: bool,
    /// Leave a query's own photo out of its negatives.
    pub mask_own_photo: bool,
    /// How batches go through both encoders.
    pub batches: MicroBatches,
}

/// Query encoder f_q, key encoder f_k and queue.
#[derive(Debug)]
pub struct Moco<B: TrainingBackend = Cpu> {
    pub query_encoder: Encoder<B>,
    pub key_encoder: Encoder<B>,
    pub queue: Queue<B::Flat>,
    /// What queries are pulled towards; the paper's is [`Target::Positive`].
    pub target: Target<B::Flat>,
    pub config: MocoConfig,
}

impl<B: TrainingBackend> Moco<B> {
    /// Takes a query encoder with its initial values; the key encoder starts as its copy.
    ///
    /// # Errors
    /// If the encoders differ, have no projection head, or the queue's rows have another length.
    pub fn new(
        query_encoder: Encoder<B>,
        mut key_encoder: Encoder<B>,
        queue: Queue<B::Flat>,
        target: Target<B::Flat>,
        config: MocoConfig,
    ) -> Result<Moco<B>> {
        let architecture = query_encoder.architecture;
        if architecture != key_encoder.architecture || architecture.head.is_none() {
            return Err(Error::Config(
                "MoCo needs two encoders of one architecture, with a projection head".into(),
            ));
        }
        let dim = query_encoder.output_dim();
        if queue.size() == 0 || queue.dim != dim {
            return Err(Error::Config(format!(
                "MoCo needs a queue of rows of {dim} numbers"
            )));
        }
        if config.batches.bn_group == 0 {
            return Err(Error::Config("bn_group must be at least 1".into()));
        }
        key_encoder.params.copy_from(&query_encoder.params)?;
        Ok(Moco {
            query_encoder,
            key_encoder,
            queue,
            target,
            config,
        })
    }

    /// One step up to, but without, the optimizer's: leaves the batch's mean gradient in
    /// `query_encoder.params.grads` and enqueues the keys. `key_order` says in which order the keys of
    /// each direction are encoded (see [`key_orders`]).
    ///
    /// # Errors
    /// The views have no pixels, or someone has canceled: parameters and queue are then as they
    /// were, running statistics may have moved.
    pub fn step(&mut self, views: &Views, key_order: &[Vec<usize>; 2]) -> Result<StepStats> {
        self.step_beside(views, key_order, None)
    }

    /// The same, where queries of both views are near a teacher's embeddings of these besides (DisCo).
    ///
    /// # Errors
    /// As [`Moco::step`].
    pub fn step_beside(
        &mut self,
        views: &Views,
        key_order: &[Vec<usize>; 2],
        teacher: Option<(&[B::Buf; 2], f32)>,
    ) -> Result<StepStats> {
        self.query_encoder.params.zero_grads()?;
        let batch = views.photos.len();
        let mut learned = Learned::new();
        if self.config.symmetric {
            let k_1 = self.encode_keys(views, 0, &key_order[0])?;
            let k_2 = self.encode_keys(views, 1, &key_order[1])?;
            // Averaged over twice the queries, so that a regression counts twice.
            let near = |view: usize| regression(teacher, view, 2.0);
            self.learn_queries(views, 0, (&k_2, near(0)), 2 * batch, &mut learned)?;
            self.learn_queries(views, 1, (&k_1, near(1)), 2 * batch, &mut learned)?;
            self.enqueue(&k_1, views.photos)?;
            self.enqueue(&k_2, views.photos)?;
        } else {
            let k = self.encode_keys(views, 1, &key_order[0])?;
            let near = regression(teacher, 0, 1.0);
            self.learn_queries(views, 0, (&k, near), batch, &mut learned)?;
            if let Some(near) = regression(teacher, 1, 1.0) {
                let contrast = Contrast {
                    positives: near.to,
                    queue: &self.queue,
                    photos: views.photos,
                    mask_own_photo: false,
                    temperature: self.config.tau,
                    target: &Target::Nothing,
                    batch,
                    regression: Some(near),
                };
                // What a step reports is of the queries.
                let mut of_keys = Learned::new();
                let batches = &self.config.batches;
                batches.learn(&mut self.query_encoder, views, 1, &contrast, &mut of_keys)?;
                learned.found_besides(of_keys);
            }
            self.enqueue(&k, views.photos)?;
        }
        learned.stats(&self.query_encoder)
    }

    /// After the optimizer's step: f_k <- m f_k + (1 - m) f_q (equation 2).
    ///
    /// # Errors
    /// The backend's.
    pub fn momentum_update(&mut self) -> Result<()> {
        let (query, from) = (
            &self.query_encoder.params,
            self.query_encoder.frozen_parameters(),
        );
        let key = &mut self.key_encoder.params;
        key.momentum_update(query, self.config.m, from)
    }

    /// Unit keys (batch, dim) of `view` in the batch's order: f_k, without a gradient, and encoded in a
    /// shuffled order (section 3.3, shuffling BN): a query and its key must not share batch-norm statistics,
    /// or they give the answer away.
    fn encode_keys(&mut self, views: &Views, view: usize, shuffled: &[usize]) -> Result<B::Buf> {
        let batches = &self.config.batches;
        batches.encode(&mut self.key_encoder, views, view, shuffled)
    }

    /// Cross-entropy of [q.k, q.Q] / tau, with q = f_q of `view`, averaged over `total` queries, and its
    /// gradient.
    fn learn_queries(
        &mut self,
        views: &Views,
        view: usize,
        (k, regression): (&B::Buf, Option<Regression<'_, B::Buf>>),
        total: usize,
        learned: &mut Learned<B>,
    ) -> Result<()> {
        let contrast = Contrast {
            positives: k,
            queue: &self.queue,
            photos: views.photos,
            mask_own_photo: self.config.mask_own_photo,
            temperature: self.config.tau,
            target: &self.target,
            batch: total,
            regression,
        };
        let batches = &self.config.batches;
        batches.learn(&mut self.query_encoder, views, view, &contrast, learned)
    }

    fn enqueue(&mut self, k: &B::Buf, photos: &[u32]) -> Result<()> {
        let backend = self.key_encoder.backend();
        backend.enqueue(&mut self.queue, k, photos)
    }
}

/// What makes queries of a view near a teacher's embeddings.
fn regression<B>(
    teacher: Option<(&[B; 2], f32)>,
    view: usize,
    factor: f32,
) -> Option<Regression<'_, B>> {
    teacher.map(|(embeddings, weight)| Regression {
        to: &embeddings[view],
        weight: factor * weight,
    })
}

/// The key orders of step `step`: a random one for each direction.
pub fn key_orders(seed: u64, step: u64, batch: usize) -> [Vec<usize>; 2] {
    [0, 1].map(|direction| Rng::new(seed, Purpose::Shuffle, step, direction).permutation(batch))
}
