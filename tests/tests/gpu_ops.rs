//! Every operation of a backend on a GPU against the CPU's, forward and backward, at awkward
//! shapes. The CPU's are held against PyTorch and plain loops elsewhere (ops.rs, ops_shapes.rs).
//!
//! Tolerance: 2e-5 of the largest magnitude in a tensor, the rounding of f32 sums of this length in
//! another order. Where activations are stored in 16 bits, what goes in is rounded for both, and
//! tensors are compared as a whole: a derivative that rounding puts on the other side of a corner is another
//! number.

use cubecl::ir::FloatKind;
use cubecl::prelude::Runtime;
use half::{bf16, f16};
use seedling_core::layout::{Layout, Role};
use seedling_core::loss::{Contrast, Neighbors, Regression, Target, TeacherQueue};
use seedling_core::nn::activation::Act;
use seedling_core::nn::backend::{
    AdamUpdate, Conv, DeviceOps, FusedGrad, FusedInput, InputGrad, Param, Read, Rows, Sink,
    Statistics, Update, WeightMut,
};
use seedling_core::nn::cpu::Cpu;
use seedling_core::nn::gpu::Gpu;
use seedling_core::nn::layer::{
    BatchNorm, Gate, Heads, LayerNorm, Linear, Positions, SqueezeExcite,
};
use seedling_core::nn::window::{Padding, Window};
use seedling_core::ops::TrainingBackend;
use seedling_core::queue::Queue;
use seedling_tests::formula::numbers;
use seedling_tests::fused::assert_close;
use seedling_tests::gpu::gpu;
use seedling_tests::require::skipped;
use std::ops::Range;

const TOLERANCE: f64 = 2e-5;
/// Of numbers with 11 and with 8 significant bits.
const F16_TOLERANCE: f64 = 2e-2;
const BF16_TOLERANCE: f64 = 4e-2;
/// Of products of numbers with 11 bits, as those of f16.
const TF32_TOLERANCE: f64 = 2e-2;

/// What an operation found, by name.
pub type Found = Vec<(String, Vec<f32>)>;

/// An operation's way through a backend, and what it leaves on the host.
pub struct Bench<'a, B: TestBackend> {
    b: &'a B,
    /// What activations are stored in.
    dtype: FloatKind,
    found: Found,
}

/// Backends that may store activations in fewer bits.
pub trait TestBackend: TrainingBackend {
    fn stored(&self, x: Self::Buf) -> Self::Buf;
}

impl TestBackend for Cpu {
    fn stored(&self, x: Self::Buf) -> Self::Buf {
        x
    }
}

impl<R: Runtime> TestBackend for Gpu<R> {
    fn stored(&self, x: Self::Buf) -> Self::Buf {
        Gpu::stored(self, x).unwrap()
    }
}

impl<B: TestBackend> Bench<'_, B> {
    /// Activations, or gradients of such.
    fn maps(&self, stream: u64, len: usize, scale: f64) -> B::Buf {
        let mut numbers = numbers(stream, len, scale);
        let round = |x: f32| match self.dtype {
            FloatKind::F16 => f16::from_f32(x).to_f32(),
            FloatKind::BF16 => bf16::from_f32(x).to_f32(),
            _ => x,
        };
        numbers.iter_mut().for_each(|x| *x = round(*x));
        let numbers = self
            .b
            .upload(len, |out| out.copy_from_slice(&numbers))
            .unwrap();
        self.b.stored(numbers)
    }

    fn buf(&self, stream: u64, len: usize, scale: f64) -> B::Buf {
        let numbers = numbers(stream, len, scale);
        self.b
            .upload(len, |out| out.copy_from_slice(&numbers))
            .unwrap()
    }

    fn flat(&self, stream: u64, len: usize, scale: f64) -> B::Flat {
        self.b.flat(numbers(stream, len, scale)).unwrap()
    }

    fn see(&mut self, what: &str, buf: &B::Buf) {
        let numbers = self.b.download(buf).unwrap();
        self.found.push((what.into(), numbers));
    }

    fn see_flat(&mut self, what: &str, flat: &B::Flat) {
        let numbers = self.b.host(flat).unwrap().into_owned();
        self.found.push((what.into(), numbers));
    }
}

/// An operation, whatever the backend.
pub trait Operation {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>);
}

pub fn found<B: TestBackend>(backend: &B, operation: &impl Operation, dtype: FloatKind) -> Found {
    let mut bench = Bench {
        b: backend,
        dtype,
        found: Vec::new(),
    };
    operation.run(&mut bench);
    bench.found
}

/// What is done with an operation.
pub trait See {
    fn operation(&mut self, what: &str, operation: &impl Operation);
}

/// The GPU's numbers are compared with the CPU's.
struct Compare;

