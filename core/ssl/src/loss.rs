//! The losses, each a cross-entropy over [positive, queue]: pure functions of unit rows.
//!
//! [`evaluate`] reads in the order of the mathematics: similarities, probabilities, gradient. Each
//! takes the place of the one before, so n queries need n (1 + queue) numbers (SEED's twice as
//! many, for its teacher). It is the processor's [`seedling_nn::backend::Backend::contrast`].

use std::iter::once;
use std::ops::{Deref, Range};

use rayon::prelude::*;

use crate::queue::{NO_PHOTO, Queue};
use seedling_nn::gemm::{Matrix, gemm_columns};

/// What a query is pulled towards. `K` is where numbers that stay lie.
#[derive(Debug)]
pub enum Target<'a, K = Vec<f32>> {
    /// Its positive alone: InfoNCE (MoCo, equation 1).
    Positive,
    /// Its positive, and by a share the keys of photos that were near its own to begin with.
    Neighbours(Neighbours<'a, K>),
    /// Its positive, and by a share, evenly, the so many keys of the queue nearest to it
    /// (light-moco's smoothed target).
    Nearest { share: f32, count: usize },
    /// The teacher's own distribution over [t.t, t.Q] at this temperature (SEED, equation 4).
    Teacher { temperature: f32 },
}

/// Who was near whom before training. Instance discrimination alone pulls apart what the initial
/// weights had rightly put together (the paper's over-clustering).
#[derive(Debug)]
pub struct Neighbours<'a, K = Vec<f32>> {
    /// (photos, dim): a unit row for each photo of the album, as the initial weights see it; zeros
    /// for a photo that nothing is known of.
    pub album: &'a K,
    /// The photo of each query.
    pub photos: &'a [u32],
    /// Part of the target that goes to the neighbours in the queue, by the softmax of their
    /// similarities at `temperature`.
    pub share: f32,
    pub temperature: f32,
}

impl<K> Clone for Target<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Target<'_, K> {}

impl<K> Clone for Neighbours<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Neighbours<'_, K> {}

/// Everything but the queries; `P` and `K` are where positives and the queue's keys lie.
pub struct Contrast<'a, P: ?Sized = [f32], K = Vec<f32>> {
    /// (n, dim) unit rows: the keys, or the teacher's embeddings.
    pub positives: &'a P,
    pub queue: &'a Queue<K>,
    /// The photo of each query: rows of the queue from the same photo are left out.
    /// `None` leaves nothing out.
    pub photos: Option<&'a [u32]>,
    pub temperature: f32,
    pub target: Target<'a, K>,
    /// The sum over queries is divided by this: the size of the whole batch, of which a
    /// micro-batch is a part.
    pub batch: usize,
}

impl<'a, P: Deref<Target = [f32]>> Contrast<'a, P> {
    /// Of the queries at `rows` alone.
    pub fn of(&self, rows: Range<usize>) -> Contrast<'a> {
        let dim = self.queue.dim;
        Contrast {
            positives: &self.positives[rows.start * dim..rows.end * dim],
            queue: self.queue,
            photos: self.photos.map(|photos| &photos[rows.clone()]),
            temperature: self.temperature,
            target: match self.target {
                Target::Neighbours(neighbours) => Target::Neighbours(Neighbours {
                    photos: &neighbours.photos[rows],
                    ..neighbours
                }),
                other => other,
            },
            batch: self.batch,
        }
    }
}

/// What the log shows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Mean similarity of a query and its positive.
    pub positive: f32,
    /// Share of queries that are nearer to their positive than to every negative.
    pub accuracy: f32,
}

/// Of a micro-batch, each as its share of the batch.
pub struct Evaluated<G = Vec<f32>> {
    pub loss: f32,
    /// d loss / d queries (n, dim).
    pub grad: G,
    pub agreement: Agreement,
}

/// The loss of `queries` (n, dim), unit rows.
///
/// # Panics
/// If the queue is empty, or there is not a positive and (where there are any) a photo a query.
pub fn evaluate(queries: &[f32], dim: usize, contrast: &Contrast) -> Evaluated {
    let n = queries.len() / dim;
    assert!(contrast.queue.size() > 0 && contrast.positives.len() == n * dim);
    assert!(contrast.photos.is_none_or(|photos| photos.len() == n));
    let t = contrast.temperature as f64;

    let mut similarities = Rows::similarities(queries, contrast, dim);
    let agreement = similarities.agreement(contrast.batch);
    // From here on the similarities are their slopes: d loss / d (similarity / t).
    let losses: Vec<f64> = match contrast.target {
        Target::Positive => similarities
            .rows_mut()
            .map(|query| info_nce(query, t))
            .collect(),
        Target::Neighbours(neighbours) => {
            let mut near = Rows::near(&neighbours, contrast.queue, dim);
            let share = neighbours.share as f64;
            let rows = similarities.rows_mut().zip(near.rows_mut());
            rows.map(
                |(query, mut near)| match near.softmax_of_neighbours(neighbours.temperature) {
                    true => smoothed(query, t, near.negatives, share),
                    false => info_nce(query, t),
                },
            )
            .collect()
        }
        Target::Nearest { share, count } => similarities
            .rows_mut()
            .map(|query| {
                let near = nearest(query.negatives, count);
                match near.iter().any(|p| *p > 0.0) {
                    true => smoothed(query, t, &near, share as f64),
                    false => info_nce(query, t),
                }
            })
            .collect(),
        Target::Teacher { temperature } => {
            let mut teacher = Rows::similarities(contrast.positives, contrast, dim);
            let rows = similarities.rows_mut().zip(teacher.rows_mut());
            rows.map(|(student, teacher)| seed((student, t), (teacher, temperature as f64)))
                .collect()
        }
    };
    Evaluated {
        loss: (losses.iter().sum::<f64>() / contrast.batch as f64) as f32,
        grad: similarities.gradient(contrast, dim),
        agreement,
    }
}

