//! Number by number.

use cubecl::prelude::*;

use super::activation::{derivative, value};
use super::sums::{DEEP, LANES, UNITS, lane_total};
use super::view::View;
use seedling_nn::activation::Act;
use seedling_nn::layer::Gate;

/// x stored as it is read.
#[cube(launch_unchecked)]
pub fn materialize<F: Float, G: Float, N: Size>(
    x: &View<F, N>,
    out: &mut Array<Vector<G, N>>,
    #[define(F, G)] _types: [StorageType; 2],
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        out[i] = Vector::cast_from(x.read(i / x.channels, i % x.channels));
    }
}

/// act(x + other).
#[cube(launch_unchecked)]
pub fn add<F: Float, N: Size>(
    x: &View<F, N>,
    other: &View<F, N>,
    out: &mut Array<Vector<F, N>>,
    #[comptime] act: Act,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (row, c) = (i / x.channels, i % x.channels);
        out[i] = Vector::cast_from(value::<N>(x.read(row, c) + other.read(row, c), act));
    }
}

/// dy through the activation of [`add`].
#[cube(launch_unchecked)]
pub fn add_back<F: Float, N: Size>(
    dy: &mut Array<Vector<F, N>>,
    x: &View<F, N>,
    other: &View<F, N>,
    #[comptime] act: Act,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < dy.len() {
        let (row, c) = (i / x.channels, i % x.channels);
        let derivative = derivative::<N>(x.read(row, c) + other.read(row, c), act);
        dy[i] = Vector::cast_from(Vector::<f32, N>::cast_from(dy[i]) * derivative);
    }
}

/// g through the activation of x.
#[cube(launch_unchecked)]
pub fn through<F: Float, N: Size>(
    g: &mut Array<Vector<F, N>>,
    x: &View<F, N>,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < g.len() {
        let derivative = x.derivative(i / x.channels, i % x.channels);
        g[i] = Vector::cast_from(Vector::<f32, N>::cast_from(g[i]) * derivative);
    }
}

/// Rows times the numbers of their images.
#[cube(launch_unchecked)]
pub fn scale_images<F: Float>(
    x: &Array<F>,
    factors: &Array<f32>,
    out: &mut Array<F>,
    channels: usize,
    image_rows: usize,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (row, c) = (i / channels, i % channels);
        let factor = factors[row / image_rows * channels + c];
        out[i] = F::cast_from(f32::cast_from(x[i]) * factor);
    }
}

/// (images, channels) to every row of each image, times `factor`.
#[cube(launch_unchecked)]
pub fn spread<F: Float>(
    x: &Array<f32>,
    out: &mut Array<F>,
    channels: usize,
    image_rows: usize,
    factor: f32,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (row, c) = (i / channels, i % channels);
        out[i] = F::cast_from(x[row / image_rows * channels + c] * factor);
    }
}

/// x * factor + offset of each channel, in place; `coefficients` are (2, channels).
#[cube(launch_unchecked)]
pub fn rescale<F: Float>(
    x: &mut Array<F>,
    coefficients: &Array<f32>,
    channels: usize,
    #[define(F)] _type: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i < x.len() {
        let c = i % channels;
        let y = fma(
            f32::cast_from(x[i]),
            coefficients[c],
            coefficients[channels + c],
        );
        x[i] = F::cast_from(y);
    }
}

/// own * by.
#[cube(launch_unchecked)]
pub fn multiply<F: Float>(own: &mut Array<F>, by: &Array<F>, #[define(F)] _type: StorageType) {
    let i = ABSOLUTE_POS;
    if i < own.len() {
        own[i] = F::cast_from(f32::cast_from(own[i]) * f32::cast_from(by[i]));
    }
}

/// own + by.
#[cube(launch_unchecked)]
pub fn plus<F: Float>(own: &mut Array<F>, by: &Array<F>, #[define(F)] _type: StorageType) {
    let i = ABSOLUTE_POS;
    if i < own.len() {
        own[i] = F::cast_from(f32::cast_from(own[i]) + f32::cast_from(by[i]));
    }
}

/// own[at..] + by[from..].
#[cube(launch_unchecked)]
pub fn add_to(own: &mut Array<f32>, at: usize, by: &Array<f32>, from: usize, len: usize) {
    let i = ABSOLUTE_POS;
    if i < len {
        own[at + i] += by[from + i];
    }
}

