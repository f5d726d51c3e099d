//! Operations on each row by itself: a cube has a row.

use cubecl::prelude::*;

/// Units of a cube.
pub const UNITS: usize = 64;

/// The sum over a cube's units, for all of them.
#[cube]
pub fn total<N: Numeric>(x: N, shared: &mut SharedMemory<N>) -> N {
    let unit = UNIT_POS as usize;
    shared[unit] = x;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            let other = shared[unit + half];
            shared[unit] += other;
        }
        sync_cube();
        half /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// The largest of a cube's units.
#[cube]
pub fn largest(x: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = x;
    sync_cube();
    let mut half = CUBE_DIM as usize / 2;
    while half > 0 {
        if unit < half {
            shared[unit] = max(shared[unit], shared[unit + half]);
        }
        sync_cube();
        half /= 2;
    }
    let top = shared[0];
    sync_cube();
    top
}

/// Rows to length 1, in place; their values and 1 / |x| are kept.
#[cube(launch_unchecked)]
pub fn l2_normalize(
    x: &mut Array<f32>,
    kept: &mut Array<f32>,
    inverse: &mut Array<f32>,
    dim: usize,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < inverse.len() {
        let mut square = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            let x = x[row * dim + c];
            square = fma(x, x, square);
            c += UNITS;
        }
        let length = total(square, &mut shared).sqrt();
        let scale = 1.0f32 / max(length, 1e-12f32);
        let mut c = UNIT_POS as usize;
        while c < dim {
            let y = x[row * dim + c] * scale;
            x[row * dim + c] = y;
            kept[row * dim + c] = y;
            c += UNITS;
        }
        if UNIT_POS == 0 {
            inverse[row] = scale;
        }
    }
}

/// dx = (dy - (dy.y) y) / |x|, in place of dy.
#[cube(launch_unchecked)]
pub fn l2_normalize_back(dy: &mut Array<f32>, y: &Array<f32>, inverse: &Array<f32>, dim: usize) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row < inverse.len() {
        let mut dot = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            dot = fma(dy[row * dim + c], y[row * dim + c], dot);
            c += UNITS;
        }
        let dot = total(dot, &mut shared);
        let mut c = UNIT_POS as usize;
        while c < dim {
            let at = row * dim + c;
            dy[at] = (dy[at] - dot * y[at]) * inverse[row];
            c += UNITS;
        }
    }
}

/// (rows, 2): mean and one over the deviation.
#[cube(launch_unchecked)]
pub fn row_stats(x: &Array<f32>, out: &mut Array<f32>, dim: usize, eps: f32) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row * 2 < out.len() {
        let mut sum = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            sum += x[row * dim + c];
            c += UNITS;
        }
        let mean = total(sum, &mut shared) / f32::cast_from(dim);
        let mut square = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            let off = x[row * dim + c] - mean;
            square = fma(off, off, square);
            c += UNITS;
        }
        let var = total(square, &mut shared) / f32::cast_from(dim);
        if UNIT_POS == 0 {
            out[row * 2] = mean;
            out[row * 2 + 1] = 1.0f32 / (var + eps).sqrt();
        }
    }
}

/// Layer norm.
#[cube(launch_unchecked)]
pub fn layer_norm(
    x: &Array<f32>,
    stats: &Array<f32>,
    values: &Array<f32>,
    weight: usize,
    bias: usize,
    dim: usize,
    out: &mut Array<f32>,
) {
    let i = ABSOLUTE_POS;
    if i < out.len() {
        let (row, c) = (i / dim, i % dim);
        let normed = (x[i] - stats[row * 2]) * stats[row * 2 + 1];
        out[i] = fma(normed, values[weight + c], values[bias + c]);
    }
}

/// dx in place of dy; `normed` gets dy times the normed input, whose column sums are the weight's
/// gradient.
#[cube(launch_unchecked)]
pub fn layer_norm_back(
    x: &Array<f32>,
    stats: &Array<f32>,
    values: &Array<f32>,
    weight: usize,
    dim: usize,
    dy: &mut Array<f32>,
    normed: &mut Array<f32>,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    if row * 2 < stats.len() {
        let (mean, inverse) = (stats[row * 2], stats[row * 2 + 1]);
        let mut sum = 0.0f32;
        let mut dot = 0.0f32;
        let mut c = UNIT_POS as usize;
        while c < dim {
            let at = row * dim + c;
            let y = (x[at] - mean) * inverse;
            normed[at] = dy[at] * y;
            let g = dy[at] * values[weight + c];
            sum += g;
            dot = fma(g, y, dot);
            c += UNITS;
        }
        let sum = total(sum, &mut shared) / f32::cast_from(dim);
        let dot = total(dot, &mut shared) / f32::cast_from(dim);
        let mut c = UNIT_POS as usize;
        while c < dim {
            let at = row * dim + c;
            let y = (x[at] - mean) * inverse;
            let g = dy[at] * values[weight + c];
            dy[at] = (g - sum - y * dot) * inverse;
            c += UNITS;
        }
    }
}
