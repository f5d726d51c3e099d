//! The losses, each a cross-entropy -sum_j p_j log s_j over [positive, queue], with s the softmax of the
//! queries' logits and p a [`Target`]: pure functions of unit rows.
//!
//! [`evaluate`] reads in the order of the mathematics: logits, cross-entropy, gradient. Each takes the place
//! of the one before, so n queries need n (1 + queue) numbers (twice as many where the target has logits of
//! its own). It is what the CPU does for [`crate::ops::LossOps::contrast`].

use std::ops::{Deref, Range};

use rayon::prelude::*;

use crate::logits::{Logits, Row};
use crate::queue::Queue;
use crate::target;

pub use crate::logits::Agreement;
pub use crate::target::{Neighbors, Target, TeacherQueue};

/// Everything but the queries; `P` and `K` are where positives and the queue's keys lie.
pub struct Contrast<'a, P: ?Sized = [f32], K = Vec<f32>> {
    /// (n, dim) unit rows: the keys, or the teacher's embeddings.
    pub positives: &'a P,
    pub queue: &'a Queue<K>,
    /// The photo of each query.
    pub photos: &'a [u32],
    /// Whether rows of the queue from a query's own photo are left out.
    pub mask_own_photo: bool,
    pub temperature: f32,
    pub target: &'a Target<K>,
    /// The sum over queries is divided by this: the size of the whole batch, of which a
    /// micro-batch is a part.
    pub batch: usize,
    /// What queries are to be near besides, if anything.
    pub regression: Option<Regression<'a, P>>,
}

/// Unit rows that queries are to be near: weight * |q - t|^2 is added to the loss (SimDis: Gu, Liu and Tian 2021;
/// DisCo: Gao et al. 2022).
#[derive(Debug)]
pub struct Regression<'a, P: ?Sized = [f32]> {
    /// As the positives, all of the batch.
    pub to: &'a P,
    pub weight: f32,
}

impl<'a, P: Deref<Target = [f32]>> Contrast<'a, P> {
    /// Of the queries at `rows` alone.
    pub fn select_rows(&self, rows: Range<usize>) -> Contrast<'a> {
        let dim = self.queue.dim;
        Contrast {
            positives: &self.positives[rows.start * dim..rows.end * dim],
            queue: self.queue,
            photos: &self.photos[rows.clone()],
            mask_own_photo: self.mask_own_photo,
            temperature: self.temperature,
            target: self.target,
            batch: self.batch,
            regression: self.regression.as_ref().map(|regression| Regression {
                to: &regression.to[rows.start * dim..rows.end * dim],
                weight: regression.weight,
            }),
        }
    }
}

/// Of a micro-batch, scaled by its part of the batch.
pub struct Evaluated<G = Vec<f32>> {
    pub loss: f32,
    /// d loss / d queries (n, dim).
    pub grad: G,
    pub agreement: Agreement,
}

