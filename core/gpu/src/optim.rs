//! The optimizers, the key encoder's average and the check of the gradient: each a launch over all of a
//! network's numbers.

use cubecl::prelude::*;

/// Units of a cube, and numbers that each looks at in [`not_finite`].
pub const UNITS: usize = 256;
pub const EACH: usize = 64;

/// Which span a place lies in, if any: spans are in order, and do not overlap.
#[cube]
fn span(bounds: &Array<u32>, count: usize, i: usize) -> usize {
    let mut low = 0usize.runtime();
    let mut high = count;
    while low < high {
        let middle = (low + high) / 2;
        if bounds[middle * 2 + 1] as usize <= i {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut found = count;
    // Past the last span nothing is read.
    let nearest = min(low, count - 1);
    if nearest == low && bounds[nearest * 2] as usize <= i {
        found = low;
    }
    found
}

/// See [`seedling_nn::backend::Backend::sgd`].
#[cube(launch_unchecked)]
pub fn sgd(
    bounds: &Array<u32>,
    decays: &Array<f32>,
    spans: usize,
    values: &mut Array<f32>,
    grads: &Array<f32>,
    velocity: &mut Array<f32>,
    base: &ComptimeOption<Array<f32>>,
    momentum: f32,
    l2_sp: f32,
    lr: f32,
) {
    let i = ABSOLUTE_POS;
    if i < values.len() {
        let span = span(bounds, spans, i);
        if span < spans {
            let value = values[i];
            let mut g = fma(decays[span], value, grads[i]);
            #[comptime]
            if let ComptimeOption::Some(base) = base {
                g = fma(l2_sp, value - base[i], g);
            }
            let v = fma(momentum, velocity[i], g);
            velocity[i] = v;
            values[i] = value - lr * v;
        }
    }
}

/// See [`seedling_nn::backend::Backend::adamw`]; `rate` and `root` hold the moments' corrections.
#[cube(launch_unchecked)]
pub fn adamw(
    bounds: &Array<u32>,
    decays: &Array<f32>,
    spans: usize,
    values: &mut Array<f32>,
    grads: &Array<f32>,
    first: &mut Array<f32>,
    second: &mut Array<f32>,
    beta_1: f32,
    beta_2: f32,
    rate: f32,
    root: f32,
    eps: f32,
    lr: f32,
) {
    let i = ABSOLUTE_POS;
    if i < values.len() {
        let span = span(bounds, spans, i);
        if span < spans {
            let g = grads[i];
            let m = beta_1 * first[i] + (1.0f32 - beta_1) * g;
            let v = beta_2 * second[i] + (1.0f32 - beta_2) * g * g;
            first[i] = m;
            second[i] = v;
            let kept = 1.0f32 - lr * decays[span];
            values[i] = values[i] * kept - rate * m / (v.sqrt() / root + eps);
        }
    }
}

/// own <- momentum * own + (1 - momentum) * other, from place `from` on.
#[cube(launch_unchecked)]
pub fn ema_update(own: &mut Array<f32>, other: &Array<f32>, momentum: f32, from: usize) {
    let i = ABSOLUTE_POS;
    if i < own.len() && i >= from {
        own[i] = momentum * own[i] + (1.0f32 - momentum) * other[i];
    }
}

/// How many of a cube's numbers are not finite, as their bits say: a comparison might be optimized away.
#[cube(launch_unchecked)]
pub fn not_finite(x: &Array<f32>, found: &mut Array<f32>) {
    let mut shared = SharedMemory::<u32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let mut bad = 0u32;
    for j in 0..EACH {
        let i = (CUBE_POS * EACH + j) * UNITS + unit;
        if i < x.len() {
            let exponent = u32::reinterpret(x[i]) & 0x7f80_0000u32;
            if exponent == 0x7f80_0000u32 {
                bad += 1u32;
            }
        }
    }
    shared[unit] = bad;
    sync_cube();
    if unit == 0 {
        let mut sum = 0u32;
        for j in 0..UNITS {
            sum += shared[j];
        }
        if CUBE_POS < found.len() {
            found[CUBE_POS] = f32::cast_from(sum);
        }
    }
}
