//! Momentum SGD, chunk by chunk.

use crate::backend::Update;
use crate::parallel::CHUNK;
use rayon::prelude::*;

/// One step; a number that one of the arrays lacks stays as it is (`base`: no L2-SP).
pub fn step(
    update: &Update,
    values: &mut [f32],
    grads: &[f32],
    velocity: &mut [f32],
    base: &[f32],
) {
    let Update {
        momentum,
        l2_sp,
        lr,
        ..
    } = *update;
    for (range, weight_decay) in update.spans {
        let (Some(values), Some(grads), Some(velocity)) = (
            values.get_mut(range.clone()),
            grads.get(range.clone()),
            velocity.get_mut(range.clone()),
        ) else {
            continue;
        };
        let chunks = values
            .par_chunks_mut(CHUNK)
            .zip(grads.par_chunks(CHUNK))
            .zip(velocity.par_chunks_mut(CHUNK));
        match base.get(range.clone()) {
            Some(base) if l2_sp > 0.0 => chunks.zip(base.par_chunks(CHUNK)).for_each(
                |(((values, grads), velocity), base)| {
                    let numbers = values.iter_mut().zip(grads).zip(velocity).zip(base);
                    for (((value, grad), velocity), base) in numbers {
                        let grad = grad + weight_decay * *value + l2_sp * (*value - base);
                        *velocity = momentum * *velocity + grad;
                        *value -= lr * *velocity;
                    }
                },
            ),
            _ => chunks.for_each(|((values, grads), velocity)| {
                for ((value, grad), velocity) in values.iter_mut().zip(grads).zip(velocity) {
                    *velocity = momentum * *velocity + (grad + weight_decay * *value);
                    *value -= lr * *velocity;
                }
            }),
        }
    }
}
