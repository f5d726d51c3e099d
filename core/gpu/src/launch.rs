//! From the host's side of an operation to its kernel: what is bound, how it is read, how many cubes.

mod depthwise_convolution;
mod each_number;
mod losses;
mod norms;
mod optimizers;
mod pooling;
mod products;
mod reductions;
mod row_norms;
mod transformers;

pub use losses::Logits;
pub(crate) use pooling::Pooled;

use std::ops::Range;

use cubecl::ir::{FloatKind, StorageType};
use cubecl::prelude::*;

use super::memory::DeviceBuffer;
use super::norm::LayerLaunch;
use super::product::{
    self, EndLaunch, OperandLaunch, OperandLayout, SIDE, SizesLaunch, UNITS, WindowsLaunch,
};
use super::sums::{self, SpanLaunch, What};
use super::tensor_product::{self, ColumnSums, Lines, Tile};
use super::view::{LoadMode, NORM, ViewLaunch};
use super::{
    Gpu, GradSums, Moments, Norm, PerImage, attention, contrast, depthwise, elementwise, max_pool,
    norm, optim, rows,
};
use crate::Result;
use seedling_nn::activation::Act;
use seedling_nn::backend::{AdamUpdate, FusedGrad, FusedInput, Param, Sink, Update, WeightMut};
use seedling_nn::cpu::tokens::Resample;
use seedling_nn::gemm::MatMul;
use seedling_nn::layer::{BatchNorm, Gate, Heads, LayerNorm, Positions};
use seedling_nn::window::Window;

/// Units of a cube whose units have a number each.
const EACH: usize = 256;

/// The most cubes along one dimension.
const CUBES: usize = 65_535;

/// Pieces of the rows that a weight's gradient is summed over, and of a segment's rows.
const PIECES: usize = 256;

/// Rows that a unit sums at least.
const RUN: usize = 16;

/// How many channels a unit takes at once.
fn lanes(channels: usize) -> usize {
    match channels.is_multiple_of(4) {
        true => 4,
        false => 1,
    }
}

/// Cubes of [`EACH`] units for `n` numbers.
fn elementwise_grid(n: usize) -> (CubeCount, CubeDim) {
    (cubes(n.div_ceil(EACH)), CubeDim::new_1d(EACH as u32))
}

/// A cube for each of `n` rows.
fn per_row(n: usize) -> (CubeCount, CubeDim) {
    (cubes(n), CubeDim::new_1d(rows::UNITS as u32))
}

/// `n` cubes or more.
fn cubes(n: usize) -> CubeCount {
    cubes_of_pieces(n, 1)
}

/// The same, `pieces` times.
fn cubes_of_pieces(n: usize, pieces: usize) -> CubeCount {
    let n = n.max(1);
    let y = n.div_ceil(CUBES);
    CubeCount::Static(n.div_ceil(y) as u32, y as u32, pieces as u32)
}

/// A tensor as it is read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    a: &'a DeviceBuffer,
    b: Option<&'a DeviceBuffer>,
    norm: Option<&'a DeviceBuffer>,
    grad: Option<&'a DeviceBuffer>,
    gate: Option<&'a DeviceBuffer>,
    pool: Option<&'a DeviceBuffer>,
    offset: usize,
    channels: usize,
    image_rows: usize,
    microbatch_rows: usize,
    how: LoadMode,
    grouped: bool,
}