/// Every number becomes `x`.
#[cube(launch_unchecked)]
pub fn fill(out: &mut Array<f32>, x: f32) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        out[i] = x;
    }
}

/// Runs of `run` numbers: the i-th of `from` (every `from_step`) becomes the i-th of `to` (every
/// `to_step`, from `to_at` on).
#[cube(launch_unchecked)]
pub fn copy_runs(
    from: &Array<f32>,
    from_at: usize,
    from_step: usize,
    to: &mut Array<f32>,
    to_at: usize,
    to_step: usize,
    run: usize,
    len: usize,
) {
    let i = ABSOLUTE_POS;
    if i < len {
        let (which, place) = (i / run, i % run);
        to[to_at + which * to_step + place] = from[from_at + which * from_step + place];
    }
}

/// Row i of `from` becomes row `places[i]` of `to`, if it has one.
#[cube(launch_unchecked)]
pub fn scatter_rows(from: &Array<f32>, places: &Array<u32>, to: &mut Array<f32>, dim: usize) {
    let i = ABSOLUTE_POS;
    if i < from.len() {
        let (row, c) = (i / dim, i % dim);
        let at = places[row] as usize;
        if at < to.len() / dim {
            to[at * dim + c] = from[i];
        }
    }
}

/// Row `rows[i]` of `from` becomes row i of `to`, as far as there are such rows.
#[cube(launch_unchecked)]
pub fn gather_rows<N: Size>(
    from: &Array<Vector<f32, N>>,
    rows: &Array<u32>,
    to: &mut Array<Vector<f32, N>>,
    dim: usize,
) {
    let i = ABSOLUTE_POS;
    if i < to.len() {
        let at = rows[i / dim] as usize * dim + i % dim;
        if at < from.len() {
            to[i] = from[at];
        }
    }
}

/// The logits' gradient from the first of the images' five sums, and the gates.
#[cube(launch_unchecked)]
pub fn gates_back(
    sums: &Array<f32>,
    gates: &Array<f32>,
    out: &mut Array<f32>,
    channels: usize,
    #[comptime] gate: Gate,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (image, c) = (i / channels, i % channels);
        let s = gates[i];
        let mut derivative = 0.0f32;
        match gate {
            Gate::HardSigmoid => {
                if s > 0.0f32 && s < 1.0f32 {
                    derivative = 1.0f32 / 6.0f32;
                }
            }
            Gate::Sigmoid => derivative = s * (1.0f32 - s),
        }
        out[i] = sums[image * 5 * channels + c] * derivative;
    }
}

/// Batch norm's two sums of dy = (g * gate + pool) * act'(u), from the images' five; (micro-batches, 2,
/// channels). Without a gate only a pooled branch flows back, and sums are (images, 2, channels). Cubes are
/// (blocks of channels, micro-batches).
#[cube(launch_unchecked)]
pub fn image_sums(
    sums: &Array<f32>,
    gate: &ComptimeOption<Array<f32>>,
    pool: &Array<f32>,
    out: &mut Array<f32>,
    channels: usize,
    images: usize,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let (lane, depth) = (unit % LANES, unit / LANES);
    let c = CUBE_POS_X as usize * LANES + lane;
    let microbatch = CUBE_POS_Y as usize;
    let mut sum = 0.0f32;
    let mut centered = 0.0f32;
    if c < channels {
        let mut i = depth;
        while i < images {
            let image = microbatch * images + i;
            let pool = pool[image * channels + c];
            #[comptime]
            match gate {
                ComptimeOption::Some(gate) => {
                    let gate = gate[image * channels + c];
                    let at = image * 5 * channels + c;
                    sum += gate * sums[at + channels] + pool * sums[at + 3 * channels];
                    centered += gate * sums[at + 2 * channels] + pool * sums[at + 4 * channels];
                }
                ComptimeOption::None => {
                    sum += pool * sums[image * 2 * channels + c];
                    centered += pool * sums[(image * 2 + 1) * channels + c];
                }
            }
            i += DEEP;
        }
    }
    let sum = lane_total(sum, &mut shared, LANES);
    let centered = lane_total(centered, &mut shared, LANES);
    if depth == 0 && c < channels {
        out[microbatch * 2 * channels + c] = sum;
        out[(microbatch * 2 + 1) * channels + c] = centered;
    }
}
