//! Updates of flat numbers on the CPU, chunk by chunk.

use rayon::prelude::*;

use super::{Cpu, adamw, sgd};
use crate::Result;
use crate::backend::{AdamUpdate, OptimizerOps, Update};
use crate::parallel::CHUNK;

impl OptimizerOps for Cpu {
    fn copy(&self, to: &mut Vec<f32>, from: &Vec<f32>) -> Result<()> {
        to.copy_from_slice(from);
        Ok(())
    }

    fn clear(&self, flat: &mut Vec<f32>) -> Result<()> {
        flat.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
        Ok(())
    }

    fn all_finite(&self, flat: &Vec<f32>) -> Result<bool> {
        // Without stopping at the first that is not: so the loop vectorizes.
        let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, x| all & x.is_finite());
        Ok(flat.par_chunks(CHUNK).all(finite))
    }

    fn sgd(
        &self,
        update: &Update,
        values: &mut Vec<f32>,
        grads: &Vec<f32>,
        velocity: &mut Vec<f32>,
        base: &Vec<f32>,
    ) -> Result<()> {
        sgd::step(update, values, grads, velocity, base);
        Ok(())
    }

    fn adamw(
        &self,
        update: &AdamUpdate,
        values: &mut Vec<f32>,
        grads: &Vec<f32>,
        (first, second): (&mut Vec<f32>, &mut Vec<f32>),
    ) -> Result<()> {
        adamw::step(update, values, grads, first, second);
        Ok(())
    }

    fn momentum_update(
        &self,
        own: &mut Vec<f32>,
        other: &Vec<f32>,
        momentum: f32,
        from: usize,
    ) -> Result<()> {
        let (Some(own), Some(other)) = (own.get_mut(from..), other.get(from..)) else {
            return Ok(());
        };
        own.par_chunks_mut(CHUNK)
            .zip(other.par_chunks(CHUNK))
            .for_each(|(own, other)| {
                for (key, query) in own.iter_mut().zip(other) {
                    *key = momentum * *key + (1.0 - momentum) * query;
                }
            });
        Ok(())
    }
}