impl<'a> Reading<'a> {
    /// Rows of so many numbers as they are stored.
    pub fn plain(a: &'a DeviceBuffer, channels: usize) -> Reading<'a> {
        Reading {
            a,
            b: None,
            norm: None,
            grad: None,
            gate: None,
            pool: None,
            offset: 0,
            channels,
            image_rows: 1,
            microbatch_rows: 1,
            how: LoadMode::Plain,
            grouped: false,
        }
    }

    fn dtype(&self) -> StorageType {
        self.a.storage()
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Numbers of all rows.
    pub fn len(&self) -> usize {
        self.a.len()
    }

    fn normed(self, norm: &'a Norm, how: LoadMode) -> Reading<'a> {
        Reading {
            norm: Some(&norm.numbers),
            microbatch_rows: norm.rows.max(1),
            grouped: norm.microbatches > 1,
            how,
            ..self
        }
    }

    fn view<F: Float, N: Size, R: Runtime>(&self, n: usize) -> ViewLaunch<F, N, R> {
        let some = |numbers: Option<&DeviceBuffer>| numbers.map(DeviceBuffer::arg).into();
        ViewLaunch::new(
            self.a.arg(),
            self.b.map(|b| b.arg()).into(),
            some(self.norm),
            some(self.grad),
            some(self.gate),
            some(self.pool),
            self.offset / n,
            self.channels / n,
            self.image_rows,
            self.microbatch_rows,
            self.how,
            self.grouped,
        )
    }
}

/// A [`FusedInput`] as kernels know it.
pub fn reading<'a, R: Runtime>(x: &FusedInput<'a, Gpu<R>>) -> Reading<'a> {
    let plain = Reading::plain(x.z, x.channels);
    match (x.norm, x.gate) {
        (None, _) => plain,
        (Some((norm, act)), None) => plain.normed(norm, LoadMode::Normed(act)),
        (Some((norm, act)), Some(gate)) => Reading {
            gate: Some(&gate.numbers),
            image_rows: gate.image_rows,
            ..plain.normed(norm, LoadMode::Gated(act))
        },
    }
}

/// Rows of so many numbers behind an activation.
pub fn activated(x: &DeviceBuffer, act: Act, channels: usize) -> Reading<'_> {
    Reading {
        how: LoadMode::Activated(act),
        ..Reading::plain(x, channels)
    }
}

/// A [`FusedGrad`] of so many channels as kernels know it.
pub fn gradient<'a, R: Runtime>(dz: &FusedGrad<'a, Gpu<R>>, channels: usize) -> Reading<'a> {
    match *dz {
        FusedGrad::Normed { dy, z, grad } => Reading {
            b: Some(z),
            grad: Some(&grad.numbers),
            microbatch_rows: grad.rows.max(1),
            grouped: grad.microbatches > 1,
            how: LoadMode::Gradient,
            ..Reading::plain(dy, channels)
        },
        FusedGrad::Gated {
            g,
            z,
            norm,
            act,
            gate,
            pool,
            grad,
        } => Reading {
            b: Some(z),
            grad: Some(&grad.numbers),
            gate: Some(&gate.numbers),
            pool: Some(&pool.numbers),
            image_rows: pool.image_rows,
            ..Reading::plain(g, channels).normed(norm, LoadMode::GatedGradient(act))
        },
        FusedGrad::Pooled {
            z,
            norm,
            act,
            pool,
            grad,
        } => Reading {
            grad: Some(&grad.numbers),
            pool: Some(&pool.numbers),
            image_rows: pool.image_rows,
            ..Reading::plain(z, channels).normed(norm, LoadMode::PooledGradient(act))
        },
    }
}

impl<'a> Reading<'a> {
    /// These rows, or the pixels under a window, as a side of a product.
    pub fn side(self, map: OperandLayout, window: Option<&Window>) -> Side<'a> {
        Side {
            reading: self,
            window: window.copied(),
            channels: self.channels,
            taps: 1,
            map,
        }
    }
}

/// A side of a product.
pub struct Side<'a> {
    reading: Reading<'a>,
    window: Option<Window>,
    channels: usize,
    taps: usize,
    map: OperandLayout,
}

