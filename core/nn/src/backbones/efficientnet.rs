//! EfficientNet (Tan and Le 2019): inverted residuals with SiLU throughout. Layers carry
//! torchvision's names.

use super::{Backbone, Shape, Spec};
use crate::activation::Act;
use crate::block::{
    BlockNames, BlockShape, InvertedResidual, Names, PooledConv, Squeeze, Stage, Stem,
};
use crate::layer::Gate;
use crate::layout::Layout;

/// The smallest of the family.
pub(super) const B0: Spec = Spec {
    name: "efficientnet_b0",
    title: "EfficientNet-B0",
    twin: "torchvision's efficientnet_b0 up to the global pooling",
    trained: true,
    norm_eps: 1e-5,
    class_layer: "classifier.1.",
    dropout: 0.2,
    drop_connect: 0.2,
    tokens: false,
    build: b0,
};

/// expansion, kernel, first stride, out, repeats (table 1).
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

/// All blocks of all stages.
const BLOCKS: f32 = 16.0;

fn b0(layout: &mut Layout, shape: Shape) -> Backbone {
    let Shape {
        norm_eps: eps,
        padding,
        ..
    } = shape;
    let act = Act::Silu;
    let both = |name: &str| -> Names { (format!("{name}.0"), format!("{name}.1")) };
    let stem = Stem::new(layout, both("features.0"), (32, 3), act, padding, eps);
    let mut trunk: Vec<Stage> = vec![stem.into()];
    let mut channels_in = 32;
    for (i, (expansion, kernel, first_stride, channels, repeats)) in STAGES.into_iter().enumerate()
    {
        for repeat in 0..repeats {
            let layer = |j: usize| format!("features.{}.{repeat}.block.{j}", i + 1);
            let first = usize::from(expansion != 1);
            let names = BlockNames {
                expand: (first == 1).then(|| both(&layer(0))),
                depthwise: both(&layer(first)),
                squeeze_excite: layer(first + 1),
                project: both(&layer(first + 2)),
            };
            let shape = BlockShape {
                channels_in,
                expanded: channels_in * expansion,
                channels,
                kernel,
                stride: if repeat == 0 { first_stride } else { 1 },
                // A quarter of what comes in, not of the expansion.
                squeeze: Some(Squeeze {
                    hidden: ((channels_in / 4).max(1), act),
                    gate: Gate::Sigmoid,
                }),
                act,
                gate_first: false,
                dropped: (trunk.len() - 1) as f32 / BLOCKS,
                padding,
                eps,
            };
            trunk.push(InvertedResidual::new(layout, names, shape).into());
            channels_in = channels;
        }
    }
    let last = PooledConv::new(layout, both("features.8"), (channels_in, 1280), act, eps);
    Backbone::new(trunk, vec![last.into()], 1280)
}
