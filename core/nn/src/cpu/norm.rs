//! Batch norm: from a convolution's moments to the per-channel coefficients its readers apply.
//!
//! Training: y = (z - mean) / sqrt(var + eps) * weight + bias over the rows of the batch (biased
//! variance), running statistics updated with the unbiased one, as PyTorch does.
//! The backward is Ioffe and Szegedy 2015, section 3, rearranged to dz = a * dy + b * z + c.

use super::channelwise::repeat;
use crate::layer::BatchNorm;

/// Where statistics come from and where they go.
pub enum Statistics<'a> {
    /// The batch; running statistics move by `momentum` (PyTorch's sense: 0.1 is a tenth new).
    Batch {
        buffers: &'a mut [f32],
        momentum: f32,
    },
    /// The running statistics.
    Running { buffers: &'a [f32] },
}

/// Count, mean and sum of squared deviations from the mean of a convolution's output, per
/// channel: moments of parts merge into those of the whole without cancellation.
#[derive(Clone, Debug, Default)]
pub struct Moments {
    pub count: usize,
    pub mean: Vec<f64>,
    /// Sum over the rows of (z - mean)^2.
    pub m2: Vec<f64>,
}

impl Moments {
    /// None yet.
    pub fn zeros(channels: usize) -> Moments {
        Moments {
            count: 0,
            mean: vec![0.0; channels],
            m2: vec![0.0; channels],
        }
    }

    /// From sums of z - shift and of (z - shift)^2 over `count` rows.
    pub(super) fn of_shifted(count: usize, shift: &[f32], sum: &[f64], square: &[f64]) -> Moments {
        let n = count.max(1) as f64;
        let of = |f: fn(f64, f64, f64, f64) -> f64| {
            let sums = sum.iter().zip(square);
            let all = shift.iter().zip(sums);
            all.map(|(&k, (&s, &q))| f(n, k as f64, s, q)).collect()
        };
        Moments {
            count,
            mean: of(|n, k, s, _| k + s / n),
            m2: of(|n, _, s, q| (q - s * s / n).max(0.0)),
        }
    }

    /// Adds those of other rows (Chan, Golub and LeVeque 1979).
    pub fn merge(mut self, other: &Moments) -> Moments {
        if other.count == 0 {
            return self;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let theirs = other.mean.iter().zip(&other.m2);
        for ((mean, m2), (other_mean, other_m2)) in
            self.mean.iter_mut().zip(&mut self.m2).zip(theirs)
        {
            let delta = other_mean - *mean;
            *mean += delta * b / (a + b);
            *m2 += other_m2 + delta * delta * a * b / (a + b);
        }
        self.count += other.count;
        self
    }
}

/// Sums over the rows of dy and of dy * (z - mean), per channel.
#[derive(Clone, Debug)]
pub struct GradSums {
    pub grad: Vec<f64>,
    pub centered: Vec<f64>,
}

impl GradSums {
    /// None yet.
    pub fn zeros(channels: usize) -> GradSums {
        GradSums {
            grad: vec![0.0; channels],
            centered: vec![0.0; channels],
        }
    }

