//! ResNet (He et al. 2016), with the stride in the 3x3 convolution. Layers carry torchvision's names.

use super::{Backbone, Shape, Spec};
use crate::activation::Act;
use crate::block::{Kernels, Names, Pool, PooledStem, Residual, ResidualShape, Stage, Stem};
use crate::layout::Layout;

/// Two 3x3 convolutions a block.
pub(super) const R18: Spec = Spec {
    name: "resnet18",
    title: "ResNet-18",
    twin: "torchvision's resnet18 up to avgpool",
    trained: true,
    norm_eps: 1e-5,
    class_layer: "fc.",
    dropout: 0.0,
    drop_connect: 0.0,
    tokens: false,
    build: |layout, shape| resnet(layout, (&[3, 3], 1), [2, 2, 2, 2], shape),
};

/// A 3x3 between two 1x1 convolutions.
pub(super) const R50: Spec = Spec {
    name: "resnet50",
    title: "ResNet-50",
    twin: "torchvision's resnet50 up to avgpool",
    trained: true,
    norm_eps: 1e-5,
    class_layer: "fc.",
    dropout: 0.0,
    drop_connect: 0.0,
    tokens: false,
    build: |layout, shape| resnet(layout, (&[1, 3, 1], 4), [3, 4, 6, 3], shape),
};

/// Blocks of such kernels, whose last convolution has `expansion` times the channels of the others.
fn resnet(
    layout: &mut Layout,
    (kernels, expansion): (Kernels, usize),
    blocks: [usize; 4],
    shape: Shape,
) -> Backbone {
    let Shape {
        norm_eps: eps,
        padding,
        ..
    } = shape;
    let stem: Names = ("conv1".into(), "bn1".into());
    let stem = Stem::new(layout, stem, (64, 7), Act::Relu, padding, eps);
    let mut trunk: Vec<Stage> = vec![PooledStem::new(stem, 64).into()];
    let mut channels_in = 64;
    for (i, repeats) in blocks.into_iter().enumerate() {
        let inner = 64 << i;
        for repeat in 0..repeats {
            let base = format!("layer{}.{repeat}", i + 1);
            let names: Vec<Names> = (1..=kernels.len())
                .map(|j| (format!("{base}.conv{j}"), format!("{base}.bn{j}")))
                .collect();
            let downsample = (
                format!("{base}.downsample.0"),
                format!("{base}.downsample.1"),
            );
            let shape = ResidualShape {
                channels_in,
                inner,
                channels: inner * expansion,
                stride: if repeat == 0 && i > 0 { 2 } else { 1 },
                padding,
                eps,
            };
            trunk.push(Residual::new(layout, &names, downsample, kernels, shape).into());
            channels_in = shape.channels;
        }
    }
    let pool = Pool {
        channels: channels_in,
    };
    Backbone::new(trunk, vec![pool.into()], channels_in)
}
