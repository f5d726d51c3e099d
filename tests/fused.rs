//! Feeding single fused operations: gradients and norms that do nothing, or something simple.

use seedling_core::layout::Layout;
use seedling_core::nn::backend::Backend;
use seedling_core::nn::cpu::Cpu;
use seedling_core::nn::cpu::channelwise::repeat;
use seedling_core::nn::cpu::norm::{Moments, NormGrad, NormState, Statistics};
use seedling_core::nn::cpu::source::GradSource;
use seedling_core::nn::layer::BatchNorm;
use seedling_core::nn::workspace::{Buffer, Workspace};

/// Runs `test` on one thread and on three: on three, work is cut into uneven pieces.
pub fn on_one_and_three_threads(test: impl Fn(&Workspace) + Sync) {
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| test(&Workspace::default()));
    }
}

/// A tensor of the CPU's.
pub fn buffer(numbers: &[f32]) -> Buffer {
    let upload = |out: &mut [f32]| out.copy_from_slice(numbers);
    Cpu::default().upload(numbers.len(), upload).unwrap()
}

/// dz = a * dy + b * z + c per channel.
pub fn norm_grad(a: &[f32], b: &[f32], c: &[f32]) -> NormGrad {
    let each = |values: &[f32]| repeat(values.iter().copied());
    NormGrad {
        a: each(a),
        b: each(b),
        c: each(c),
    }
}

/// dz = dy.
pub fn unchanged(channels: usize) -> NormGrad {
    let zeros = vec![0.0; channels];
    norm_grad(&vec![1.0; channels], &zeros, &zeros)
}

/// A stored gradient that is read as it is; `unchanged` is [`unchanged`].
pub fn plain<'a>(dy: &'a [f32], unchanged: &'a NormGrad) -> GradSource<'a> {
    GradSource::Normed {
        dy,
        z: dy,
        grad: unchanged,
    }
}

/// A batch norm by itself, and its flat parameters (weight, bias).
pub fn batch_norm(weight: &[f32], bias: &[f32], eps: f32) -> (BatchNorm, Vec<f32>) {
    let mut layout = Layout::default();
    let norm = BatchNorm::new(&mut layout, "norm", weight.len(), eps);
    (norm, [weight, bias].concat())
}

/// y = scale * z + shift, with statistics that are constants; `mean` is what sums are centered on.
pub fn affine(scale: &[f32], shift: &[f32], mean: &[f32]) -> NormState {
    let bias: Vec<f32> = (0..scale.len())
        .map(|i| shift[i] + mean[i] * scale[i])
        .collect();
    let (norm, values) = batch_norm(scale, &bias, 0.0);
    let buffers = [mean, &vec![1.0; mean.len()]].concat();
    let statistics = Statistics::Running { buffers: &buffers };
    norm.state(&values, &Moments::zeros(scale.len()), statistics)
}

/// The identity as a 1x1 convolution's weight.
pub fn identity(channels: usize) -> Vec<f32> {
    let mut weight = vec![0.0; channels * channels];
    weight
        .iter_mut()
        .step_by(channels + 1)
        .for_each(|w| *w = 1.0);
    weight
}

/// Largest |got - expected| within `relative` of the largest magnitude among `expected` (and
/// `floor`, the size of the terms where the result is their difference).
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f32], relative: f64, floor: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(floor, |m, &x| m.max(x.abs() as f64));
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        let off = (a - b).abs() as f64;
        assert!(
            off <= relative * scale,
            "{what}[{i}]: {a} instead of {b}, off by {:.1e} of {scale:.2e}",
            off / scale
        );
    }
}