    /// Adds those of other rows.
    pub fn merge(mut self, other: &GradSums) -> GradSums {
        add(&mut self.grad, &other.grad);
        add(&mut self.centered, &other.centered);
        self
    }
}

fn add(into: &mut [f64], from: &[f64]) {
    for (a, b) in into.iter_mut().zip(from) {
        *a += b;
    }
}

/// One forward's coefficients: y = z * scale + shift. `scale`, `shift` and `mean` are repeated
/// to a full period (see [`super::channelwise`]).
#[derive(Clone, Debug)]
pub struct NormState {
    pub channels: usize,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    pub mean: Vec<f32>,
    inv_std: Vec<f32>,
    /// Rows the statistics were taken over; `None` for running statistics.
    count: Option<usize>,
}

impl NormState {
    /// y = z.
    pub fn none(channels: usize) -> NormState {
        let all = |x: f32| repeat(vec![x; channels].into_iter());
        NormState {
            channels,
            scale: all(1.0),
            shift: all(0.0),
            mean: all(0.0),
            inv_std: vec![1.0; channels],
            count: None,
        }
    }
}

/// Backward coefficients, repeated to a full period: dz = a * dy + b * z + c.
#[derive(Clone, Debug)]
pub struct NormGrad {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
}

impl BatchNorm {
    /// The coefficients of this forward; `moments` are those of the batch and are used (and the
    /// running statistics moved) only in training.
    pub fn state(&self, values: &[f32], moments: &Moments, statistics: Statistics) -> NormState {
        let (weight, bias) = (&values[self.weight.clone()], &values[self.bias.clone()]);
        let (mean, var, count): (Vec<f64>, Vec<f64>, _) = match statistics {
            Statistics::Batch { buffers, momentum } => {
                let n = moments.count.max(1) as f64;
                let mean = moments.mean.clone();
                let var: Vec<f64> = moments.m2.iter().map(|m2| m2 / n).collect();
                let unbiased = if n > 1.0 { n / (n - 1.0) } else { 1.0 };
                let blend = |old: &mut f32, new: f64| {
                    *old = (*old as f64 * (1.0 - momentum as f64) + new * momentum as f64) as f32;
                };
                for (old, new) in buffers[self.running_mean.clone()].iter_mut().zip(&mean) {
                    blend(old, *new);
                }
                for (old, new) in buffers[self.running_var.clone()].iter_mut().zip(&var) {
                    blend(old, new * unbiased);
                }
                (mean, var, Some(moments.count.max(1)))
            }
            Statistics::Running { buffers } => (
                buffers[self.running_mean.clone()]
                    .iter()
                    .map(|&x| x as f64)
                    .collect(),
                buffers[self.running_var.clone()]
                    .iter()
                    .map(|&x| x as f64)
                    .collect(),
                None,
            ),
        };
        let inv_std: Vec<f64> = var
            .iter()
            .map(|v| 1.0 / (v + self.eps as f64).sqrt())
            .collect();
        let scale: Vec<f64> = weight
            .iter()
            .zip(&inv_std)
            .map(|(&w, s)| w as f64 * s)
            .collect();
        let shift = bias
            .iter()
            .zip(&mean)
            .zip(&scale)
            .map(|((&b, m), s)| (b as f64 - m * s) as f32);
        NormState {
            channels: self.channels,
            scale: repeat(scale.iter().map(|&x| x as f32)),
            shift: repeat(shift),
            mean: repeat(mean.iter().map(|&x| x as f32)),
            inv_std: inv_std.iter().map(|&x| x as f32).collect(),
            count,
        }
    }

    /// Turns the sums over dy into the coefficients of dz, and adds the gradients of weight and
    /// bias to `grads`.
    pub fn backward(&self, state: &NormState, sums: &GradSums, grads: &mut [f32]) -> NormGrad {
        let n = self.channels;
        let inv_std = &state.inv_std;
        for (g, (s, inv)) in grads[self.weight.clone()]
            .iter_mut()
            .zip(sums.centered.iter().zip(inv_std))
        {
            *g += (s * *inv as f64) as f32;
        }
        for (g, s) in grads[self.bias.clone()].iter_mut().zip(&sums.grad) {
            *g += *s as f32;
        }
        let Some(count) = state.count else {
            return NormGrad {
                a: state.scale.clone(),
                b: vec![0.0; state.scale.len()],
                c: vec![0.0; state.scale.len()],
            };
        };
        let m = count as f64;
        let b: Vec<f64> = (0..n)
            .map(|i| -(state.scale[i] as f64) * (inv_std[i] as f64).powi(2) * sums.centered[i] / m)
            .collect();
        let c: Vec<f32> = (0..n)
            .map(|i| {
                (-(state.scale[i] as f64) * sums.grad[i] / m - b[i] * state.mean[i] as f64) as f32
            })
            .collect();
        NormGrad {
            a: state.scale.clone(),
            b: repeat(b.iter().map(|&x| x as f32)),
            c: repeat(c.into_iter()),
        }
    }
}
