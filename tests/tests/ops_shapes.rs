//! The fused operations against plain loops in f64 at awkward shapes: single pixels, one channel,
//! widths and channels that divide no vector, work that three threads cut unevenly.
//!
//! Tolerance: 2e-5 of the largest magnitude in a tensor (sums: of the sum of magnitudes), the
//! rounding of f32 sums of this length.

use seedling_core::nn::activation::Act;
use seedling_core::nn::cpu::depthwise;
use seedling_core::nn::cpu::norm::{GradSums, Moments};
use seedling_core::nn::cpu::pointwise;
use seedling_core::nn::cpu::sink::{Activated, Gated, Plain};
use seedling_core::nn::cpu::source::{GradSource, PerImage, Source};
use seedling_core::nn::cpu::{conv, materialize, max_pool, pool};
use seedling_core::nn::window::{Padding, Window};
use seedling_core::nn::workspace::Workspace;
use seedling_tests::formula::numbers;
use seedling_tests::fused::{affine, assert_close, norm_grad, on_one_and_three_threads, plain};
use seedling_tests::fused::{identity, unchanged};
use seedling_tests::reference::{self, Normed, f32s, sums, windows};

const TOLERANCE: f64 = 2e-5;

fn close(got: &[f32], expected: &[f64], what: &str) {
    assert_close(got, &f32s(expected), TOLERANCE, 0.0, what);
}

/// Per-channel numbers of a normed input and of the gradient's batch norm.
struct Coefficients {
    scale: Vec<f32>,
    shift: Vec<f32>,
    mean: Vec<f32>,
}

impl Coefficients {
    fn new(stream: u64, channels: usize) -> Coefficients {
        let draw = |s: u64, scale: f64| numbers(stream * 10 + s, channels, scale);
        Coefficients {
            scale: draw(0, 1.0).iter().map(|x| x + 1.5).collect(),
            shift: draw(1, 2.0),
            mean: draw(2, 1.0),
        }
    }

    /// dz = scale * dy + shift * z + mean: any three numbers do.
    fn dz(&self, dy: &[f32], z: &[f32]) -> Vec<f64> {
        let c = self.scale.len();
        let at = |i: usize| {
            let [a, b, c] = [&self.scale, &self.shift, &self.mean].map(|v| v[i % c] as f64);
            a * dy[i] as f64 + b * z[i] as f64 + c
        };
        (0..dy.len()).map(at).collect()
    }
}

fn check_moments(moments: &Moments, z: &[f32], what: &str) {
    let c = moments.mean.len();
    let rows = z.len() / c;
    let wide: Vec<f64> = z.iter().map(|&z| z as f64).collect();
    let (sum, _) = sums(&wide, |_| 0.0, c);
    let mean: Vec<f64> = sum.iter().map(|s| s / rows as f64).collect();
    let off = |i: usize| z[i] as f64 - mean[i % c];
    let squares: Vec<f64> = (0..z.len()).map(|i| off(i) * off(i)).collect();
    let (m2, _) = sums(&squares, |_| 0.0, c);
    assert_eq!(moments.count, rows, "{what}");
    for i in 0..c {
        let spread = (m2[i] / rows as f64).sqrt();
        let off = (moments.mean[i] - mean[i]).abs();
        assert!(
            off <= TOLERANCE * spread + 1e-7 * mean[i].abs(),
            "{what}: mean {i}"
        );
        let off = (moments.m2[i] - m2[i]).abs();
        assert!(
            off <= 4.0 * TOLERANCE * m2[i],
            "{what}: m2 {i}, off by {off}"
        );
    }
}

#[test]
fn moments_hold_however_far_the_mean_is_from_zero() {
    on_one_and_three_threads(|workspace| {
        for far in [300.0f32, 1e3, 1e4, 1e5] {
            for (rows, c) in [(2, 3), (700, 17), (5000, 24)] {
                let mut z = numbers(41, rows * c, 2.0);
                z.iter_mut().for_each(|z| *z += far);
                let input = Source::plain(&z, c);
                let mut out = vec![f32::NAN; z.len()];
                let identity = identity(c);
                let moments = pointwise::forward(&input, &identity, &mut out, true, workspace);
                assert!(out == z);
                check_moments(&moments.unwrap(), &z, &format!("{rows} rows around {far}"));
            }
        }
    });
}

