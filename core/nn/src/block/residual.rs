//! The residual block of a ResNet.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Block, Forward, Names, Size};
use crate::Result;
use crate::activation::Act;
use crate::backend::{BackwardOps, Conv, ForwardOps, FusedGrad, FusedInput};
use crate::layout::Layout;
use crate::window::{Padding, Window};

/// Kernels of a block's convolutions, in order.
pub type Kernels = &'static [usize];

/// Sizes of a [`Residual`].
#[derive(Clone, Copy, Debug)]
pub struct ResidualShape {
    pub channels_in: usize,
    /// Of the convolutions between.
    pub inner: usize,
    pub channels: usize,
    pub stride: usize,
    pub padding: Padding,
    pub eps: f32,
}

/// Convolutions with batch norm and ReLU between them, the input added to the last one's norm, and
/// ReLU of the sum (He et al. 2016). The first 3x3 convolution has the stride. Where the input has
/// another shape than the sum it goes through a 1x1 convolution with a norm of its own.
#[derive(Clone, Debug)]
pub struct Residual {
    layers: Vec<Layer>,
    downsample: Option<Layer>,
    channels: usize,
}

/// A convolution of the block.
#[derive(Clone, Debug)]
struct Layer {
    conv: ConvNorm,
    channels_in: usize,
    kernel: usize,
    stride: usize,
    padding: Padding,
}

/// What [`Residual`]'s backward needs besides its input.
#[derive(Debug)]
pub struct ResidualCache<B: ForwardOps> {
    layers: Vec<(Normed<B>, Window)>,
    downsample: Option<(Normed<B>, Window)>,
}

impl Residual {
    /// Declares `names` in order, then `downsample` if the shape asks for it.
    pub fn new(
        layout: &mut Layout,
        names: &[Names],
        downsample: Names,
        kernels: Kernels,
        shape: ResidualShape,
    ) -> Residual {
        let ResidualShape {
            channels_in,
            inner,
            channels,
            stride,
            padding,
            eps,
        } = shape;
        let mut layer = |names: &Names, (from, to), kernel, stride| Layer {
            conv: ConvNorm::new(layout, names.clone(), &[to, from, kernel, kernel], eps),
            channels_in: from,
            kernel,
            stride,
            padding,
        };
        let strided = kernels.iter().position(|kernel| *kernel > 1);
        let last = kernels.len() - 1;
        let mut from = channels_in;
        let mut layers = Vec::new();
        for (i, (names, &kernel)) in names.iter().zip(kernels).enumerate() {
            let to = if i == last { channels } else { inner };
            let stride = if Some(i) == strided { stride } else { 1 };
            layers.push(layer(names, (from, to), kernel, stride));
            from = to;
        }
        let reshaped = stride != 1 || channels_in != channels;
        Residual {
            layers,
            downsample: reshaped.then(|| layer(&downsample, (channels_in, channels), 1, stride)),
            channels,
        }
    }

    /// What is added up: the last layer's output and the shortcut, as they are read.
    fn summands<'a, B: ForwardOps>(
        &self,
        x: &'a B::Buf,
        cache: &'a ResidualCache<B>,
    ) -> (FusedInput<'a, B>, FusedInput<'a, B>) {
        let read = |layer: Option<&Layer>, z: Option<&'a (Normed<B>, Window)>| match (layer, z) {
            (Some(layer), Some((z, _))) => layer.read(z, Act::Identity),
            _ => FusedInput::plain(x, self.channels),
        };
        (
            read(self.layers.last(), cache.layers.last()),
            read(self.downsample.as_ref(), cache.downsample.as_ref()),
        )
    }
}

impl Layer {
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &FusedInput<B>,
        size: Size,
    ) -> Result<(Normed<B>, Window)> {
        let window = Window::new(
            size,
            self.channels_in,
            self.kernel,
            self.stride,
            self.padding,
        );
        let z = self.conv.forward(pass, self.conv_of(&window), x)?;
        Ok((z, window))
    }

    /// Windows of one pixel, one beside the other, are a product of rows.
    fn conv_of(&self, window: &Window) -> Conv {
        match self.kernel == 1 && self.stride == 1 {
            true => Conv::Pointwise,
            false => Conv::Dense(*window),
        }
    }

    fn read<'a, B: ForwardOps>(&self, z: &'a Normed<B>, act: Act) -> FusedInput<'a, B> {
        self.conv.read(z, act)
    }
}

