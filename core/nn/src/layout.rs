//! The names of a network's numbers: which tensor lies where in two flat arrays, parameters and
//! running statistics.
//!
//! Flat, so that momentum SGD, the key encoder's moving average and a checkpoint are each one
//! loop. Every tensor keeps PyTorch's name, shape and layout; the operations transpose the few
//! small ones they need otherwise.

use std::ops::Range;

/// What a tensor is to the network; decides initialization, weight decay and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Convolution kernel (out, in / groups, k, k).
    ConvWeight,
    /// Fully connected weight (out, in).
    LinearWeight,
    /// Fully connected weight (out, in) of a transformer.
    ProjectionWeight,
    /// A transformer's class token and positions.
    Token,
    /// Bias of a convolution or a linear layer.
    Bias,
    /// A norm's scale.
    NormWeight,
    /// A norm's shift.
    NormBias,
    /// Batch norm's running mean: a buffer, not trained.
    RunningMean,
    /// Batch norm's running variance: a buffer, not trained.
    RunningVar,
}

impl Role {
    /// Buffers are updated by forward passes, never by gradients.
    pub fn is_buffer(self) -> bool {
        matches!(self, Role::RunningMean | Role::RunningVar)
    }
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in weight files (`features.0.0.weight`).
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// Where it lies in the flat values (or, for buffers, in the flat buffers).
    pub range: Range<usize>,
}

/// The named tensors of a network, in the order of its definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    values: usize,
    buffers: usize,
}

impl Layout {
    /// Appends a tensor and says where it lies.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role) -> Range<usize> {
        let len = shape.iter().product::<usize>();
        let end = if role.is_buffer() {
            &mut self.buffers
        } else {
            &mut self.values
        };
        let range = *end..*end + len;
        *end += len;
        self.entries.push(Entry {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            range: range.clone(),
        });
        range
    }

    /// All tensors, parameters and buffers, in definition order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Numbers in all trainable tensors together.
    pub fn parameter_count(&self) -> usize {
        self.values
    }

    /// Numbers in all buffers together.
    pub fn buffer_count(&self) -> usize {
        self.buffers
    }
}
