//! The first layer of a network.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Forward, Size};
use crate::Result;
use crate::layout::Layout;
use crate::nn::activation::Act;
use crate::nn::backend::{Backend, Grad};
use crate::nn::window::{Padding, Window};

/// The stem: dense convolution of the image, batch norm, activation.
#[derive(Clone, Debug)]
pub struct Stem {
    conv: ConvNorm,
    channels_in: usize,
    stride: usize,
    padding: Padding,
    act: Act,
}

/// What [`Stem::backward`] needs besides the image.
#[derive(Debug)]
pub struct StemSaved<B: Backend> {
    conv: Normed<B>,
    window: Window,
}

impl Stem {
    /// A 3x3 convolution named `{name}.0` with batch norm `{name}.1`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (channels_in, channels, stride): (usize, usize, usize),
        act: Act,
        padding: Padding,
        eps: f32,
    ) -> Stem {
        let names = (format!("{name}.0"), format!("{name}.1"));
        Stem {
            conv: ConvNorm::new(layout, names, &[channels, channels_in, 3, 3], eps),
            channels_in,
            stride,
            padding,
            act,
        }
    }

    /// Where this layer's parameters end in the flat values.
    pub fn parameters_end(&self) -> usize {
        self.conv.norm.parameters_end()
    }

    /// Images (n, height, width, in) to y (n, height / stride, width / stride, channels).
    pub fn forward<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, StemSaved<B>)> {
        let window = Window::new(size, self.channels_in, 3, self.stride, self.padding);
        let conv = self.conv.dense(pass, images, &window)?;
        let y = pass
            .backend
            .materialise(&self.conv.read(&conv, self.act), None)?;
        let size = (window.out_height, window.out_width);
        Ok((y, size, StemSaved { conv, window }))
    }

    /// From dy, which is used up.
    pub fn backward<B: Backend>(
        &self,
        pass: &mut Backward<B>,
        images: &B::Buf,
        saved: &StemSaved<B>,
        mut dy: B::Buf,
    ) -> Result<()> {
        let (z, norm) = &saved.conv;
        let x = self.conv.read(&saved.conv, self.act);
        let sums = pass.backend.activation_back(&mut dy, &x)?;
        let grad = pass.norm(&self.conv.norm, norm, &sums)?;
        let dz = Grad::Normed {
            dy: &dy,
            z,
            grad: &grad,
        };
        let backend = pass.backend;
        let (_, dw) = pass.weights(&self.conv.weight);
        backend.conv_back(&dz, images, &saved.window, dw)
    }
}
