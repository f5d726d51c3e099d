//! The two losses, each a cross-entropy over [positive, queue]: pure functions of tensors.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::nn::gemm::{Matrix, gemm_columns};
use crate::queue::{NO_PHOTO, Queue};

/// What a query is pulled towards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// Its positive alone: InfoNCE (MoCo, equation 1).
    Positive,
    /// The teacher's own distribution over [t.t, t.Q] at this temperature (SEED, equation 4).
    Teacher { temperature: f32 },
}

/// Everything but the queries.
#[derive(Clone, Copy)]
pub struct Contrast<'a> {
    /// (n, dim) unit rows: the keys, or the teacher's embeddings.
    pub positives: &'a [f32],
    pub queue: &'a Queue,
    /// The photo of each query: rows of the queue from the same photo are left out.
    /// `None` leaves nothing out.
    pub photos: Option<&'a [u32]>,
    pub temperature: f32,
    pub target: Target,
    /// The sum over queries is divided by this: the size of the whole batch, of which a
    /// micro-batch is a part.
    pub batch: usize,
}

/// What the log shows of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Mean similarity of a query and its positive.
    pub positive: f32,
    /// Share of queries that are nearer to their positive than to every negative.
    pub accuracy: f32,
}

/// The loss of `queries` (n, dim), a scalar in candle's graph, and how well they agree with
/// their positives (both as this micro-batch's share of the batch).
pub fn cross_entropy(queries: &Tensor, contrast: Contrast) -> Result<(Tensor, Agreement)> {
    let (n, dim) = queries.dims2()?;
    let shape = |tensor: &str, expected: Vec<usize>, got: usize| Error::Shape {
        tensor: tensor.into(),
        expected,
        got: vec![got],
    };
    if contrast.positives.len() != n * dim {
        return Err(shape("positives", vec![n, dim], contrast.positives.len()));
    }
    if contrast.photos.is_some_and(|photos| photos.len() != n) {
        return Err(shape(
            "photos",
            vec![n],
            contrast.photos.map_or(0, <[u32]>::len),
        ));
    }
    let rows = queries.flatten_all()?.to_vec1::<f32>()?;
    let result = evaluate(&rows, dim, &contrast);
    let op = CrossEntropy {
        loss: result.loss,
        grad: Mutex::new(Some(result.grad)),
    };
    Ok((queries.apply_op1(op)?, result.agreement))
}

/// Loss, its gradient with respect to the queries, and agreement.
pub struct Evaluated {
    pub loss: f32,
    /// (n, dim).
    pub grad: Vec<f32>,
    pub agreement: Agreement,
}