impl See for Compare {
    #[track_caller]
    fn operation(&mut self, what: &str, operation: &impl Operation) {
        if let Some(gpu) = gpu() {
            compare(what, operation, &gpu);
        }
    }
}

/// The same on a GPU that is set so.
pub struct CompareOn<R: Runtime>(pub Gpu<R>);

impl<R: Runtime> See for CompareOn<R> {
    #[track_caller]
    fn operation(&mut self, what: &str, operation: &impl Operation) {
        compare(what, operation, &self.0);
    }
}

/// The same where activations are stored in 16 bits, of each dtype that the GPU has.
struct CompareHalved;

impl See for CompareHalved {
    #[track_caller]
    fn operation(&mut self, what: &str, operation: &impl Operation) {
        let Some(gpu) = gpu() else { return };
        let mut halved = HALVES
            .into_iter()
            .filter_map(|dtype| gpu.storing(dtype))
            .peekable();
        if halved.peek().is_none() {
            skipped("gpu", "it has neither bf16 nor f16");
        }
        for gpu in halved {
            compare(what, operation, &gpu.with_loss_scale(1.0));
        }
    }
}

/// What activations may be stored in, in 16 bits.
pub const HALVES: [FloatKind; 2] = [FloatKind::BF16, FloatKind::F16];

/// The numbers of an operation on a GPU beside the CPU's.
#[track_caller]
fn compare<R: Runtime>(what: &str, operation: &impl Operation, gpu: &Gpu<R>) {
    let dtype = gpu.dtype();
    let expected = found(&Cpu::default(), operation, dtype);
    let got = found(gpu, operation, dtype);
    assert!(!expected.is_empty());
    for ((name, expected), (_, got)) in expected.iter().zip(&got) {
        let what = format!("{what}: {name}");
        let tolerance = match dtype {
            FloatKind::F16 => F16_TOLERANCE,
            FloatKind::BF16 => BF16_TOLERANCE,
            _ if gpu.tf32() => TF32_TOLERANCE,
            _ => {
                assert_close(got, expected, TOLERANCE, 0.0, &what);
                continue;
            }
        };
        assert_eq!(got.len(), expected.len(), "{what}");
        let length =
            |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let off = length(&mut got.iter().zip(expected).map(|(a, b)| a - b));
        let whole = length(&mut expected.iter().copied());
        // A sum of few numbers of about 1 may be close to zero.
        assert!(
            off <= tolerance * (whole + 0.01),
            "{what}: {off:e} off, of {whole:e}"
        );
    }
}

/// Every operation, at all the shapes of this file.
pub fn all(see: &mut impl See) {
    on_maps(see);
    transformers_cases(see);
    losses_cases(see);
    optimizers_cases(see);
}

/// A norm of `channels` numbers each, and its place.
fn norm_layer(channels: usize) -> (BatchNorm, usize, usize) {
    let mut layout = Layout::default();
    let layer = BatchNorm::new(&mut layout, "bn", channels, 1e-3);
    (layer, layout.parameter_count(), layout.buffer_count())
}

/// A convolution of a normed input, its batch norm, and everything backward.
struct Convolution {
    kind: ConvKind,
    window: Window,
    images: usize,
    outputs: usize,
    act: Act,
}

/// A weight of `values`, whose gradient is added to `grads`.
fn weight<'a, B: TestBackend>(
    values: &'a B::Flat,
    grads: &'a mut B::Flat,
    range: &'a Range<usize>,
) -> WeightMut<'a, B> {
    WeightMut {
        values,
        grads,
        range,
    }
}

/// The statistics of a batch, by which running ones move.
fn of_batch<B: TestBackend>(
    moments: Option<B::Moments>,
    buffers: &mut B::Flat,
) -> Statistics<'_, B> {
    Statistics::Batch {
        moments: moments.unwrap(),
        buffers,
        momentum: 0.1,
    }
}

fn plain<B: TestBackend>(found: InputGrad<B>) -> B::Buf {
    match found {
        InputGrad::Plain(dx) => dx,
        _ => panic!("another sink's"),
    }
}

fn activated<B: TestBackend>(found: InputGrad<B>) -> (B::Buf, B::GradSums) {
    match found {
        InputGrad::Activated(dy, sums) => (dy, sums),
        _ => panic!("another sink's"),
    }
}

