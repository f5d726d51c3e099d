//! What the blocks of one pass share.

use crate::nn::ops::norm::{BatchNorm, Moments, NormState, Statistics};
use crate::nn::workspace::Workspace;

/// What a forward pass reads and updates.
pub struct Forward<'a> {
    pub values: &'a [f32],
    pub buffers: &'a mut [f32],
    /// Batch statistics (training) or running ones.
    pub train: bool,
    /// How far running statistics move towards the batch's.
    pub norm_momentum: f32,
    /// Whether a backward pass will follow.
    pub keep: bool,
    pub workspace: &'a Workspace,
}

impl Forward<'_> {
    /// This pass for one stage of a network: a stage that is not `trained` uses running
    /// statistics, and nothing is kept of it.
    pub fn stage(&mut self, trained: bool) -> Forward<'_> {
        Forward {
            values: self.values,
            buffers: self.buffers,
            train: self.train && trained,
            norm_momentum: self.norm_momentum,
            keep: self.keep && trained,
            workspace: self.workspace,
        }
    }

    pub(super) fn norm(&mut self, norm: &BatchNorm, moments: Option<Moments>) -> NormState {
        match moments {
            Some(moments) => norm.state(
                self.values,
                &moments,
                Statistics::Batch {
                    buffers: self.buffers,
                    momentum: self.norm_momentum,
                },
            ),
            None => norm.state(
                self.values,
                &Moments::zeros(norm.channels),
                Statistics::Running {
                    buffers: self.buffers,
                },
            ),
        }
    }
}

/// What a backward pass reads and adds to.
pub struct Backward<'a> {
    pub values: &'a [f32],
    pub grads: &'a mut [f32],
    pub workspace: &'a Workspace,
}
