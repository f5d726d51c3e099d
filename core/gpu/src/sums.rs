//! Sums over the rows of a tensor, per channel, in two phases of fixed order: the same numbers give the
//! same bits.
//!
//! A segment (a micro-batch of batch norm, or an image) is cut into pieces; a cube takes a piece of so many
//! channels, its units along y every so many rows. Their sums are put together in order, and so are
//! the pieces' by whoever reads them.

use cubecl::prelude::*;

use super::activation::{derivative, value};
use super::view::View;
use seedling_nn::activation::Act;

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// x as it is read.
    Values,
    /// Mean, squared deviations from it, and rows, of z.
    Moments,
    /// g, and g * (z - mean).
    Norm,
    /// act'(u), and that times (z - mean).
    Derivatives(Act),
    /// Behind a gate: g * act(u), g * act'(u), that times (z - mean), act'(u), that times (z - mean).
    Gate(Act),
}

impl What {
    /// How many sums a channel has.
    pub fn count(self) -> usize {
        match self {
            What::Values => 1,
            What::Norm | What::Derivatives(_) => 2,
            What::Moments => 3,
            What::Gate(_) => 5,
        }
    }
}

/// Units of a cube.
pub const UNITS: usize = 256;

/// Where sums are taken.
#[derive(CubeType, CubeLaunch)]
pub struct Span {
    /// Rows of a segment, and of a piece of it.
    pub segment: usize,
    pub piece: usize,
    pub pieces: usize,
}

/// Cubes are (blocks of channels, pieces, segments), units (`lanes` channels, rows). Parts are
/// (segments, pieces, sums, channels).
#[cube(launch_unchecked)]
pub fn sums<F: Float, N: Size>(
    x: &View<F, N>,
    g: &ComptimeOption<Array<Vector<F, N>>>,
    parts: &mut Array<Vector<f32, N>>,
    span: &Span,
    factor: f32,
    #[comptime] what: What,
    #[comptime] lanes: usize,
    #[define(F)] _type: StorageType,
) {
    let count = comptime!(what.count());
    let deep = comptime!(UNITS / lanes);
    let mut shared = SharedMemory::<Vector<f32, N>>::new(UNITS);
    let lane = UNIT_POS as usize % lanes;
    let depth = UNIT_POS as usize / lanes;
    let c = CUBE_POS_X as usize * lanes + lane;
    let here = c < x.channels;
    let piece = CUBE_POS_Y as usize;
    let segment = CUBE_POS_Z as usize;
    let first = segment * span.segment + piece * span.piece;
    let end = segment * span.segment + min((piece + 1) * span.piece, span.segment);

    let mut totals = Array::<Vector<f32, N>>::new(count);
    #[unroll]
    for s in 0..count {
        totals[s] = Vector::new(0.0f32);
    }
    // Deviations from a number of their own size lose nothing, however far the mean is from zero.
    let mut shift = Vector::<f32, N>::new(0.0f32);
    if here {
        if comptime!(matches!(what, What::Moments)) {
            shift = x.stored(first, c);
        }
        let mut row = first + depth;
        while row < end {
            let mut gradient = Vector::<f32, N>::new(0.0f32);
            #[comptime]
            if let ComptimeOption::Some(g) = g {
                gradient = Vector::cast_from(g[row * x.channels + c]);
            }
            match what {
                What::Values => totals[0] += x.read(row, c),
                What::Moments => {
                    let off = x.stored(row, c) - shift;
                    totals[0] += off;
                    totals[1] = fma(off, off, totals[1]);
                }
                What::Norm => {
                    totals[0] += gradient;
                    totals[1] = fma(gradient, x.centered(row, c), totals[1]);
                }
                What::Derivatives(_) => {
                    let derivative = x.derivative(row, c);
                    totals[0] += derivative;
                    totals[1] = fma(derivative, x.centered(row, c), totals[1]);
                }
                What::Gate(act) => {
                    let u = x.before(row, c);
                    let (derivative, centered) = (derivative::<N>(u, act), x.centered(row, c));
                    let dy = gradient * derivative;
                    totals[0] = fma(gradient, value::<N>(u, act), totals[0]);
                    totals[1] += dy;
                    totals[2] = fma(dy, centered, totals[2]);
                    totals[3] += derivative;
                    totals[4] = fma(derivative, centered, totals[4]);
                }
            }
            row += deep;
        }
    }
    #[unroll]
    for s in 0..count {
        shared[UNIT_POS as usize] = totals[s];
        sync_cube();
        if depth == 0 {
            let mut sum = shared[lane];
            for d in 1..deep {
                sum += shared[d * lanes + lane];
            }
            totals[s] = sum;
        }
        sync_cube();
    }
    if depth == 0 && here {
        if comptime!(matches!(what, What::Moments)) {
            let rows = Vector::<f32, N>::cast_from(end - first);
            let mean = totals[0] / rows;
            totals[1] = max(totals[1] - totals[0] * mean, Vector::new(0.0f32));
            totals[0] = shift + mean;
            totals[2] = rows;
        }
        if comptime!(matches!(what, What::Values)) {
            totals[0] *= Vector::new(factor);
        }
        let at = (segment * span.pieces + piece) * count;
        #[unroll]
        for s in 0..count {
            parts[(at + s) * x.channels + c] = totals[s];
        }
    }
}

