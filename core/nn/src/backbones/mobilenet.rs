//! The MobileNet family: a stem, inverted residuals, one last 1x1 convolution and, in V3, a
//! fully connected layer. Layers carry torchvision's names.

use super::{Backbone, Shape, Spec};
use crate::activation::Act;
use crate::block::{
    BlockNames, BlockShape, Dense, InvertedResidual, Names, PooledConv, Squeeze, Stage, Stem,
};
use crate::layer::{Gate, Linear, SqueezeOrder};
use crate::layout::Layout;

/// Howard et al. 2019.
pub(super) const V3_SMALL: Spec = Spec {
    name: "mobilenet_v3_small",
    title: "MobileNetV3-Small",
    twin: "torchvision's mobilenet_v3_small up to classifier.1",
    trained: true,
    norm_eps: 1e-3,
    class_layer: "classifier.3.",
    dropout: 0.2,
    drop_connect: 0.0,
    tokens: false,
    build: |layout, shape| v3(layout, &SMALL, 1024, shape),
};

/// Howard et al. 2019.
pub(super) const V3_LARGE: Spec = Spec {
    name: "mobilenet_v3_large",
    title: "MobileNetV3-Large",
    twin: "torchvision's mobilenet_v3_large up to classifier.1",
    trained: true,
    norm_eps: 1e-3,
    class_layer: "classifier.3.",
    dropout: 0.2,
    drop_connect: 0.0,
    tokens: false,
    build: |layout, shape| v3(layout, &LARGE, 1280, shape),
};

/// Sandler et al. 2018. A teacher.
pub(super) const V2: Spec = Spec {
    name: "mobilenet_v2",
    title: "MobileNetV2",
    twin: "torchvision's mobilenet_v2 up to the global pooling",
    trained: false,
    norm_eps: 1e-5,
    class_layer: "classifier.1.",
    dropout: 0.0,
    drop_connect: 0.0,
    tokens: false,
    build: v2,
};

/// kernel, expanded, out, squeeze-excite, activation, stride (Howard et al. 2019, table 1).
type Row = (usize, usize, usize, bool, Act, usize);
const RE: Act = Act::Relu;
const HS: Act = Act::HardSwish;

const LARGE: [Row; 15] = [
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
const SMALL: [Row; 11] = [
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
const BOTTLENECKS: [(usize, usize, usize, usize); 7] = [
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

/// `{name}.{first}` and `{name}.{second}`: a convolution and its batch norm.
fn pair(name: &str, first: &str, second: &str) -> Names {
    (format!("{name}.{first}"), format!("{name}.{second}"))
}

fn v3(layout: &mut Layout, rows: &[Row], features: usize, shape: Shape) -> Backbone {
    let Shape {
        norm_eps: eps,
        padding,
        squeeze_order,
    } = shape;
    let both = |name: &str| pair(name, "0", "1");
    let mut trunk: Vec<Stage> = Vec::with_capacity(1 + rows.len());
    trunk.push(Stem::new(layout, both("features.0"), (16, 3), HS, padding, eps).into());
    let mut channels_in = 16;
    for (i, &(kernel, expanded, channels, squeeze, act, stride)) in rows.iter().enumerate() {
        let layer = |j: usize| format!("features.{}.block.{j}", i + 1);
        let first = usize::from(expanded != channels_in);
        let names = BlockNames {
            expand: (first == 1).then(|| both(&layer(0))),
            depthwise: both(&layer(first)),
            squeeze_excite: layer(first + 1),
            project: both(&layer(first + 1 + usize::from(squeeze))),
        };
        let shape = BlockShape {
            channels_in,
            expanded,
            channels,
            kernel,
            stride,
            squeeze: squeeze.then(|| Squeeze {
                hidden: (make_divisible(expanded / 4), RE),
                gate: Gate::HardSigmoid,
            }),
            act,
            gate_first: first == 1 && squeeze_order == SqueezeOrder::GateFirst,
            dropped: 0.0,
            padding,
            eps,
        };
        trunk.push(InvertedResidual::new(layout, names, shape).into());
        channels_in = channels;
    }
    let last = both(&format!("features.{}", rows.len() + 1));
    let sizes = (channels_in, 6 * channels_in);
    let last = PooledConv::new(layout, last, sizes, HS, eps);
    let classifier = Linear::new(layout, "classifier.0", (sizes.1, features), HS);
    let tail = vec![last.into(), Dense(classifier).into()];
    Backbone::new(trunk, tail, features)
}

fn v2(layout: &mut Layout, shape: Shape) -> Backbone {
    let Shape {
        norm_eps: eps,
        padding,
        ..
    } = shape;
    let act = Act::Relu6;
    let stem = Stem::new(
        layout,
        pair("features.0", "0", "1"),
        (32, 3),
        act,
        padding,
        eps,
    );
    let mut trunk: Vec<Stage> = vec![stem.into()];
    let mut channels_in = 32;
    for (expansion, channels, repeats, first_stride) in BOTTLENECKS {
        for repeat in 0..repeats {
            let base = format!("features.{}.conv", trunk.len());
            let inner = |j: usize| pair(&format!("{base}.{j}"), "0", "1");
            let first = usize::from(expansion != 1);
            let names = BlockNames {
                expand: (first == 1).then(|| inner(0)),
                depthwise: inner(first),
                squeeze_excite: String::new(),
                project: pair(&base, &(first + 1).to_string(), &(first + 2).to_string()),
            };
            let shape = BlockShape {
                channels_in,
                expanded: channels_in * expansion,
                channels,
                kernel: 3,
                stride: if repeat == 0 { first_stride } else { 1 },
                squeeze: None,
                act,
                gate_first: false,
                dropped: 0.0,
                padding,
                eps,
            };
            trunk.push(InvertedResidual::new(layout, names, shape).into());
            channels_in = channels;
        }
    }
    let last = pair("features.18", "0", "1");
    let last = PooledConv::new(layout, last, (channels_in, 1280), act, eps);
    Backbone::new(trunk, vec![last.into()], 1280)
}
