//! BINGO (Xu et al. 2022): photos that a teacher sees near each other are a bag, and a student learns the teacher's
//! embeddings of a photo and of its bag.
//!
//! Loss: the contrast of a query of one view with the teacher's embedding t of the other view of the same photo
//! (intra-sample), plus that of a query of the other view with the teacher's embedding of a photo drawn from the bag
//! (inter-sample), both against a queue of earlier t. As in the published program the bags are found once, before training;
//! here a photo of a bag is seen by the teacher as it is, not in a view of its own, so that its embedding is known; and there
//! is no third term of mixed images.

use seedling_base::rng::{Purpose, Rng};
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::Encoder;

use crate::eval::neighbors::{Exclude, search};
use crate::eval::{Features, Metric};
use crate::loss::{Contrast, Target};
use crate::microbatch::MicroBatches;
use crate::ops::TrainingBackend;
use crate::queue::{NO_PHOTO, Queue};
use crate::step::{Learned, StepStats, Views};
use crate::{Error, Result};

/// The stream of the draws from bags; those before it are the orders of keys.
const DRAWS: u64 = 2;

/// Which photos are near each other, as the teacher sees them.
#[derive(Debug, Default)]
pub struct Bags {
    /// (photos, dim): unit rows, zeros for a photo that can't be read.
    pub embeddings: Vec<f32>,
    dim: usize,
    /// The nearest of each photo.
    near: Vec<Vec<u32>>,
}

impl Bags {
    /// The `size` nearest of each photo whose embedding is known.
    ///
    /// # Errors
    /// An embedding is not finite.
    pub fn new(embeddings: Vec<f32>, dim: usize, size: usize) -> Result<Bags> {
        let rows = embeddings.len() / dim.max(1);
        let features = Features::new(rows, dim, embeddings)?;
        let known = |row: usize| features.row(row).iter().any(|x| *x != 0.0);
        let exclude = Exclude::Itself;
        let near = search(
            &features,
            &features,
            size,
            Metric::Euclidean,
            exclude,
            |query, near| {
                let others = near.iter().filter(|near| known(near.index));
                match known(query) {
                    true => others.map(|near| near.index as u32).collect(),
                    false => Vec::new(),
                }
            },
        )?;
        Ok(Bags {
            embeddings: features.values,
            dim,
            near,
        })
    }

    /// A photo from the bag of each of these, (photos, dim); of one without a bag its own.
    fn draw(&self, photos: &[u32], rng: &mut Rng) -> Vec<f32> {
        let mut rows = Vec::with_capacity(photos.len() * self.dim);
        for &photo in photos {
            let bag = self.near.get(photo as usize).map_or(&[][..], |bag| bag);
            let drawn = rng.below(bag.len());
            let one = bag.get(drawn).copied().unwrap_or(photo) as usize;
            let row = self.embeddings.get(one * self.dim..(one + 1) * self.dim);
            match row {
                Some(row) => rows.extend_from_slice(row),
                None => rows.resize(rows.len() + self.dim, 0.0),
            }
        }
        rows
    }
}

/// Student, queue of the teacher's embeddings, and bags.
#[derive(Debug)]
pub struct Bingo<B: TrainingBackend = Cpu> {
    pub student: Encoder<B>,
    pub queue: Queue<B::Flat>,
    pub temperature: f32,
    /// How batches go through the student.
    pub batches: MicroBatches,
    pub bags: Bags,
}

impl<B: TrainingBackend> Bingo<B> {
    /// # Errors
    /// If the student has no projection head or the queue's rows have another length.
    pub fn new(
        student: Encoder<B>,
        queue: Queue<B::Flat>,
        temperature: f32,
        batches: MicroBatches,
    ) -> Result<Bingo<B>> {
        let dim = student.output_dim();
        let fits = queue.size() > 0 && queue.dim == dim;
        if student.architecture.head.is_none() || !fits || batches.bn_group == 0 {
            return Err(Error::Config(format!(
                "BINGO needs a student with a projection head, a queue of rows of {dim} numbers, and bn_group of at least 1"
            )));
        }
        Ok(Bingo {
            student,
            queue,
            temperature,
            batches,
            bags: Bags {
                dim,
                ..Bags::default()
            },
        })
    }

    /// The training step number `step` up to, but without, the optimizer's, on both `views` and the teacher's embeddings t
    /// (n, dim) of the second; `seed` is the run's.
    ///
    /// # Errors
    /// The views have no pixels, or someone has canceled: parameters and queue are then as they were, running statistics
    /// may have moved.
    pub fn step(
        &mut self,
        views: &Views,
        t: &B::Buf,
        (seed, step): (u64, u64),
    ) -> Result<StepStats> {
        self.student.params.zero_grads()?;
        let batch = views.photos.len();
        let mut rng = Rng::new(seed, Purpose::Shuffle, step, DRAWS);
        let drawn = self.bags.draw(views.photos, &mut rng);
        let backend = self.student.backend().clone();
        let drawn = backend.upload(drawn.len(), |out| out.copy_from_slice(&drawn))?;
        let mut learned = Learned::new();
        for (view, positives) in [t, &drawn].into_iter().enumerate() {
            let contrast = Contrast {
                positives,
                queue: &self.queue,
                photos: views.photos,
                mask_own_photo: false,
                temperature: self.temperature,
                target: &Target::Positive,
                batch,
                regression: None,
            };
            let mut of_view = Learned::new();
            self.batches
                .learn(&mut self.student, views, view, &contrast, &mut of_view)?;
            // What a step reports besides the loss is of the photos themselves.
            match view {
                0 => learned = of_view,
                _ => learned.found_besides(of_view),
            }
        }
        backend.enqueue(&mut self.queue, t, &vec![NO_PHOTO; batch])?;
        learned.stats(&self.student)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_drawn_from_their_bags_alone() {
        // Three pairs of directions, and a photo that is not known.
        let angles = [0.0f32, 0.1, 2.0, 2.1, 4.0, 4.1];
        let mut rows: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
        rows.extend([0.0, 0.0]);
        let bags = Bags::new(rows.clone(), 2, 1).unwrap();
        let near: Vec<u32> = bags.near[..6].iter().map(|bag| bag[0]).collect();
        assert_eq!(near, [1, 0, 3, 2, 5, 4]);
        let mut rng = Rng::new(1, Purpose::Shuffle, 0, DRAWS);
        assert_eq!(bags.draw(&[2, 6], &mut rng), [rows[6], rows[7], 0.0, 0.0]);
        // Before anything is known there are no bags.
        let none = Bags {
            dim: 2,
            ..Bags::default()
        };
        assert_eq!(none.draw(&[0, 9], &mut rng), [0.0; 4]);
    }
}