fn check_sums(got: &GradSums, dy: &[f64], z: &[f32], mean: &[f32], what: &str) {
    let c = mean.len();
    let (sum, centered) = sums(dy, |i| z[i] as f64 - mean[i % c] as f64, c);
    let (terms, terms_centered) = (0..dy.len()).fold((0.0, 0.0), |(a, b), i| {
        let size = dy[i].abs();
        (a + size, b + size * (z[i] - mean[i % c]).abs() as f64)
    });
    assert_close(&f32s(&got.grad), &f32s(&sum), TOLERANCE, terms, what);
    let centered = f32s(&centered);
    assert_close(
        &f32s(&got.centered),
        &centered,
        TOLERANCE,
        terms_centered,
        what,
    );
}

fn depthwise_case(window: &Window, images: usize, act: Act, workspace: &Workspace) {
    let (c, k2) = (window.channels, window.kernel * window.kernel);
    let what = format!("{images} images of {window:?} {act:?}");
    let rows = images * window.height * window.width;
    let out_rows = images * window.out_height * window.out_width;
    let stored = numbers(1, rows * c, 5.0);
    let w = numbers(2, c * k2, 2.0);
    let k = Coefficients::new(3, c);
    let state = affine(&k.scale, &k.shift, &k.mean);
    let Normed { x, derivative } = reference::normed(&stored, &k.scale, &k.shift, act);

    let input = Source::normed(&stored, &state, act);
    let mut z = vec![f32::NAN; out_rows * c];
    let moments = depthwise::forward(&input, window, &w, &mut z, true, workspace).unwrap();
    let mut expected = vec![0.0; z.len()];
    windows(window, images, |to, from, tap| {
        for i in 0..c {
            expected[to * c + i] += x[from * c + i] * w[i * k2 + tap] as f64;
        }
    });
    close(&z, &expected, &what);
    check_moments(&moments, &z, &what);

    let dy = numbers(4, z.len(), 2.0);
    let b = Coefficients::new(5, c);
    let grad = norm_grad(&b.scale, &b.shift, &b.mean);
    let dz = b.dz(&dy, &z);
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    windows(window, images, |to, from, tap| {
        for i in 0..c {
            dx[from * c + i] += dz[to * c + i] * w[i * k2 + tap] as f64;
            dw[i * k2 + tap] += dz[to * c + i] * x[from * c + i];
        }
    });
    let source = GradSource::Normed {
        dy: &dy,
        z: &z,
        grad: &grad,
    };
    let (mut got, mut got_w) = (vec![f32::NAN; x.len()], vec![0.0; w.len()]);
    let sink = (&mut got[..], Activated);
    let norm = depthwise::backward(&source, &input, window, &w, &mut got_w, sink, workspace);
    let through: Vec<f64> = dx.iter().zip(&derivative).map(|(g, s)| g * s).collect();
    close(&got, &through, &what);
    close(&got_w, &dw, &what);
    check_sums(&norm, &through, &stored, &k.mean, &what);
}

#[test]
fn depthwise_of_any_shape_matches_plain_loops() {
    on_one_and_three_threads(|workspace| {
        for channels in [1, 7, 17, 24] {
            for width in 1..=9 {
                for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
                    for padding in [Padding::Symmetric, Padding::Same] {
                        for (images, height) in [(1, 1), (1, 5), (4, 2), (3, width)] {
                            let size = (height, width);
                            let window = Window::new(size, channels, kernel, stride, padding);
                            depthwise_case(&window, images, Act::HardSwish, workspace);
                        }
                    }
                }
            }
        }
        let window = Window::new((6, 5), 7, 3, 1, Padding::Symmetric);
        for act in [Act::Identity, Act::Relu, Act::Relu6, Act::Silu, Act::Gelu] {
            depthwise_case(&window, 2, act, workspace);
        }
    });
}

