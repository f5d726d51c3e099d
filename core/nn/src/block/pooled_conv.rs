//! The last convolution of a network.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Block, Forward, Names, Size};
use crate::Result;
use crate::activation::Act;
use crate::backend::{BackwardOps, Conv, ForwardOps, FusedGrad, FusedInput};
use crate::layout::Layout;

/// The last convolution: 1x1, batch norm, activation, global mean. The widest activation is
/// pooled where it is read and never stored.
#[derive(Clone, Debug)]
pub struct PooledConv {
    conv: ConvNorm,
    channels_in: usize,
    act: Act,
}

/// What [`PooledConv::backward`] needs besides its input.
#[derive(Debug)]
pub struct PooledCache<B: ForwardOps> {
    conv: Normed<B>,
    per_image: usize,
}

impl PooledConv {
    /// Declares convolution and batch norm.
    pub fn new(
        layout: &mut Layout,
        names: Names,
        (channels_in, channels): (usize, usize),
        act: Act,
        eps: f32,
    ) -> PooledConv {
        PooledConv {
            conv: ConvNorm::new(layout, names, &[channels, channels_in, 1, 1], eps),
            channels_in,
            act,
        }
    }
}

impl Block for PooledConv {
    type Cache<B: ForwardOps> = PooledCache<B>;

    /// x (n, height, width, in) to features (n, channels).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, PooledCache<B>)> {
        let per_image = size.0 * size.1;
        let conv = self.conv.forward(
            pass,
            Conv::Pointwise,
            &FusedInput::plain(x, self.channels_in),
        )?;
        let features = pass
            .backend
            .pool(&self.conv.read(&conv, self.act), per_image)?;
        Ok((features, (1, 1), PooledCache { conv, per_image }))
    }

    /// dx from the features' gradient.
    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        cache: PooledCache<B>,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let backend = pass.backend;
        let (z, norm) = &cache.conv;
        let read = self.conv.read(&cache.conv, self.act);
        let (pool, sums) = backend.pool_back(&read, &dy, cache.per_image)?;
        let grad = pass.norm(&self.conv.norm, norm, &sums)?;
        let dz = FusedGrad::Pooled {
            z,
            norm,
            act: self.act,
            pool: &pool,
            grad: &grad,
        };
        let x = FusedInput::plain(x, self.channels_in);
        let dx = pass.conv_back(Conv::Pointwise, &dz, &x, &self.conv.weight, None)?;
        Ok(Some(dx))
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.conv.norm.parameters_end())
    }
}
