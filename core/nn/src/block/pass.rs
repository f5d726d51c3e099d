//! What the blocks of one pass share.

use std::ops::Range;

use crate::Result;
use crate::backend::{Backend, Param, ParamMut};
use crate::layer::BatchNorm;
use seedling_base::rng::{Purpose, Rng};

/// What a training pass leaves out at random, and where the draws come from: they depend on seed,
/// step and place alone, so that a resumed run draws the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropping {
    /// Share of the features that the head does not see (Srivastava et al. 2014).
    pub features: f32,
    /// Share of the images that skip the last block's branch; less in earlier ones, in proportion
    /// (Huang et al. 2016).
    pub paths: f32,
    pub seed: u64,
    pub step: u64,
    /// Tells the passes of a step apart: which network, view, and group (the first of several).
    pub pass: u64,
    /// Groups that go through the network at once; 0 is one.
    pub groups: usize,
}

impl Dropping {
    /// `n` factors: 0 with probability `share`, 1 / (1 - share) otherwise. `layer` tells the layers
    /// of a pass apart. Each group draws as it would by itself.
    pub fn factors(&self, layer: usize, share: f32, n: usize) -> Vec<f32> {
        let kept = 1.0 / (1.0 - share);
        let groups = self.groups.max(1);
        let of_group = |group: usize| {
            let place = (self.pass + group as u64) << 8 | layer as u64;
            let mut rng = Rng::new(self.seed, Purpose::Dropout, self.step, place);
            let draw = move |_| if rng.chance(share) { 0.0 } else { kept };
            (0..n / groups).map(draw)
        };
        (0..groups).flat_map(of_group).collect()
    }
}

/// What a forward pass reads and updates.
pub struct Forward<'a, B: Backend> {
    pub backend: &'a B,
    pub values: &'a B::Flat,
    pub buffers: &'a mut B::Flat,
    /// Of how many equal parts of the images statistics are taken (training); 0: running ones.
    pub groups: usize,
    /// How far running statistics move towards the batch's.
    pub norm_momentum: f32,
    /// Whether a backward pass will follow.
    pub keep: bool,
    /// What is left out at random; nothing on running statistics.
    pub dropping: Option<Dropping>,
    /// Which stage of the network this is.
    pub stage: usize,
    /// How many images there are.
    pub images: usize,
}

impl<'a, B: Backend> Forward<'a, B> {
    /// This pass for one stage of a network: a stage that is not `trained` uses running
    /// statistics, nothing is kept of it, and nothing left out.
    pub fn stage(&mut self, trained: bool, stage: usize) -> Forward<'_, B> {
        Forward {
            backend: self.backend,
            values: self.values,
            buffers: self.buffers,
            groups: if trained { self.groups } else { 0 },
            norm_momentum: self.norm_momentum,
            keep: self.keep && trained,
            dropping: self.dropping.filter(|_| trained),
            stage,
            images: self.images,
        }
    }

    pub(crate) fn param<'r>(&self, range: &'r Range<usize>) -> Param<'r, B>
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
