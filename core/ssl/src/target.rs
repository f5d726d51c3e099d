//! Targets: what a query is pulled towards, a distribution p over [positive, queue].
//!
//! On the host a target is a function of j: the probability of the positive (0), or of a row of the queue,
//! counted from 1.

use crate::logits::{Logits, Row};
use crate::queue::Queue;

/// A kind of target. `K` is where numbers that stay lie.
#[derive(Debug)]
pub enum Target<K = Vec<f32>> {
    /// Its positive alone: InfoNCE (MoCo, equation 1).
    Positive,
    /// Its positive, and in part the keys of photos that were near its own to begin with.
    Neighbors(Neighbors<K>),
    /// Its positive, and by `weight`, evenly, the `count` keys of the queue nearest to it (light-moco's
    /// smoothed target).
    Nearest { weight: f32, count: usize },
    /// The teacher's own distribution over [t.t, t.Q] at this temperature (SEED, equation 4).
    Teacher { temperature: f32 },
    /// What a teacher makes of a queue of its own, whose rows are of the same photos as the student's queue
    /// (CompRess: Koohpayegani, Tejankar and Pirsiavash 2020). The positive, which is what the teacher makes of the
    /// query's own image, is in neither.
    TeacherQueue(TeacherQueue<K>),
    /// Nothing: there is a [`crate::loss::Regression`] alone.
    Nothing,
}

/// Who was near whom before training. Instance discrimination alone pulls apart what the initial
/// weights had rightly put together (the paper's over-clustering).
#[derive(Debug)]
pub struct Neighbors<K = Vec<f32>> {
    /// (photos, dim): a unit row for each photo of the dataset, as the initial weights see it; zeros
    /// for a photo that nothing is known of. Without any row each query has its positive alone.
    pub initial: K,
    /// Part of the target that goes to the neighbors in the queue, by the softmax of their
    /// similarities at `temperature`.
    pub weight: f32,
    pub temperature: f32,
}

/// A teacher's queue.
#[derive(Debug)]
pub struct TeacherQueue<K = Vec<f32>> {
    pub queue: Queue<K>,
    pub temperature: f32,
}

/// All of it the positive's.
pub(crate) fn positive(j: usize) -> f64 {
    if j == 0 { 1.0 } else { 0.0 }
}

/// By `weight` the queue's, in parts of `near`, which sum to one; the rest the positive's. Where nothing is
/// near, all of it.
pub(crate) fn shared(weight: f32, near: Option<&[f32]>) -> impl Fn(usize) -> f64 {
    let weight = f64::from(weight);
    move |j| match (near, j.checked_sub(1)) {
        (None, _) => positive(j),
        (Some(_), None) => 1.0 - weight,
        (Some(near), Some(j)) => weight * f64::from(near[j]),
    }
}

/// The softmax of a teacher's logits at temperature `t`.
pub(crate) fn softmax(logits: &Row, t: f64) -> impl Fn(usize) -> f64 {
    let log_sum = logits.log_sum_exp(t);
    move |j| (f64::from(logits.get(j)) / t - log_sum).exp()
}

/// Even parts, which sum to one, for the `count` largest of `logits`, or as many as count at all; nothing
/// where none does.
pub(crate) fn nearest(logits: &[f32], count: usize) -> Option<Vec<f32>> {
    let counts = |i: &usize| logits[*i] > f32::NEG_INFINITY;
    let mut order: Vec<usize> = (0..logits.len()).filter(counts).collect();
    let count = count.min(order.len());
    if count == 0 {
        return None;
    }
    if count < order.len() {
        // Equal ones by their place, so that the choice does not depend on how it is sorted.
        order.select_nth_unstable_by(count - 1, |&a, &b| {
            logits[b].total_cmp(&logits[a]).then(a.cmp(&b))
        });
    }
    let mut parts = vec![0.0; logits.len()];
    for &i in &order[..count] {
        parts[i] = 1.0 / count as f32;
    }
    Some(parts)
}

impl Neighbors {
    /// Similarities of the queries' `photos` to the queue's, as they were to begin with; -inf for a row of
    /// no photo, of the query's own, or where nothing is known. There is no positive among them.
    pub(crate) fn similarities(&self, photos: &[u32], queue: &Queue) -> Logits {
        let dim = queue.dim;
        let row = |photo: u32| {
            let row = (photo as usize).checked_mul(dim).and_then(|start| {
                let end = start.checked_add(dim)?;
                self.initial.get(start..end)
            });
            row.filter(|row| row.iter().any(|x| *x != 0.0))
        };
        let gather = |photos: &[u32]| -> Vec<f32> {
            let zeros = vec![0.0; dim];
            let rows = photos.iter().map(|&photo| row(photo).unwrap_or(&zeros));
            rows.flatten().copied().collect()
        };
        let mut near = Logits::without_positive(&gather(photos), &gather(&queue.photos), dim);
        let known = |photos: &[u32]| -> Vec<bool> {
            photos.iter().map(|&photo| row(photo).is_some()).collect()
        };
        let (own, others) = (known(photos), known(&queue.photos));
        near.mask(|query, key| !own[query] || !others[key] || photos[query] == queue.photos[key]);
        near
    }
}
