//! SimDis, offline (Gu, Liu and Tian 2021): a student's embeddings of both views regress to the teacher's of the same.
//!
//! Loss: |s_1 - t_1|^2 + |s_2 - t_2|^2 of unit rows, which is 4 - 2 (s_1.t_1 + s_2.t_2), averaged over the batch. What
//! stands between backbone and embedding (projector and predictor there) is the student's projection head here, which is
//! thrown away afterwards; a deep one takes their place.

use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::Encoder;

use crate::loss::{Contrast, Regression, Target};
use crate::microbatch::MicroBatches;
use crate::ops::TrainingBackend;
use crate::queue::Queue;
use crate::step::{Learned, StepStats, Views};
use crate::{Error, Result};

/// The student.
#[derive(Debug)]
pub struct SimDis<B: TrainingBackend = Cpu> {
    pub student: Encoder<B>,
    /// How batches go through it.
    pub batches: MicroBatches,
    /// Nobody asks it: a contrast has one.
    pub queue: Queue<B::Flat>,
}

impl<B: TrainingBackend> SimDis<B> {
    /// # Errors
    /// If the student has no projection head.
    pub fn new(
        student: Encoder<B>,
        queue: Queue<B::Flat>,
        batches: MicroBatches,
    ) -> Result<SimDis<B>> {
        if student.architecture.head.is_none() || batches.bn_group == 0 {
            return Err(Error::Config(
                "SimDis needs a student with a projection head, and bn_group of at least 1".into(),
            ));
        }
        Ok(SimDis {
            student,
            batches,
            queue,
        })
    }

    /// One step up to, but without, the optimizer's, on both `views` and the teacher's embeddings (n, dim) of each.
    ///
    /// # Errors
    /// The views have no pixels, or someone has canceled: parameters are then as they were, running statistics may have
    /// moved.
    pub fn step(&mut self, views: &Views, teacher: &[B::Buf; 2]) -> Result<StepStats> {
        self.student.params.zero_grads()?;
        let batch = views.photos.len();
        let mut learned = Learned::new();
        for (view, t) in teacher.iter().enumerate() {
            let contrast = Contrast {
                positives: t,
                queue: &self.queue,
                photos: views.photos,
                mask_own_photo: false,
                temperature: 1.0,
                target: &Target::Nothing,
                batch,
                regression: Some(Regression { to: t, weight: 1.0 }),
            };
            let mut of_view = Learned::new();
            self.batches
                .learn(&mut self.student, views, view, &contrast, &mut of_view)?;
            // What a step reports besides the loss is of the first view.
            match view {
                0 => learned = of_view,
                _ => learned.found_besides(of_view),
            }
        }
        learned.stats(&self.student)
    }
}