/// Channels of a cube whose units share what is summed: each has every [`DEEP`]th of it.
pub const LANES: usize = 16;
pub const DEEP: usize = UNITS / LANES;

/// The sum over a cube's units that have the same lane, for the first of them.
#[cube]
pub fn lane_total(x: f32, shared: &mut SharedMemory<f32>, #[comptime] lanes: usize) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = x;
    sync_cube();
    let mut sum = x;
    if unit < lanes {
        for depth in 1..comptime!(UNITS / lanes) {
            sum += shared[depth * lanes + unit];
        }
    }
    sync_cube();
    sum
}

/// Count, mean and squared deviations of some rows, with those of others (Chan, Golub and LeVeque 1979).
#[cube]
pub fn merge<N: Size>(
    count: f32,
    mean: Vector<f32, N>,
    m2: Vector<f32, N>,
    rows: f32,
    other: Vector<f32, N>,
    other_m2: Vector<f32, N>,
) -> (f32, Vector<f32, N>, Vector<f32, N>) {
    let mut all = count;
    let mut mean = mean;
    let mut m2 = m2;
    if rows > 0.0f32 {
        let delta = other - mean;
        let ratio = rows / (count + rows);
        mean += delta * Vector::new(ratio);
        m2 += other_m2 + delta * delta * Vector::new(count * ratio);
        all += rows;
    }
    (all, mean, m2)
}

/// Adds the sums of (rows, channels) over the rows, times `factor`, to a layer's gradient.
#[cube(launch_unchecked)]
pub fn add_columns(
    x: &Array<f32>,
    grads: &mut Array<f32>,
    at: usize,
    channels: usize,
    factor: f32,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let (lane, depth) = (unit % LANES, unit / LANES);
    let c = CUBE_POS * LANES + lane;
    let mut sum = 0.0f32;
    if c < channels {
        let mut i = depth * channels + c;
        while i < x.len() {
            sum += x[i];
            i += DEEP * channels;
        }
    }
    let sum = lane_total(sum, &mut shared, LANES);
    if depth == 0 && c < channels {
        grads[at + c] += sum * factor;
    }
}

/// (segments, pieces, len) to (segments, len), times `factor`.
#[cube(launch_unchecked)]
pub fn add_pieces(
    parts: &Array<f32>,
    out: &mut Array<f32>,
    len: usize,
    pieces: usize,
    factor: f32,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (segment, place) = (i / len, i % len);
        let mut sum = 0.0f32;
        for piece in 0..pieces {
            sum += parts[(segment * pieces + piece) * len + place];
        }
        out[i] = sum * factor;
    }
}

/// Adds the sum over pieces of (pieces, len) to a layer's gradient.
#[cube(launch_unchecked)]
pub fn add_bias(
    parts: &Array<f32>,
    grads: &mut Array<f32>,
    at: usize,
    len: usize,
    pieces: usize,
    factor: f32,
) {
    let i = ABSOLUTE_POS;
    if i < len {
        let mut sum = 0.0f32;
        for piece in 0..pieces {
            sum += parts[piece * len + i];
        }
        grads[at + i] += sum * factor;
    }
}