/// A weight (outputs, inputs, taps) at a place of the parameters: the forward's side of a product, or,
/// `back`, that of an input's gradient.
pub fn weight<'a>(
    values: &'a DeviceBuffer,
    range: &Range<usize>,
    (outputs, inputs): (usize, usize),
    taps: usize,
    back: bool,
) -> Side<'a> {
    // A single tap is a plain matrix, whose places need no division.
    let (map, channels) = match (taps, back) {
        (1, false) => (OperandLayout::Rows, inputs),
        (1, true) => (OperandLayout::Columns, inputs),
        (_, false) => (OperandLayout::Weight, outputs),
        (_, true) => (OperandLayout::WeightBack, outputs),
    };
    Side {
        reading: Reading {
            offset: range.start,
            ..Reading::plain(values, channels)
        },
        window: None,
        channels: inputs,
        taps,
        map,
    }
}

/// What becomes of a product's results, in this order.
#[derive(Clone, Copy)]
pub struct Finish<'a> {
    pub bias: Option<(&'a DeviceBuffer, usize)>,
    pub shortcut: Option<&'a DeviceBuffer>,
    /// They go through the activation of what is read so.
    pub through: Option<Reading<'a>>,
    /// They are logits of gates, which are stored.
    pub gate: Option<Gate>,
    pub factor: f32,
}

impl<'a> Finish<'a> {
    /// A shortcut's gradient is added, if there is one.
    pub fn adding(shortcut: Option<&'a DeviceBuffer>) -> Self {
        Finish {
            shortcut,
            ..Finish::default()
        }
    }

    /// What is found goes through the activation of x.
    pub fn through(x: Reading<'a>) -> Self {
        Finish {
            through: Some(x),
            ..Finish::default()
        }
    }
}

impl Default for Finish<'_> {
    fn default() -> Self {
        Finish {
            bias: None,
            shortcut: None,
            through: None,
            gate: None,
            factor: 1.0,
        }
    }
}

/// How a segment's rows are cut.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    segment: usize,
    piece: usize,
    pub count: usize,
}

impl Pieces {
    fn new(segment: usize, least: usize) -> Pieces {
        let piece = segment.div_ceil(PIECES).max(least).min(segment.max(1));
        Pieces::of(segment, piece)
    }

    /// Of `piece` rows each.
    fn of(segment: usize, piece: usize) -> Pieces {
        Pieces {
            segment,
            piece,
            count: segment.div_ceil(piece).max(1),
        }
    }

    fn arg<R: Runtime>(&self) -> SpanLaunch<R> {
        SpanLaunch::new(self.segment, self.piece, self.count)
    }
}

/// Units of a cube along the channels, for so many vectors of them.
fn block(vectors: usize) -> usize {
    match vectors {
        0..=4 => 4,
        5..=16 => 16,
        _ => 64,
    }
}

/// A unit's results along a side of a product.
fn results(side: usize) -> usize {
    if side <= SIDE { 1 } else { 4 }
}

fn windows<R: Runtime>(w: &Window) -> WindowsLaunch<R> {
    WindowsLaunch::new(
        w.height,
        w.width,
        w.out_height,
        w.out_width,
        w.kernel,
        w.stride,
        w.pad_top,
        w.pad_left,
    )
}

fn layer<R: Runtime>(layer: &BatchNorm) -> LayerLaunch<R> {
    LayerLaunch::new(
        layer.weight.start,
        layer.bias.start,
        layer.running_mean.start,
        layer.running_var.start,
        layer.channels,
        layer.eps,
    )
}

/// Asks for a kernel, on so many cubes of so many units.
macro_rules! launch {
    ($gpu:expr, $($kernel:ident)::+, $cubes:expr, $($argument:expr),+ $(,)?) => {{
        if !$gpu.dry_run {
            $gpu.status.launched();
            let (count, units) = $cubes;
            // SAFETY: kernels compare each place with the lengths or sizes that they are given, and
            // these are of the tensors that are bound.
            unsafe { $($kernel::)+launch_unchecked(&$gpu.client, count, units, $($argument),+) }
        }
    }};
}

pub(super) use launch;
