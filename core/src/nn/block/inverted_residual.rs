//! The block that mobile networks are made of.

use super::conv_norm::{ConvNorm, materialise, weights};
use super::{Backward, Forward, Size};
use crate::nn::activation::Act;
use crate::nn::ops::depthwise;
use crate::nn::ops::norm::NormState;
use crate::nn::ops::pointwise;
use crate::nn::ops::pool;
use crate::nn::ops::sink::{Activated, Gated, Plain};
use crate::nn::ops::source::{GradSource, PerImage, Source};
use crate::nn::ops::squeeze_excite::{self, SqueezeExcite};
use crate::nn::ops::window::{Padding, Window};
use crate::nn::workspace::Buffer;
use crate::params::Layout;

/// Sizes and switches of an [`InvertedResidual`].
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    pub channels_in: usize,
    pub expanded: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Width of squeeze-excite's hidden layer, where there is one.
    pub squeeze: Option<usize>,
    pub act: Act,
    pub padding: Padding,
    pub eps: f32,
}

/// Names of a block's layers in weight files: (convolution, batch norm).
pub struct BlockNames {
    pub expand: Option<(String, String)>,
    pub depthwise: (String, String),
    pub squeeze_excite: String,
    pub project: (String, String),
}

/// Expand 1x1, depthwise, squeeze-excite, project 1x1, shortcut (Sandler et al. 2018, Howard et
/// al. 2019). Activation before squeeze-excite, as torchvision.
#[derive(Clone, Debug)]
pub struct InvertedResidual {
    shape: BlockShape,
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze_excite: Option<SqueezeExcite>,
    project: ConvNorm,
}

/// What [`InvertedResidual::backward`] needs besides the block's input.
#[derive(Debug)]
pub struct BlockSaved {
    expand: Option<(Buffer, NormState)>,
    depthwise: (Buffer, NormState),
    gate: Option<(squeeze_excite::Saved, PerImage)>,
    project: (Buffer, NormState),
    window: Window,
}

impl InvertedResidual {
    /// Declares the block's parameters in forward order.
    pub fn new(layout: &mut Layout, names: BlockNames, shape: BlockShape) -> InvertedResidual {
        let BlockShape {
            channels_in,
            expanded,
            channels,
            kernel,
            eps,
            ..
        } = shape;
        let expand = names
            .expand
            .map(|names| ConvNorm::new(layout, names, &[expanded, channels_in, 1, 1], eps));
        let taps = [expanded, 1, kernel, kernel];
        InvertedResidual {
            shape,
            expand,
            depthwise: ConvNorm::new(layout, names.depthwise, &taps, eps),
            squeeze_excite: shape
                .squeeze
                .map(|hidden| SqueezeExcite::new(layout, &names.squeeze_excite, expanded, hidden)),
            project: ConvNorm::new(layout, names.project, &[channels, expanded, 1, 1], eps),
        }
    }

    /// Where this block's parameters end in the flat values.
    pub fn parameters_end(&self) -> usize {
        self.project.norm.parameters_end()
    }

    fn has_shortcut(&self) -> bool {
        self.shape.stride == 1 && self.shape.channels_in == self.shape.channels
    }

    /// x (n, height, width, in) to y (n, height / stride, width / stride, out).
    pub fn forward(&self, pass: &mut Forward, x: &[f32], size: Size) -> (Buffer, Size, BlockSaved) {
        let s = &self.shape;
        let workspace = pass.workspace;
        let rows = x.len() / s.channels_in;
        let images = rows / (size.0 * size.1);

        let expand = self.expand.as_ref().map(|layer| {
            let mut z = workspace.take(rows * s.expanded);
            let w = &pass.values[layer.weight.clone()];
            let input = Source::plain(x, s.channels_in);
            let moments = pointwise::forward(&input, w, &mut z, pass.train, workspace);
            let norm = pass.norm(&layer.norm, moments);
            (z, norm)
        });

        let window = Window::new(size, s.expanded, s.kernel, s.stride, s.padding);
        let out_size = (window.out_height, window.out_width);
        let out_rows = images * out_size.0 * out_size.1;
        let input = match &expand {
            Some((z, norm)) => Source::normed(z, norm, s.act),
            None => Source::plain(x, s.expanded),
        };
        let mut z = workspace.take(out_rows * s.expanded);
        let w = &pass.values[self.depthwise.weight.clone()];
        let moments = depthwise::forward(&input, &window, w, &mut z, pass.train, workspace);
        let depthwise = (z, pass.norm(&self.depthwise.norm, moments));

        let activated = Source::normed(&depthwise.0, &depthwise.1, s.act);
        let per_image = out_size.0 * out_size.1;
        let gate = self.squeeze_excite.as_ref().map(|layer| {
            let mut pooled = vec![0.0; images * s.expanded];
            pool::forward(&activated, per_image, &mut pooled);
            let saved = layer.forward(pass.values, pooled);
            let gate = PerImage::new(&saved.gate, s.expanded, per_image);
            (saved, gate)
        });

        let gated = Source {
            gate: gate.as_ref().map(|(_, gate)| gate),
            ..activated
        };
        let mut z = workspace.take(out_rows * s.channels);
        let w = &pass.values[self.project.weight.clone()];
        let moments = pointwise::forward(&gated, w, &mut z, pass.train, workspace);
        let project = (z, pass.norm(&self.project.norm, moments));

        let mut y = workspace.take(out_rows * s.channels);
        let residual = self.has_shortcut().then_some(x);
        materialise(&project.0, &project.1, Act::Identity, residual, &mut y);
        let saved = BlockSaved {
            expand,
            depthwise,
            gate,
            project,
            window,
        };
        (y, out_size, saved)
    }