/// Rows, rows an image, channels in and out. The last crosses tiles, and images within tiles.
const POINTWISE: [[usize; 4]; 9] = [
    [1, 1, 1, 1],
    [1, 1, 17, 7],
    [2, 1, 7, 17],
    [15, 5, 17, 1],
    [17, 17, 1, 17],
    [50, 25, 24, 7],
    [63, 9, 7, 40],
    [147, 49, 40, 24],
    [5000, 1250, 7, 17],
];

#[test]
fn pointwise_of_any_shape_matches_plain_loops() {
    on_one_and_three_threads(|workspace| {
        for [rows, _, cin, cout] in POINTWISE {
            let what = format!("{rows} rows, {cin} to {cout}");
            let stored = numbers(11, rows * cin, 5.0);
            let w = numbers(12, cin * cout, 2.0);
            let k = Coefficients::new(13, cin);
            let state = affine(&k.scale, &k.shift, &k.mean);
            let act = Act::HardSwish;
            let Normed { x, derivative } = reference::normed(&stored, &k.scale, &k.shift, act);
            let input = Source::normed(&stored, &state, act);
            let mut z = vec![f32::NAN; rows * cout];
            let moments = pointwise::forward(&input, &w, &mut z, true, workspace).unwrap();
            close(&z, &reference::pointwise(&x, &w, cin), &what);
            check_moments(&moments, &z, &what);

            let dy = numbers(14, z.len(), 2.0);
            let b = Coefficients::new(15, cout);
            let grad = norm_grad(&b.scale, &b.shift, &b.mean);
            let source = GradSource::Normed {
                dy: &dy,
                z: &z,
                grad: &grad,
            };
            let dz = b.dz(&dy, &z);
            let (dx, dw) = reference::pointwise_backward(&x, &w, &dz, cin);
            let (mut got, mut got_w) = (vec![f32::NAN; x.len()], vec![0.0; w.len()]);
            let sink = (&mut got[..], Activated);
            let sums = pointwise::backward(&source, &input, &w, &mut got_w, sink, workspace);
            let through: Vec<f64> = dx.iter().zip(&derivative).map(|(g, s)| g * s).collect();
            close(&got, &through, &what);
            close(&got_w, &dw, &what);
            check_sums(&sums, &through, &stored, &k.mean, &what);
            let sums = pointwise::sums_of(&f32s(&through), &stored, &state);
            check_sums(&sums, &through, &stored, &k.mean, &what);

            // Stored as read, with a shortcut; the weight's gradient adds to what is there.
            let shortcut = numbers(16, x.len(), 2.0);
            let wide: Vec<f64> = stored.iter().map(|&x| x as f64).collect();
            let (mut dx, mut dw) = reference::pointwise_backward(&wide, &w, &dz, cin);
            dx.iter_mut()
                .zip(&shortcut)
                .for_each(|(a, &b)| *a += b as f64);
            dw.iter_mut().for_each(|x| *x += 100.0);
            let (mut got, mut got_w) = (vec![f32::NAN; x.len()], vec![100.0; w.len()]);
            let sink = (
                &mut got[..],
                Plain {
                    shortcut: Some(&shortcut),
                },
            );
            let input = Source::plain(&stored, cin);
            pointwise::backward(&source, &input, &w, &mut got_w, sink, workspace);
            close(&got, &dx, &what);
            close(&got_w, &dw, &what);
        }
    });
}