fn gated<B: TestBackend>(found: InputGrad<B>) -> (B::Buf, B::ImageSums) {
    match found {
        InputGrad::Gated(g, sums) => (g, sums),
        _ => panic!("another sink's"),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum ConvKind {
    Pointwise,
    Depthwise,
    Dense,
}

impl Operation for Convolution {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let b = bench.b;
        let Convolution {
            kind,
            window,
            images,
            outputs,
            act,
        } = self;
        let c = window.channels;
        let rows = images * window.height * window.width;
        let stored = bench.maps(1, rows * c, 5.0);
        let (before, parameters, statistics) = norm_layer(c);
        let values = bench.flat(2, parameters, 2.0);
        let mut buffers = b.flat(vec![0.5; statistics]).unwrap();

        // The input's own statistics, by a convolution that does nothing.
        let mut identity = vec![0.0; c * c];
        identity.iter_mut().step_by(c + 1).for_each(|w| *w = 1.0);
        let identity = b.flat(identity).unwrap();
        let whole = 0..c * c;
        let w = Param {
            values: &identity,
            range: &whole,
        };
        let (z, moments) = b
            .conv(Conv::Pointwise, &FusedInput::plain(&stored, c), w, 1)
            .unwrap();
        let norm = b
            .norm(&before, &values, of_batch(moments, &mut buffers))
            .unwrap();
        bench.see("identity", &z);
        bench.see_flat("running statistics", &buffers);
        let x = FusedInput::normed((&z, &norm), c, *act);
        let y = b.materialize(&x).unwrap();
        bench.see("activation", &y);

        let weights = match kind {
            ConvKind::Pointwise => outputs * c,
            ConvKind::Depthwise => c * window.kernel * window.kernel,
            ConvKind::Dense => outputs * c * window.kernel * window.kernel,
        };
        // Not at the beginning: a weight may lie anywhere.
        let flat = bench.flat(3, weights + 7, 2.0);
        let range = 5..5 + weights;
        let param = || Param::<B> {
            values: &flat,
            range: &range,
        };
        let conv = match kind {
            ConvKind::Pointwise => Conv::Pointwise,
            ConvKind::Depthwise => Conv::Depthwise(*window),
            ConvKind::Dense => Conv::Dense(*window),
        };
        let (out, moments) = b.conv(conv, &x, param(), 1).unwrap();
        bench.see("z", &out);
        let channels = if *kind == ConvKind::Depthwise {
            c
        } else {
            *outputs
        };
        let (after, parameters, statistics) = norm_layer(channels);
        let values = bench.flat(4, parameters, 2.0);
        let mut buffers = b.flat(vec![0.5; statistics]).unwrap();
        let outer = b
            .norm(&after, &values, of_batch(moments, &mut buffers))
            .unwrap();
        bench.see_flat("running statistics behind", &buffers);

        let len = b.download(&out).unwrap().len();
        let mut dy = bench.maps(6, len, 1.0);
        let read = FusedInput::normed((&out, &outer), channels, *act);
        let sums = b.activation_back(&mut dy, &read).unwrap();
        bench.see("dy", &dy);
        let mut grads = b.flat(vec![0.25; parameters]).unwrap();
        let grad = b.norm_back(&after, &outer, &sums, &mut grads).unwrap();
        bench.see_flat("gradients of the norm", &grads);
        let dz = FusedGrad::Normed {
            dy: &dy,
            z: &out,
            grad: &grad,
        };
        let mut dw = b.flat(vec![0.5; weights + 7]).unwrap();
        let into = weight(&flat, &mut dw, &range);
        let (dx, sums) = activated(b.conv_back(conv, &dz, &x, into, Sink::Activated).unwrap());
        bench.see("dx behind the activation", &dx);
        bench.see_flat("dw", &dw);
        let mut grads = b.flat(vec![0.25; 2 * c]).unwrap();
        let inner = b.norm_back(&before, &norm, &sums, &mut grads).unwrap();
        bench.see_flat("gradients of the norm before", &grads);

        // Behind a gate.
        let per_image = window.height * window.width;
        let factors: Vec<f32> = (0..*images).map(|i| 0.5 + i as f32).collect();
        let gates = b.per_image(&factors, c, per_image).unwrap();
        let behind = x.gated(&gates);
        let mut dw = b.flat(vec![0.0; weights + 7]).unwrap();
        let into = weight(&flat, &mut dw, &range);
        let sink = Sink::Gated {
            rows_per_image: per_image,
        };
        let (g, _) = gated(b.conv_back(conv, &dz, &behind, into, sink).unwrap());
        bench.see("g behind a gate", &g);
        bench.see_flat("dw of a gated input", &dw);

        // Stored as it is read, with a shortcut.
        let shortcut = bench.maps(7, rows * c, 1.0);
        let plain_x = FusedInput::plain(&z, c);
        let mut dw = b.flat(vec![0.0; weights + 7]).unwrap();
        let into = weight(&flat, &mut dw, &range);
        let sink = Sink::Plain {
            shortcut: Some(&shortcut),
        };
        let dx = plain(b.conv_back(conv, &dz, &plain_x, into, sink).unwrap());
        bench.see("dx with a shortcut", &dx);
        bench.see_flat("dw of a stored input", &dw);

        // dz of the norm before, through the convolution that does nothing.
        let dz = FusedGrad::Normed {
            dy: &dx,
            z: &z,
            grad: &inner,
        };
        let mut unused = b.flat(vec![0.0; c * c]).unwrap();
        let into = weight(&identity, &mut unused, &whole);
        let sink = Sink::Plain { shortcut: None };
        let from = FusedInput::plain(&stored, c);
        let dx = plain(
            b.conv_back(Conv::Pointwise, &dz, &from, into, sink)
                .unwrap(),
        );
        bench.see("dz", &dx);
    }
}

const SYMMETRIC: Padding = Padding::Symmetric;

/// Those on activations, which may be of 16 bits; heads and losses stay in f32.
pub fn on_maps(see: &mut impl See) {
    pointwise_cases(see);
    depthwise_cases(see);
    dense_cases(see);
    squeeze_excite_and_pooling_cases(see);
    sums_and_largest_cases(see);
}

/// Those that ask for products, which tensor cores may take.
pub fn of_products(see: &mut impl See) {
    pointwise_cases(see);
    dense_cases(see);
    squeeze_excite_and_pooling_cases(see);
    losses_cases(see);
}

fn pointwise_cases(see: &mut impl See) {
    for (rows, c, outputs) in [(7, 1, 1), (13, 17, 7), (333, 40, 96), (4099, 12, 33)] {
        let window = Window::new((rows, 1), c, 1, 1, SYMMETRIC);
        see.operation(
            &format!("{rows} rows, {c} to {outputs}"),
            &Convolution {
                kind: ConvKind::Pointwise,
                window,
                images: 1,
                outputs,
                act: Act::HardSwish,
            },
        );
    }
}

#[test]
fn in_half_precision() {
    on_maps(&mut CompareHalved);
}

/// Where the GPU has tensor cores for it; where it has none, gpu_emulated.rs does this.
#[test]
fn in_tf32() {
    let Some(gpu) = gpu() else { return };
    match gpu.with_tf32() {
        Ok(gpu) => of_products(&mut CompareOn(gpu)),
        Err(error) => skipped("tf32", error),
    }
}

#[test]
fn pointwise() {
    pointwise_cases(&mut Compare);
}

fn depthwise_cases(see: &mut impl See) {
    for (size, c) in [((1, 2), 3), ((5, 9), 24), ((14, 13), 72)] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            for padding in [Padding::Symmetric, Padding::Same] {
                let window = Window::new(size, c, kernel, stride, padding);
                see.operation(
                    &format!("{window:?}"),
                    &Convolution {
                        kind: ConvKind::Depthwise,
                        window,
                        images: 3,
                        outputs: c,
                        act: Act::HardSwish,
                    },
                );
            }
        }
    }
}