    /// dx from dy; parameter gradients are added to `pass.grads`.
    pub fn backward(
        &self,
        pass: &mut Backward,
        x: &[f32],
        saved: &BlockSaved,
        dy: Buffer,
    ) -> Buffer {
        let s = &self.shape;
        let workspace = pass.workspace;
        let per_image = saved.window.out_height * saved.window.out_width;

        // Projection: its batch norm has no activation behind it, so dy is what flows in.
        let (z3, norm3) = &saved.project;
        let sums = pointwise::sums_of(&dy, z3, norm3);
        let grad3 = self.project.norm.backward(norm3, &sums, pass.grads);
        let dz3 = GradSource::Normed {
            dy: &dy,
            z: z3,
            grad: &grad3,
        };
        let (z2, norm2) = &saved.depthwise;
        let mut g2 = workspace.take(z2.len());
        let activated = Source::normed(z2, norm2, s.act);
        let (w, dw) = weights(pass.values, pass.grads, &self.project.weight);

        // Squeeze-excite: its share of batch norm's sums, and the pooled branch's gradient.
        let gated = self.squeeze_excite.as_ref().zip(saved.gate.as_ref());
        let (sums2, pooled) = match gated {
            Some((layer, (saved, gate))) => {
                let input = Source {
                    gate: Some(gate),
                    ..activated
                };
                let rows_per_image = per_image;
                let sink = (&mut g2[..], Gated { rows_per_image });
                let images = pointwise::backward(&dz3, &input, w, dw, sink, workspace);
                let (pool, sums) =
                    layer.backward(pass.values, saved, &images, per_image, pass.grads);
                let pool = PerImage::new(&pool, s.expanded, per_image);
                (sums, Some((gate, pool)))
            }
            None => {
                let sink = (&mut g2[..], Activated);
                let sums = pointwise::backward(&dz3, &activated, w, dw, sink, workspace);
                (sums, None)
            }
        };
        let grad2 = self.depthwise.norm.backward(norm2, &sums2, pass.grads);
        let dz2 = match &pooled {
            Some((gate, pool)) => GradSource::Gated {
                g: &g2,
                z: z2,
                norm: norm2,
                act: s.act,
                gate,
                pool,
                grad: &grad2,
            },
            None => GradSource::Normed {
                dy: &g2,
                z: z2,
                grad: &grad2,
            },
        };

        // Depthwise, then expansion; the shortcut's gradient joins where x's is written.
        let mut dx = workspace.take(x.len());
        let plain = Plain {
            shortcut: self.has_shortcut().then_some(&dy[..]),
        };
        let (w, dw) = weights(pass.values, pass.grads, &self.depthwise.weight);
        let (Some(layer), Some((z1, norm1))) = (&self.expand, &saved.expand) else {
            let sink = (&mut dx[..], plain);
            let input = Source::plain(x, s.expanded);
            depthwise::backward(&dz2, &input, &saved.window, w, dw, sink, workspace);
            return dx;
        };
        let mut dy1 = workspace.take(z1.len());
        let sink = (&mut dy1[..], Activated);
        let input = Source::normed(z1, norm1, s.act);
        let sums1 = depthwise::backward(&dz2, &input, &saved.window, w, dw, sink, workspace);
        drop(g2);
        let grad1 = layer.norm.backward(norm1, &sums1, pass.grads);
        let dz1 = GradSource::Normed {
            dy: &dy1,
            z: z1,
            grad: &grad1,
        };
        let (w, dw) = weights(pass.values, pass.grads, &layer.weight);
        let sink = (&mut dx[..], plain);
        let input = Source::plain(x, s.channels_in);
        pointwise::backward(&dz1, &input, w, dw, sink, workspace);
        dx
    }
}
