//! AdamW, chunk by chunk.

use crate::backend::AdamUpdate;
use crate::parallel::CHUNK;
use rayon::prelude::*;

/// One step; a number that one of the arrays lacks stays as it is.
pub fn step(
    update: &AdamUpdate,
    values: &mut [f32],
    grads: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let AdamUpdate {
        betas: (beta1, beta2),
        eps,
        step,
        lr,
        ..
    } = *update;
    // In f64: 1 - 0.999^1 has three digits in f32.
    let correction = |beta: f32| 1.0 - (beta as f64).powf(step as f64);
    let rate = (lr as f64 / correction(beta1)) as f32;
    let root = correction(beta2).sqrt() as f32;
    for (range, weight_decay) in update.spans {
        let (Some(values), Some(grads), Some(first), Some(second)) = (
            values.get_mut(range.clone()),
            grads.get(range.clone()),
            first.get_mut(range.clone()),
            second.get_mut(range.clone()),
        ) else {
            continue;
        };
        let kept = 1.0 - lr * weight_decay;
        values
            .par_chunks_mut(CHUNK)
            .zip(grads.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK))
            .for_each(|(((values, grads), first), second)| {
                let numbers = values.iter_mut().zip(grads).zip(first).zip(second);
                for (((value, grad), m), v) in numbers {
                    *m = beta1 * *m + (1.0 - beta1) * grad;
                    *v = beta2 * *v + (1.0 - beta2) * grad * grad;
                    *value = *value * kept - rate * *m / (v.sqrt() / root + eps);
                }
            });
    }
}