#[test]
fn gated_and_pooled_inputs_match_plain_loops() {
    on_one_and_three_threads(|workspace| {
        for [rows, per_image, c, _] in POINTWISE {
            let what = format!("{rows} rows, {per_image} an image, {c} channels");
            let act = Act::HardSwish;
            let images = rows / per_image;
            let stored = numbers(21, rows * c, 5.0);
            let k = Coefficients::new(22, c);
            let state = affine(&k.scale, &k.shift, &k.mean);
            let Normed { x, derivative } = reference::normed(&stored, &k.scale, &k.shift, act);
            let (gates, pools) = (numbers(23, images * c, 1.0), numbers(24, images * c, 1.0));
            let of = |v: &[f32], i: usize| v[i / (per_image * c) * c + i % c] as f64;
            let gate = PerImage::new(&gates, c, per_image);
            let pool = PerImage::new(&pools, c, per_image);
            let activated = Source::normed(&stored, &state, act);
            let gated = Source {
                gate: Some(&gate),
                ..activated
            };
            let mut y = vec![f32::NAN; x.len()];
            pointwise::forward(&gated, &identity(c), &mut y, false, workspace);
            let expected: Vec<f64> = (0..x.len()).map(|i| x[i] * of(&gates, i)).collect();
            close(&y, &expected, &what);

            let mut means = vec![f32::NAN; images * c];
            pool::forward(&activated, per_image, &mut means);
            let mean = |x: &[f64]| sums(x, |_| 0.0, c).0;
            let expected = x.chunks(per_image * c).flat_map(mean);
            let expected: Vec<f64> = expected.map(|sum| sum / per_image as f64).collect();
            close(&means, &expected, &what);

            // Behind the gate: g itself, and five sums an image.
            let dy = numbers(25, x.len(), 2.0);
            let (mut g, same) = (vec![f32::NAN; x.len()], unchanged(c));
            let mut unused = vec![0.0; c * c];
            let rows_per_image = per_image;
            let sink = (&mut g[..], Gated { rows_per_image });
            let w = identity(c);
            let dz = plain(&dy, &same);
            let got = pointwise::backward(&dz, &gated, &w, &mut unused, sink, workspace);
            assert_eq!((got.len(), &g), (images, &dy), "{what}");
            let centered = |i: usize| stored[i] as f64 - k.mean[i % c] as f64;
            for (n, got) in got.iter().enumerate() {
                let at = n * per_image * c..(n + 1) * per_image * c;
                let (behind, derivative) = (&dy[at.clone()], &derivative[at.clone()]);
                let through: Vec<f64> = behind
                    .iter()
                    .zip(derivative)
                    .map(|(&g, s)| g as f64 * s)
                    .collect();
                let product: Vec<f64> = (0..behind.len())
                    .map(|i| behind[i] as f64 * x[at.start + i])
                    .collect();
                let centered = |i: usize| centered(at.start + i);
                let (grad, grad_centered) = sums(&through, centered, c);
                let (derivative, derivative_centered) = sums(derivative, centered, c);
                let gate = sums(&product, |_| 0.0, c).0;
                for (got, expected) in [
                    (&got.gate, gate),
                    (&got.grad, grad),
                    (&got.grad_centered, grad_centered),
                    (&got.derivative, derivative),
                    (&got.derivative_centered, derivative_centered),
                ] {
                    let terms = per_image as f64;
                    assert_close(&f32s(got), &f32s(&expected), TOLERANCE, terms, &what);
                }
            }

            // Through gate, pooled branch and activation at once; and the pooled branch alone.
            let b = Coefficients::new(26, c);
            let grad = norm_grad(&b.scale, &b.shift, &b.mean);
            let mut out = vec![f32::NAN; x.len()];
            let source = GradSource::Gated {
                g: &dy,
                z: &stored,
                norm: &state,
                act,
                gate: &gate,
                pool: &pool,
                grad: &grad,
            };
            source.copy(0..rows, c, &mut out);
            let dy_gated =
                |i: usize| (dy[i] as f64 * of(&gates, i) + of(&pools, i)) * derivative[i];
            let dy_gated: Vec<f64> = (0..x.len()).map(dy_gated).collect();
            close(&out, &b.dz(&f32s(&dy_gated), &stored), &what);
            let source = GradSource::Pooled {
                z: &stored,
                norm: &state,
                act,
                pool: &pool,
                grad: &grad,
            };
            source.copy(0..rows, c, &mut out);
            let dy_pooled: Vec<f64> = (0..x.len())
                .map(|i| of(&pools, i) * derivative[i])
                .collect();
            close(&out, &b.dz(&f32s(&dy_pooled), &stored), &what);
            let sums = pool::backward_sums(&stored, &state, act, &pools, per_image);
            check_sums(&sums, &dy_pooled, &stored, &k.mean, &what);
        }
    });
}