/// The loss of `queries` (n, dim), unit rows.
///
/// # Panics
/// If the queue is empty, or there is not a positive and a photo a query.
pub fn evaluate(queries: &[f32], contrast: &Contrast) -> Evaluated {
    let Contrast {
        positives,
        queue,
        photos,
        batch,
        ..
    } = *contrast;
    assert!(queue.size() > 0 && positives.len() == queries.len());
    if let Target::Nothing = contrast.target {
        return regressed(queries, contrast);
    }
    assert!(photos.len() * queue.dim == queries.len());
    let logits = |rows: &[f32]| {
        let mut logits = Logits::new(rows, positives, queue);
        if contrast.mask_own_photo {
            logits.mask_own(photos, queue);
        }
        logits
    };
    let t = f64::from(contrast.temperature);

    let mut found = logits(queries);
    let agreement = match contrast.target {
        Target::TeacherQueue(_) => Agreement::default(),
        _ => found.agreement(batch),
    };
    let losses: Vec<f64> = match contrast.target {
        Target::Positive => {
            let rows = found.rows_mut();
            rows.map(|row| soft_cross_entropy(row, t, target::positive))
                .collect()
        }
        &Target::Nearest { weight, count } => {
            let rows = found.rows_mut();
            rows.map(|row| {
                let near = target::nearest(row.queue, count);
                soft_cross_entropy(row, t, target::shared(weight, near.as_deref()))
            })
            .collect()
        }
        Target::Neighbors(neighbors) => {
            let mut near = neighbors.similarities(photos, queue);
            let rows = found.rows_mut().zip(near.rows_mut());
            rows.map(|(row, mut near)| {
                let any = near.softmax(f64::from(neighbors.temperature));
                let near = any.then_some(&*near.queue);
                soft_cross_entropy(row, t, target::shared(neighbors.weight, near))
            })
            .collect()
        }
        Target::Nothing => Vec::new(),
        Target::TeacherQueue(teacher) => {
            found = Logits::without_positive(queries, &queue.keys, queue.dim);
            let mut teachers = Logits::without_positive(positives, &teacher.queue.keys, queue.dim);
            let rows = found.rows_mut().zip(teachers.rows_mut());
            rows.map(|(student, of_teacher)| {
                let p = target::softmax(&of_teacher, f64::from(teacher.temperature));
                soft_cross_entropy(student, t, p)
            })
            .collect()
        }
        &Target::Teacher { temperature } => {
            let mut teacher = logits(positives);
            let rows = found.rows_mut().zip(teacher.rows_mut());
            rows.map(|(student, teacher)| {
                let p = target::softmax(&teacher, f64::from(temperature));
                soft_cross_entropy(student, t, p)
            })
            .collect()
        }
    };
    let mut evaluated = Evaluated {
        loss: (losses.iter().sum::<f64>() / batch as f64) as f32,
        grad: found.back(positives, queue, batch as f64 * t),
        agreement,
    };
    if contrast.regression.is_some() {
        let more = regressed(queries, contrast);
        evaluated.loss += more.loss;
        let grads = evaluated.grad.iter_mut().zip(&more.grad);
        grads.for_each(|(grad, more)| *grad += more);
    }
    evaluated
}

/// The regression alone: weight * |q - t|^2 = weight * (2 - 2 q.t) of unit rows, averaged over the batch. Its
/// gradient is that of q.t: what points along q itself is lost where q is scaled to unit length.
fn regressed(queries: &[f32], contrast: &Contrast) -> Evaluated {
    let (dim, batch) = (contrast.queue.dim, contrast.batch as f64);
    let mut found = Evaluated {
        loss: 0.0,
        grad: vec![0.0; queries.len()],
        agreement: Agreement::default(),
    };
    let Some(Regression { to, weight }) = &contrast.regression else {
        return found;
    };
    let dots = queries.chunks_exact(dim).zip(to.chunks_exact(dim));
    let dots = dots.map(|(q, t)| {
        let products = q.iter().zip(t).map(|(q, t)| f64::from(*q) * f64::from(*t));
        products.sum::<f64>()
    });
    let dots: Vec<f64> = dots.collect();
    let weight = f64::from(*weight);
    let sum = dots.iter().map(|dot| 2.0 - 2.0 * dot).sum::<f64>();
    found.loss = (weight * sum / batch) as f32;
    found.agreement.positive = (dots.iter().sum::<f64>() / batch) as f32;
    let scale = (-2.0 * weight / batch) as f32;
    let grads = found.grad.iter_mut().zip(to.iter());
    grads.for_each(|(grad, t)| *grad = scale * t);
    found
}

/// -sum_j p_j log s_j, with s = softmax(logits / t). Logits become its gradient, s - p.
fn soft_cross_entropy(mut logits: Row, t: f64, p: impl Fn(usize) -> f64) -> f64 {
    let log_sum = logits.log_sum_exp(t);
    // sum_j p_j logit_j; what is masked has p = 0 and a logit of -inf.
    let mut expected = 0.0;
    for (j, logit) in logits.iter_mut().enumerate() {
        let (p, value) = (p(j), f64::from(*logit));
        if p > 0.0 {
            expected += p * value;
        }
        *logit = (value / t - log_sum).exp() as f32 - p as f32;
    }
    log_sum - expected / t
}
