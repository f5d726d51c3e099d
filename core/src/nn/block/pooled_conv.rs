//! The last convolution of a network.

use super::conv_norm::{ConvNorm, weights};
use super::{Backward, Forward, Size};
use crate::nn::activation::Act;
use crate::nn::ops::norm::NormState;
use crate::nn::ops::pointwise;
use crate::nn::ops::pool;
use crate::nn::ops::sink::Plain;
use crate::nn::ops::source::{GradSource, PerImage, Source};
use crate::nn::workspace::Buffer;
use crate::params::Layout;

/// The last convolution: 1x1, batch norm, activation, global mean. The widest activation is
/// pooled where it is read and never stored.
#[derive(Clone, Debug)]
pub struct PooledConv {
    conv: ConvNorm,
    channels_in: usize,
    pub channels: usize,
    act: Act,
}

/// What [`PooledConv::backward`] needs besides its input.
#[derive(Debug)]
pub struct PooledSaved {
    z: Buffer,
    norm: NormState,
    per_image: usize,
}

impl PooledConv {
    /// Declares `{name}.0` and `{name}.1`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (channels_in, channels): (usize, usize),
        act: Act,
        eps: f32,
    ) -> PooledConv {
        let names = (format!("{name}.0"), format!("{name}.1"));
        PooledConv {
            conv: ConvNorm::new(layout, names, &[channels, channels_in, 1, 1], eps),
            channels_in,
            channels,
            act,
        }
    }

    /// x (n, height, width, in) to features (n, channels).
    pub fn forward(&self, pass: &mut Forward, x: &[f32], size: Size) -> (Buffer, PooledSaved) {
        let rows = x.len() / self.channels_in;
        let per_image = size.0 * size.1;
        let mut z = pass.workspace.take(rows * self.channels);
        let w = &pass.values[self.conv.weight.clone()];
        let input = Source::plain(x, self.channels_in);
        let moments = pointwise::forward(&input, w, &mut z, pass.train, pass.workspace);
        let norm = pass.norm(&self.conv.norm, moments);
        let mut out = pass.workspace.take(rows / per_image * self.channels);
        pool::forward(&Source::normed(&z, &norm, self.act), per_image, &mut out);
        let saved = PooledSaved { z, norm, per_image };
        (out, saved)
    }

    /// dx from the features' gradient.
    pub fn backward(
        &self,
        pass: &mut Backward,
        x: &[f32],
        saved: &PooledSaved,
        dy: &[f32],
    ) -> Buffer {
        let PooledSaved { z, norm, per_image } = saved;
        let dpool: Vec<f32> = dy.iter().map(|g| g / *per_image as f32).collect();
        let sums = pool::backward_sums(z, norm, self.act, &dpool, *per_image);
        let grad = self.conv.norm.backward(norm, &sums, pass.grads);
        let pool = PerImage::new(&dpool, self.channels, *per_image);
        let dz = GradSource::Pooled {
            z,
            norm,
            act: self.act,
            pool: &pool,
            grad: &grad,
        };
        let mut dx = pass.workspace.take(x.len());
        let (w, dw) = weights(pass.values, pass.grads, &self.conv.weight);
        let sink = (&mut dx[..], Plain { shortcut: None });
        let input = Source::plain(x, self.channels_in);
        pointwise::backward(&dz, &input, w, dw, sink, pass.workspace);
        dx
    }
}
