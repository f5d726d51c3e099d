//! Layers: where a network's parts lie in its flat numbers, and their sizes. No arithmetic.

use std::ops::Range;

use super::activation::Act;
use crate::layout::{Layout, Role};

/// Batch norm.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    pub channels: usize,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub running_mean: Range<usize>,
    pub running_var: Range<usize>,
    pub eps: f32,
}

impl BatchNorm {
    /// Declares `{name}.weight`, `.bias`, `.running_mean`, `.running_var`.
    pub fn new(layout: &mut Layout, name: &str, channels: usize, eps: f32) -> BatchNorm {
        let mut add = |part: &str, role| layout.add(format!("{name}.{part}"), &[channels], role);
        BatchNorm {
            channels,
            weight: add("weight", Role::NormWeight),
            bias: add("bias", Role::NormBias),
            running_mean: add("running_mean", Role::RunningMean),
            running_var: add("running_var", Role::RunningVar),
            eps,
        }
    }

    /// Where this layer's parameters end in the flat values.
    pub fn parameters_end(&self) -> usize {
        self.bias.end
    }
}

/// Squeeze-excite's two small layers: (hidden, channels) and (channels, hidden), stored as 1x1
/// convolutions.
#[derive(Clone, Debug)]
pub struct SqueezeExcite {
    pub channels: usize,
    pub hidden: usize,
    pub act: Act,
    pub gate: Gate,
    pub w1: Range<usize>,
    pub b1: Range<usize>,
    pub w2: Range<usize>,
    pub b2: Range<usize>,
}

/// What makes a number between 0 and 1 of squeeze-excite's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gate {
    /// relu6(u + 3) / 6.
    HardSigmoid,
    /// 1 / (1 + exp(-u)).
    Sigmoid,
}

/// Whether squeeze-excite comes behind the activation, as in torchvision's and timm's MobileNetV3, or
/// before it where a block expands, as in d-li14's and the paper's program. The weights have the same
/// shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqueezeOrder {
    #[default]
    ActivationFirst,
    GateFirst,
}

impl SqueezeExcite {
    /// Declares `{name}.fc1` and `{name}.fc2`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        channels: usize,
        (hidden, act): (usize, Act),
        gate: Gate,
    ) -> SqueezeExcite {
        let mut add =
            |part: &str, shape: &[usize], role| layout.add(format!("{name}.{part}"), shape, role);
        SqueezeExcite {
            channels,
            hidden,
            act,
            gate,
            w1: add("fc1.weight", &[hidden, channels, 1, 1], Role::ConvWeight),
            b1: add("fc1.bias", &[hidden], Role::Bias),
            w2: add("fc2.weight", &[channels, hidden, 1, 1], Role::ConvWeight),
            b2: add("fc2.bias", &[channels], Role::Bias),
        }
    }
}

/// Fully connected layer with bias and activation.
#[derive(Clone, Debug)]
pub struct Linear {
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub inputs: usize,
    pub outputs: usize,
    pub act: Act,
}

impl Linear {
    /// Declares `{name}.weight` (outputs, inputs) and `{name}.bias`.
    pub fn new(layout: &mut Layout, name: &str, sizes: (usize, usize), act: Act) -> Linear {
        Linear::new_with_role(layout, name, sizes, act, Role::LinearWeight)
    }

    /// The same in a transformer, where it begins with other numbers.
    pub fn projecting(layout: &mut Layout, name: &str, sizes: (usize, usize), act: Act) -> Linear {
        Linear::new_with_role(layout, name, sizes, act, Role::ProjectionWeight)
    }

    fn new_with_role(
        layout: &mut Layout,
        name: &str,
        (inputs, outputs): (usize, usize),
        act: Act,
        role: Role,
    ) -> Linear {
        Linear {
            weight: layout.add(format!("{name}.weight"), &[outputs, inputs], role),
            bias: layout.add(format!("{name}.bias"), &[outputs], Role::Bias),
            inputs,
            outputs,
            act,
        }
    }
}

/// Layer norm (Ba et al. 2016).
#[derive(Clone, Debug)]
pub struct LayerNorm {
    pub dim: usize,
    pub weight: Range<usize>,
    pub bias: Range<usize>,
    pub eps: f32,
}

impl LayerNorm {
    /// Declares `{name}.weight` and `.bias`.
    pub fn new(layout: &mut Layout, name: &str, dim: usize, eps: f32) -> LayerNorm {
        LayerNorm {
            dim,
            weight: layout.add(format!("{name}.weight"), &[dim], Role::NormWeight),
            bias: layout.add(format!("{name}.bias"), &[dim], Role::NormBias),
            eps,
        }
    }
}

/// A transformer's class token and learned positions, for `side` x `side` patches and the token.
#[derive(Clone, Debug)]
pub struct Positions {
    pub dim: usize,
    pub side: usize,
    /// Added to every patch: the bias of what made it.
    pub patch_bias: Range<usize>,
    pub class: Range<usize>,
    /// (1 + side * side, dim), the class token's first.
    pub grid: Range<usize>,
}

impl Positions {
    /// Declares `cls_token` and `pos_embed`.
    pub fn new(
        layout: &mut Layout,
        side: usize,
        dim: usize,
        patch_bias: Range<usize>,
    ) -> Positions {
        Positions {
            dim,
            side,
            patch_bias,
            class: layout.add("cls_token", &[1, 1, dim], Role::Token),
            grid: layout.add("pos_embed", &[1, 1 + side * side, dim], Role::Token),
        }
    }
}

/// How attention reads its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Per image.
    pub tokens: usize,
    pub heads: usize,
    /// Of all heads together.
    pub dim: usize,
}