#[test]
fn depthwise() {
    depthwise_cases(&mut Compare);
}

fn dense_cases(see: &mut impl See) {
    for (size, c, outputs) in [((1, 4), 3, 4), ((7, 9), 20, 33)] {
        for (kernel, stride) in [(1, 2), (3, 1), (7, 2)] {
            let window = Window::new(size, c, kernel, stride, SYMMETRIC);
            see.operation(
                &format!("{window:?} to {outputs}"),
                &Convolution {
                    kind: ConvKind::Dense,
                    window,
                    images: 2,
                    outputs,
                    act: Act::Silu,
                },
            );
        }
    }
}

#[test]
fn dense() {
    dense_cases(&mut Compare);
}

/// A product of many rows.
struct Tall;

impl Operation for Tall {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let x = bench.buf(1, 65_600 * 64 + 5, 1.0);
        let w = bench.flat(2, 1, 1.0);
        let w = Param {
            values: &w,
            range: &(0..1),
        };
        let (z, _) = bench
            .b
            .conv(Conv::Pointwise, &FusedInput::plain(&x, 1), w, 0)
            .unwrap();
        bench.see("z", &z);
    }
}

#[test]
fn more_tiles_than_a_dimension_has_cubes() {
    Compare.operation("tall", &Tall);
}

/// A step takes what the step before gave back.
#[test]
fn two_hundred_times_in_the_memory_of_one() {
    let Some(gpu) = gpu() else { return };
    let gpu = gpu.apart();
    let window = Window::new((5, 9), 24, 3, 1, SYMMETRIC);
    let operation = Convolution {
        kind: ConvKind::Depthwise,
        window,
        images: 3,
        outputs: 24,
        act: Act::HardSwish,
    };
    let held: Vec<usize> = (0..200)
        .map(|_| {
            found(&gpu, &operation, FloatKind::F32);
            gpu.most_bytes()
        })
        .collect();
    assert!(
        held[0] > 0 && held.iter().all(|bytes| *bytes == held[0]),
        "{held:?}"
    );
}

