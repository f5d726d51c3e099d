//! What the blocks of one pass share.

use std::ops::Range;

use crate::Result;
use crate::nn::backend::{Backend, Param, ParamMut};
use crate::nn::layer::BatchNorm;

/// What a forward pass reads and updates.
pub struct Forward<'a, B: Backend> {
    pub backend: &'a B,
    pub values: &'a B::Flat,
    pub buffers: &'a mut B::Flat,
    /// Batch statistics (training) or running ones.
    pub train: bool,
    /// How far running statistics move towards the batch's.
    pub norm_momentum: f32,
    /// Whether a backward pass will follow.
    pub keep: bool,
}

impl<'a, B: Backend> Forward<'a, B> {
    /// This pass for one stage of a network: a stage that is not `trained` uses running
    /// statistics, and nothing is kept of it.
    pub fn stage(&mut self, trained: bool) -> Forward<'_, B> {
        Forward {
            backend: self.backend,
            values: self.values,
            buffers: self.buffers,
            train: self.train && trained,
            norm_momentum: self.norm_momentum,
            keep: self.keep && trained,
        }
    }

    pub(super) fn param<'r>(&self, range: &'r Range<usize>) -> Param<'r, B>
    where
        'a: 'r,
    {
        let values = self.values;
        Param { values, range }
    }

    pub(super) fn norm(
        &mut self,
        norm: &BatchNorm,
        moments: Option<B::Moments>,
    ) -> Result<B::Norm> {
        let moments = moments.map(|moments| (moments, self.norm_momentum));
        self.backend.norm(norm, self.values, self.buffers, moments)
    }
}

/// What a backward pass reads and adds to.
pub struct Backward<'a, B: Backend> {
    pub backend: &'a B,
    pub values: &'a B::Flat,
    pub grads: &'a mut B::Flat,
}

impl<B: Backend> Backward<'_, B> {
    /// A layer's weight, and where its gradient goes.
    pub(super) fn weights<'r>(
        &'r mut self,
        range: &'r Range<usize>,
    ) -> (Param<'r, B>, ParamMut<'r, B>) {
        let (values, grads) = (self.values, &mut *self.grads);
        (Param { values, range }, ParamMut { grads, range })
    }

    pub(super) fn norm(
        &mut self,
        norm: &BatchNorm,
        state: &B::Norm,
        sums: &B::GradSums,
    ) -> Result<B::NormGrad> {
        self.backend.norm_back(norm, state, sums, self.grads)
    }
}
