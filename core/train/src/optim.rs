//! Optimizers on a network's flat numbers, as PyTorch defines them.

mod adamw;

pub use adamw::{AdamW, AdamWConfig};

use crate::Result;
use seedling_nn::backend::{Backend, OptimizerOps, Update};
use seedling_nn::cpu::Cpu;
use seedling_nn::layout::{Layout, Role};
use seedling_nn::params::Params;
use std::ops::Range;

/// Whichever optimizer a run has.
#[derive(Debug)]
pub enum Optimizer<B: Backend = Cpu> {
    /// Momentum SGD.
    Sgd(Sgd<B>),
    /// AdamW.
    AdamW(AdamW<B>),
}

impl<B: OptimizerOps> Optimizer<B> {
    /// One update of the values of `params`, for which it was made, along their gradients with
    /// rate `lr`.
    ///
    /// # Errors
    /// The backend's.
    pub fn step(&mut self, params: &mut Params<B>, lr: f32) -> Result<()> {
        match self {
            Optimizer::Sgd(sgd) => sgd.step(params, lr),
            Optimizer::AdamW(adamw) => adamw.step(params, lr),
        }
    }
}

/// Which numbers are trained, and how they shrink.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightDecay {
    /// Pull of every number towards zero.
    pub weight_decay: f32,
    /// Whether weight decay applies to norms and biases too.
    pub norm_and_bias: bool,
    /// Numbers before this place are never changed.
    pub train_from: usize,
}

/// What [`Sgd`] does besides following the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct SgdConfig {
    /// Momentum.
    pub momentum: f32,
    /// Added to the gradient: the weight decay times the value.
    pub decay: WeightDecay,
    /// Added to the gradient: this times the value's distance from where it started.
    pub l2_sp: f32,
}

/// Momentum SGD: `velocity = momentum * velocity + gradient; value -= lr * velocity`.
///
/// Equals `torch.optim.SGD` with dampening 0: its special first step, which copies the gradient
/// into the velocity, is the general one on a velocity of zeros.
#[derive(Debug)]
pub struct Sgd<B: Backend = Cpu> {
    config: SgdConfig,
    /// Neighboring tensors of equal weight decay, merged.
    spans: Vec<(Range<usize>, f32)>,
    /// The momentum buffer, one number per parameter.
    pub velocity: B::Flat,
    /// The values that L2-SP pulls to; empty without it.
    pub base: B::Flat,
    backend: B,
}

impl<B: OptimizerOps> Sgd<B> {
    /// An optimizer at rest for `params`, with L2-SP towards their values of now.
    ///
    /// # Errors
    /// The backend's.
    pub fn new(params: &Params<B>, config: SgdConfig) -> Result<Sgd<B>> {
        let backend = params.backend().clone();
        let base = match config.l2_sp > 0.0 {
            true => backend.host(&params.values)?.into_owned(),
            false => Vec::new(),
        };
        Ok(Sgd {
            spans: spans(&params.layout, &config.decay),
            velocity: backend.flat(vec![0.0; params.layout.parameter_count()])?,
            base: backend.flat(base)?,
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
        let update = Update {
            spans: &self.spans,
            momentum: self.config.momentum,
            l2_sp: self.config.l2_sp,
            lr,
        };
        let (values, grads) = (&mut params.values, &params.grads);
        self.backend
            .sgd(&update, values, grads, &mut self.velocity, &self.base)
    }
}

fn spans(layout: &Layout, how: &WeightDecay) -> Vec<(Range<usize>, f32)> {
    let mut spans: Vec<(Range<usize>, f32)> = Vec::new();
    for entry in layout.entries() {
        if entry.role.is_buffer() || entry.range.end <= how.train_from {
            continue;
        }
        let exempt = matches!(entry.role, Role::NormWeight | Role::NormBias | Role::Bias)
            && !how.norm_and_bias;
        let weight_decay = if exempt { 0.0 } else { how.weight_decay };
        let start = entry.range.start.max(how.train_from);
        match spans.last_mut() {
            Some((range, decay)) if range.end == start && *decay == weight_decay => {
                range.end = entry.range.end;
            }
            _ => spans.push((start..entry.range.end, weight_decay)),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight parameters, all `value`, whose gradients are all `grad`.
    fn params(value: f32, grad: f32) -> Params {
        let mut layout = Layout::default();
        layout.add("a.weight", &[2, 2], Role::ConvWeight);
        layout.add("a.running_mean", &[2], Role::RunningMean);
        layout.add("b.weight", &[2], Role::NormWeight);
        layout.add("c.weight", &[1, 2], Role::LinearWeight);
        let mut params = Params::zeros(layout, true, Cpu::default()).unwrap();
        params.values.fill(value);
        params.grads.fill(grad);
        params
    }

    fn config() -> SgdConfig {
        SgdConfig {
            momentum: 0.9,
            decay: WeightDecay {
                weight_decay: 0.5,
                norm_and_bias: true,
                train_from: 0,
            },
            l2_sp: 0.0,
        }
    }

    #[test]
    fn two_steps_by_hand() {
        let mut params = params(1.0, 0.5);
        let mut sgd = Sgd::new(&params, config()).unwrap();
        sgd.step(&mut params, 0.1).unwrap();
        // velocity 1.0, value 0.9; then velocity 0.9 + 0.95, value 0.9 - 0.185.
        sgd.step(&mut params, 0.1).unwrap();
        let values = &params.values;
        assert!(values.iter().all(|v| (v - 0.715).abs() < 1e-6));
        assert_eq!((sgd.spans.len(), values.len()), (1, 8));
    }

    #[test]
    fn norms_can_be_exempt_and_the_bottom_frozen() {
        let exempt = SgdConfig {
            decay: WeightDecay {
                norm_and_bias: false,
                train_from: 4,
                ..config().decay
            },
            ..config()
        };
        let mut params = params(1.0, 0.0);
        let mut sgd = Sgd::new(&params, exempt).unwrap();
        sgd.step(&mut params, 1.0).unwrap();
        assert_eq!(params.values[..], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]);
    }

    #[test]
    fn l2_sp_pulls_back() {
        let with_l2_sp = SgdConfig {
            decay: WeightDecay {
                weight_decay: 0.0,
                ..config().decay
            },
            l2_sp: 0.5,
            ..config()
        };
        let mut params = params(2.0, 0.0);
        let mut sgd = Sgd::new(&params, with_l2_sp).unwrap();
        params.values.fill(1.0);
        sgd.step(&mut params, 1.0).unwrap();
        assert!(params.values.iter().all(|&v| v == 1.5));
    }
}