fn dense_case(window: &Window, images: usize, cout: usize, act: Act, workspace: &Workspace) {
    let (c, k2) = (window.channels, window.kernel * window.kernel);
    let what = format!("{images} images of {window:?} to {cout} {act:?}");
    let rows = images * window.height * window.width;
    let stored = numbers(41, rows * c, 5.0);
    let w = numbers(42, cout * c * k2, 2.0);
    let k = Coefficients::new(43, c);
    let state = affine(&k.scale, &k.shift, &k.mean);
    let Normed { x, derivative } = reference::normed(&stored, &k.scale, &k.shift, act);
    let input = Source::normed(&stored, &state, act);
    let out_rows = images * window.out_height * window.out_width;
    let mut z = vec![f32::NAN; out_rows * cout];
    let moments = conv::forward(&input, window, &w, &mut z, true, workspace).unwrap();
    let mut expected = vec![0.0; z.len()];
    let each = |mut see: Box<dyn FnMut(usize, usize, usize) + '_>| {
        windows(window, images, |to, from, tap| {
            for o in 0..cout {
                for i in 0..c {
                    see(to * cout + o, from * c + i, (o * c + i) * k2 + tap);
                }
            }
        });
    };
    each(Box::new(|to, from, tap| {
        expected[to] += x[from] * w[tap] as f64
    }));
    close(&z, &expected, &what);
    check_moments(&moments, &z, &what);

    let dy = numbers(44, z.len(), 2.0);
    let b = Coefficients::new(45, cout);
    let grad = norm_grad(&b.scale, &b.shift, &b.mean);
    let dz = b.dz(&dy, &z);
    let source = GradSource::Normed {
        dy: &dy,
        z: &z,
        grad: &grad,
    };
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    each(Box::new(|to, from, tap| {
        dx[from] += dz[to] * w[tap] as f64;
        dw[tap] += dz[to] * x[from];
    }));
    let (mut got, mut got_w) = (vec![f32::NAN; x.len()], vec![0.0; w.len()]);
    let sink = (&mut got[..], Activated);
    let norm = conv::backward(&source, &input, window, &w, &mut got_w, sink, workspace);
    let through: Vec<f64> = dx.iter().zip(&derivative).map(|(g, s)| g * s).collect();
    close(&got, &through, &what);
    close(&got_w, &dw, &what);
    check_sums(&norm, &through, &stored, &k.mean, &what);
    let mut alone = vec![0.0; w.len()];
    conv::weight_gradient(&source, &input, window, &mut alone, workspace);
    close(&alone, &dw, &what);

    // Stored as read, with a shortcut.
    let shortcut = numbers(46, x.len(), 2.0);
    let expected: Vec<f64> = dx
        .iter()
        .zip(&shortcut)
        .map(|(a, &b)| a + b as f64)
        .collect();
    let sink = (
        &mut got[..],
        Plain {
            shortcut: Some(&shortcut),
        },
    );
    let input = Source::plain(&stored, c);
    conv::backward(&source, &input, window, &w, &mut got_w, sink, workspace);
    close(&got, &expected, &what);
}

