//! The MobileNet family: a stem, inverted residuals, one last 1x1 convolution and, in V3, a
//! fully connected layer. Layers carry torchvision's names.

use super::Arch;
use crate::Result;
use crate::layout::Layout;
use crate::nn::activation::Act;
use crate::nn::backend::Backend;
use crate::nn::block::{
    Backward, BlockNames, BlockSaved, BlockShape, Forward, InvertedResidual, PooledConv,
    PooledSaved, Size, Stem, StemSaved,
};
use crate::nn::layer::Linear;
use crate::nn::window::Padding;

/// One network of the family.
#[derive(Clone, Debug)]
pub struct Backbone {
    stem: Stem,
    blocks: Vec<InvertedResidual>,
    last: PooledConv,
    classifier: Option<Linear>,
}

/// What a backward pass needs: per stage its input and what the stage kept; `None` for frozen
/// stages, and all of them where nothing is kept.
#[derive(Debug)]
pub struct BackboneSaved<B: Backend> {
    stem: Option<StemSaved<B>>,
    blocks: Vec<Option<(B::Buf, BlockSaved<B>)>>,
    last: Option<(B::Buf, PooledSaved<B>)>,
    classifier: Option<(B::Buf, B::Buf)>,
}

/// kernel, expanded, out, squeeze-excite, activation, stride (Howard et al. 2019, table 1).
type Row = (usize, usize, usize, bool, Act, usize);
const RE: Act = Act::Relu;
const HS: Act = Act::HardSwish;

const V3_LARGE: [Row; 15] = [
    (3, 16, 16, false, RE, 1),
    (3, 64, 24, false, RE, 2),
    (3, 72, 24, false, RE, 1),
    (5, 72, 40, true, RE, 2),
    (5, 120, 40, true, RE, 1),
    (5, 120, 40, true, RE, 1),
    (3, 240, 80, false, HS, 2),
    (3, 200, 80, false, HS, 1),
    (3, 184, 80, false, HS, 1),
    (3, 184, 80, false, HS, 1),
    (3, 480, 112, true, HS, 1),
    (3, 672, 112, true, HS, 1),
    (5, 672, 160, true, HS, 2),
    (5, 960, 160, true, HS, 1),
    (5, 960, 160, true, HS, 1),
];

/// Table 2.
const V3_SMALL: [Row; 11] = [
    (3, 16, 16, true, RE, 2),
    (3, 72, 24, false, RE, 2),
    (3, 88, 24, false, RE, 1),
    (5, 96, 40, true, HS, 2),
    (5, 240, 40, true, HS, 1),
    (5, 240, 40, true, HS, 1),
    (5, 120, 48, true, HS, 1),
    (5, 144, 48, true, HS, 1),
    (5, 288, 96, true, HS, 2),
    (5, 576, 96, true, HS, 1),
    (5, 576, 96, true, HS, 1),
];

/// expansion, out, repeats, first stride (Sandler et al. 2018, table 2).
const V2: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// The nearest multiple of 8, but never less than 90 % of `channels`.
fn make_divisible(channels: usize) -> usize {
    let rounded = ((channels + 4) / 8 * 8).max(8);
    if rounded * 10 < channels * 9 {
        rounded + 8
    } else {
        rounded
    }
}

impl Backbone {
    /// Declares the parameters of `arch` and returns the network over them.
    pub fn new(layout: &mut Layout, arch: Arch, eps: f32, padding: Padding) -> Backbone {
        match arch {
            Arch::MobilenetV3Large => Self::v3(layout, &V3_LARGE, 1280, eps, padding),
            Arch::MobilenetV3Small => Self::v3(layout, &V3_SMALL, 1024, eps, padding),
            Arch::MobilenetV2 => Self::v2(layout, eps, padding),
        }
    }

    fn v3(layout: &mut Layout, rows: &[Row], features: usize, eps: f32, padding: Padding) -> Self {
        let stem = Stem::new(layout, "features.0", (3, 16, 2), HS, padding, eps);
        let mut channels_in = 16;
        let mut blocks = Vec::with_capacity(rows.len());
        for (i, &(kernel, expanded, channels, squeeze, act, stride)) in rows.iter().enumerate() {
            let layer = |j: usize| format!("features.{}.block.{j}", i + 1);
            let pair = |j: usize| (format!("{}.0", layer(j)), format!("{}.1", layer(j)));
            let first = usize::from(expanded != channels_in);
            let names = BlockNames {
                expand: (first == 1).then(|| pair(0)),
                depthwise: pair(first),
                squeeze_excite: layer(first + 1),
                project: pair(first + 1 + usize::from(squeeze)),
            };
            let shape = BlockShape {
                channels_in,
                expanded,
                channels,
                kernel,
                stride,
                squeeze: squeeze.then(|| make_divisible(expanded / 4)),
                act,
                padding,
                eps,
            };
            blocks.push(InvertedResidual::new(layout, names, shape));
            channels_in = channels;
        }
        let last_name = format!("features.{}", rows.len() + 1);
        let last = PooledConv::new(layout, &last_name, (channels_in, 6 * channels_in), HS, eps);
        let classifier = Linear::new(layout, "classifier.0", (6 * channels_in, features), HS);
        Backbone {
            stem,
            blocks,
            last,
            classifier: Some(classifier),
        }
    }

