//! SEED (Fang et al. 2021): a student learns to place images among a queue as its teacher does.
//!
//! Student and frozen teacher see the same view. Loss (equation 4): cross-entropy between
//! softmax([t.t, t.Q] / teacher_temperature) and softmax([s.t, s.Q] / student_temperature), with
//! t, s the unit embeddings and Q a queue of earlier t; then t is enqueued.

use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::Encoder;

use crate::loss::{Contrast, Target};
use crate::microbatch::MicroBatches;
use crate::ops::TrainingBackend;
use crate::queue::{NO_PHOTO, Queue};
use crate::step::{Learned, StepStats, Views};
use crate::{Error, Result};

/// The method's numbers.
#[derive(Clone, Debug)]
pub struct SeedConfig {
    pub student_temperature: f32,
    pub teacher_temperature: f32,
    /// How batches go through the student.
    pub batches: MicroBatches,
}

/// Student and the queue of teacher embeddings; the teacher stands apart, since only its
/// embeddings enter.
#[derive(Debug)]
pub struct Seed<B: TrainingBackend = Cpu> {
    pub student: Encoder<B>,
    pub queue: Queue<B::Flat>,
    pub config: SeedConfig,
    target: Target<B::Flat>,
}

impl<B: TrainingBackend> Seed<B> {
    /// # Errors
    /// If the student has no projection head or the queue's rows have another length.
    pub fn new(student: Encoder<B>, queue: Queue<B::Flat>, config: SeedConfig) -> Result<Seed<B>> {
        let dim = student.output_dim();
        if student.architecture.head.is_none()
            || queue.size() == 0
            || queue.dim != dim
            || config.batches.bn_group == 0
        {
            return Err(Error::Config(format!(
                "distillation needs a student with a projection head, a queue of rows of {dim} \
                 numbers, and bn_group of at least 1"
            )));
        }
        Ok(Seed {
            student,
            queue,
            target: Target::Teacher {
                temperature: config.teacher_temperature,
            },
            config,
        })
    }

    /// One step up to, but without, the optimizer's, on the first of `views` and the teacher's
    /// embeddings t (n, dim) of the same.
    ///
    /// # Errors
    /// The views have no pixels, or someone has canceled: parameters and queue are then as they
    /// were, running statistics may have moved.
    pub fn step(&mut self, views: &Views, t: &B::Buf) -> Result<StepStats> {
        self.student.params.zero_grads()?;
        let batch = views.photos.len();
        let contrast = Contrast {
            positives: t,
            queue: &self.queue,
            photos: views.photos,
            mask_own_photo: false,
            temperature: self.config.student_temperature,
            target: &self.target,
            batch,
            regression: None,
        };
        let batches = &self.config.batches;
        let mut learned = Learned::new();
        batches.learn(&mut self.student, views, 0, &contrast, &mut learned)?;
        let backend = self.student.backend();
        backend.enqueue(&mut self.queue, t, &vec![NO_PHOTO; batch])?;
        learned.stats(&self.student)
    }
}
