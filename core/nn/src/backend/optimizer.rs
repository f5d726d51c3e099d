//! What follows a gradient.

use std::ops::Range;

use super::Backend;
use crate::Result;

/// Updates of a network's flat numbers.
pub trait OptimizerOps: Backend {
    /// to <- from, of one length.
    fn copy(&self, to: &mut Self::Flat, from: &Self::Flat) -> Result<()>;

    /// Zeros.
    fn clear(&self, flat: &mut Self::Flat) -> Result<()>;

    /// Whether every number is finite.
    fn all_finite(&self, flat: &Self::Flat) -> Result<bool>;

    /// velocity <- momentum * velocity + gradient; value <- value - lr * velocity, in every span,
    /// with gradient + weight_decay * value + anchor * (value - base) for the gradient. `base` is
    /// empty without L2-SP.
    fn sgd(
        &self,
        update: &Update,
        values: &mut Self::Flat,
        grads: &Self::Flat,
        velocity: &mut Self::Flat,
        base: &Self::Flat,
    ) -> Result<()>;

    /// AdamW (Loshchilov and Hutter 2019) in every span: values shrink by lr * weight_decay, then
    /// follow the bias-corrected `first` moment over the root of the `second`.
    fn adamw(
        &self,
        update: &AdamUpdate,
        values: &mut Self::Flat,
        grads: &Self::Flat,
        moments: (&mut Self::Flat, &mut Self::Flat),
    ) -> Result<()>;

    /// own <- momentum * own + (1 - momentum) * other, from place `from` on.
    fn momentum_update(
        &self,
        own: &mut Self::Flat,
        other: &Self::Flat,
        momentum: f32,
        from: usize,
    ) -> Result<()>;
}

/// What one step of momentum SGD does to a network's flat numbers.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Where, and with which weight decay; what lies in no span stays as it is.
    pub spans: &'a [(Range<usize>, f32)],
    pub momentum: f32,
    pub l2_sp: f32,
    pub lr: f32,
}

/// What one step of AdamW does to a network's flat numbers.
#[derive(Clone, Copy, Debug)]
pub struct AdamUpdate<'a> {
    /// As [`Update::spans`].
    pub spans: &'a [(Range<usize>, f32)],
    pub betas: (f32, f32),
    pub eps: f32,
    /// Which step it is, from 1.
    pub step: u64,
    pub lr: f32,
}
