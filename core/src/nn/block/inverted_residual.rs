//! The block that mobile networks are made of.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Forward, Size};
use crate::Result;
use crate::layout::Layout;
use crate::nn::activation::Act;
use crate::nn::backend::{Backend, Grad, Src};
use crate::nn::layer::SqueezeExcite;
use crate::nn::window::{Padding, Window};

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
pub struct BlockSaved<B: Backend> {
    expand: Option<Normed<B>>,
    depthwise: Normed<B>,
    gate: Option<(B::Squeezed, B::PerImage)>,
    project: Normed<B>,
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
    pub fn forward<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, BlockSaved<B>)> {
        let s = &self.shape;
        let window = Window::new(size, s.expanded, s.kernel, s.stride, s.padding);
        let out_size = (window.out_height, window.out_width);
        let per_image = out_size.0 * out_size.1;

        let plain = Src::plain(x, s.channels_in);
        let expand = match &self.expand {
            Some(layer) => Some(layer.pointwise(pass, &plain)?),
            None => None,
        };
        let wide = match (&self.expand, &expand) {
            (Some(layer), Some(z)) => layer.read(z, s.act),
            _ => plain,
        };
        let depthwise = self.depthwise.depthwise(pass, &wide, &window)?;
        let activated = self.depthwise.read(&depthwise, s.act);
        let gate = match &self.squeeze_excite {
            Some(layer) => {
                let backend = pass.backend;
                Some(backend.squeeze(layer, pass.values, &activated, per_image)?)
            }
            None => None,
        };
        let gated = match &gate {
            Some((_, gate)) => activated.gated(gate),
            None => activated,
        };
        let project = self.project.pointwise(pass, &gated)?;
        let shortcut = self.has_shortcut().then_some(x);
        let y = pass
            .backend
            .materialise(&self.project.read(&project, Act::Identity), shortcut)?;
        let saved = BlockSaved {
            expand,
            depthwise,
            gate,
            project,
            window,
        };
        Ok((y, out_size, saved))
    }

    /// dx from dy; parameter gradients are added to `pass.grads`.
    pub fn backward<B: Backend>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        saved: &BlockSaved<B>,
        dy: B::Buf,
    ) -> Result<B::Buf> {
        let s = &self.shape;
        let backend = pass.backend;
        let per_image = saved.window.out_height * saved.window.out_width;

        // Projection: its batch norm has no activation behind it, so dy is what flows in.
        let (z3, norm3) = &saved.project;
        let sums3 = backend.norm_sums(&dy, &self.project.read(&saved.project, Act::Identity))?;
        let grad3 = pass.norm(&self.project.norm, norm3, &sums3)?;
        let dz3 = Grad::Normed {
            dy: &dy,
            z: z3,
            grad: &grad3,
        };

        // Squeeze-excite: its share of batch norm's sums, and the pooled branch's gradient.
        let (z2, norm2) = &saved.depthwise;
        let activated = self.depthwise.read(&saved.depthwise, s.act);
        let (w, dw) = pass.weights(&self.project.weight);
        let gated = self.squeeze_excite.as_ref().zip(saved.gate.as_ref());
        let (g2, sums2, pooled) = match gated {
            Some((layer, (squeezed, gate))) => {
                let input = activated.gated(gate);
                let (g2, images) = backend.pointwise_back_gated(&dz3, &input, w, dw, per_image)?;
                let (values, grads) = (pass.values, &mut *pass.grads);
                let (pool, sums) =
                    backend.squeeze_back(layer, values, squeezed, &images, grads, per_image)?;
                (g2, sums, Some((gate, pool)))
            }
            None => {
                let (dy2, sums) = backend.pointwise_back_activated(&dz3, &activated, w, dw)?;
                (dy2, sums, None)
            }
        };
        let grad2 = pass.norm(&self.depthwise.norm, norm2, &sums2)?;
        let dz2 = match &pooled {
            &Some((gate, ref pool)) => Grad::Gated {
                g: &g2,
                z: z2,
                norm: norm2,
                act: s.act,
                gate,
                pool,
                grad: &grad2,
            },
            None => Grad::Normed {
                dy: &g2,
                z: z2,
                grad: &grad2,
            },
        };

        // Depthwise, then expansion; the shortcut's gradient joins where x's is written.
        let shortcut = self.has_shortcut().then_some(&dy);
        let plain = Src::plain(x, s.channels_in);
        let (w, dw) = pass.weights(&self.depthwise.weight);
        let (Some(layer), Some(expand)) = (&self.expand, &saved.expand) else {
            return backend.depthwise_back(&dz2, &plain, &saved.window, w, dw, shortcut);
        };
        let (z1, norm1) = expand;
        let wide = layer.read(expand, s.act);
        let (dy1, sums1) = backend.depthwise_back_activated(&dz2, &wide, &saved.window, w, dw)?;
        drop(g2);
        let grad1 = pass.norm(&layer.norm, norm1, &sums1)?;
        let dz1 = Grad::Normed {
            dy: &dy1,
            z: z1,
            grad: &grad1,
        };
        let (w, dw) = pass.weights(&layer.weight);
        backend.pointwise_back(&dz1, &plain, w, dw, shortcut)
    }
}