/// InfoNCE (MoCo, equation 1): -log p_0, with p = softmax([q.k, q.Q] / t).
fn info_nce(mut query: Row, t: f64) -> f64 {
    let positive = *query.positive as f64;
    let log_sum = query.softmax(t);
    *query.positive -= 1.0;
    log_sum - positive / t
}

/// -sum_j p_j log s_j, with s = softmax([q.k, q.Q] / t) and p the positive by 1 - `share` and the
/// queue's rows by `share` of `near`, which sums to one.
fn smoothed(mut query: Row, t: f64, near: &[f32], share: f64) -> f64 {
    let mut expected = (1.0 - share) * *query.positive as f64;
    for (&p, &similarity) in near
        .iter()
        .zip(&*query.negatives)
        .filter(|(p, _)| **p > 0.0)
    {
        expected += share * p as f64 * similarity as f64;
    }
    let log_sum = query.softmax(t);
    *query.positive -= (1.0 - share) as f32;
    for (slope, p) in query.negatives.iter_mut().zip(near) {
        *slope -= share as f32 * p;
    }
    log_sum - expected / t
}

/// Even weights, which sum to one, for the `count` largest of `similarities`, or as many as count
/// at all.
fn nearest(similarities: &[f32], count: usize) -> Vec<f32> {
    let counts = |i: &usize| similarities[*i] > f32::NEG_INFINITY;
    let mut order: Vec<usize> = (0..similarities.len()).filter(counts).collect();
    let count = count.min(order.len());
    if count < order.len() && count > 0 {
        // Equal ones by their place, so that the choice does not depend on how it is sorted.
        order.select_nth_unstable_by(count - 1, |&a, &b| {
            similarities[b].total_cmp(&similarities[a]).then(a.cmp(&b))
        });
    }
    let mut weights = vec![0.0; similarities.len()];
    for &i in &order[..count] {
        weights[i] = 1.0 / count as f32;
    }
    weights
}

/// SEED (equation 4): -sum_j p_j log s_j, with s = softmax([s.t, s.Q] / t) of the student and
/// p = softmax([t.t, t.Q] / teacher_t). The teacher's row is used up.
fn seed((mut student, t): (Row, f64), (mut teacher, teacher_t): (Row, f64)) -> f64 {
    let teacher_log_sum = teacher.log_sum_exp(teacher_t);
    // sum_j p_j similarity_j; what is masked has p = 0 and a similarity of -inf.
    let mut expected = 0.0;
    teacher.iter_mut().zip(student.iter()).for_each(|(p, s)| {
        let exact = (*p as f64 / teacher_t - teacher_log_sum).exp();
        *p = exact as f32;
        if exact > 0.0 {
            expected += exact * s as f64;
        }
    });
    let log_sum = student.softmax(t);
    let probabilities = student.iter_mut().zip(teacher.iter());
    probabilities.for_each(|(s, p)| *s -= p);
    log_sum - expected / t
}

/// [positive, queue] of n unit rows: similarities, then what the losses make of them.
struct Rows {
    /// (n)
    positives: Vec<f32>,
    /// (n, size)
    negatives: Vec<f32>,
    size: usize,
}

