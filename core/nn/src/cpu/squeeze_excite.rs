//! Squeeze-excite (Hu et al. 2018): pool, linear, activation, linear, gate, multiply. MobileNetV3 has
//! ReLU and hard-sigmoid, EfficientNet SiLU and sigmoid.
//!
//! The gate's gradient needs a sum over the whole image before anything can flow further, which
//! would cost a pass over the widest tensors. Instead the kernel that produces g, the gradient
//! behind the gate, also takes five sums per image and channel ([`ImageSums`]); from them and the
//! gate's gradient the sums of dy = (g * gate + pool) * act'(u) follow without touching g again.

use std::ops::Range;

use super::linear;
use super::norm::GradSums;
use super::sink::ImageSums;
use crate::activation::{hard_sigmoid, sigmoid};
use crate::layer::{Gate, SqueezeExcite};

/// What the backward pass needs, per image.
#[derive(Debug)]
pub struct SqueezeCache {
    pooled: Vec<f32>,
    /// The hidden layer before and behind its activation.
    inner: Vec<f32>,
    hidden: Vec<f32>,
    logits: Vec<f32>,
    /// (images, channels).
    pub gate: Vec<f32>,
}

impl Gate {
    fn value(self, u: f32) -> f32 {
        match self {
            Gate::HardSigmoid => hard_sigmoid(u),
            Gate::Sigmoid => sigmoid(u),
        }
    }

    fn derivative(self, u: f32) -> f32 {
        match self {
            Gate::HardSigmoid if u > -3.0 && u < 3.0 => 1.0 / 6.0,
            Gate::HardSigmoid => 0.0,
            Gate::Sigmoid => sigmoid(u) * (1.0 - sigmoid(u)),
        }
    }
}

impl SqueezeExcite {
    /// Gates from pooled activations (images, channels).
    pub fn forward(&self, values: &[f32], pooled: Vec<f32>) -> SqueezeCache {
        let images = pooled.len() / self.channels;
        let mut inner = vec![0.0; images * self.hidden];
        let (w1, b1) = (&values[self.w1.clone()], &values[self.b1.clone()]);
        linear::forward(&pooled, w1, b1, &mut inner);
        let mut hidden = vec![0.0; inner.len()];
        linear::activate(&inner, self.act, &mut hidden);
        let mut logits = vec![0.0; pooled.len()];
        let (w2, b2) = (&values[self.w2.clone()], &values[self.b2.clone()]);
        linear::forward(&hidden, w2, b2, &mut logits);
        let gate = logits.iter().map(|&u| self.gate.value(u)).collect();
        SqueezeCache {
            pooled,
            inner,
            hidden,
            logits,
            gate,
        }
    }

    /// From the images' sums: adds the parameters' gradients, and returns what flows back through
    /// the pooled branch to every position (images, channels), and the sums batch norm needs.
    pub fn backward(
        &self,
        values: &[f32],
        cache: &SqueezeCache,
        images: &[ImageSums],
        rows_per_image: usize,
        grads: &mut [f32],
    ) -> (Vec<f32>, GradSums) {
        let mut dlogits: Vec<f32> = images
            .iter()
            .flat_map(|image| image.gate.iter().map(|&g| g as f32))
            .collect();
        for (g, &u) in dlogits.iter_mut().zip(&cache.logits) {
            *g *= self.gate.derivative(u);
        }
        let mut dhidden = vec![0.0; cache.hidden.len()];
        self.layer_backward(
            values,
            (&self.w2, &self.b2),
            &dlogits,
            &cache.hidden,
            grads,
            &mut dhidden,
        );
        linear::activate_backward(&mut dhidden, &cache.inner, self.act);
        let mut pool = vec![0.0; cache.pooled.len()];
        self.layer_backward(
            values,
            (&self.w1, &self.b1),
            &dhidden,
            &cache.pooled,
            grads,
            &mut pool,
        );
        for p in &mut pool {
            *p /= rows_per_image as f32;
        }
        let c = self.channels;
        let mut sums = GradSums::zeros(c);
        for (n, image) in images.iter().enumerate() {
            for i in 0..c {
                let (gate, pool) = (cache.gate[n * c + i] as f64, pool[n * c + i] as f64);
                sums.grad[i] += gate * image.grad[i] + pool * image.derivative[i];
                sums.centered[i] +=
                    gate * image.grad_centered[i] + pool * image.derivative_centered[i];
            }
        }
        (pool, sums)
    }

    fn layer_backward(
        &self,
        values: &[f32],
        (w, b): (&Range<usize>, &Range<usize>),
        du: &[f32],
        x: &[f32],
        grads: &mut [f32],
        dx: &mut [f32],
    ) {
        // The bias lies right behind its weight in the flat array.
        let (dw, db) = grads[w.start..b.end].split_at_mut(w.len());
        linear::backward(du, x, &values[w.clone()], dw, db, Some(dx));
    }
}
