//! What an engine must be able to do to train these networks.
//!
//! A network is shapes in an order, written once ([`super::block`], [`crate::backbones`]); a backend
//! is kernels. Every operation makes its own output in the engine's memory, and nothing of a step
//! comes back to the host but the loss, a few figures, and the batch's embeddings for one of them.
//!
//! **Normalised when read** is part of the contract: [`Src`] and [`Grad`] say how a tensor is read,
//! and each engine fuses that into its loads in its own way.
//!
//! Operations fail where the engine's memory is at its end or the engine is lost, and for no other
//! reason.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

use super::activation::Act;
use super::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use super::window::Window;
use crate::{Error, Result};

/// A set of kernels, and the memory they work in. Cloning shares the memory.
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Activations or gradients, rows of channels; also images, (n, height, width, 3).
    type Buf: Debug + Send + Sync;
    /// All parameters of a network, or all its gradients, or all its running statistics.
    type Flat: Debug + Send + Sync;
    /// Statistics of a convolution's output: count, mean, sum of squared deviations, of each group.
    type Moments;
    /// A batch norm of one forward, ready to be read.
    type Norm: Debug + Send;
    /// The sums over dy that batch norm's backward needs.
    type GradSums;
    /// A batch norm's backward, ready to be read.
    type NormGrad;
    /// A number for each image and channel.
    type PerImage: Debug + Send;
    /// What a gate's backward needs of each image.
    type ImageSums;
    /// What a gate's forward leaves for its backward.
    type Squeezed: Debug + Send;
    /// Which number of each window was the largest.
    type Largest: Debug + Send;
    /// Mean and spread of each row.
    type RowStats: Debug + Send;
    /// What normalising rows leaves for its backward.
    type Unit: Debug + Send;

    /// Gives memory that waits to be used again back to the system: before work of other shapes.
    fn release(&self);

    /// `len` numbers that `fill` writes on the host.
    fn upload(&self, len: usize, fill: impl FnOnce(&mut [f32])) -> Result<Self::Buf>;

    /// The numbers of `buf` on the host.
    fn download(&self, buf: &Self::Buf) -> Result<Vec<f32>>;

    /// x * factor + offset for each channel (factor, offset) of rows of channels, in place.
    fn rescale(&self, x: &mut Self::Buf, channels: &[(f32, f32)]) -> Result<()>;

    /// The rows of `parts`, end to end, in another order: the i-th becomes row `order[i]`. `order`
    /// is a permutation; rows have `dim` numbers.
    fn gather(&self, parts: &[Self::Buf], order: &[usize], dim: usize) -> Result<Self::Buf>;

    /// These numbers in the engine's memory.
    fn flat(&self, numbers: Vec<f32>) -> Result<Self::Flat>;

    /// Its numbers on the host, borrowed where they lie there anyway.
    fn host<'a>(&self, flat: &'a Self::Flat) -> Result<Host<'a>>;

    /// Changes its numbers from the host.
    fn edit(&self, flat: &mut Self::Flat, change: impl FnOnce(&mut [f32])) -> Result<()>;

    /// to <- from, of one length.
    fn copy(&self, to: &mut Self::Flat, from: &Self::Flat) -> Result<()>;

    /// Zeros.
    fn clear(&self, flat: &mut Self::Flat) -> Result<()>;

    /// Whether every number is finite.
    fn all_finite(&self, flat: &Self::Flat) -> Result<bool>;

    /// velocity <- momentum * velocity + gradient; value <- value - lr * velocity, in every span,
    /// with gradient + weight_decay * value + anchor * (value - base) for the gradient. `base` is
    /// empty where there is no anchor.
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
    fn follow(
        &self,
        own: &mut Self::Flat,
        other: &Self::Flat,
        momentum: f32,
        from: usize,
    ) -> Result<()>;

    /// own <- own * by, number by number.
    fn multiply(&self, own: &mut Self::Buf, by: &Self::Buf) -> Result<()>;

    /// The same engine with memory that is only counted, where memory is shared out beforehand: work
    /// takes no time, every number is zero, and [`Backend::most_bytes`] says what it would have taken.
    fn rehearsal(&self) -> Option<Self> {
        None
    }

    /// The most bytes that work has taken at a time.
    fn most_bytes(&self) -> usize {
        0
    }

    /// Bytes that the engine has for itself, where it says.
    fn memory_bytes(&self) -> Option<usize> {
        None
    }

    /// Waits until all that was asked for is done.
    fn wait(&self) -> Result<()> {
        Ok(())
    }

    /// What the host has asked of a card so far; nothing where the host computes.
    fn asked(&self) -> Option<Asked> {
        None
    }

    /// The same engine, which takes `groups` at once ([`Backend::groups_at_once`]) if it can.
    #[must_use]
    fn taking(&self, groups: usize) -> Self {
        let _ = groups;
        self.clone()
    }

    /// The same engine, which stores convolutions' outputs in half the bytes: what is called bf16,
    /// though it is f16 where the engine knows no bf16.
    fn halved(&self) -> Result<Self> {
        Err(Error::Config(
            "precision = bf16 is for cards (--device); the processor computes in f32".into(),
        ))
    }

    /// The same engine, which stores everything in f32.
    #[must_use]
    fn in_f32(&self) -> Self {
        self.clone()
    }

    /// How many groups of photos, each with statistics of its own, go through a network at once at
    /// most. Each takes memory of its own.
    fn groups_at_once(&self) -> usize {
        1
    }

    /// Dense convolution of x (n, height, width, in) by w (out, in, k, k); z, and the moments of each
    /// of `groups` equal parts of its rows (none for 0).
    fn conv(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>>;

    /// Adds the weight's gradient to `dw`; images get none.
    fn conv_back_images(
        &self,
        dz: &Grad<Self>,
        images: &Src<Self>,
        window: &Window,
        dw: ParamMut<Self>,
    ) -> Result<()>;

    /// As [`Backend::pointwise_back`].
    fn conv_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Self::Buf>,
    ) -> Result<Self::Buf>;

    /// As [`Backend::pointwise_back_activated`].
    fn conv_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Self::Buf, Self::GradSums)>;

    /// 1x1 convolution: z (rows, out) from x (rows, in) and w (out, in), and moments as
    /// [`Backend::conv`].
    fn pointwise(&self, x: &Src<Self>, w: Param<Self>, groups: usize) -> Result<Output<Self>>;

    /// Adds the weight's gradient to `dw`; dx of an input that is read as it is stored, plus the
    /// gradient that a shortcut brings.
    fn pointwise_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Self::Buf>,
    ) -> Result<Self::Buf>;

    /// The same for an input act(norm(z)): dy behind its activation, and its norm's sums.
    fn pointwise_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Self::Buf, Self::GradSums)>;

    /// The same for an input act(norm(z)) * gate: the gradient behind the gate, and the sums of each
    /// image of `rows_per_image`.
    fn pointwise_back_gated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
        rows_per_image: usize,
    ) -> Result<(Self::Buf, Self::ImageSums)>;

    /// Depthwise convolution by w (c, 1, k, k); z, and moments as [`Backend::conv`].
    fn depthwise(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>>;

    /// As [`Backend::pointwise_back`].
    fn depthwise_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Self::Buf>,
    ) -> Result<Self::Buf>;

    /// As [`Backend::pointwise_back_activated`].
    fn depthwise_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Self::Buf, Self::GradSums)>;

    /// Batch norm of each group's `moments`, by which running statistics (in `buffers`) move by
    /// `momentum`, one group after another; without moments, of the running statistics.
    fn norm(
        &self,
        layer: &BatchNorm,
        values: &Self::Flat,
        buffers: &mut Self::Flat,
        moments: Option<(Self::Moments, f32)>,
    ) -> Result<Self::Norm>;

    /// A norm that leaves everything as it is: for an activation of what is stored.
    fn no_norm(&self, channels: usize) -> Result<Self::Norm>;

    /// Adds the gradients of the layer's weight and bias to `grads`.
    fn norm_back(
        &self,
        layer: &BatchNorm,
        norm: &Self::Norm,
        sums: &Self::GradSums,
        grads: &mut Self::Flat,
    ) -> Result<Self::NormGrad>;

    /// The sums of a `g` that reaches x's batch norm directly (no activation between).
    fn norm_sums(&self, g: &Self::Buf, x: &Src<Self>) -> Result<Self::GradSums>;

    /// Takes `g` through the activation of `x` in place, and sums it.
    fn activation_back(&self, g: &mut Self::Buf, x: &Src<Self>) -> Result<Self::GradSums>;

    /// `x` stored as it is read.
    fn materialise(&self, x: &Src<Self>) -> Result<Self::Buf>;

    /// act(x + other), each as it is read.
    fn add(&self, x: &Src<Self>, other: &Src<Self>, act: Act) -> Result<Self::Buf>;

    /// Takes `dy` through the activation of [`Backend::add`], in place: what flows to both.
    fn add_back(
        &self,
        dy: &mut Self::Buf,
        x: &Src<Self>,
        other: &Src<Self>,
        act: Act,
    ) -> Result<()>;

    /// A number for each image, read by each of its rows and channels.
    fn per_image(
        &self,
        values: &[f32],
        channels: usize,
        rows_per_image: usize,
    ) -> Result<Self::PerImage>;

    /// `x` times its images' numbers.
    fn scale_images(
        &self,
        x: &Self::Buf,
        factors: &Self::PerImage,
        channels: usize,
    ) -> Result<Self::Buf>;

    /// The largest number of each window and channel, and which it was.
    fn max_pool(&self, x: &Src<Self>, window: &Window) -> Result<(Self::Buf, Self::Largest)>;

    /// dy behind x's activation, and its norm's sums.
    fn max_pool_back(
        &self,
        x: &Src<Self>,
        window: &Window,
        largest: &Self::Largest,
        dy: &Self::Buf,
    ) -> Result<(Self::Buf, Self::GradSums)>;

    /// Means over the rows of each image: (images, channels).
    fn pool(&self, x: &Src<Self>, rows_per_image: usize) -> Result<Self::Buf>;

    /// From the means' gradient: what flows back to every position, and the sums of x's norm.
    fn pool_back(
        &self,
        x: &Src<Self>,
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

    /// Squeeze-excite's gates for `x`.
    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &Self::Flat,
        x: &Src<Self>,
        rows_per_image: usize,
    ) -> Result<(Self::Squeezed, Self::PerImage)>;

    /// What [`Backend::pointwise_back_gated`] sums, of a `g` that is stored already.
    fn gate_sums(
        &self,
        g: &Self::Buf,
        x: &Src<Self>,
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

    /// y = act(u) and u = x w' + b.
    fn linear(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        x: &Self::Buf,
    ) -> Result<(Self::Buf, Self::Buf)>;

    /// Adds the layer's gradients to `grads`; dx from dy, which is used up.
    fn linear_back(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        grads: &mut Self::Flat,
        x_and_u: (&Self::Buf, &Self::Buf),
        dy: Self::Buf,
    ) -> Result<Self::Buf>;

    /// Patches (n, grid, dim) and their bias become tokens: the class token before them, positions
    /// added. Positions for another grid than this one are resampled (bicubic).
    fn tokens(
        &self,
        layer: &Positions,
        values: &Self::Flat,
        patches: &Self::Buf,
        grid: (usize, usize),
    ) -> Result<Self::Buf>;

    /// Adds the gradients of class token and positions to `grads`.
    fn tokens_back(
        &self,
        layer: &Positions,
        dy: &Self::Buf,
        grid: (usize, usize),
        grads: &mut Self::Flat,
    ) -> Result<()>;

    /// Mean and spread of each row, for layer norm.
    fn row_stats(&self, x: &Self::Buf, layer: &LayerNorm) -> Result<Self::RowStats>;

    /// Layer norm of x's rows.
    fn layer_norm(
        &self,
        layer: &LayerNorm,
        values: &Self::Flat,
        x: &Self::Buf,
        stats: &Self::RowStats,
    ) -> Result<Self::Buf>;

    /// dx in place of dy; adds the layer's gradients to `grads`.
    fn layer_norm_back(
        &self,
        layer: &LayerNorm,
        values: &Self::Flat,
        grads: &mut Self::Flat,
        x: (&Self::Buf, &Self::RowStats),
        dy: &mut Self::Buf,
    ) -> Result<()>;

    /// y = x w' + b + shortcut, for many rows; the layer's own activation is left to who reads y.
    fn rows_linear(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        x: &Rows<Self>,
        shortcut: Option<&Self::Buf>,
    ) -> Result<Self::Buf>;

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

    /// softmax(q k' / sqrt(head)) v of each image and head: (n, tokens, dim) from (n, tokens, 3 dim).
    fn attention(&self, qkv: &Self::Buf, heads: &Heads) -> Result<Self::Buf>;

    /// The gradient of q, k and v.
    fn attention_back(&self, qkv: &Self::Buf, heads: &Heads, dy: &Self::Buf) -> Result<Self::Buf>;

    /// The first row of each image.
    fn first_rows(&self, x: &Self::Buf, rows_per_image: usize, dim: usize) -> Result<Self::Buf>;

    /// Rows that were the first of each image, and zeros for its others.
    fn spread_first(&self, dy: &Self::Buf, rows_per_image: usize, dim: usize) -> Result<Self::Buf>;

    /// Rows of `dim` numbers to length 1, in place.
    fn normalize(&self, x: &mut Self::Buf, dim: usize) -> Result<Self::Unit>;

    /// In place of dy.
    fn normalize_back(&self, dy: &mut Self::Buf, unit: &Self::Unit, dim: usize) -> Result<()>;
}

