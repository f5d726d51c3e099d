//! A convolution with its batch norm.

use std::ops::Range;

use super::Forward;
use crate::Result;
use crate::activation::Act;
use crate::backend::{Backend, Src};
use crate::layer::BatchNorm;
use crate::layout::{Layout, Role};
use crate::window::Window;

/// A convolution and its batch norm.
#[derive(Clone, Debug)]
pub(super) struct ConvNorm {
    pub(super) weight: Range<usize>,
    pub(super) norm: BatchNorm,
}

/// Names of a convolution and of its batch norm in weight files.
pub type Names = (String, String);

/// A convolution's raw output, and the norm it is read through.
pub(super) type Normed<B> = (<B as Backend>::Buf, <B as Backend>::Norm);

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

    pub(super) fn dense<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        x: &Src<B>,
        window: &Window,
    ) -> Result<Normed<B>> {
        let w = pass.param(&self.weight);
        let (z, moments) = pass.backend.conv(x, window, w, pass.groups)?;
        Ok((z, pass.norm(&self.norm, moments)?))
    }

    pub(super) fn pointwise<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        x: &Src<B>,
    ) -> Result<Normed<B>> {
        let w = pass.param(&self.weight);
        let (z, moments) = pass.backend.pointwise(x, w, pass.groups)?;
        Ok((z, pass.norm(&self.norm, moments)?))
    }

    pub(super) fn depthwise<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        x: &Src<B>,
        window: &Window,
    ) -> Result<Normed<B>> {
        let w = pass.param(&self.weight);
        let (z, moments) = pass.backend.depthwise(x, window, w, pass.groups)?;
        Ok((z, pass.norm(&self.norm, moments)?))
    }

    /// `(z, norm)` as it is read behind `act`.
    pub(super) fn read<'a, B: Backend>(&self, (z, norm): &'a Normed<B>, act: Act) -> Src<'a, B> {
        Src::normed((z, norm), self.norm.channels, act)
    }
}
