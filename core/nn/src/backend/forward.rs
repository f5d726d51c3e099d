//! What a forward pass needs.

use std::fmt::Debug;
use std::ops::Range;

use super::Backend;
use crate::Result;
use crate::activation::Act;
use crate::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use crate::window::Window;

/// Operations of a forward pass.
pub trait ForwardOps: Backend {
    /// Statistics of a convolution's output: count, mean, sum of squared deviations, of each micro-batch.
    type Moments;
    /// A batch norm of one forward, ready to be read.
    type Norm: Debug + Send;
    /// A number for each image and channel.
    type PerImage: Debug + Send;
    /// What a gate's forward leaves for its backward.
    type Squeezed: Debug + Send;
    /// Which number of each window was the largest.
    type Argmax: Debug + Send;
    /// Mean and spread of each row.
    type RowStats: Debug + Send;
    /// What normalizing rows leaves for its backward.
    type L2NormCache: Debug + Send;

    /// Convolution `conv` of x by `w` (out, in, k, k), or (out, in) where it is pointwise and (c, 1, k, k)
    /// where it is depthwise; z, and the moments of each of `microbatches` equal parts of its rows (none for 0).
    fn conv(
        &self,
        conv: Conv,
        x: &FusedInput<Self>,
        w: Param<Self>,
        microbatches: usize,
    ) -> Result<Output<Self>>;

    /// Batch norm by these statistics.
    fn norm(
        &self,
        layer: &BatchNorm,
        values: &Self::Flat,
        statistics: Statistics<Self>,
    ) -> Result<Self::Norm>;

    /// A norm that leaves everything as it is: for an activation of what is stored.
    fn no_norm(&self, channels: usize) -> Result<Self::Norm>;

    /// `x` stored as it is read.
    fn materialize(&self, x: &FusedInput<Self>) -> Result<Self::Buf>;

    /// act(x + other), each as it is read.
    fn add(&self, x: &FusedInput<Self>, other: &FusedInput<Self>, act: Act) -> Result<Self::Buf>;

    /// A number for each image, read by each of its rows and channels.
    fn per_image(
        &self,
        values: &[f32],
        channels: usize,
        rows_per_image: usize,
    ) -> Result<Self::PerImage>;

    /// The largest number of each window and channel, and which it was.
    fn max_pool(&self, x: &FusedInput<Self>, window: &Window) -> Result<(Self::Buf, Self::Argmax)>;

    /// Means over the rows of each image: (images, channels).
    fn pool(&self, x: &FusedInput<Self>, rows_per_image: usize) -> Result<Self::Buf>;

    /// Squeeze-excite's gates for `x`.
    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &Self::Flat,
        x: &FusedInput<Self>,
        rows_per_image: usize,
    ) -> Result<(Self::Squeezed, Self::PerImage)>;

    /// y = act(u) and u = x w' + b.
    fn linear(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        x: &Self::Buf,
    ) -> Result<(Self::Buf, Self::Buf)>;

    /// Patches (n, grid, dim) and their bias become tokens: the class token before them, positions
    /// added. Positions for another grid than this one are resampled (bicubic).
    fn tokens(
        &self,
        layer: &Positions,
        values: &Self::Flat,
        patches: &Self::Buf,
        grid: (usize, usize),
    ) -> Result<Self::Buf>;

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

    /// y = x w' + b + shortcut, for many rows; the layer's own activation is left to who reads y.
    fn rows_linear(
        &self,
        layer: &Linear,
        values: &Self::Flat,
        x: &Rows<Self>,
        shortcut: Option<&Self::Buf>,
    ) -> Result<Self::Buf>;

    /// softmax(q k' / sqrt(head)) v of each image and head: (n, tokens, dim) from (n, tokens, 3 dim).
    fn attention(&self, qkv: &Self::Buf, heads: &Heads) -> Result<Self::Buf>;

    /// The first row of each image.
    fn first_rows(&self, x: &Self::Buf, rows_per_image: usize, dim: usize) -> Result<Self::Buf>;

    /// Rows of `dim` numbers to length 1, in place.
    fn l2_normalize(&self, x: &mut Self::Buf, dim: usize) -> Result<Self::L2NormCache>;

    /// own <- own * by, number by number.
    fn multiply(&self, own: &mut Self::Buf, by: &Self::Buf) -> Result<()>;
}

/// Which convolution, and where its windows look.
#[derive(Clone, Copy, Debug)]
pub enum Conv {
    /// 1x1: a matrix product of rows.
    Pointwise,
    /// Every output channel of all input channels.
    Dense(Window),
    /// Every channel by itself.
    Depthwise(Window),
}

/// A convolution's raw output, and its moments where they were asked for.
pub type Output<B> = (<B as Backend>::Buf, Option<<B as ForwardOps>::Moments>);

/// What batch norm normalizes by.
pub enum Statistics<'a, B: ForwardOps> {
    /// Each micro-batch's own moments, by which running statistics (in `buffers`) move by `momentum`, one
    /// micro-batch after another.
    Batch {
        moments: B::Moments,
        buffers: &'a mut B::Flat,
        momentum: f32,
    },
    /// The running statistics.
    Running { buffers: &'a B::Flat },
}

/// One tensor of a network's parameters.
pub struct Param<'a, B: ForwardOps> {
    pub values: &'a B::Flat,
    pub range: &'a Range<usize>,
}

/// An operation's input: (rows, channels), read as act(z * scale + shift) * gate.
pub struct FusedInput<'a, B: ForwardOps> {
    /// The stored tensor.
    pub z: &'a B::Buf,
    pub channels: usize,
    /// Batch norm and activation to apply on reading; `None` reads z itself.
    pub norm: Option<(&'a B::Norm, Act)>,
    /// Squeeze-excite's gate.
    pub gate: Option<&'a B::PerImage>,
}

impl<'a, B: ForwardOps> FusedInput<'a, B> {
    /// A tensor that is read as it is stored.
    pub fn plain(z: &'a B::Buf, channels: usize) -> Self {
        FusedInput {
            z,
            channels,
            norm: None,
            gate: None,
        }
    }

    /// A convolution's raw output, read through batch norm and activation.
    pub fn normed((z, norm): (&'a B::Buf, &'a B::Norm), channels: usize, act: Act) -> Self {
        FusedInput {
            z,
            channels,
            norm: Some((norm, act)),
            gate: None,
        }
    }

    /// The same, and then gated.
    pub fn gated(self, gate: &'a B::PerImage) -> Self {
        FusedInput {
            gate: Some(gate),
            ..self
        }
    }
}

impl<B: ForwardOps> Clone for FusedInput<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: ForwardOps> Copy for FusedInput<'_, B> {}

/// Rows that are read through something.
pub struct Rows<'a, B: ForwardOps> {
    /// The stored tensor.
    pub x: &'a B::Buf,
    pub read: Read<'a, B>,
}

/// How rows are read.
pub enum Read<'a, B: ForwardOps> {
    /// As they are stored.
    Plain,
    /// Through an activation.
    Act(Act),
    /// Through layer norm.
    Norm(&'a LayerNorm, &'a B::RowStats),
}

impl<'a, B: ForwardOps> Rows<'a, B> {
    /// `x` as `read` says.
    pub fn new(x: &'a B::Buf, read: Read<'a, B>) -> Self {
        Rows { x, read }
    }
}
