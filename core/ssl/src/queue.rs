//! The queue of keys: a ring of unit embeddings, each with the photo it came from.

use crate::Result;
use seedling_base::rng::{Purpose, Rng};

/// The photo id of a row that came from no photo (the queue's random start).
pub const NO_PHOTO: u32 = u32::MAX;

/// The first in, first out store of negatives (MoCo, section 3.2), extended by photo ids so that
/// a query's own photo can be left out: a dataset is small, and a photo met again would be its own
/// negative. `K` is where the rows lie.
#[derive(Clone, Debug, PartialEq)]
pub struct Queue<K = Vec<f32>> {
    /// (size, dim), unit rows.
    pub keys: K,
    /// The photo of each row.
    pub photos: Vec<u32>,
    /// The row that is overwritten next.
    pub next: usize,
    /// Length of a row.
    pub dim: usize,
}

impl<K> Queue<K> {
    /// Number of rows.
    pub fn size(&self) -> usize {
        self.photos.len()
    }

    /// The same queue with its rows somewhere else.
    ///
    /// # Errors
    /// What `place` says.
    pub fn with_keys<T>(self, place: impl FnOnce(K) -> Result<T>) -> Result<Queue<T>> {
        Ok(Queue {
            keys: place(self.keys)?,
            photos: self.photos,
            next: self.next,
            dim: self.dim,
        })
    }

    /// Notes that a key of `photo` takes the oldest row, and returns which that is.
    pub fn replace_oldest(&mut self, photo: u32) -> usize {
        let row = self.next;
        self.photos[row] = photo;
        self.next = (row + 1) % self.photos.len();
        row
    }
}

impl Queue {
    /// `size` random unit rows that belong to no photo, as in MoCo's program.
    pub fn random(size: usize, dim: usize, seed: u64) -> Queue {
        let mut rng = Rng::new(seed, Purpose::Queue, 0, 0);
        let mut keys: Vec<f32> = (0..size * dim).map(|_| rng.normal()).collect();
        seedling_nn::cpu::l2_normalize::forward(&mut keys, dim.max(1));
        Queue {
            keys,
            photos: vec![NO_PHOTO; size],
            next: 0,
            dim,
        }
    }

    /// Overwrites the oldest rows with `keys` (n, dim) of `photos` (n).
    pub fn enqueue(&mut self, keys: &[f32], photos: &[u32]) {
        for (key, &photo) in keys.chunks_exact(self.dim).zip(photos) {
            let row = self.replace_oldest(photo);
            self.keys[row * self.dim..(row + 1) * self.dim].copy_from_slice(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unit_and_the_oldest_go_first() {
        let mut queue = Queue::random(5, 3, 1);
        for row in queue.keys.chunks(3) {
            assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let keys: Vec<f32> = (0..12).map(|i| i as f32).collect();
        queue.enqueue(&keys, &[10, 11, 12, 13]);
        queue.enqueue(&keys[..6], &[20, 21]);
        assert_eq!(queue.photos, [21, 11, 12, 13, 20]);
        assert_eq!(queue.next, 1);
        assert_eq!(queue.keys[..3], keys[3..6]);
    }
}
