//! A convolution with its batch norm.

use std::ops::Range;

use super::Forward;
use crate::Result;
use crate::activation::Act;
use crate::backend::{Backend, Conv, ForwardOps, FusedInput};
use crate::layer::BatchNorm;
use crate::layout::{Layout, Role};

/// A convolution and its batch norm.
#[derive(Clone, Debug)]
pub(super) struct ConvNorm {
    pub(super) weight: Range<usize>,
    pub(super) norm: BatchNorm,
}

/// Names of a convolution and of its batch norm in weight files.
pub type Names = (String, String);

/// A convolution's raw output, and the norm it is read through.
pub(super) type Normed<B> = (<B as Backend>::Buf, <B as ForwardOps>::Norm);

impl ConvNorm {
    pub(super) fn new(
        layout: &mut Layout,
        (conv, norm): Names,
        shape: &[usize],
        eps: f32,
    ) -> ConvNorm {
        ConvNorm {
            weight: layout.add(format!("{conv}.weight"), shape, Role::ConvWeight),
            norm: BatchNorm::new(layout, &norm, shape[0], eps),
        }
    }

    pub(super) fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        conv: Conv,
        x: &FusedInput<B>,
    ) -> Result<Normed<B>> {
        let w = pass.param(&self.weight);
        let (z, moments) = pass.backend.conv(conv, x, w, pass.microbatches)?;
        Ok((z, pass.norm(&self.norm, moments)?))
    }

    /// `(z, norm)` as it is read behind `act`.
    pub(super) fn read<'a, B: ForwardOps>(
        &self,
        (z, norm): &'a Normed<B>,
        act: Act,
    ) -> FusedInput<'a, B> {
        FusedInput::normed((z, norm), self.norm.channels, act)
    }
}