    fn v2(layout: &mut Layout, eps: f32, padding: Padding) -> Self {
        let act = Act::Relu6;
        let stem = Stem::new(layout, "features.0", (3, 32, 2), act, padding, eps);
        let mut channels_in = 32;
        let mut blocks = Vec::new();
        for (expansion, channels, repeats, first_stride) in V2 {
            for repeat in 0..repeats {
                let base = format!("features.{}.conv", blocks.len() + 1);
                let inner = |j: usize| (format!("{base}.{j}.0"), format!("{base}.{j}.1"));
                let first = usize::from(expansion != 1);
                let names = BlockNames {
                    expand: (first == 1).then(|| inner(0)),
                    depthwise: inner(first),
                    squeeze_excite: String::new(),
                    project: (
                        format!("{base}.{}", first + 1),
                        format!("{base}.{}", first + 2),
                    ),
                };
                let shape = BlockShape {
                    channels_in,
                    expanded: channels_in * expansion,
                    channels,
                    kernel: 3,
                    stride: if repeat == 0 { first_stride } else { 1 },
                    squeeze: None,
                    act,
                    padding,
                    eps,
                };
                blocks.push(InvertedResidual::new(layout, names, shape));
                channels_in = channels;
            }
        }
        Backbone {
            stem,
            last: PooledConv::new(layout, "features.18", (channels_in, 1280), act, eps),
            blocks,
            classifier: None,
        }
    }

    /// Length of a feature vector.
    pub fn feature_dim(&self) -> usize {
        self.classifier
            .as_ref()
            .map_or(self.last.channels, |c| c.outputs)
    }

    /// Blocks that can be frozen from the bottom: the stem and every inverted residual.
    pub fn depth(&self) -> usize {
        1 + self.blocks.len()
    }

    /// Parameters (a prefix of the flat values) of the first `stages` of [`Backbone::depth`].
    pub fn frozen_parameters(&self, stages: usize) -> usize {
        match stages {
            0 => 0,
            1 => self.stem.parameters_end(),
            n => self.blocks[(n - 2).min(self.blocks.len() - 1)].parameters_end(),
        }
    }

    /// Images (n, height, width, 3) to features (n, feature_dim), and what backward needs. The
    /// first `frozen` stages run on their running statistics and keep nothing.
    pub fn forward<B: Backend>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
        frozen: usize,
    ) -> Result<(B::Buf, BackboneSaved<B>)> {
        let mut stage = pass.stage(frozen == 0);
        let (mut x, mut size, stem) = self.stem.forward(&mut stage, images, size)?;
        let stem = stage.keep.then_some(stem);
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let mut stage = pass.stage(i + 1 >= frozen);
            let (y, out_size, saved) = block.forward(&mut stage, &x, size)?;
            let input = std::mem::replace(&mut x, y);
            size = out_size;
            blocks.push(stage.keep.then_some((input, saved)));
        }
        let (mut y, last) = self.last.forward(pass, &x, size)?;
        let last = pass.keep.then_some((x, last));
        let mut classifier = None;
        if let Some(layer) = &self.classifier {
            let (features, u) = pass.backend.linear(layer, pass.values, &y)?;
            classifier = Some((std::mem::replace(&mut y, features), u));
        }
        let saved = BackboneSaved {
            stem,
            blocks,
            last,
            classifier,
        };
        Ok((y, saved))
    }

    /// Adds parameter gradients for the features' gradient `dy`, stage by stage from the top;
    /// what a stage has kept is given back as soon as it is used.
    pub fn backward<B: Backend>(
        &self,
        pass: &mut Backward<B>,
        images: &B::Buf,
        saved: BackboneSaved<B>,
        mut dy: B::Buf,
    ) -> Result<()> {
        if let (Some(layer), Some((x, u))) = (&self.classifier, saved.classifier) {
            let (values, grads) = (pass.values, &mut *pass.grads);
            dy = pass
                .backend
                .linear_back(layer, values, grads, (&x, &u), dy)?;
        }
        let Some((x, last)) = saved.last else {
            return Ok(());
        };
        dy = self.last.backward(pass, &x, &last, &dy)?;
        drop((x, last));
        for (block, saved) in self.blocks.iter().zip(saved.blocks).rev() {
            let Some((x, saved)) = saved else {
                return Ok(());
            };
            dy = block.backward(pass, &x, &saved, dy)?;
        }
        match saved.stem {
            Some(stem) => self.stem.backward(pass, images, &stem, dy),
            None => Ok(()),
        }
    }
}
