//! All randomness: one ChaCha generator, split by purpose and by (epoch, index).
//!
//! A draw depends only on what it is for, never on which thread asks or in which order:
//! that is what makes a resumed run bit-identical.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// What a stream of random numbers is for. The discriminants are part of every run's
/// reproducibility: never renumber, only append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Weight initialization.
    Init = 1,
    /// The order of photos in an epoch.
    Order = 2,
    /// Augmentation of one photo.
    Augment = 3,
    /// The assignment of keys to micro-batches.
    Shuffle = 4,
    /// The queue's first content.
    Queue = 5,
    /// Dropout masks.
    Dropout = 6,
    /// Measurements that sample.
    Measure = 7,
    /// Procedurally rendered photos.
    Demo = 8,
    /// Fixed random projections.
    Projection = 9,
}

/// A small deterministic generator.
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream for `purpose` at (`epoch`, `index`) of the run seeded with `seed`.
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> Rng {
        let mut key = [0u8; 32];
        for (chunk, word) in key
            .chunks_exact_mut(8)
            .zip([seed, purpose as u64, epoch, index])
        {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        Rng(ChaCha8Rng::from_seed(key))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), 24 bits.
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [`low`, `high`).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.uniform() < p
    }

    /// Uniform in 0..`n` without modulo bias; 0 for an empty range.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            return 0;
        }
        let n = n as u64;
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let x = self.next_u64();
            if x < limit {
                return (x % n) as usize;
            }
        }
    }

    /// Standard normal (Box-Muller; one of the pair is dropped to stay stateless).
    pub fn normal(&mut self) -> f32 {
        let u = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let v = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }

    /// A random order of 0..`n` (Fisher-Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, purpose, epoch, index| {
            let mut rng = Rng::new(seed, purpose, epoch, index);
            (0..4).map(|_| rng.next_u64()).collect::<Vec<_>>()
        };
        let a = draw(1, Purpose::Order, 2, 3);
        assert_eq!(a, draw(1, Purpose::Order, 2, 3));
        assert_ne!(a, draw(2, Purpose::Order, 2, 3));
        assert_ne!(a, draw(1, Purpose::Augment, 2, 3));
        assert_ne!(a, draw(1, Purpose::Order, 3, 3));
        assert_ne!(a, draw(1, Purpose::Order, 2, 4));
    }

    #[test]
    fn draws_have_their_distribution() {
        let mut rng = Rng::new(7, Purpose::Measure, 0, 0);
        let n = 20_000;
        let normal: Vec<f64> = (0..n).map(|_| rng.normal() as f64).collect();
        let mean = normal.iter().sum::<f64>() / n as f64;
        let variance = normal.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05);
        let mut counts = [0usize; 7];
        (0..n).for_each(|_| counts[rng.below(7)] += 1);
        assert!(counts.iter().all(|&c| c.abs_diff(n / 7) < 250));
        let mut order = rng.permutation(100);
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, &x)| i == x));
    }
}