/// Squeeze-excite between a norm and a 1x1 convolution, and pooling behind another.
struct Gated {
    images: usize,
    per_image: usize,
    channels: usize,
    hidden: usize,
    acts: (Act, Act),
    gate: Gate,
}

impl Operation for Gated {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let b = bench.b;
        let Gated {
            images,
            per_image,
            channels: c,
            hidden,
            acts,
            gate,
        } = *self;
        let rows = images * per_image;
        let mut layout = Layout::default();
        let norm = BatchNorm::new(&mut layout, "bn", c, 1e-3);
        let layer = SqueezeExcite::new(&mut layout, "se", c, (hidden, acts.1), gate);
        let values = bench.flat(1, layout.parameter_count(), 1.0);
        let mut buffers = b.flat(vec![0.5; layout.buffer_count()]).unwrap();
        let matrix = bench.flat(2, c * c, 1.0);
        let whole = 0..c * c;
        let param = || Param::<B> {
            values: &matrix,
            range: &whole,
        };
        let stored = bench.maps(3, rows * c, 2.0);
        let (z, moments) = b
            .conv(Conv::Pointwise, &FusedInput::plain(&stored, c), param(), 1)
            .unwrap();
        let state = b
            .norm(&norm, &values, of_batch(moments, &mut buffers))
            .unwrap();
        let activated = FusedInput::normed((&z, &state), c, acts.0);
        let (squeezed, gates) = b.squeeze(&layer, &values, &activated, per_image).unwrap();
        let x = activated.gated(&gates);
        let y = b.materialize(&x).unwrap();
        bench.see("gated", &y);
        let (out, moments) = b.conv(Conv::Pointwise, &x, param(), 1).unwrap();
        bench.see("z behind", &out);

        let outer = b
            .norm(&norm, &values, of_batch(moments, &mut buffers))
            .unwrap();
        let read = FusedInput::normed((&out, &outer), c, acts.0);
        let pooled = b.pool(&read, per_image).unwrap();
        bench.see("pooled", &pooled);
        let dy = bench.buf(4, images * c, 1.0);
        let (pool, sums) = b.pool_back(&read, &dy, per_image).unwrap();
        let mut grads = b.flat(vec![0.0; layout.parameter_count()]).unwrap();
        let grad = b.norm_back(&norm, &outer, &sums, &mut grads).unwrap();
        let dz = FusedGrad::Pooled {
            z: &out,
            norm: &outer,
            act: acts.0,
            pool: &pool,
            grad: &grad,
        };
        let mut dw = b.flat(vec![0.0; c * c]).unwrap();
        let sink = Sink::Gated {
            rows_per_image: per_image,
        };
        let into = weight(&matrix, &mut dw, &whole);
        let found = b.conv_back(Conv::Pointwise, &dz, &x, into, sink);
        let (g, sums) = gated(found.unwrap());
        bench.see("behind the gate", &g);
        bench.see_flat("dw behind the gate", &dw);
        let (pool, sums) = b
            .squeeze_back(&layer, &values, &squeezed, &sums, &mut grads, per_image)
            .unwrap();
        let grad = b.norm_back(&norm, &state, &sums, &mut grads).unwrap();
        bench.see_flat("gradients", &grads);
        let dz = FusedGrad::Gated {
            g: &g,
            z: &z,
            norm: &state,
            act: acts.0,
            gate: &gates,
            pool: &pool,
            grad: &grad,
        };
        let into = weight(&matrix, &mut dw, &whole);
        let (from, sink) = (
            FusedInput::plain(&stored, c),
            Sink::Plain { shortcut: None },
        );
        let dx = plain(
            b.conv_back(Conv::Pointwise, &dz, &from, into, sink)
                .unwrap(),
        );
        bench.see("dx", &dx);
        bench.see_flat("dw", &dw);
        let means = b.spread_means(&dy, c, per_image).unwrap();
        bench.see("means spread", &means);
    }
}

fn squeeze_excite_and_pooling_cases(see: &mut impl See) {
    for (images, per_image, channels) in [(2, 1, 3), (3, 49, 24), (2, 400, 17), (5, 9, 72)] {
        for (acts, gate) in [
            ((Act::HardSwish, Act::Relu), Gate::HardSigmoid),
            ((Act::Silu, Act::Silu), Gate::Sigmoid),
        ] {
            see.operation(
                &format!("{images} images of {per_image}, {channels} channels"),
                &Gated {
                    images,
                    per_image,
                    channels,
                    hidden: 5,
                    acts,
                    gate,
                },
            );
        }
    }
}

#[test]
fn squeeze_excite_and_pooling() {
    squeeze_excite_and_pooling_cases(&mut Compare);
}

