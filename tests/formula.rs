//! Weights and images by formula: see tests/golden/common.py, which defines them.

use seedling_core::layout::Role;
use seedling_core::params::Params;

/// u(stream, i), in [-0.5, 0.5).
pub fn u(stream: u64, i: usize) -> f64 {
    let mut x = (i as u64)
        .wrapping_mul(2_654_435_761)
        .wrapping_add(stream * 40_503 + 12_345) as u32;
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^= x >> 16;
    x as f64 / 4_294_967_296.0 - 0.5
}

/// `count` numbers of a stream, scaled.
pub fn numbers(stream: u64, count: usize, scale: f64) -> Vec<f32> {
    (0..count).map(|i| (u(stream, i) * scale) as f32).collect()
}

/// Fills a network by formula, entry by entry in definition order.
pub fn fill(params: &mut Params) {
    let layout = params.layout.clone();
    let (values, buffers) = (&mut params.values, &mut params.buffers);
    for (t, entry) in layout.entries().iter().enumerate() {
        let fan_in: usize = entry.shape[1..].iter().product();
        // As the generator has it: through ResNet-50's 16 blocks rounding grows thirtyfold otherwise.
        let branch_end = if entry.name.contains(".bn3.") {
            0.2
        } else {
            1.0
        };
        let f = |u: f64| match entry.role {
            Role::ConvWeight => u * 2.0 * 3f64.sqrt() * (2.0 / fan_in as f64).sqrt(),
            Role::LinearWeight | Role::ProjectionWeight | Role::Token => {
                u * 2.0 * 3f64.sqrt() * (1.0 / fan_in as f64).sqrt()
            }
            Role::NormWeight => branch_end * (1.0 + 0.4 * u),
            Role::NormBias => branch_end * (0.4 * u),
            Role::RunningMean => 0.2 * u,
            Role::RunningVar => 1.0 + 0.5 * u,
            Role::Bias => 0.1 * u,
        };
        let target = if entry.role.is_buffer() {
            &mut *buffers
        } else {
            &mut *values
        };
        for (i, x) in target[entry.range.clone()].iter_mut().enumerate() {
            *x = f(u(t as u64, i)) as f32;
        }
    }
}

/// Euclidean norm.
pub fn norm(v: &[f32]) -> f64 {
    v.iter().map(|&x| x as f64 * x as f64).sum::<f64>().sqrt()
}

/// The sum of `v[i] * u(stream, i)`.
pub fn dot(v: &[f32], stream: u64) -> f64 {
    v.iter()
        .enumerate()
        .map(|(i, &x)| x as f64 * u(stream, i))
        .sum()
}

/// `samples` elements at floor(j * n / samples), or all of a tensor of at most `whole`.
pub fn sample(v: &[f32], samples: usize, whole: usize) -> Vec<f32> {
    if v.len() <= whole {
        return v.to_vec();
    }
    (0..samples).map(|j| v[j * v.len() / samples]).collect()
}
