//! The block that mobile networks are made of.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Block, Forward, Names, Size};
use crate::Result;
use crate::activation::Act;
use crate::backend::{BackwardOps, Conv, ForwardOps, FusedGrad, FusedInput};
use crate::layer::{Gate, SqueezeExcite};
use crate::layout::Layout;
use crate::window::{Padding, Window};

/// Sizes and switches of an [`InvertedResidual`].
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    pub channels_in: usize,
    pub expanded: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Squeeze-excite, where there is one.
    pub squeeze: Option<Squeeze>,
    pub act: Act,
    /// Whether squeeze-excite comes before the activation, not behind it.
    pub gate_first: bool,
    /// How much of [`super::Dropping::paths`] falls to this block.
    pub dropped: f32,
    pub padding: Padding,
    pub eps: f32,
}

/// What distinguishes one squeeze-excite from another.
#[derive(Clone, Copy, Debug)]
pub struct Squeeze {
    /// Width of its hidden layer, and its activation.
    pub hidden: (usize, Act),
    pub gate: Gate,
}

/// Names of a block's layers in weight files.
pub struct BlockNames {
    pub expand: Option<Names>,
    pub depthwise: Names,
    /// Beginning of the names of its two layers, and these.
    pub squeeze_excite: String,
    pub project: Names,
}

/// Expand 1x1, depthwise, squeeze-excite, project 1x1, shortcut (Sandler et al. 2018, Howard et
/// al. 2019, Tan and Le 2019). torchvision activates before squeeze-excite, the paper's program behind it.
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
pub struct BlockCache<B: ForwardOps> {
    expand: Option<Normed<B>>,
    depthwise: Normed<B>,
    gate: Option<(B::Squeezed, B::PerImage)>,
    /// What was gated before its activation, and the norm that it does not have.
    gated: Option<Normed<B>>,
    project: Normed<B>,
    window: Window,
    /// What the branch of each image is multiplied by, where some skip it.
    factors: Option<B::PerImage>,
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
        // Without a gate there is nothing that could come first.
        let gate_first = shape.gate_first && shape.squeeze.is_some();
        InvertedResidual {
            shape: BlockShape {
                gate_first,
                ..shape
            },
            expand,
            depthwise: ConvNorm::new(layout, names.depthwise, &taps, eps),
            squeeze_excite: shape.squeeze.map(|squeeze| {
                let (name, hidden) = (&names.squeeze_excite, squeeze.hidden);
                SqueezeExcite::new(layout, name, expanded, hidden, squeeze.gate)
            }),
            project: ConvNorm::new(layout, names.project, &[channels, expanded, 1, 1], eps),
        }
    }

    /// The activation between depthwise convolution and gate.
    fn before_gate(&self) -> Act {
        match self.shape.gate_first {
            true => Act::Identity,
            false => self.shape.act,
        }
    }

    fn has_shortcut(&self) -> bool {
        self.shape.stride == 1 && self.shape.channels_in == self.shape.channels
    }

    /// Factors of the images' branches in a pass that drops some of them.
    fn factors<B: ForwardOps>(
        &self,
        pass: &Forward<B>,
        images: usize,
        per_image: usize,
    ) -> Result<Option<B::PerImage>> {
        let probability = |dropping: super::Dropping| dropping.paths * self.shape.dropped;
        let dropping = pass
            .dropping
            .filter(|dropping| probability(*dropping) > 0.0);
        let Some(dropping) = dropping.filter(|_| self.has_shortcut()) else {
            return Ok(None);
        };
        let factors = dropping.factors(pass.stage, probability(dropping), images);
        let channels = self.shape.channels;
        pass.backend
            .per_image(&factors, channels, per_image)
            .map(Some)
    }
}

impl Block for InvertedResidual {
    type Cache<B: ForwardOps> = BlockCache<B>;

    /// x (n, height, width, in) to y (n, height / stride, width / stride, out).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, BlockCache<B>)> {
        let s = &self.shape;
        let window = Window::new(size, s.expanded, s.kernel, s.stride, s.padding);
        let out_size = (window.out_height, window.out_width);
        let per_image = out_size.0 * out_size.1;

