//! What the blocks of one pass share.

use std::ops::Range;

use crate::backend::{
    BackwardOps, Conv, ForwardOps, FusedGrad, FusedInput, InputGrad, Param, Sink, Statistics,
    WeightMut,
};
use crate::layer::BatchNorm;
use crate::{Error, Result};
use seedling_base::rng::{Purpose, Rng};

/// What a training pass leaves out at random, and where the draws come from: they depend on seed,
/// step and place alone, so that a resumed run draws the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dropping {
    /// Drop probability of the features before the head (Srivastava et al. 2014).
    pub features: f32,
    /// Drop probability of the last block's branch; less in earlier ones, in proportion
    /// (Huang et al. 2016).
    pub paths: f32,
    pub seed: u64,
    pub step: u64,
    /// Tells the passes of a step apart: which network, view, and micro-batch (the first of several).
    pub pass: u64,
    /// Micro-batches that go through the network at once; 0 is one.
    pub microbatches: usize,
}

impl Dropping {
    /// `n` factors: 0 with probability `probability`, 1 / (1 - probability) otherwise. `layer` tells the layers
    /// of a pass apart. Each micro-batch draws as it would by itself.
    pub fn factors(&self, layer: usize, probability: f32, n: usize) -> Vec<f32> {
        let kept = 1.0 / (1.0 - probability);
        let microbatches = self.microbatches.max(1);
        let of_microbatch = |microbatch: usize| {
            let place = (self.pass + microbatch as u64) << 8 | layer as u64;
            let mut rng = Rng::new(self.seed, Purpose::Dropout, self.step, place);
            let draw = move |_| if rng.chance(probability) { 0.0 } else { kept };
            (0..n / microbatches).map(draw)
        };
        (0..microbatches).flat_map(of_microbatch).collect()
    }
}

/// Running statistics, as a pass finds them.
pub enum Buffers<'a, F> {
    /// It takes them as they are.
    Fixed(&'a F),
    /// It moves them towards the batch's.
    Moving(&'a mut F),
}

impl<F> Buffers<'_, F> {
    fn reborrow(&mut self) -> Buffers<'_, F> {
        match self {
            Buffers::Fixed(buffers) => Buffers::Fixed(buffers),
            Buffers::Moving(buffers) => Buffers::Moving(buffers),
        }
    }
}

/// What a forward pass reads and updates.
pub struct Forward<'a, B: ForwardOps> {
    pub backend: &'a B,
    pub values: &'a B::Flat,
    pub buffers: Buffers<'a, B::Flat>,
    /// Of how many equal parts of the images statistics are taken (training); 0: running ones.
    pub microbatches: usize,
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

impl<'a, B: ForwardOps> Forward<'a, B> {
    /// This pass for one stage of a network: a stage that is not `trained` uses running
    /// statistics, nothing is kept of it, and nothing left out.
    pub fn stage(&mut self, trained: bool, stage: usize) -> Forward<'_, B> {
        Forward {
            backend: self.backend,
            values: self.values,
            buffers: self.buffers.reborrow(),
            microbatches: if trained { self.microbatches } else { 0 },
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
        let momentum = self.norm_momentum;
        let statistics = match (moments, self.buffers.reborrow()) {
            (Some(moments), Buffers::Moving(buffers)) => Statistics::Batch {
                moments,
                buffers,
                momentum,
            },
            (_, Buffers::Moving(buffers)) => Statistics::Running { buffers },
            (_, Buffers::Fixed(buffers)) => Statistics::Running { buffers },
        };
        self.backend.norm(norm, self.values, statistics)
    }
}

/// What a backward pass reads and adds to.
pub struct Backward<'a, B: BackwardOps> {
    pub backend: &'a B,
    pub values: &'a B::Flat,
    pub grads: &'a mut B::Flat,
}

impl<B: BackwardOps> Backward<'_, B> {
    fn conv_back_into(
        &mut self,
        conv: Conv,
        dz: &FusedGrad<B>,
        x: &FusedInput<B>,
        weight: &Range<usize>,
        sink: Sink<B>,
    ) -> Result<InputGrad<B>> {
        let weight = WeightMut {
            values: self.values,
            grads: self.grads,
            range: weight,
        };
        self.backend.conv_back(conv, dz, x, weight, sink)
    }

    /// The gradient of a convolution's weight alone: its input are images.
    pub(super) fn conv_back_images(
        &mut self,
        conv: Conv,
        dz: &FusedGrad<B>,
        images: &FusedInput<B>,
        weight: &Range<usize>,
    ) -> Result<()> {
        let found = self.conv_back_into(conv, dz, images, weight, Sink::Images);
        found.map(|_| ())
    }

    /// dx, plus the gradient that a shortcut brings; x was read as it is stored.
    pub(super) fn conv_back(
        &mut self,
        conv: Conv,
        dz: &FusedGrad<B>,
        x: &FusedInput<B>,
        weight: &Range<usize>,
        shortcut: Option<&B::Buf>,
    ) -> Result<B::Buf> {
        match self.conv_back_into(conv, dz, x, weight, Sink::Plain { shortcut })? {
            InputGrad::Plain(dx) => Ok(dx),
            _ => Err(other_sink()),
        }
    }

    /// dy behind the activation of x, and the sums of its norm.
    pub(super) fn conv_back_activated(
        &mut self,
        conv: Conv,
        dz: &FusedGrad<B>,
        x: &FusedInput<B>,
        weight: &Range<usize>,
    ) -> Result<(B::Buf, B::GradSums)> {
        match self.conv_back_into(conv, dz, x, weight, Sink::Activated)? {
            InputGrad::Activated(dy, sums) => Ok((dy, sums)),
            _ => Err(other_sink()),
        }
    }

    /// The gradient behind the gate of x, and the sums of each image.
    pub(super) fn conv_back_gated(
        &mut self,
        conv: Conv,
        dz: &FusedGrad<B>,
        x: &FusedInput<B>,
        weight: &Range<usize>,
        rows_per_image: usize,
    ) -> Result<(B::Buf, B::ImageSums)> {
        match self.conv_back_into(conv, dz, x, weight, Sink::Gated { rows_per_image })? {
            InputGrad::Gated(g, sums) => Ok((g, sums)),
            _ => Err(other_sink()),
        }
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

/// A backend that answers another question than it was asked.
fn other_sink() -> Error {
    Error::Device("the backend gave another gradient than it was asked for".into())
}
