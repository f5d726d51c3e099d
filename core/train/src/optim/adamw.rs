//! AdamW (Loshchilov and Hutter 2019), for transformers.

use super::{WeightDecay, spans};
use crate::Result;
use seedling_nn::backend::{AdamUpdate, Backend, OptimizerOps};
use seedling_nn::cpu::Cpu;
use seedling_nn::params::Params;
use std::ops::Range;

/// What [`AdamW`] does besides following the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay rates of the two moving averages.
    pub betas: (f32, f32),
    /// Added to the root of the second average.
    pub eps: f32,
    pub decay: WeightDecay,
}

impl AdamWConfig {
    /// PyTorch's averages.
    pub fn new(decay: WeightDecay) -> AdamWConfig {
        AdamWConfig {
            betas: (0.9, 0.999),
            eps: 1e-8,
            decay,
        }
    }
}

/// AdamW, as `torch.optim.AdamW`.
#[derive(Debug)]
pub struct AdamW<B: Backend = Cpu> {
    config: AdamWConfig,
    spans: Vec<(Range<usize>, f32)>,
    /// The average of the gradients, one number per parameter.
    pub first: B::Flat,
    /// That of their squares.
    pub second: B::Flat,
    /// Steps taken.
    pub steps: u64,
    backend: B,
}

impl<B: OptimizerOps> AdamW<B> {
    /// An optimizer at rest for `params`.
    ///
    /// # Errors
    /// The backend's.
    pub fn new(params: &Params<B>, config: AdamWConfig) -> Result<AdamW<B>> {
        let backend = params.backend().clone();
        let count = params.layout.parameter_count();
        Ok(AdamW {
            spans: spans(&params.layout, &config.decay),
            first: backend.flat(vec![0.0; count])?,
            second: backend.flat(vec![0.0; count])?,
            steps: 0,
            config,
            backend,
        })
    }

    /// One update of the values of `params`, for which it was made, along their gradients with
    /// rate `lr`.
    ///
    /// # Errors
    /// The backend's.
    pub fn step(&mut self, params: &mut Params<B>, lr: f32) -> Result<()> {
        self.steps += 1;
        let update = AdamUpdate {
            spans: &self.spans,
            betas: self.config.betas,
            eps: self.config.eps,
            step: self.steps,
            lr,
        };
        let (values, grads) = (&mut params.values, &params.grads);
        let moments = (&mut self.first, &mut self.second);
        self.backend.adamw(&update, values, grads, moments)
    }
}