        let plain = FusedInput::plain(x, s.channels_in);
        let expand = match &self.expand {
            Some(layer) => Some(layer.forward(pass, Conv::Pointwise, &plain)?),
            None => None,
        };
        let wide = match (&self.expand, &expand) {
            (Some(layer), Some(z)) => layer.read(z, s.act),
            _ => plain,
        };
        let depthwise = self
            .depthwise
            .forward(pass, Conv::Depthwise(window), &wide)?;
        let activated = self.depthwise.read(&depthwise, self.before_gate());
        let gate = match &self.squeeze_excite {
            Some(layer) => {
                let backend = pass.backend;
                Some(backend.squeeze(layer, pass.values, &activated, per_image)?)
            }
            None => None,
        };
        let behind = match &gate {
            Some((_, gate)) => activated.gated(gate),
            None => activated,
        };
        let gated = match s.gate_first {
            true => {
                let backend = pass.backend;
                Some((backend.materialize(&behind)?, backend.no_norm(s.expanded)?))
            }
            false => None,
        };
        let behind = match &gated {
            Some(gated) => self.depthwise.read(gated, s.act),
            None => behind,
        };
        let project = self.project.forward(pass, Conv::Pointwise, &behind)?;
        let factors = self.factors(pass, pass.images, per_image)?;
        let branch = self.project.read(&project, Act::Identity);
        let branch = match &factors {
            Some(factors) => branch.gated(factors),
            None => branch,
        };
        let y = match self.has_shortcut() {
            true => pass.backend.add(&branch, &plain, Act::Identity)?,
            false => pass.backend.materialize(&branch)?,
        };
        let cache = BlockCache {
            expand,
            depthwise,
            gate,
            gated,
            project,
            window,
            factors,
        };
        Ok((y, out_size, cache))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        cache: BlockCache<B>,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let s = &self.shape;
        let backend = pass.backend;
        let per_image = cache.window.out_height * cache.window.out_width;

        // Projection: its batch norm has no activation behind it, so dy is what flows in.
        let (z3, norm3) = &cache.project;
        let branch = match &cache.factors {
            Some(factors) => &backend.scale_images(&dy, factors, s.channels)?,
            None => &dy,
        };
        let sums3 = backend.norm_sums(branch, &self.project.read(&cache.project, Act::Identity))?;
        let grad3 = pass.norm(&self.project.norm, norm3, &sums3)?;
        let dz3 = FusedGrad::Normed {
            dy: branch,
            z: z3,
            grad: &grad3,
        };

        // Squeeze-excite: its part of batch norm's sums, and the pooled branch's gradient.
        let (z2, norm2) = &cache.depthwise;
        let activated = self.depthwise.read(&cache.depthwise, self.before_gate());
        let (project, pointwise) = (&self.project.weight, Conv::Pointwise);
        let gated = self.squeeze_excite.as_ref().zip(cache.gate.as_ref());
        let (g2, sums2, pooled) = match gated {
            Some((layer, (squeezed, gate))) => {
                let input = activated.gated(gate);
                let (g2, images) = match &cache.gated {
                    Some(gated) => {
                        let behind = self.depthwise.read(gated, s.act);
                        let (g2, _) =
                            pass.conv_back_activated(pointwise, &dz3, &behind, project)?;
                        let images = backend.gate_sums(&g2, &input, per_image)?;
                        (g2, images)
                    }
                    None => pass.conv_back_gated(pointwise, &dz3, &input, project, per_image)?,
                };
                let (values, grads) = (pass.values, &mut *pass.grads);
                let (pool, sums) =
                    backend.squeeze_back(layer, values, squeezed, &images, grads, per_image)?;
                (g2, sums, Some((gate, pool)))
            }
            None => {
                let (dy2, sums) = pass.conv_back_activated(pointwise, &dz3, &activated, project)?;
                (dy2, sums, None)
            }
        };
        let grad2 = pass.norm(&self.depthwise.norm, norm2, &sums2)?;
        let dz2 = match &pooled {
            &Some((gate, ref pool)) => FusedGrad::Gated {
                g: &g2,
                z: z2,
                norm: norm2,
                act: self.before_gate(),
                gate,
                pool,
                grad: &grad2,
            },
            None => FusedGrad::Normed {
                dy: &g2,
                z: z2,
                grad: &grad2,
            },
        };

        // Depthwise, then expansion; the shortcut's gradient joins where x's is written.
        let shortcut = self.has_shortcut().then_some(&dy);
        let plain = FusedInput::plain(x, s.channels_in);
        let (depthwise, taps) = (Conv::Depthwise(cache.window), &self.depthwise.weight);
        let (Some(layer), Some(expand)) = (&self.expand, &cache.expand) else {
            let dx = pass.conv_back(depthwise, &dz2, &plain, taps, shortcut)?;
            return Ok(Some(dx));
        };
        let (z1, norm1) = expand;
        let wide = layer.read(expand, s.act);
        let (dy1, sums1) = pass.conv_back_activated(depthwise, &dz2, &wide, taps)?;
        drop(g2);
        let grad1 = pass.norm(&layer.norm, norm1, &sums1)?;
        let dz1 = FusedGrad::Normed {
            dy: &dy1,
            z: z1,
            grad: &grad1,
        };
        let dx = pass.conv_back(Conv::Pointwise, &dz1, &plain, &layer.weight, shortcut)?;
        Ok(Some(dx))
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.project.norm.parameters_end())
    }
}