/// A residual block's ends: a sum behind an activation, pooling of the largest, factors of images.
struct Sums {
    window: Window,
    images: usize,
}

impl Operation for Sums {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let b = bench.b;
        let (window, images, c) = (&self.window, self.images, self.window.channels);
        let rows = images * window.height * window.width;
        let (layer, parameters, statistics) = norm_layer(c);
        let values = bench.flat(1, parameters, 2.0);
        let buffers = b.flat(vec![0.5; statistics]).unwrap();
        let norm = b
            .norm(&layer, &values, Statistics::Running { buffers: &buffers })
            .unwrap();
        let (z, other) = (bench.maps(2, rows * c, 3.0), bench.maps(3, rows * c, 3.0));
        let (x, plain) = (
            FusedInput::normed((&z, &norm), c, Act::Identity),
            FusedInput::plain(&other, c),
        );
        let y = b.add(&x, &plain, Act::Relu).unwrap();
        bench.see("sum", &y);
        let mut dy = bench.maps(4, rows * c, 1.0);
        b.add_back(&mut dy, &x, &plain, Act::Relu).unwrap();
        bench.see("through the sum", &dy);
        let sums = b.norm_sums(&dy, &x).unwrap();
        let mut grads = b.flat(vec![0.5; parameters]).unwrap();
        b.norm_back(&layer, &norm, &sums, &mut grads).unwrap();
        bench.see_flat("gradients on running statistics", &grads);

        let x = FusedInput::normed((&z, &norm), c, Act::Relu);
        let (y, largest) = b.max_pool(&x, window).unwrap();
        bench.see("largest", &y);
        let len = b.download(&y).unwrap().len();
        let dy = bench.maps(5, len, 1.0);
        let (g, sums) = b.max_pool_back(&x, window, &largest, &dy).unwrap();
        bench.see("to the largest", &g);
        let mut grads = b.flat(vec![0.5; parameters]).unwrap();
        b.norm_back(&layer, &norm, &sums, &mut grads).unwrap();
        bench.see_flat("gradients behind the largest", &grads);

        let factors: Vec<f32> = (0..images).map(|i| i as f32 * 1.25).collect();
        let factors = b.per_image(&factors, c, rows / images).unwrap();
        let scaled = b.scale_images(&z, &factors, c).unwrap();
        bench.see("images times factors", &scaled);
        let mut own = bench.maps(6, rows * c, 1.0);
        b.multiply(&mut own, &other).unwrap();
        bench.see("product", &own);
        let coefficients: Vec<(f32, f32)> = (0..c).map(|i| (i as f32 + 0.5, -1.0)).collect();
        b.rescale(&mut own, &coefficients).unwrap();
        bench.see("rescaled", &own);
        let parts = [bench.buf(7, 3 * c, 1.0), bench.buf(8, 2 * c, 1.0)];
        let all = b.gather(&parts, &[3, 0, 4, 2, 1], c).unwrap();
        bench.see("gathered", &all);
    }
}

fn sums_and_largest_cases(see: &mut impl See) {
    for (size, channels) in [((3, 2), 1), ((7, 9), 24), ((12, 11), 17)] {
        let window = Window::new(size, channels, 3, 2, SYMMETRIC);
        see.operation(&format!("{window:?}"), &Sums { window, images: 3 });
    }
}

#[test]
fn sums_and_largest() {
    sums_and_largest_cases(&mut Compare);
}

/// A transformer's layer, and what stands below and above it.
struct Tokens {
    images: usize,
    grid: (usize, usize),
    heads: usize,
    head: usize,
    act: Act,
}

impl Operation for Tokens {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let b = bench.b;
        let dim = self.heads * self.head;
        let count = self.grid.0 * self.grid.1;
        let tokens = 1 + count;
        let mut layout = Layout::default();
        let bias = layout.add("patch.bias", &[dim], Role::Bias);
        let positions = Positions::new(&mut layout, 4, dim, bias);
        let norm = LayerNorm::new(&mut layout, "norm", dim, 1e-6);
        let qkv = Linear::new(&mut layout, "qkv", (dim, 3 * dim), Act::Identity);
        let up = Linear::new(&mut layout, "up", (dim, 13), Act::Identity);
        let down = Linear::new(&mut layout, "down", (13, dim), self.act);
        let values = bench.flat(1, layout.parameter_count(), 1.0);
        let mut grads = b.flat(vec![0.5; layout.parameter_count()]).unwrap();

