//! The fused operations once more as plain loops in f64: what the kernels must agree with.

use seedling_core::nn::activation::Act;
use seedling_core::nn::window::Window;

/// act(u).
pub fn value(act: Act, u: f64) -> f64 {
    match act {
        Act::Identity => u,
        Act::Relu => u.max(0.0),
        Act::Relu6 => u.clamp(0.0, 6.0),
        Act::HardSwish => u * (u + 3.0).clamp(0.0, 6.0) / 6.0,
        Act::Silu => u * sigmoid(u),
        Act::Gelu => u * normal_below(u),
    }
}

/// act'(u).
pub fn derivative(act: Act, u: f64) -> f64 {
    let inside = |inside: bool| f64::from(u8::from(inside));
    match act {
        Act::Identity => 1.0,
        Act::Relu => inside(u > 0.0),
        Act::Relu6 => inside(u > 0.0 && u < 6.0),
        Act::HardSwish if u <= -3.0 => 0.0,
        Act::HardSwish if u >= 3.0 => 1.0,
        Act::HardSwish => (2.0 * u + 3.0) / 6.0,
        Act::Silu => sigmoid(u) * (1.0 + u * (1.0 - sigmoid(u))),
        Act::Gelu => normal_below(u) + u * density(u),
    }
}

fn sigmoid(u: f64) -> f64 {
    1.0 / (1.0 + (-u).exp())
}

fn density(u: f64) -> f64 {
    (-0.5 * u * u).exp() / std::f64::consts::TAU.sqrt()
}

/// P(N(0, 1) < u), by summing the density from the middle (Simpson's rule).
fn normal_below(u: f64) -> f64 {
    const STEPS: usize = 400;
    let step = u / STEPS as f64;
    let weight = |i: usize| match i {
        0 | STEPS => 1.0,
        i if i % 2 == 1 => 4.0,
        _ => 2.0,
    };
    let sum: f64 = (0..=STEPS)
        .map(|i| weight(i) * density(i as f64 * step))
        .sum();
    0.5 + sum * step / 3.0
}

/// act(scale * z + shift), one factor and offset per channel, and its derivative behind `scale`.
pub struct Normed {
    pub x: Vec<f64>,
    pub derivative: Vec<f64>,
}

/// Reads stored z.
pub fn normed(z: &[f32], scale: &[f32], shift: &[f32], act: Act) -> Normed {
    let c = scale.len();
    let u = |(i, &z): (usize, &f32)| z as f64 * scale[i % c] as f64 + shift[i % c] as f64;
    let u: Vec<f64> = z.iter().enumerate().map(u).collect();
    Normed {
        x: u.iter().map(|&u| value(act, u)).collect(),
        derivative: u.iter().map(|&u| derivative(act, u)).collect(),
    }
}

/// y (rows, out) = x w', w (out, in).
pub fn pointwise(x: &[f64], w: &[f32], cin: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let dot = |w: &[f32]| w.iter().zip(x).map(|(&w, x)| w as f64 * x).sum();
        w.chunks(cin).map(dot).collect()
    };
    x.chunks(cin).flat_map(row).collect()
}

/// dx and dw of [`pointwise`].
pub fn pointwise_backward(x: &[f64], w: &[f32], dz: &[f64], cin: usize) -> (Vec<f64>, Vec<f64>) {
    let cout = w.len() / cin;
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    for (r, dz) in dz.chunks(cout).enumerate() {
        for (o, g) in dz.iter().enumerate() {
            for i in 0..cin {
                dx[r * cin + i] += g * w[o * cin + i] as f64;
                dw[o * cin + i] += g * x[r * cin + i];
            }
        }
    }
    (dx, dw)
}

/// Calls `each(output row, input row, tap)` for every pair that a window connects, where rows
/// count pixels over all images and taps run over the k * k positions.
pub fn windows(window: &Window, images: usize, mut each: impl FnMut(usize, usize, usize)) {
    let w = window;
    for n in 0..images {
        for oy in 0..w.out_height {
            for ox in 0..w.out_width {
                for tap in 0..w.kernel * w.kernel {
                    let y = (oy * w.stride + tap / w.kernel).wrapping_sub(w.pad_top);
                    let x = (ox * w.stride + tap % w.kernel).wrapping_sub(w.pad_left);
                    if y < w.height && x < w.width {
                        let output = (n * w.out_height + oy) * w.out_width + ox;
                        each(output, (n * w.height + y) * w.width + x, tap);
                    }
                }
            }
        }
    }
}

/// Sums over the rows, per channel, of each number and of its product with `other`.
pub fn sums(x: &[f64], other: impl Fn(usize) -> f64, channels: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut sum, mut product) = (vec![0.0; channels], vec![0.0; channels]);
    for (i, &x) in x.iter().enumerate() {
        sum[i % channels] += x;
        product[i % channels] += x * other(i);
    }
    (sum, product)
}

/// As f32, to compare with what a kernel wrote.
pub fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}