#[test]
fn dense_convolution_of_any_shape_matches_plain_loops() {
    on_one_and_three_threads(|workspace| {
        // The last ones go through Winograd's transforms where they can.
        for (c, cout) in [(1, 1), (7, 17), (17, 3), (33, 40)] {
            for size in [(1, 1), (1, 5), (4, 2), (5, 7), (9, 9)] {
                for (kernel, stride) in [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)] {
                    for padding in [Padding::Symmetric, Padding::Same] {
                        let window = Window::new(size, c, kernel, stride, padding);
                        dense_case(&window, 3, cout, Act::Silu, workspace);
                    }
                }
            }
        }
        // Across tiles within an image, and with images that share a tile.
        let large = Window::new((40, 31), 3, 3, 1, Padding::Symmetric);
        dense_case(&large, 2, 5, Act::Relu, workspace);
        let many = Window::new((3, 3), 4, 3, 1, Padding::Symmetric);
        dense_case(&many, 70, 6, Act::Gelu, workspace);
        let patches = Window::tiles((11, 9), 3, 4);
        let (x, w) = (numbers(47, 2 * 99 * 3, 4.0), numbers(48, 5 * 48, 2.0));
        let mut z = vec![f32::NAN; 2 * 4 * 5];
        conv::forward(
            &Source::plain(&x, 3),
            &patches,
            &w,
            &mut z,
            false,
            workspace,
        );
        let mut expected = vec![0.0; z.len()];
        windows(&patches, 2, |to, from, tap| {
            for o in 0..5 {
                for i in 0..3 {
                    let w = w[(o * 3 + i) * 16 + tap] as f64;
                    expected[to * 5 + o] += x[from * 3 + i] as f64 * w;
                }
            }
        });
        close(&z, &expected, "patches");
    });
}

#[test]
fn max_pooling_of_any_shape_matches_plain_loops() {
    on_one_and_three_threads(|workspace| {
        for c in [1, 7, 17] {
            for size in [(1, 1), (1, 5), (4, 2), (7, 9), (16, 16)] {
                let window = Window::new(size, c, 3, 2, Padding::Symmetric);
                let (images, what) = (3, format!("{window:?}"));
                let stored = numbers(51, images * size.0 * size.1 * c, 5.0);
                let k = Coefficients::new(52, c);
                let state = affine(&k.scale, &k.shift, &k.mean);
                let Normed { x, derivative } =
                    reference::normed(&stored, &k.scale, &k.shift, Act::Relu);
                let input = Source::normed(&stored, &state, Act::Relu);
                let len = images * window.out_height * window.out_width * c;
                let (mut y, mut taps) = (vec![f32::NAN; len], vec![9; len]);
                max_pool::forward(&input, &window, &mut y, &mut taps, workspace);
                let mut largest = vec![(f64::NEG_INFINITY, 0); len];
                windows(&window, images, |to, from, _| {
                    for i in 0..c {
                        let here = x[from * c + i];
                        if here > largest[to * c + i].0 {
                            largest[to * c + i] = (here, from * c + i);
                        }
                    }
                });
                let expected: Vec<f64> = largest.iter().map(|(x, _)| *x).collect();
                close(&y, &expected, &what);

                let dy = numbers(53, len, 2.0);
                let mut dx = vec![0.0; x.len()];
                for (g, (_, from)) in dy.iter().zip(&largest) {
                    dx[*from] += *g as f64 * derivative[*from];
                }
                let mut got = vec![f32::NAN; x.len()];
                let sums = max_pool::backward(&input, &window, &taps, &dy, &mut got);
                close(&got, &dx, &what);
                check_sums(&sums, &dx, &stored, &k.mean, &what);
            }
        }
    });
}

