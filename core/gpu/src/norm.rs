//! Batch norm's coefficients (see [`seedling_nn::cpu::norm`] for the formulas), of all micro-batches in one
//! launch.

use cubecl::prelude::*;

use super::sums::{DEEP, LANES, UNITS, lane_total, merge};
use super::view::{GRAD, NORM};

/// A layer's places in the flat numbers.
#[derive(CubeType, CubeLaunch)]
pub struct Layer {
    pub weight: usize,
    pub bias: usize,
    pub mean: usize,
    pub var: usize,
    pub channels: usize,
    pub eps: f32,
}

/// From the moments' parts (micro-batches, pieces, 3, channels): mean, squared deviations from it, rows. Running
/// statistics move by `momentum` with every micro-batch, in order.
#[cube(launch_unchecked)]
pub fn of_batch(
    parts: &Array<f32>,
    layer: &Layer,
    values: &Array<f32>,
    buffers: &mut Array<f32>,
    out: &mut Array<f32>,
    microbatches: usize,
    pieces: usize,
    momentum: f32,
) {
    let mut means = SharedMemory::<Vector<f32, Const<1>>>::new(UNITS);
    let mut deviations = SharedMemory::<Vector<f32, Const<1>>>::new(UNITS);
    let mut counts = SharedMemory::<f32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let (lane, depth) = (unit % LANES, unit / LANES);
    let channels = layer.channels;
    let c = CUBE_POS * LANES + lane;
    for microbatch in 0..microbatches {
        let mut count = 0.0f32;
        let mut mean = Vector::<f32, Const<1>>::new(0.0f32);
        let mut m2 = Vector::<f32, Const<1>>::new(0.0f32);
        if c < channels {
            let mut piece = depth;
            while piece < pieces {
                let at = (microbatch * pieces + piece) * 3 * channels + c;
                let other = (
                    Vector::new(parts[at]),
                    Vector::new(parts[at + channels]),
                    parts[at + 2 * channels],
                );
                let all = merge::<Const<1>>(count, mean, m2, other.2, other.0, other.1);
                count = all.0;
                mean = all.1;
                m2 = all.2;
                piece += DEEP;
            }
        }
        means[unit] = mean;
        deviations[unit] = m2;
        counts[unit] = count;
        sync_cube();
        if depth == 0 && c < channels {
            for d in 1..DEEP {
                let other = d * LANES + lane;
                let all = merge::<Const<1>>(
                    count,
                    mean,
                    m2,
                    counts[other],
                    means[other],
                    deviations[other],
                );
                count = all.0;
                mean = all.1;
                m2 = all.2;
            }
            let (mean, m2) = (mean[0], m2[0]);
            let var = m2 / count;
            let mut unbiased = var;
            if count > 1.0f32 {
                unbiased = m2 / (count - 1.0f32);
            }
            let old = buffers[layer.mean + c];
            buffers[layer.mean + c] = old * (1.0f32 - momentum) + mean * momentum;
            let old = buffers[layer.var + c];
            buffers[layer.var + c] = old * (1.0f32 - momentum) + unbiased * momentum;
            write(layer, values, out, microbatch, c, mean, var);
        }
        sync_cube();
    }
}

/// From the running statistics: one micro-batch.
#[cube(launch_unchecked)]
pub fn of_running(layer: &Layer, values: &Array<f32>, buffers: &Array<f32>, out: &mut Array<f32>) {
    let c = ABSOLUTE_POS;
    if c < layer.channels {
        let (mean, var) = (buffers[layer.mean + c], buffers[layer.var + c]);
        write(layer, values, out, 0usize.runtime(), c, mean, var);
    }
}

#[cube]
fn write(
    layer: &Layer,
    values: &Array<f32>,
    out: &mut Array<f32>,
    microbatch: usize,
    c: usize,
    mean: f32,
    var: f32,
) {
    let inverse = 1.0f32 / (var + layer.eps).sqrt();
    let scale = values[layer.weight + c] * inverse;
    let at = microbatch * NORM * layer.channels + c;
    out[at] = scale;
    out[at + layer.channels] = values[layer.bias + c] - mean * scale;
    out[at + 2 * layer.channels] = mean;
    out[at + 3 * layer.channels] = inverse;
}

/// From the sums' parts (micro-batches, pieces, 2, channels), the coefficients of dz; the micro-batches'
/// gradients of weight and bias are added up in order, times `factor`. `rows` are a micro-batch's, 0 for
/// running statistics.
#[cube(launch_unchecked)]
pub fn back(
    parts: &Array<f32>,
    norm: &Array<f32>,
    layer: &Layer,
    grads: &mut Array<f32>,
    out: &mut Array<f32>,
    microbatches: usize,
    pieces: usize,
    rows: usize,
    factor: f32,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let (lane, depth) = (unit % LANES, unit / LANES);
    let channels = layer.channels;
    let c = CUBE_POS * LANES + lane;
    let mut dweight = 0.0f32;
    let mut dbias = 0.0f32;
    for microbatch in 0..microbatches {
        let mut sum = 0.0f32;
        let mut centered = 0.0f32;
        if c < channels {
            let mut piece = depth;
            while piece < pieces {
                let at = (microbatch * pieces + piece) * 2 * channels + c;
                sum += parts[at];
                centered += parts[at + channels];
                piece += DEEP;
            }
        }
        let sum = lane_total(sum, &mut shared, LANES);
        let centered = lane_total(centered, &mut shared, LANES);
        if depth == 0 && c < channels {
            let at = microbatch * NORM * channels + c;
            let (scale, mean, inverse) =
                (norm[at], norm[at + 2 * channels], norm[at + 3 * channels]);
            dweight += centered * inverse;
            dbias += sum;
            let to = microbatch * GRAD * channels + c;
            out[to] = scale;
            let mut q = 0.0f32;
            let mut r = 0.0f32;
            if rows > 0 {
                let n = f32::cast_from(rows);
                q = 0.0f32 - scale * inverse * inverse * centered / n;
                r = 0.0f32 - scale * sum / n - q * mean;
            }
            out[to + channels] = q;
            out[to + 2 * channels] = r;
        }
    }
    if depth == 0 && c < channels {
        grads[layer.weight + c] += dweight * factor;
        grads[layer.bias + c] += dbias * factor;
    }
}
