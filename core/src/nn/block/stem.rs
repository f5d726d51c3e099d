//! The first layer of a network.

use super::conv_norm::{ConvNorm, materialise, through};
use super::{Backward, Forward, Size};
use crate::nn::activation::Act;
use crate::nn::ops::conv;
use crate::nn::ops::norm::NormState;
use crate::nn::ops::source::{GradSource, Source};
use crate::nn::ops::window::{Padding, Window};
use crate::nn::workspace::Buffer;
use crate::params::Layout;

/// The stem: dense convolution of the image, batch norm, activation.
#[derive(Clone, Debug)]
pub struct Stem {
    conv: ConvNorm,
    channels_in: usize,
    pub channels: usize,
    stride: usize,
    padding: Padding,
    act: Act,
}

/// What [`Stem::backward`] needs besides the image.
#[derive(Debug)]
pub struct StemSaved {
    z: Buffer,
    norm: NormState,
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
            channels,
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
    pub fn forward(
        &self,
        pass: &mut Forward,
        images: &[f32],
        size: Size,
    ) -> (Buffer, Size, StemSaved) {
        let window = Window::new(size, self.channels_in, 3, self.stride, self.padding);
        let n = images.len() / (size.0 * size.1 * self.channels_in);
        let len = n * window.out_height * window.out_width * self.channels;
        let mut z = pass.workspace.take(len);
        let w = &pass.values[self.conv.weight.clone()];
        let moments = conv::forward(images, &window, w, &mut z, pass.train, pass.workspace);
        let norm = pass.norm(&self.conv.norm, moments);
        let mut y = pass.workspace.take(len);
        materialise(&z, &norm, self.act, None, &mut y);
        let size = (window.out_height, window.out_width);
        (y, size, StemSaved { z, norm, window })
    }

    /// From dy, which is used up.
    pub fn backward(&self, pass: &mut Backward, images: &[f32], saved: &StemSaved, mut dy: Buffer) {
        let input = Source::normed(&saved.z, &saved.norm, self.act);
        let sums = through(&input, &mut dy);
        let grad = self.conv.norm.backward(&saved.norm, &sums, pass.grads);
        let source = GradSource::Normed {
            dy: &dy,
            z: &saved.z,
            grad: &grad,
        };
        let dw = &mut pass.grads[self.conv.weight.clone()];
        conv::backward(&source, images, &saved.window, dw, pass.workspace);
    }
}
