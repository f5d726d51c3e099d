//! Momentum SGD on a network's flat numbers, as PyTorch defines it.

use crate::layout::{Layout, Role};
use crate::nn::parallel::CHUNK;
use rayon::prelude::*;
use std::ops::Range;

/// What [`Sgd`] does besides following the gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct SgdConfig {
    /// Share of the last update that is kept.
    pub momentum: f32,
    /// Added to the gradient: this times the value.
    pub weight_decay: f32,
    /// Whether weight decay applies to batch norm and biases too.
    pub decay_norm_and_bias: bool,
    /// Added to the gradient: this times the value's distance from where it started.
    pub anchor: f32,
    /// Numbers before this place are never changed.
    pub train_from: usize,
}

/// Momentum SGD: `velocity = momentum * velocity + gradient; value -= lr * velocity`.
///
/// Equals `torch.optim.SGD` with dampening 0: its special first step, which copies the gradient
/// into the velocity, is the general one on a velocity of zeros.
#[derive(Clone, Debug)]
pub struct Sgd {
    config: SgdConfig,
    /// Neighbouring tensors of equal treatment, merged.
    spans: Vec<Span>,
    /// The momentum buffer, one number per parameter.
    pub velocity: Vec<f32>,
    /// The values to anchor to; empty without an anchor.
    pub base: Vec<f32>,
}

#[derive(Clone, Debug)]
struct Span {
    range: Range<usize>,
    weight_decay: f32,
}

impl Sgd {
    /// An optimizer at rest for a network of this layout whose values are `initial` now.
    pub fn new(layout: &Layout, config: SgdConfig, initial: &[f32]) -> Sgd {
        let mut spans: Vec<Span> = Vec::new();
        for entry in layout.entries() {
            if entry.role.is_buffer() || entry.range.end <= config.train_from {
                continue;
            }
            let exempt = matches!(entry.role, Role::NormWeight | Role::NormBias | Role::Bias)
                && !config.decay_norm_and_bias;
            let weight_decay = if exempt { 0.0 } else { config.weight_decay };
            let start = entry.range.start.max(config.train_from);
            match spans.last_mut() {
                Some(last) if last.range.end == start && last.weight_decay == weight_decay => {
                    last.range.end = entry.range.end;
                }
                _ => spans.push(Span {
                    range: start..entry.range.end,
                    weight_decay,
                }),
            }
        }
        let base = if config.anchor > 0.0 { initial } else { &[] };
        Sgd {
            spans,
            velocity: vec![0.0; layout.parameter_count()],
            base: base.to_vec(),
            config,
        }
    }

    /// One update of `values` along `grads` with rate `lr`; all three arrays are as long as the
    /// layout's parameters (a shorter one leaves the rest unchanged).
    pub fn step(&mut self, values: &mut [f32], grads: &[f32], lr: f32) {
        let SgdConfig {
            momentum, anchor, ..
        } = self.config;
        for Span {
            range,
            weight_decay,
        } in &self.spans
        {
            let (Some(values), Some(grads), Some(velocity)) = (
                values.get_mut(range.clone()),
                grads.get(range.clone()),
                self.velocity.get_mut(range.clone()),
            ) else {
                continue;
            };
            let chunks = values
                .par_chunks_mut(CHUNK)
                .zip(grads.par_chunks(CHUNK))
                .zip(velocity.par_chunks_mut(CHUNK));
            match self.base.get(range.clone()) {
                Some(base) if anchor > 0.0 => chunks.zip(base.par_chunks(CHUNK)).for_each(
                    |(((values, grads), velocity), base)| {
                        let numbers = values.iter_mut().zip(grads).zip(velocity).zip(base);
                        for (((value, grad), velocity), base) in numbers {
                            let grad = grad + weight_decay * *value + anchor * (*value - base);
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let mut layout = Layout::default();
        layout.add("a.weight", &[2, 2], Role::ConvWeight);
        layout.add("a.running_mean", &[2], Role::RunningMean);
        layout.add("b.weight", &[2], Role::NormWeight);
        layout.add("c.weight", &[1, 2], Role::LinearWeight);
        layout
    }

    fn config() -> SgdConfig {
        SgdConfig {
            momentum: 0.9,
            weight_decay: 0.5,
            decay_norm_and_bias: true,
            anchor: 0.0,
            train_from: 0,
        }
    }

    #[test]
    fn two_steps_by_hand() {
        let mut sgd = Sgd::new(&layout(), config(), &[]);
        let mut values = vec![1.0; 8];
        sgd.step(&mut values, &[0.5; 8], 0.1);
        // velocity 1.0, value 0.9; then velocity 0.9 + 0.95, value 0.9 - 0.185.
        sgd.step(&mut values, &[0.5; 8], 0.1);
        assert!(values.iter().all(|v| (v - 0.715).abs() < 1e-6));
        assert_eq!(sgd.spans.len(), 1);
    }

    #[test]
    fn norms_can_be_exempt_and_the_bottom_frozen() {
        let exempt = SgdConfig {
            decay_norm_and_bias: false,
            train_from: 4,
            ..config()
        };
        let mut values = vec![1.0; 8];
        Sgd::new(&layout(), exempt, &[]).step(&mut values, &[0.0; 8], 1.0);
        assert_eq!(values, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]);
    }

    #[test]
    fn an_anchor_pulls_back() {
        let anchored = SgdConfig {
            weight_decay: 0.0,
            anchor: 0.5,
            ..config()
        };
        let mut sgd = Sgd::new(&layout(), anchored, &[2.0; 8]);
        let mut values = vec![1.0; 8];
        sgd.step(&mut values, &[0.0; 8], 1.0);
        assert!(values.iter().all(|&v| v == 1.5));
    }
}
