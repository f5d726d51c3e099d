//! SEED (Fang et al. 2021): a student learns to place images among a queue as its teacher does.
//!
//! Student and frozen teacher see the same view. Loss: cross-entropy between
//! softmax([t.t, t.Q] / teacher_temperature) and softmax([s.t, s.Q] / student_temperature), with
//! t, s the unit embeddings and Q a queue of earlier t; then t is enqueued.

use crate::cancel::Cancel;
use crate::encoder::{Encoder, Images, Mode};
use crate::error::{Error, Result};
use crate::loss::{Contrast, Target};
use crate::microbatch;
use crate::nn::activation::Act;
use crate::nn::backend::Backend;
use crate::nn::cpu::Cpu;
use crate::nn::layer::Linear;
use crate::queue::{NO_PHOTO, Queue};
use crate::rng::{Purpose, Rng};
use crate::step::{StepStats, Views};

/// The method's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillConfig {
    pub student_temperature: f32,
    pub teacher_temperature: f32,
    /// Images per micro-batch: those that share the student's batch-norm statistics.
    pub bn_group: usize,
    /// The student's batch norm.
    pub mode: Mode,
}

/// A frozen network whose features become embeddings: centred, projected, normalised.
#[derive(Debug)]
pub struct Teacher<B: Backend = Cpu> {
    pub encoder: Encoder<B>,
    /// Per channel (factor, offset) from the student's pixels to the teacher's: two networks may
    /// have been trained with different means and deviations.
    pub rescale: [(f32, f32); 3],
    /// Mean of the features over the data: a supervised network's features share a large
    /// common part that would drown their differences.
    pub centre: Vec<f32>,
    /// (out, feature_dim), and a bias of zeros: keeps the queue small and the angles
    /// (Johnson-Lindenstrauss).
    pub projection: B::Flat,
    layer: Linear,
}

/// (to, from) numbers of N(0, 1 / to).
pub fn projection(from: usize, to: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, Purpose::Projection, 0, 0);
    let std = 1.0 / (to as f32).sqrt();
    let numbers = (0..to * from).map(|_| rng.normal() * std);
    numbers.collect()
}

impl<B: Backend> Teacher<B> {
    /// A fixed random projection N(0, 1 / `out`) to embeddings of length `out`, and no centre yet.
    ///
    /// # Errors
    /// The backend's.
    pub fn new(
        encoder: Encoder<B>,
        rescale: [(f32, f32); 3],
        out: usize,
        seed: u64,
    ) -> Result<Teacher<B>> {
        let dim = encoder.output_dim();
        let weights = out * dim;
        let mut projection = projection(dim, out, seed);
        projection.resize(weights + out, 0.0);
        Ok(Teacher {
            rescale,
            centre: vec![0.0; dim],
            projection: encoder.backend().flat(projection)?,
            layer: Linear {
                weight: 0..weights,
                bias: weights..weights + out,
                inputs: dim,
                outputs: out,
                act: Act::Identity,
            },
            encoder,
        })
    }

    /// Raw features (n, feature_dim) of images normalised for the student, which are used up.
    ///
    /// # Errors
    /// The backend's.
    pub fn features(&self, mut images: Images<B>) -> Result<B::Buf> {
        self.encoder.rescale(&mut images, &self.rescale)?;
        self.encoder.embed(&images, Mode::Eval)
    }

    /// Unit embeddings (n, out) of images normalised for the student, which are used up.
    ///
    /// # Errors
    /// The backend's.
    pub fn embed(&self, images: Images<B>) -> Result<B::Buf> {
        let backend = self.encoder.backend();
        let mut features = self.features(images)?;
        let centre: Vec<(f32, f32)> = self.centre.iter().map(|c| (1.0, -c)).collect();
        backend.rescale(&mut features, &centre)?;
        let (mut out, _) = backend.linear(&self.layer, &self.projection, &features)?;
        backend.normalize(&mut out, self.layer.outputs)?;
        Ok(out)
    }

    /// The same of the first view of a whole batch, `group` images at a time.
    ///
    /// # Errors
    /// The views have no pixels, someone has cancelled, or the backend's.
    pub fn embed_views(&self, views: &Views, group: usize, cancel: &Cancel) -> Result<B::Buf> {
        let order: Vec<usize> = (0..views.photos.len()).collect();
        let mut groups = Vec::new();
        for rows in order.chunks(group.max(1)) {
            cancel.check()?;
            groups.push(self.embed(views.images(&self.encoder, 0, rows)?)?);
        }
        let backend = self.encoder.backend();
        backend.gather(&groups, &order, self.layer.outputs)
    }
}

/// Student and the queue of teacher embeddings; the teacher stands apart, since only its
/// embeddings enter.
#[derive(Debug)]
pub struct Distill<B: Backend = Cpu> {
    pub student: Encoder<B>,
    pub queue: Queue<B::Flat>,
    pub config: DistillConfig,
    /// Looked at before every micro-batch.
    pub cancel: Cancel,
}

impl<B: Backend> Distill<B> {
    /// # Errors
    /// If the student has no projection head or the queue's rows have another length.
    pub fn new(
        student: Encoder<B>,
        queue: Queue<B::Flat>,
        config: DistillConfig,
    ) -> Result<Distill<B>> {
        let dim = student.output_dim();
        if student.architecture.head.is_none()
            || queue.size() == 0
            || queue.dim != dim
            || config.bn_group == 0
        {
            return Err(Error::Config(format!(
                "distillation needs a student with a projection head, a queue of rows of {dim} \
                 numbers, and bn_group of at least 1"
            )));
        }
        Ok(Distill {
            student,
            queue,
            config,
            cancel: Cancel::default(),
        })
    }

    /// One step up to, but without, the optimizer's, on the first of `views` and the teacher's
    /// embeddings (n, dim) of the same.
    ///
    /// # Errors
    /// The views have no pixels, or someone has cancelled: parameters and queue are then as they
    /// were, running statistics may have moved.
    pub fn step(&mut self, views: &Views, teacher: &B::Buf) -> Result<StepStats> {
        self.student.params.zero_grads()?;
        let batch = views.photos.len();
        let contrast = Contrast {
            positives: teacher,
            queue: &self.queue,
            photos: None,
            temperature: self.config.student_temperature,
            target: Target::Teacher {
                temperature: self.config.teacher_temperature,
            },
            batch,
        };
        let mut stats = StepStats::default();
        let groups = (self.config.mode, self.config.bn_group, &self.cancel);
        microbatch::learn(&self.student, groups, (views, 0), &contrast, &mut stats)?;
        let backend = self.student.backend();
        backend.enqueue(&mut self.queue, teacher, &vec![NO_PHOTO; batch])?;
        Ok(stats)
    }
}