/// The arithmetic of [`cross_entropy`] on plain rows.
pub fn evaluate(queries: &[f32], dim: usize, contrast: &Contrast) -> Evaluated {
    let n = queries.len() / dim;
    let size = contrast.queue.size();
    let queue = Matrix::rows(&contrast.queue.keys, dim);
    // logits[i] = [q.k, q.queue], one row a query.
    let similarities = |rows: &[f32]| {
        let mut negatives = vec![0.0; n * size];
        gemm_columns(
            (n, size, dim),
            Matrix::rows(rows, dim),
            queue.transposed(),
            &mut negatives,
            false,
        );
        let mut logits = vec![0.0; n * (size + 1)];
        for (i, out) in logits.chunks_exact_mut(size + 1).enumerate() {
            let at = i * dim..(i + 1) * dim;
            out[0] = dot(&rows[at.clone()], &contrast.positives[at]);
            out[1..].copy_from_slice(&negatives[i * size..(i + 1) * size]);
        }
        logits
    };
    let mut logits = similarities(queries);
    let teacher = match contrast.target {
        Target::Positive => None,
        Target::Teacher { temperature } => Some((similarities(contrast.positives), temperature)),
    };
    let scale = 1.0 / (contrast.batch as f64 * contrast.temperature as f64);
    let rows: Vec<(f64, f32, bool)> = logits
        .par_chunks_exact_mut(size + 1)
        .enumerate()
        .map_init(
            || vec![0.0f32; size + 1],
            |target, (i, logits)| {
                let own = contrast.photos.map_or(NO_PHOTO, |photos| photos[i]);
                let masked = |j: usize| own != NO_PHOTO && contrast.queue.photos[j] == own;
                let positive = logits[0];
                let best = (0..size)
                    .filter(|&j| !masked(j))
                    .all(|j| positive > logits[j + 1]);
                let mask = |row: &mut [f32]| {
                    for j in (0..size).filter(|&j| masked(j)) {
                        row[j + 1] = f32::NEG_INFINITY;
                    }
                };
                mask(logits);
                let t = contrast.temperature as f64;
                let log_sum = log_sum_exp(logits, t);
                // The mean of the logits under the target; the loss is log_sum minus it.
                let expected = match &teacher {
                    None => positive as f64 / t,
                    Some((teacher, temperature)) => {
                        let tt = *temperature as f64;
                        target.copy_from_slice(&teacher[i * (size + 1)..(i + 1) * (size + 1)]);
                        mask(target);
                        let sum = log_sum_exp(target, tt);
                        let mut expected = 0.0;
                        for (x, &s) in target.iter_mut().zip(logits.iter()) {
                            let p = (*x as f64 / tt - sum).exp();
                            *x = p as f32;
                            if p > 0.0 {
                                expected += p * s as f64 / t;
                            }
                        }
                        expected
                    }
                };
                for x in logits.iter_mut() {
                    *x = (*x as f64 / t - log_sum).exp() as f32;
                }
                match &teacher {
                    None => logits[0] -= 1.0,
                    Some(_) => logits
                        .iter_mut()
                        .zip(target.iter())
                        .for_each(|(p, t)| *p -= t),
                }
                let loss = log_sum - expected;
                for p in logits.iter_mut() {
                    *p = (*p as f64 * scale) as f32;
                }
                (loss, positive, best)
            },
        )
        .collect();

    // d loss / d q = sum_j (p_j - target_j) row_j / (batch temperature), row_0 the positive.
    let mut grad = vec![0.0; n * dim];
    let mut negatives = vec![0.0; n * size];
    for (i, logits) in logits.chunks_exact(size + 1).enumerate() {
        negatives[i * size..(i + 1) * size].copy_from_slice(&logits[1..]);
        for (g, k) in grad[i * dim..(i + 1) * dim]
            .iter_mut()
            .zip(&contrast.positives[i * dim..])
        {
            *g = logits[0] * k;
        }
    }
    gemm_columns(
        (n, dim, size),
        Matrix::rows(&negatives, size),
        queue,
        &mut grad,
        true,
    );
    let batch = contrast.batch as f64;
    Evaluated {
        loss: (rows.iter().map(|r| r.0).sum::<f64>() / batch) as f32,
        grad,
        agreement: Agreement {
            positive: (rows.iter().map(|r| r.1 as f64).sum::<f64>() / batch) as f32,
            accuracy: (rows.iter().filter(|r| r.2).count() as f64 / batch) as f32,
        },
    }
}

/// log sum exp(similarity / temperature).
fn log_sum_exp(row: &[f32], temperature: f64) -> f64 {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = row
        .iter()
        .map(|&x| ((x as f64 - top) / temperature).exp())
        .sum();
    sum.ln() + top / temperature
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| a as f64 * b as f64)
        .sum::<f64>() as f32
}

/// The loss as candle sees it: its gradient is known as soon as its value is.
struct CrossEntropy {
    loss: f32,
    grad: Mutex<Option<Vec<f32>>>,
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "contrastive cross-entropy"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let own = self
            .grad
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(mut own) = own else {
            candle_core::bail!("a loss's backward ran twice");
        };
        let outer = grad.to_scalar::<f32>()?;
        if outer != 1.0 {
            own.iter_mut().for_each(|g| *g *= outer);
        }
        Ok(Some(Tensor::from_vec(
            own,
            queries.shape().clone(),
            queries.device(),
        )?))
    }
}