/// What a host has asked of a card.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asked {
    /// Kernels that were launched.
    pub launches: u64,
    /// How long the host did nothing but wait for numbers.
    pub waited: Duration,
}

/// What one step of momentum SGD does to a network's flat numbers.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Where, and with which weight decay; what lies in no span stays as it is.
    pub spans: &'a [(Range<usize>, f32)],
    pub momentum: f32,
    pub anchor: f32,
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

/// Numbers on the host.
pub type Host<'a> = Cow<'a, [f32]>;

/// A convolution's raw output, and its moments where they were asked for.
pub type Output<B> = (<B as Backend>::Buf, Option<<B as Backend>::Moments>);

/// One tensor of a network's parameters.
pub struct Param<'a, B: Backend> {
    pub values: &'a B::Flat,
    pub range: &'a Range<usize>,
}

/// The place of its gradient.
pub struct ParamMut<'a, B: Backend> {
    pub grads: &'a mut B::Flat,
    pub range: &'a Range<usize>,
}

/// An operation's input: (rows, channels), read as act(z * scale + shift) * gate.
pub struct Src<'a, B: Backend> {
    /// The stored tensor.
    pub z: &'a B::Buf,
    pub channels: usize,
    /// Batch norm and activation to apply on reading; `None` reads z itself.
    pub norm: Option<(&'a B::Norm, Act)>,
    /// Squeeze-excite's gate.
    pub gate: Option<&'a B::PerImage>,
}

