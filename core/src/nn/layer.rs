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
    pub w1: Range<usize>,
    pub b1: Range<usize>,
    pub w2: Range<usize>,
    pub b2: Range<usize>,
}

impl SqueezeExcite {
    /// Declares `{name}.fc1` and `{name}.fc2`.
    pub fn new(layout: &mut Layout, name: &str, channels: usize, hidden: usize) -> SqueezeExcite {
        let mut add =
            |part: &str, shape: &[usize], role| layout.add(format!("{name}.{part}"), shape, role);
        SqueezeExcite {
            channels,
            hidden,
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
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (inputs, outputs): (usize, usize),
        act: Act,
    ) -> Linear {
        Linear {
            weight: layout.add(
                format!("{name}.weight"),
                &[outputs, inputs],
                Role::LinearWeight,
            ),
            bias: layout.add(format!("{name}.bias"), &[outputs], Role::Bias),
            inputs,
            outputs,
            act,
        }
    }
}