impl Rows {
    /// [x.k, x.Q] of `rows` x; -inf, so that it counts nowhere, where the queue shows x's own
    /// photo: another view of it is no negative.
    fn similarities(rows: &[f32], contrast: &Contrast, dim: usize) -> Rows {
        let (n, size) = (rows.len() / dim, contrast.queue.size());
        let dot = |(a, b): (&[f32], &[f32])| {
            let products = a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64);
            products.sum::<f64>() as f32
        };
        let pairs = rows
            .chunks_exact(dim)
            .zip(contrast.positives.chunks_exact(dim));
        let positives = pairs.map(dot).collect();
        let mut negatives = vec![0.0; n * size];
        gemm_columns(
            (n, size, dim),
            Matrix::rows(rows, dim),
            Matrix::rows(&contrast.queue.keys, dim).transposed(),
            &mut negatives,
            false,
        );
        for (row, &own) in negatives
            .chunks_exact_mut(size)
            .zip(contrast.photos.unwrap_or_default())
            .filter(|(_, photo)| **photo != NO_PHOTO)
        {
            for (similarity, &photo) in row.iter_mut().zip(&contrast.queue.photos) {
                if photo == own {
                    *similarity = f32::NEG_INFINITY;
                }
            }
        }
        Rows {
            positives,
            negatives,
            size,
        }
    }

    /// Similarities of the queries' photos to the queue's, as the album had them; -inf for a row of
    /// no photo, of the query's own, or where nothing is known. There is no positive among them.
    fn near(neighbours: &Neighbours, queue: &Queue, dim: usize) -> Rows {
        let row = |photo: u32| {
            let row = (photo as usize).checked_mul(dim).and_then(|start| {
                let end = start.checked_add(dim)?;
                neighbours.album.get(start..end)
            });
            row.filter(|row| row.iter().any(|x| *x != 0.0))
        };
        let gather = |photos: &[u32]| -> Vec<f32> {
            let zeros = vec![0.0; dim];
            let rows = photos.iter().map(|&photo| row(photo).unwrap_or(&zeros));
            rows.flatten().copied().collect()
        };
        let (n, size) = (neighbours.photos.len(), queue.size());
        let (own, others) = (gather(neighbours.photos), gather(&queue.photos));
        let mut negatives = vec![0.0; n * size];
        gemm_columns(
            (n, size, dim),
            Matrix::rows(&own, dim),
            Matrix::rows(&others, dim).transposed(),
            &mut negatives,
            false,
        );
        let known: Vec<bool> = queue.photos.iter().map(|&p| row(p).is_some()).collect();
        for (similarities, &photo) in negatives.chunks_exact_mut(size).zip(neighbours.photos) {
            let own_known = row(photo).is_some();
            let rows = similarities.iter_mut().zip(&queue.photos).zip(&known);
            for ((similarity, &other), &known) in rows {
                if !(own_known && known) || other == photo {
                    *similarity = f32::NEG_INFINITY;
                }
            }
        }
        Rows {
            positives: vec![f32::NEG_INFINITY; n],
            negatives,
            size,
        }
    }

    fn rows_mut(&mut self) -> impl IndexedParallelIterator<Item = Row<'_>> {
        self.positives
            .par_iter_mut()
            .zip(self.negatives.par_chunks_exact_mut(self.size))
            .map(|(positive, negatives)| Row {
                positive,
                negatives,
            })
    }

    /// Of similarities.
    fn agreement(&self, batch: usize) -> Agreement {
        let rows = self
            .positives
            .iter()
            .zip(self.negatives.chunks_exact(self.size));
        let nearest = rows.filter(|(positive, negatives)| negatives.iter().all(|s| *positive > s));
        let positive = self.positives.iter().map(|&s| s as f64).sum::<f64>();
        Agreement {
            positive: (positive / batch as f64) as f32,
            accuracy: (nearest.count() as f64 / batch as f64) as f32,
        }
    }

    /// Of slopes: d loss / d q = sum_j slope_j row_j / (t batch), with row_0 the positive.
    fn gradient(&self, contrast: &Contrast, dim: usize) -> Vec<f32> {
        let n = self.positives.len();
        let mut grad = contrast.positives.to_vec();
        for (row, slope) in grad.chunks_exact_mut(dim).zip(&self.positives) {
            row.iter_mut().for_each(|k| *k *= slope);
        }
        gemm_columns(
            (n, dim, self.size),
            Matrix::rows(&self.negatives, self.size),
            Matrix::rows(&contrast.queue.keys, dim),
            &mut grad,
            true,
        );
        let scale = 1.0 / (contrast.batch as f64 * contrast.temperature as f64);
        grad.iter_mut()
            .for_each(|g| *g = (*g as f64 * scale) as f32);
        grad
    }
}

/// One row of [`Rows`].
struct Row<'a> {
    positive: &'a mut f32,
    negatives: &'a mut [f32],
}

impl Row<'_> {
    fn iter(&self) -> impl Iterator<Item = f32> {
        once(*self.positive).chain(self.negatives.iter().copied())
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        once(&mut *self.positive).chain(self.negatives.iter_mut())
    }

    /// log sum_j exp(similarity_j / t).
    fn log_sum_exp(&self, t: f64) -> f64 {
        let top = self.iter().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = self.iter().map(|s| ((s as f64 - top) / t).exp()).sum();
        sum.ln() + top / t
    }

    /// Similarities become probabilities, if there is any; says whether there is.
    fn softmax_of_neighbours(&mut self, t: f32) -> bool {
        let any = self.iter().any(|s| s > f32::NEG_INFINITY);
        if any {
            self.softmax(t as f64);
        }
        any
    }

    /// Similarities become probabilities; returns the log sum.
    fn softmax(&mut self, t: f64) -> f64 {
        let log_sum = self.log_sum_exp(t);
        self.iter_mut()
            .for_each(|s| *s = (*s as f64 / t - log_sum).exp() as f32);
        log_sum
    }
}