impl<'a, B: Backend> Src<'a, B> {
    /// A tensor that is read as it is stored.
    pub fn plain(z: &'a B::Buf, channels: usize) -> Self {
        Src {
            z,
            channels,
            norm: None,
            gate: None,
        }
    }

    /// A convolution's raw output, read through batch norm and activation.
    pub fn normed((z, norm): (&'a B::Buf, &'a B::Norm), channels: usize, act: Act) -> Self {
        Src {
            z,
            channels,
            norm: Some((norm, act)),
            gate: None,
        }
    }

    /// The same, and then gated.
    pub fn gated(self, gate: &'a B::PerImage) -> Self {
        Src {
            gate: Some(gate),
            ..self
        }
    }
}

impl<B: Backend> Clone for Src<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Src<'_, B> {}

/// Rows that are read through something.
pub struct Rows<'a, B: Backend> {
    /// The stored tensor.
    pub x: &'a B::Buf,
    pub read: Read<'a, B>,
}

/// How rows are read.
pub enum Read<'a, B: Backend> {
    /// As they are stored.
    Plain,
    /// Through an activation.
    Act(Act),
    /// Through layer norm.
    Norm(&'a LayerNorm, &'a B::RowStats),
}

impl<'a, B: Backend> Rows<'a, B> {
    /// `x` as `read` says.
    pub fn new(x: &'a B::Buf, read: Read<'a, B>) -> Self {
        Rows { x, read }
    }
}

/// The gradient with respect to a convolution's raw output z, computed where it is read.
pub enum Grad<'a, B: Backend> {
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

impl<'a, B: Backend> Grad<'a, B> {
    /// The convolution's raw output.
    pub fn z(&self) -> &'a B::Buf {
        match self {
            Grad::Normed { z, .. } | Grad::Gated { z, .. } | Grad::Pooled { z, .. } => z,
        }
    }
}