#[test]
fn sums_of_two_tensors_match_plain_loops() {
    on_one_and_three_threads(|workspace| {
        for [rows, per_image, c, _] in POINTWISE {
            let what = format!("{rows} rows of {c}");
            let (a, b) = (numbers(61, rows * c, 4.0), numbers(62, rows * c, 4.0));
            let (ka, kb) = (Coefficients::new(63, c), Coefficients::new(64, c));
            let states = [&ka, &kb].map(|k| affine(&k.scale, &k.shift, &k.mean));
            let read = |z: &[f32], k: &Coefficients| {
                reference::normed(z, &k.scale, &k.shift, Act::Identity).x
            };
            let (ra, rb) = (read(&a, &ka), read(&b, &kb));
            let images = rows / per_image;
            let factors: Vec<f32> = numbers(65, images, 2.0);
            let each: Vec<f32> = factors.iter().flat_map(|f| vec![*f; c]).collect();
            let gate = PerImage::new(&each, c, per_image);
            let normed = Source::normed(&a, &states[0], Act::Identity);
            let gated = Source {
                gate: Some(&gate),
                ..normed
            };
            let factor = |i: usize| factors[i / (per_image * c)] as f64;
            let other = Source::normed(&b, &states[1], Act::Identity);
            let plain = Source::plain(&b, c);
            for act in [Act::Identity, Act::Relu] {
                for (x, other, sum) in [
                    (
                        &normed,
                        &plain,
                        (0..a.len()).map(|i| ra[i] + b[i] as f64).collect(),
                    ),
                    (
                        &normed,
                        &other,
                        (0..a.len()).map(|i| ra[i] + rb[i]).collect(),
                    ),
                    (
                        &gated,
                        &plain,
                        (0..a.len())
                            .map(|i| ra[i] * factor(i) + b[i] as f64)
                            .collect(),
                    ),
                ] {
                    let sum: Vec<f64> = sum;
                    let mut y = vec![f32::NAN; a.len()];
                    materialize::add(x, other, act, &mut y, workspace);
                    let expected: Vec<f64> =
                        sum.iter().map(|u| reference::value(act, *u)).collect();
                    close(&y, &expected, &what);
                    let mut dy = numbers(66, a.len(), 2.0);
                    let through = dy.iter().zip(&sum);
                    let through: Vec<f64> = through
                        .map(|(g, u)| *g as f64 * reference::derivative(act, *u))
                        .collect();
                    materialize::add_back(x, other, act, &mut dy, workspace);
                    close(&dy, &through, &what);
                }
            }
            let mut scaled = vec![f32::NAN; a.len()];
            materialize::scale_images(&a, &gate, c, &mut scaled);
            let expected: Vec<f64> = (0..a.len()).map(|i| a[i] as f64 * factor(i)).collect();
            close(&scaled, &expected, &what);
        }
    });
}

#[test]
fn stem_of_any_shape_matches_plain_loops() {
    on_one_and_three_threads(|workspace| {
        for size in [(1, 1), (1, 2), (3, 1), (4, 5), (7, 9), (70, 75)] {
            for padding in [Padding::Symmetric, Padding::Same] {
                for (images, cout) in [(1, 1), (3, 7), (2, 17)] {
                    let window = Window::new(size, 3, 3, 2, padding);
                    let what = format!("{images} images of {window:?} to {cout}");
                    let x = numbers(31, images * size.0 * size.1 * 3, 4.0);
                    let w = numbers(32, cout * 27, 2.0);
                    let rows = images * window.out_height * window.out_width;
                    let mut z = vec![f32::NAN; rows * cout];
                    let images_in = Source::plain(&x, 3);
                    let moments = conv::forward(&images_in, &window, &w, &mut z, true, workspace);
                    let moments = moments.unwrap();
                    let dy = numbers(33, z.len(), 2.0);
                    let b = Coefficients::new(34, cout);
                    let dz = b.dz(&dy, &z);
                    let (mut y, mut dw) = (vec![0.0; z.len()], vec![0.0; w.len()]);
                    windows(&window, images, |to, from, tap| {
                        for o in 0..cout {
                            for i in 0..3 {
                                let (at, x) = ((o * 3 + i) * 9 + tap, x[from * 3 + i] as f64);
                                y[to * cout + o] += x * w[at] as f64;
                                dw[at] += x * dz[to * cout + o];
                            }
                        }
                    });
                    close(&z, &y, &what);
                    check_moments(&moments, &z, &what);
                    let grad = norm_grad(&b.scale, &b.shift, &b.mean);
                    let source = GradSource::Normed {
                        dy: &dy,
                        z: &z,
                        grad: &grad,
                    };
                    let mut got = vec![0.0; w.len()];
                    conv::weight_gradient(&source, &images_in, &window, &mut got, workspace);
                    close(&got, &dw, &what);
                }
            }
        }
    });
}