impl Block for Residual {
    type Cache<B: ForwardOps> = ResidualCache<B>;

    /// x (n, height, width, in) to y (n, height / stride, width / stride, out).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, ResidualCache<B>)> {
        let mut layers: Vec<(Normed<B>, Window)> = Vec::with_capacity(self.layers.len());
        let (mut inner_size, mut before): (Size, Option<&Layer>) = (size, None);
        for layer in &self.layers {
            let found = {
                let input = match (before, layers.last()) {
                    (Some(before), Some((z, _))) => before.read(z, Act::Relu),
                    _ => FusedInput::plain(x, layer.channels_in),
                };
                layer.forward(pass, &input, inner_size)?
            };
            inner_size = (found.1.out_height, found.1.out_width);
            layers.push(found);
            before = Some(layer);
        }
        let downsample = match &self.downsample {
            Some(layer) => {
                Some(layer.forward(pass, &FusedInput::plain(x, layer.channels_in), size)?)
            }
            None => None,
        };
        let cache = ResidualCache { layers, downsample };
        let (branch, shortcut) = self.summands(x, &cache);
        let y = pass.backend.add(&branch, &shortcut, Act::Relu)?;
        Ok((y, inner_size, cache))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        cache: ResidualCache<B>,
        mut dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let backend = pass.backend;
        let (branch, shortcut) = self.summands(x, &cache);
        backend.add_back(&mut dy, &branch, &shortcut, Act::Relu)?;
        let ResidualCache {
            mut layers,
            downsample,
        } = cache;

        // The shortcut first: what it gives x joins the other branch's where that is written.
        let through = match (&self.downsample, &downsample) {
            (Some(layer), Some((z, window))) => {
                let sums = backend.norm_sums(&dy, &layer.read(z, Act::Identity))?;
                let grad = pass.norm(&layer.conv.norm, &z.1, &sums)?;
                let dz = FusedGrad::Normed {
                    dy: &dy,
                    z: &z.0,
                    grad: &grad,
                };
                let x = FusedInput::plain(x, layer.channels_in);
                Some(pass.conv_back(layer.conv_of(window), &dz, &x, &layer.conv.weight, None)?)
            }
            _ => None,
        };
        drop(downsample);

        // Down the branch: dz of each layer, from dy behind the activation before the next.
        let mut behind: Option<(B::Buf, B::GradSums)> = None;
        for (i, layer) in self.layers.iter().enumerate().rev() {
            let Some((z, window)) = layers.pop() else {
                break;
            };
            let (flowing, sums) = match &behind {
                Some((dy, sums)) => (dy, sums),
                None => (
                    &dy,
                    &backend.norm_sums(&dy, &layer.read(&z, Act::Identity))?,
                ),
            };
            let grad = pass.norm(&layer.conv.norm, &z.1, sums)?;
            let dz = FusedGrad::Normed {
                dy: flowing,
                z: &z.0,
                grad: &grad,
            };
            let (conv, weight) = (layer.conv_of(&window), &layer.conv.weight);
            match (i.checked_sub(1).map(|i| &self.layers[i]), layers.last()) {
                (Some(before), Some((input, _))) => {
                    let input = before.read(input, Act::Relu);
                    behind = Some(pass.conv_back_activated(conv, &dz, &input, weight)?);
                }
                _ => {
                    let x = FusedInput::plain(x, layer.channels_in);
                    let shortcut = Some(through.as_ref().unwrap_or(&dy));
                    return pass.conv_back(conv, &dz, &x, weight, shortcut).map(Some);
                }
            }
        }
        Ok(Some(dy))
    }

    fn parameters_end(&self) -> Option<usize> {
        let layers = self.layers.iter().chain(&self.downsample);
        layers.map(|layer| layer.conv.norm.parameters_end()).max()
    }
}
