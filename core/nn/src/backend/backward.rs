//! What learning adds to a forward pass: every operation's backward.

use std::ops::Range;

use super::{Conv, ForwardOps, FusedInput, Rows};
use crate::Result;
use crate::activation::Act;
use crate::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use crate::window::Window;

/// Backward operations. Parameter gradients are added, never set.
pub trait BackwardOps: ForwardOps {
    /// The sums over dy that batch norm's backward needs.
    type GradSums;
    /// A batch norm's backward, ready to be read.
    type NormGrad;
    /// What a gate's backward needs of each image.
    type ImageSums;

    /// Adds the weight's gradient to `weight.grads`; the input's goes where `sink` says.
    fn conv_back(
        &self,
        conv: Conv,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        weight: WeightMut<Self>,
        sink: Sink<Self>,
    ) -> Result<InputGrad<Self>>;

    /// Adds the gradients of the layer's weight and bias to `grads`.
    fn norm_back(
        &self,
        layer: &BatchNorm,
        norm: &Self::Norm,
        sums: &Self::GradSums,
        grads: &mut Self::Flat,
    ) -> Result<Self::NormGrad>;

    /// The sums of a `g` that reaches x's batch norm directly (no activation between).
    fn norm_sums(&self, g: &Self::Buf, x: &FusedInput<Self>) -> Result<Self::GradSums>;

    /// Takes `g` through the activation of `x` in place, and sums it.
    fn activation_back(&self, g: &mut Self::Buf, x: &FusedInput<Self>) -> Result<Self::GradSums>;

    /// Takes `dy` through the activation of [`ForwardOps::add`], in place: what flows to both.
    fn add_back(
        &self,
        dy: &mut Self::Buf,
        x: &FusedInput<Self>,
        other: &FusedInput<Self>,
        act: Act,
    ) -> Result<()>;

    /// `x` times its images' numbers.
    fn scale_images(
        &self,
        x: &Self::Buf,
        factors: &Self::PerImage,
        channels: usize,
    ) -> Result<Self::Buf>;

    /// dy behind x's activation, and its norm's sums.
    fn max_pool_back(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
        argmax: &Self::Argmax,
        dy: &Self::Buf,
    ) -> Result<(Self::Buf, Self::GradSums)>;

    /// From the means' gradient: what flows back to every position, and the sums of x's norm.
    fn pool_back(
        &self,
        x: &FusedInput<Self>,
        dy: &Self::Buf,
        rows_per_image: usize,
    ) -> Result<(Self::PerImage, Self::GradSums)>;

    /// The gradient of means over a stored tensor: (images, channels) to every row of each image.
    fn spread_means(
        &self,
        dy: &Self::Buf,
        channels: usize,
        rows_per_image: usize,
    ) -> Result<Self::Buf>;

    /// What [`Sink::Gated`] sums, of a `g` that is stored already.
    fn gate_sums(
        &self,
        g: &Self::Buf,
        x: &FusedInput<Self>,
        rows_per_image: usize,
    ) -> Result<Self::ImageSums>;

    /// Adds the layer's gradients to `grads`; what flows back to every position through the pooled
    /// branch, and the sums of the norm before the gate.
    fn squeeze_back(
        &self,
        layer: &SqueezeExcite,
        values: &Self::Flat,
        squeezed: &Self::Squeezed,
        sums: &Self::ImageSums,
        grads: &mut Self::Flat,
        rows_per_image: usize,
    ) -> Result<(Self::PerImage, Self::GradSums)>;

    /// Adds the layer's gradients to `grads`; dx from dy, which is used up.
    fn linear_back(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        grads: &mut Self::Flat,
        x_and_u: (&Self::Buf, &Self::Buf),
        dy: Self::Buf,
    ) -> Result<Self::Buf>;

    /// Adds the gradients of class token and positions to `grads`.
    fn tokens_back(
        &self,
        layer: &Positions,
        dy: &Self::Buf,
        grid: (usize, usize),
        grads: &mut Self::Flat,
    ) -> Result<()>;

    /// dx in place of dy; adds the layer's gradients to `grads`.
    fn layer_norm_back(
        &self,
        layer: &LayerNorm,
        values: &Self::Flat,
        grads: &mut Self::Flat,
        x: (&Self::Buf, &Self::RowStats),
        dy: &mut Self::Buf,
    ) -> Result<()>;

    /// Adds the layer's gradients (and a norm's that x is read through) to `grads`; the stored x's
    /// gradient, plus the one that a shortcut brings.
    fn rows_linear_back(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        grads: &mut Self::Flat,
        x: &Rows<Self>,
        dy: &Self::Buf,
        shortcut: Option<&Self::Buf>,
    ) -> Result<Self::Buf>;

    /// The gradient of q, k and v.
    fn attention_back(&self, qkv: &Self::Buf, heads: &Heads, dy: &Self::Buf) -> Result<Self::Buf>;

    /// Rows that were the first of each image, and zeros for its others.
    fn spread_first(&self, dy: &Self::Buf, rows_per_image: usize, dim: usize) -> Result<Self::Buf>;

    /// In place of dy.
    fn l2_normalize_back(
        &self,
        dy: &mut Self::Buf,
        cache: &Self::L2NormCache,
        dim: usize,
    ) -> Result<()>;
}

/// A weight, and where its gradient is added.
pub struct WeightMut<'a, B: BackwardOps> {
    pub values: &'a B::Flat,
    pub grads: &'a mut B::Flat,
    /// Its place in both.
    pub range: &'a Range<usize>,
}

/// Where the gradient of a convolution's input goes, which follows from how the input was read.
pub enum Sink<'a, B: BackwardOps> {
    /// Nowhere: the input are images.
    Images,
    /// The input was read as it is stored: dx, plus the gradient that a shortcut brings.
    Plain { shortcut: Option<&'a B::Buf> },
    /// The input was act(norm(z)): dy behind the activation, and the norm's sums.
    Activated,
    /// The input was act(norm(z)) * gate: the gradient behind the gate, and the sums of each image.
    Gated { rows_per_image: usize },
}

/// What came of a [`Sink`].
pub enum InputGrad<B: BackwardOps> {
    Images,
    Plain(B::Buf),
    Activated(B::Buf, B::GradSums),
    Gated(B::Buf, B::ImageSums),
}

/// The gradient with respect to a convolution's raw output z, computed where it is read.
pub enum FusedGrad<'a, B: BackwardOps> {
    /// `dy` lies behind the activation: dz = a * dy + b * z + c.
    Normed {
        dy: &'a B::Buf,
        z: &'a B::Buf,
        grad: &'a B::NormGrad,
    },
    /// `g` lies behind the gate: dy = (g * gate + pool) * act'(u).
    Gated {
        g: &'a B::Buf,
        z: &'a B::Buf,
        norm: &'a B::Norm,
        act: Act,
        gate: &'a B::PerImage,
        pool: &'a B::PerImage,
        grad: &'a B::NormGrad,
    },
    /// Only a pooled branch flows back: dy = pool * act'(u).
    Pooled {
        z: &'a B::Buf,
        norm: &'a B::Norm,
        act: Act,
        pool: &'a B::PerImage,
        grad: &'a B::NormGrad,
    },
}

impl<'a, B: BackwardOps> FusedGrad<'a, B> {
    /// The convolution's raw output.
    pub fn z(&self) -> &'a B::Buf {
        match self {
            FusedGrad::Normed { z, .. }
            | FusedGrad::Gated { z, .. }
            | FusedGrad::Pooled { z, .. } => z,
        }
    }
}