        let patches = bench.buf(2, self.images * count * dim, 1.0);
        let x = b.tokens(&positions, &values, &patches, self.grid).unwrap();
        bench.see("tokens", &x);
        let stats = b.row_stats(&x, &norm).unwrap();
        let normed = Rows::new(&x, Read::Norm(&norm, &stats));
        let projected = b.rows_linear(&qkv, &values, &normed, None).unwrap();
        bench.see("projected", &projected);
        let heads = Heads {
            tokens,
            heads: self.heads,
            dim,
        };
        let attended = b.attention(&projected, &heads).unwrap();
        bench.see("attended", &attended);
        let plain = Rows::new(&attended, Read::Plain);
        let wide = b.rows_linear(&up, &values, &plain, None).unwrap();
        let activated = Rows::new(&wide, Read::Act(Act::Gelu));
        let y = b.rows_linear(&down, &values, &activated, Some(&x)).unwrap();
        bench.see("layer", &y);
        let first = b.first_rows(&y, tokens, dim).unwrap();
        let first_stats = b.row_stats(&first, &norm).unwrap();
        let features = b.layer_norm(&norm, &values, &first, &first_stats).unwrap();
        bench.see("features", &features);

        let mut dy = bench.buf(3, self.images * dim, 1.0);
        let seen = (&first, &first_stats);
        b.layer_norm_back(&norm, &values, &mut grads, seen, &mut dy)
            .unwrap();
        bench.see("through the norm", &dy);
        let dy = b.spread_first(&dy, tokens, dim).unwrap();
        bench.see("spread", &dy);
        let dwide = b
            .rows_linear_back(&down, &values, &mut grads, &activated, &dy, None)
            .unwrap();
        bench.see("through the activation", &dwide);
        let dattended = b
            .rows_linear_back(&up, &values, &mut grads, &plain, &dwide, None)
            .unwrap();
        let dqkv = b.attention_back(&projected, &heads, &dattended).unwrap();
        bench.see("through attention", &dqkv);
        let dx = b
            .rows_linear_back(&qkv, &values, &mut grads, &normed, &dqkv, Some(&dy))
            .unwrap();
        bench.see("dx", &dx);
        b.tokens_back(&positions, &dx, self.grid, &mut grads)
            .unwrap();
        bench.see_flat("gradients", &grads);

        // A head's layer, which keeps what is before its activation.
        let (y, u) = b.linear(&down, &values, &wide).unwrap();
        bench.see("head", &y);
        let dy = bench.buf(4, self.images * tokens * dim, 1.0);
        let dx = b
            .linear_back(&down, &values, &mut grads, (&wide, &u), dy)
            .unwrap();
        bench.see("through the head", &dx);
        bench.see_flat("all gradients", &grads);
        let mut unit = b.first_rows(&x, tokens, dim).unwrap();
        let kept = b.l2_normalize(&mut unit, dim).unwrap();
        bench.see("unit", &unit);
        let mut dy = bench.buf(5, self.images * dim, 1.0);
        b.l2_normalize_back(&mut dy, &kept, dim).unwrap();
        bench.see("through the length", &dy);
    }
}

fn transformers_cases(see: &mut impl See) {
    for (images, grid, heads, head) in [(2, (1, 1), 1, 3), (3, (4, 4), 2, 5), (2, (3, 5), 3, 8)] {
        see.operation(
            &format!("{images} images of {grid:?}, {heads} heads of {head}"),
            &Tokens {
                images,
                grid,
                heads,
                head,
                act: Act::Relu,
            },
        );
    }
}

#[test]
fn transformers() {
    transformers_cases(&mut Compare);
}

/// Every loss, of queries in the middle of a batch.
struct Losses {
    queries: usize,
    size: usize,
    dim: usize,
    which: usize,
}

