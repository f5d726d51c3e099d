//! The last convolution of a network.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Forward, Size};
use crate::Result;
use crate::layout::Layout;
use crate::nn::activation::Act;
use crate::nn::backend::{Backend, Grad, Src};

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
pub struct PooledSaved<B: Backend> {
    conv: Normed<B>,
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
    pub fn forward<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, PooledSaved<B>)> {
        let per_image = size.0 * size.1;
        let conv = self
            .conv
            .pointwise(pass, &Src::plain(x, self.channels_in))?;
        let features = pass
            .backend
            .pool(&self.conv.read(&conv, self.act), per_image)?;
        Ok((features, PooledSaved { conv, per_image }))
    }

    /// dx from the features' gradient.
    pub fn backward<B: Backend>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        saved: &PooledSaved<B>,
        dy: &B::Buf,
    ) -> Result<B::Buf> {
        let backend = pass.backend;
        let (z, norm) = &saved.conv;
        let read = self.conv.read(&saved.conv, self.act);
        let (pool, sums) = backend.pool_back(&read, dy, saved.per_image)?;
        let grad = pass.norm(&self.conv.norm, norm, &sums)?;
        let dz = Grad::Pooled {
            z,
            norm,
            act: self.act,
            pool: &pool,
            grad: &grad,
        };
        let (w, dw) = pass.weights(&self.conv.weight);
        backend.pointwise_back(&dz, &Src::plain(x, self.channels_in), w, dw, None)
    }
}
