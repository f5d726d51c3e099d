//! Every operation of a backend on a card against the processor's, forward and backward, at awkward
//! shapes. The processor's are held against PyTorch and plain loops elsewhere (ops.rs, ops_shapes.rs).
//!
//! Tolerance: 2e-5 of the largest magnitude in a tensor, the rounding of f32 sums of this length in
//! another order.

use seedling_core::layout::Layout;
use seedling_core::nn::activation::Act;
use seedling_core::nn::backend::{Backend, Grad, Param, ParamMut, Src};
use seedling_core::nn::cpu::Cpu;
use seedling_core::nn::layer::{BatchNorm, Gate, SqueezeExcite};
use seedling_core::nn::window::{Padding, Window};
use seedling_tests::card::card;
use seedling_tests::formula::numbers;
use seedling_tests::fused::assert_close;

const TOLERANCE: f64 = 2e-5;

/// What an operation found, by name.
type Found = Vec<(String, Vec<f32>)>;

/// An operation's way through a backend, and what it leaves on the host.
struct Bench<'a, B: Backend> {
    b: &'a B,
    found: Found,
}

impl<B: Backend> Bench<'_, B> {
    fn buf(&self, stream: u64, len: usize, scale: f64) -> B::Buf {
        let numbers = numbers(stream, len, scale);
        self.b.upload(len, |out| out.copy_from_slice(&numbers)).unwrap()
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
trait Operation {
    fn on<B: Backend>(&self, bench: &mut Bench<'_, B>);
}

fn found<B: Backend>(backend: &B, operation: &impl Operation) -> Found {
    let mut bench = Bench {
        b: backend,
        found: Vec::new(),
    };
    operation.on(&mut bench);
    bench.found
}

#[track_caller]
fn compare(what: &str, operation: &impl Operation) {
    let Some(card) = card() else { return };
    let (expected, got) = (found(&Cpu::default(), operation), found(&card, operation));
    assert!(!expected.is_empty());
    for ((name, expected), (_, got)) in expected.iter().zip(&got) {
        assert_close(got, expected, TOLERANCE, 0.0, &format!("{what}: {name}"));
    }
}

/// A norm of `channels` numbers each, and its place.
fn norm_layer(channels: usize) -> (BatchNorm, usize, usize) {
    let mut layout = Layout::default();
    let layer = BatchNorm::new(&mut layout, "bn", channels, 1e-3);
    (layer, layout.parameter_count(), layout.buffer_count())
}

/// A convolution of a normed input, its batch norm, and everything backward.
struct Convolution {
    kind: Kind,
    window: Window,
    images: usize,
    outputs: usize,
    act: Act,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Pointwise,
    Depthwise,
    Dense,
}

impl Operation for Convolution {
    fn on<B: Backend>(&self, bench: &mut Bench<'_, B>) {
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
        let stored = bench.buf(1, rows * c, 5.0);
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
        let (z, moments) = b.pointwise(&Src::plain(&stored, c), w, true).unwrap();
        let norm = b
            .norm(&before, &values, &mut buffers, moments.map(|m| (m, 0.1)))
            .unwrap();
        bench.see("identity", &z);
        bench.see_flat("running statistics", &buffers);
        let x = Src::normed((&z, &norm), c, *act);
        let y = b.materialise(&x).unwrap();
        bench.see("activation", &y);

        let weights = match kind {
            Kind::Pointwise => outputs * c,
            Kind::Depthwise => c * window.kernel * window.kernel,
            Kind::Dense => outputs * c * window.kernel * window.kernel,
        };
        // Not at the beginning: a weight may lie anywhere.
        let flat = bench.flat(3, weights + 7, 2.0);
        let range = 5..5 + weights;
        let param = || Param::<B> {
            values: &flat,
            range: &range,
        };
        let (out, moments) = match kind {
            Kind::Pointwise => b.pointwise(&x, param(), true),
            Kind::Depthwise => b.depthwise(&x, window, param(), true),
            Kind::Dense => b.conv(&x, window, param(), true),
        }
        .unwrap();
        bench.see("z", &out);
        let channels = if *kind == Kind::Depthwise { c } else { *outputs };
        let (after, parameters, statistics) = norm_layer(channels);
        let values = bench.flat(4, parameters, 2.0);
        let mut buffers = b.flat(vec![0.5; statistics]).unwrap();
        let outer = b
            .norm(&after, &values, &mut buffers, moments.map(|m| (m, 0.1)))
            .unwrap();
        bench.see_flat("running statistics behind", &buffers);

        let len = b.download(&out).unwrap().len();
        let mut dy = bench.buf(6, len, 1.0);
        let read = Src::normed((&out, &outer), channels, *act);
        let sums = b.activation_back(&mut dy, &read).unwrap();
        bench.see("dy", &dy);
        let mut grads = b.flat(vec![0.25; parameters]).unwrap();
        let grad = b.norm_back(&after, &outer, &sums, &mut grads).unwrap();
        bench.see_flat("gradients of the norm", &grads);
        let dz = Grad::Normed {
            dy: &dy,
            z: &out,
            grad: &grad,
        };
        let mut dw = b.flat(vec![0.5; weights + 7]).unwrap();
        let (dx, sums) = {
            let dw = ParamMut {
                grads: &mut dw,
                range: &range,
            };
            match kind {
                Kind::Pointwise => b.pointwise_back_activated(&dz, &x, param(), dw),
                Kind::Depthwise => b.depthwise_back_activated(&dz, &x, window, param(), dw),
                Kind::Dense => b.conv_back_activated(&dz, &x, window, param(), dw),
            }
            .unwrap()
        };
        bench.see("dx behind the activation", &dx);
        bench.see_flat("dw", &dw);
        let mut grads = b.flat(vec![0.25; 2 * c]).unwrap();
        let inner = b.norm_back(&before, &norm, &sums, &mut grads).unwrap();
        bench.see_flat("gradients of the norm before", &grads);

        // Stored as it is read, with a shortcut.
        let shortcut = bench.buf(7, rows * c, 1.0);
        let plain = Src::plain(&z, c);
        let mut dw = b.flat(vec![0.0; weights + 7]).unwrap();
        let dx = {
            let dw = ParamMut {
                grads: &mut dw,
                range: &range,
            };
            match kind {
                Kind::Pointwise => b.pointwise_back(&dz, &plain, param(), dw, Some(&shortcut)),
                Kind::Depthwise => {
                    b.depthwise_back(&dz, &plain, window, param(), dw, Some(&shortcut))
                }
                Kind::Dense => b.conv_back(&dz, &plain, window, param(), dw, Some(&shortcut)),
            }
            .unwrap()
        };
        bench.see("dx with a shortcut", &dx);
        bench.see_flat("dw of a stored input", &dw);

        // dz of the norm before, through the convolution that does nothing.
        let dz = Grad::Normed {
            dy: &dx,
            z: &z,
            grad: &inner,
        };
        let mut unused = b.flat(vec![0.0; c * c]).unwrap();
        let dw = ParamMut {
            grads: &mut unused,
            range: &whole,
        };
        let w = Param {
            values: &identity,
            range: &whole,
        };
        let dx = b
            .pointwise_back(&dz, &Src::plain(&stored, c), w, dw, None)
            .unwrap();
        bench.see("dz", &dx);
    }
}

const SYMMETRIC: Padding = Padding::Symmetric;

#[test]
fn pointwise() {
    for (rows, c, outputs) in [(2, 1, 1), (3, 17, 7), (50, 24, 96), (333, 40, 20), (4099, 12, 33)] {
        for act in [Act::HardSwish, Act::Relu] {
            let window = Window::new((rows, 1), c, 1, 1, SYMMETRIC);
            compare(
                &format!("{rows} rows, {c} to {outputs}, {act:?}"),
                &Convolution {
                    kind: Kind::Pointwise,
                    window,
                    images: 1,
                    outputs,
                    act,
                },
            );
        }
    }
}

#[test]
fn depthwise() {
    for (size, c) in [((1, 2), 3), ((5, 4), 24), ((9, 7), 17), ((14, 14), 72)] {
        for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
            for padding in [Padding::Symmetric, Padding::Same] {
                let window = Window::new(size, c, kernel, stride, padding);
                compare(
                    &format!("{window:?}"),
                    &Convolution {
                        kind: Kind::Depthwise,
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
fn dense() {
    for (size, c, outputs) in [((1, 2), 3, 4), ((6, 5), 3, 16), ((7, 9), 20, 33)] {
        for (kernel, stride) in [(1, 2), (3, 1), (3, 2), (7, 2)] {
            let window = Window::new(size, c, kernel, stride, SYMMETRIC);
            compare(
                &format!("{window:?} to {outputs}"),
                &Convolution {
                    kind: Kind::Dense,
                    window,
                    images: 2,
                    outputs,
                    act: Act::Silu,
                },
            );
        }
    }
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
    fn on<B: Backend>(&self, bench: &mut Bench<'_, B>) {
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
        let weight = bench.flat(2, c * c, 1.0);
        let whole = 0..c * c;
        let param = || Param::<B> {
            values: &weight,
            range: &whole,
        };
        let stored = bench.buf(3, rows * c, 2.0);
        let (z, moments) = b.pointwise(&Src::plain(&stored, c), param(), true).unwrap();
        let state = b
            .norm(&norm, &values, &mut buffers, moments.map(|m| (m, 0.1)))
            .unwrap();
        let activated = Src::normed((&z, &state), c, acts.0);
        let (squeezed, gates) = b.squeeze(&layer, &values, &activated, per_image).unwrap();
        let x = activated.gated(&gates);
        let y = b.materialise(&x).unwrap();
        bench.see("gated", &y);
        let (out, moments) = b.pointwise(&x, param(), true).unwrap();
        bench.see("z behind", &out);

        let outer = b
            .norm(&norm, &values, &mut buffers, moments.map(|m| (m, 0.1)))
            .unwrap();
        let read = Src::normed((&out, &outer), c, acts.0);
        let pooled = b.pool(&read, per_image).unwrap();
        bench.see("pooled", &pooled);
        let dy = bench.buf(4, images * c, 1.0);
        let (pool, sums) = b.pool_back(&read, &dy, per_image).unwrap();
        let mut grads = b.flat(vec![0.0; layout.parameter_count()]).unwrap();
        let grad = b.norm_back(&norm, &outer, &sums, &mut grads).unwrap();
        let dz = Grad::Pooled {
            z: &out,
            norm: &outer,
            act: acts.0,
            pool: &pool,
            grad: &grad,
        };
        let mut dw = b.flat(vec![0.0; c * c]).unwrap();
        let into = ParamMut {
            grads: &mut dw,
            range: &whole,
        };
        let (g, sums) = b
            .pointwise_back_gated(&dz, &x, param(), into, per_image)
            .unwrap();
        bench.see("behind the gate", &g);
        bench.see_flat("dw behind the gate", &dw);
        let (pool, sums) = b
            .squeeze_back(&layer, &values, &squeezed, &sums, &mut grads, per_image)
            .unwrap();
        let grad = b.norm_back(&norm, &state, &sums, &mut grads).unwrap();
        bench.see_flat("gradients", &grads);
        let dz = Grad::Gated {
            g: &g,
            z: &z,
            norm: &state,
            act: acts.0,
            gate: &gates,
            pool: &pool,
            grad: &grad,
        };
        let into = ParamMut {
            grads: &mut dw,
            range: &whole,
        };
        let dx = b
            .pointwise_back(&dz, &Src::plain(&stored, c), param(), into, None)
            .unwrap();
        bench.see("dx", &dx);
        bench.see_flat("dw", &dw);
        let means = b.spread_means(&dy, c, per_image).unwrap();
        bench.see("means spread", &means);
    }
}

#[test]
fn squeeze_excite_and_pooling() {
    for (images, per_image, channels) in [(2, 1, 3), (3, 49, 24), (2, 400, 17), (5, 9, 72)] {
        for (acts, gate) in [
            ((Act::HardSwish, Act::Relu), Gate::HardSigmoid),
            ((Act::Silu, Act::Silu), Gate::Sigmoid),
        ] {
            compare(
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