impl Operation for Losses {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let b = bench.b;
        let Losses {
            queries: n,
            size,
            dim,
            which,
        } = *self;
        let unit = |stream: u64, rows: usize| {
            let mut all = numbers(stream, rows * dim, 1.0);
            seedling_core::nn::cpu::l2_normalize::forward(&mut all, dim);
            all
        };
        let upload = |numbers: &[f32]| {
            b.upload(numbers.len(), |out| out.copy_from_slice(numbers))
                .unwrap()
        };
        let mut queue = Queue::random(size, dim, 3);
        for (row, photo) in queue.photos.iter_mut().enumerate().skip(2) {
            *photo = row as u32 % 7;
        }
        let mut queue = queue.with_keys(|keys| b.flat(keys)).unwrap();
        let positives = upload(&unit(1, n + 3));
        let photos: Vec<u32> = (0..n as u32 + 3).collect();
        let mut album = unit(2, 6);
        album[..dim].fill(0.0);
        let album = b.flat(album).unwrap();
        let target = match which {
            0 => Target::Positive,
            1 => Target::Teacher { temperature: 0.04 },
            2 => Target::Neighbors(Neighbors {
                initial: album,
                weight: 0.4,
                temperature: 0.1,
            }),
            3 => Target::Nearest {
                weight: 0.3,
                count: 4,
            },
            4 => Target::TeacherQueue(TeacherQueue {
                queue: Queue::random(size, dim, 4)
                    .with_keys(|keys| b.flat(keys))
                    .unwrap(),
                temperature: 0.04,
            }),
            _ => Target::Nothing,
        };
        let to = upload(&unit(6, n + 3));
        let queries = upload(&unit(4, n));
        for masked in [false, true] {
            let contrast = Contrast {
                positives: &positives,
                queue: &queue,
                photos: &photos,
                mask_own_photo: masked,
                temperature: 0.2,
                target: &target,
                batch: n + 3,
                // Beside a target, and alone.
                regression: [0, 5].contains(&which).then_some(Regression {
                    to: &to,
                    weight: 0.3,
                }),
            };
            let (grad, found) = b.contrast(&queries, 2..2 + n, &contrast).unwrap();
            bench.see("gradient", &grad);
            let grads = b.flat(vec![0.0; 3]).unwrap();
            let read = b.read_step(vec![found], &queries, &grads).unwrap();
            assert!(read.finite);
            bench.found.push(("queries".into(), read.queries));
            let (loss, agreement) = read.found[0];
            let figures = vec![loss, agreement.positive, agreement.accuracy];
            bench.found.push(("figures".into(), figures));
        }
        // Around the end of the ring, and once more than it holds.
        for keys in [n + 3, size + 2] {
            let rows = upload(&unit(5, keys));
            let photos: Vec<u32> = (0..keys as u32).collect();
            b.enqueue(&mut queue, &rows, &photos).unwrap();
            bench.see_flat("queue", &queue.keys);
            let place = [queue.next as f32, queue.photos[0] as f32];
            bench.found.push(("place".into(), place.to_vec()));
        }
    }
}

fn losses_cases(see: &mut impl See) {
    for which in 0..6 {
        for (queries, size, dim) in [(1, 5, 3), (7, 100, 128), (3, 1000, 16)] {
            see.operation(
                &format!("loss {which}: {queries} queries, queue of {size}, {dim} numbers"),
                &Losses {
                    queries,
                    size,
                    dim,
                    which,
                },
            );
        }
    }
    // More similarities than a GPU has at a time.
    see.operation(
        "300 queries, queue of 65536",
        &Losses {
            queries: 300,
            size: 65_536,
            dim: 4,
            which: 0,
        },
    );
}

#[test]
fn losses() {
    losses_cases(&mut Compare);
}

/// What becomes of a network's flat numbers.
struct Steps;

impl Operation for Steps {
    fn run<B: TestBackend>(&self, bench: &mut Bench<'_, B>) {
        let b = bench.b;
        let len = 70_001;
        let mut values = bench.flat(1, len, 1.0);
        let grads = bench.flat(2, len, 1.0);
        let base = bench.flat(3, len, 1.0);
        let none = b.flat(Vec::new()).unwrap();
        let mut velocity = bench.flat(4, len, 1.0);
        // With gaps before, between and behind.
        let spans = [(5..700, 0.1), (700..701, 0.0), (9_000..70_000, 0.01)];
        for (l2_sp, base) in [(0.0, &none), (0.5, &base)] {
            let update = Update {
                spans: &spans,
                momentum: 0.9,
                l2_sp,
                lr: 0.1,
            };
            b.sgd(&update, &mut values, &grads, &mut velocity, base)
                .unwrap();
            bench.see_flat("values", &values);
            bench.see_flat("velocity", &velocity);
        }
        let zeros = || b.flat(vec![0.0; len]).unwrap();
        let (mut first, mut second) = (zeros(), zeros());
        for step in 1..=2 {
            let update = AdamUpdate {
                spans: &spans,
                betas: (0.9, 0.999),
                eps: 1e-8,
                step,
                lr: 0.01,
            };
            b.adamw(&update, &mut values, &grads, (&mut first, &mut second))
                .unwrap();
        }
        bench.see_flat("values after AdamW", &values);
        bench.see_flat("second moment", &second);
        let mut own = zeros();
        b.copy(&mut own, &grads).unwrap();
        b.momentum_update(&mut own, &values, 0.75, 1234).unwrap();
        bench.see_flat("EMA", &own);
        let mut finite = Vec::new();
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e38, 1e-42] {
            b.edit(&mut own, |own| own[len - 1] = bad).unwrap();
            finite.push(f32::from(u8::from(b.all_finite(&own).unwrap())));
        }
        bench.found.push(("finite".into(), finite));
        b.clear(&mut own).unwrap();
        bench.see_flat("cleared", &own);
    }
}

fn optimizers_cases(see: &mut impl See) {
    see.operation("flat numbers", &Steps);
}

#[test]
fn optimizers() {
    optimizers_cases(&mut Compare);
}
