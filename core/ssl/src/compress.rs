//! CompRess (Koohpayegani, Tejankar and Pirsiavash 2020), with two queues: a student learns to place images among what
//! it made of earlier ones as its teacher does among what the teacher made of the same.
//!
//! Student and frozen teacher see the same view. Loss (equation 2): the Kullback-Leibler divergence of
//! softmax(s.Q_s / temperature) from softmax(t.Q_t / temperature), up to the entropy of the latter, which no gradient
//! passes; then s and t are enqueued, each in its queue. The published program has a variant whose student's queue is filled
//! by a momentum encoder; this is the one without. Both sides have one temperature there, 0.04.

use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::Encoder;

use crate::loss::{Contrast, Target, TeacherQueue};
use crate::microbatch::MicroBatches;
use crate::ops::TrainingBackend;
use crate::queue::{NO_PHOTO, Queue};
use crate::step::{Learned, StepStats, Views};
use crate::{Error, Result};

/// Student and both queues.
#[derive(Debug)]
pub struct Compress<B: TrainingBackend = Cpu> {
    pub student: Encoder<B>,
    /// Of the student's embeddings.
    pub queue: Queue<B::Flat>,
    pub temperature: f32,
    /// How batches go through the student.
    pub batches: MicroBatches,
    /// [`Target::TeacherQueue`], with the queue of the teacher's.
    target: Target<B::Flat>,
}

impl<B: TrainingBackend> Compress<B> {
    /// # Errors
    /// If the student has no projection head or the queues' rows have another length.
    pub fn new(
        student: Encoder<B>,
        (queue, teacher): (Queue<B::Flat>, TeacherQueue<B::Flat>),
        temperature: f32,
        batches: MicroBatches,
    ) -> Result<Compress<B>> {
        let dim = student.output_dim();
        let fits = queue.dim == dim && teacher.queue.dim == dim;
        let whole = queue.size() > 0 && queue.size() == teacher.queue.size();
        if student.architecture.head.is_none() || !fits || !whole || batches.bn_group == 0 {
            return Err(Error::Config(format!(
                "CompRess needs a student with a projection head, two queues of as many rows of {dim} numbers, and \
                 bn_group of at least 1"
            )));
        }
        Ok(Compress {
            student,
            queue,
            temperature,
            batches,
            target: Target::TeacherQueue(teacher),
        })
    }

    /// The queue of the teacher's embeddings.
    pub fn teacher_queue(&self) -> &Queue<B::Flat> {
        match &self.target {
            Target::TeacherQueue(teacher) => &teacher.queue,
            _ => &self.queue,
        }
    }

    /// One step up to, but without, the optimizer's, on the first of `views` and the teacher's embeddings t (n, dim)
    /// of the same.
    ///
    /// # Errors
    /// The views have no pixels, or someone has canceled: parameters and queues are then as they were, running
    /// statistics may have moved.
    pub fn step(&mut self, views: &Views, t: &B::Buf) -> Result<StepStats> {
        self.student.params.zero_grads()?;
        let batch = views.photos.len();
        let contrast = Contrast {
            positives: t,
            queue: &self.queue,
            photos: views.photos,
            mask_own_photo: false,
            temperature: self.temperature,
            target: &self.target,
            batch,
            regression: None,
        };
        let mut learned = Learned::new();
        self.batches
            .learn(&mut self.student, views, 0, &contrast, &mut learned)?;
        let backend = self.student.backend();
        let nobody = vec![NO_PHOTO; batch];
        if let Some(s) = &learned.queries {
            backend.enqueue(&mut self.queue, s, &nobody)?;
        }
        if let Target::TeacherQueue(teacher) = &mut self.target {
            backend.enqueue(&mut teacher.queue, t, &nobody)?;
        }
        learned.stats(&self.student)
    }
}
