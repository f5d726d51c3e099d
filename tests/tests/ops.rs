//! Every fused operation, forward and backward, against PyTorch's stored values.
//! Golden file: tests/golden/ops.py, whose docstring names the cases and their tensors.
//!
//! Tolerance: 1e-5 of the largest magnitude in a tensor, the rounding of f32 sums of this length.
//! `bn.*_residual_relu` is left out: it is ResNet's, and no backbone here has an activation
//! behind its shortcut.

use seedling_core::layout::Layout;
use seedling_core::nn::activation::Act;
use seedling_core::nn::cpu::channelwise::affine_add;
use seedling_core::nn::cpu::depthwise;
use seedling_core::nn::cpu::norm::Statistics;
use seedling_core::nn::cpu::pointwise;
use seedling_core::nn::cpu::sink::{Activated, Gated, Plain};
use seedling_core::nn::cpu::source::{GradSource, PerImage, Source};
use seedling_core::nn::cpu::{conv, l2_normalize, linear, pool};
use seedling_core::nn::layer::{Gate, SqueezeExcite};
use seedling_core::nn::window::{Padding, Window};
use seedling_core::nn::workspace::Workspace;
use seedling_tests::fused::{
    affine, assert_close, batch_norm, identity, on_one_and_three_threads, plain, unchanged,
};
use seedling_tests::golden::Golden;

const TOLERANCE: f64 = 1e-5;

/// One case of the golden file.
struct Case<'a> {
    golden: &'a Golden,
    name: &'a str,
}

impl Case<'_> {
    fn get(&self, tensor: &str) -> &[f32] {
        self.golden.floats(&format!("{}.{tensor}", self.name))
    }

    /// (images, height, width, channels) of `x`.
    fn dims(&self) -> [usize; 4] {
        let shape = self.golden.shape(&format!("{}.x", self.name));
        shape.try_into().unwrap()
    }

    #[track_caller]
    fn check(&self, tensor: &str, got: &[f32]) {
        self.check_terms(tensor, got, 0.0);
    }

    /// Where the result is a difference of terms of size `terms`.
    #[track_caller]
    fn check_terms(&self, tensor: &str, got: &[f32], terms: f64) {
        let what = format!("{}.{tensor}", self.name);
        assert_close(got, self.get(tensor), TOLERANCE, terms, &what);
    }

    /// The part of the name behind the operation.
    fn rest(&self) -> &str {
        self.name.split('.').nth(1).unwrap()
    }
}

fn for_each_case(operation: &str, count: usize, test: impl Fn(&Case, &Workspace) + Sync) {
    let golden = Golden::open("ops");
    let names = golden.cases(&format!("{operation}."), 2);
    assert_eq!(names.len(), count, "cases of {operation}");
    on_one_and_three_threads(|workspace| {
        for name in &names {
            let golden = &golden;
            test(&Case { golden, name }, workspace);
        }
    });
}

fn padding(case: &Case) -> Padding {
    match case.rest().starts_with("same_") {
        true => Padding::Same,
        false => Padding::Symmetric,
    }
}

#[test]
fn pointwise_matches() {
    for_each_case("pointwise", 6, |case, workspace| {
        let (x, w, dy) = (case.get("x"), case.get("weight"), case.get("dy"));
        let [.., c] = case.dims();
        let input = Source::plain(x, c);
        let mut y = vec![0.0; dy.len()];
        pointwise::forward(&input, w, &mut y, false, workspace);
        case.check("y", &y);

        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let sink = (&mut dx[..], Plain { shortcut: None });
        let same = unchanged(w.len() / c);
        let dz = plain(dy, &same);
        pointwise::backward(&dz, &input, w, &mut dw, sink, workspace);
        case.check("dx", &dx);
        case.check("dweight", &dw);
    });
}

#[test]
fn depthwise_matches() {
    for_each_case("depthwise", 28, |case, workspace| {
        let (x, w, dy) = (case.get("x"), case.get("weight"), case.get("dy"));
        let [_, h, width, c] = case.dims();
        let kernel = if case.rest().contains("k3") { 3 } else { 5 };
        let stride = if case.rest().contains("s1_") { 1 } else { 2 };
        let window = Window::new((h, width), c, kernel, stride, padding(case));
        let input = Source::plain(x, c);
        let mut y = vec![0.0; dy.len()];
        depthwise::forward(&input, &window, w, &mut y, false, workspace);
        case.check("y", &y);

        let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
        let sink = (&mut dx[..], Plain { shortcut: None });
        let same = unchanged(c);
        let dz = plain(dy, &same);
        depthwise::backward(&dz, &input, &window, w, &mut dw, sink, workspace);
        case.check("dx", &dx);
        case.check("dweight", &dw);
    });
}

#[test]
fn stem_matches_and_its_image_gets_no_gradient() {
    for_each_case("stem", 8, |case, workspace| {
        let (x, w, dy) = (case.get("x"), case.get("weight"), case.get("dy"));
        let [_, h, width, _] = case.dims();
        let window = Window::new((h, width), 3, 3, 2, padding(case));
        let mut y = vec![0.0; dy.len()];
        let images = Source::plain(x, window.channels);
        conv::forward(&images, &window, w, &mut y, false, workspace);
        case.check("y", &y);
        let mut dw = vec![0.0; w.len()];
        let same = unchanged(w.len() / 27);
        conv::weight_gradient(&plain(dy, &same), &images, &window, &mut dw, workspace);
        case.check("dweight", &dw);
    });
}

#[test]
fn batch_norm_with_activation_or_residual_matches() {
    for_each_case("bn", 36, |case, workspace| {
        let [mode, kind] = [0, 1].map(|i| case.rest().split('_').nth(i).unwrap());
        let residual = case.rest().contains("none_residual");
        let act = match kind {
            "none" => Act::Identity,
            "relu" => Act::Relu,
            "relu6" => Act::Relu6,
            "hardswish" => Act::HardSwish,
            _ => return, // residual_relu
        };
        let (x, dy) = (case.get("x"), case.get("dy"));
        let [.., c] = case.dims();
        // A convolution that does nothing: its output's moments are x's, its gradient is dx.
        let pass = identity(c);
        let mut z = vec![0.0; x.len()];
        let moments =
            pointwise::forward(&Source::plain(x, c), &pass, &mut z, true, workspace).unwrap();
        let (norm, values) = batch_norm(case.get("weight"), case.get("bias"), 1e-3);
        let mut buffers = [case.get("running_mean"), case.get("running_var")].concat();
        let statistics = match mode {
            "train" => Statistics::Batch {
                buffers: &mut buffers,
                momentum: 0.1,
            },
            _ => Statistics::Running { buffers: &buffers },
        };
        let state = norm.state(&values, &moments, statistics);
        case.check("new_running_mean", &buffers[..c]);
        case.check("new_running_var", &buffers[c..]);

        let input = Source::normed(&z, &state, act);
        let mut y = vec![0.0; x.len()];
        match residual {
            true => affine_add(&z, &state.scale, &state.shift, case.get("residual"), &mut y),
            false => input.copy(0..x.len() / c, &mut y),
        }
        case.check("y", &y);

        let mut grads = vec![0.0; 2 * c];
        let mut g = dy.to_vec();
        let sums = if residual {
            case.check("dresidual", dy);
            pointwise::sums_of(dy, &z, &state)
        } else {
            let mut unused = vec![0.0; pass.len()];
            let sink = (&mut g[..], Activated);
            let same = unchanged(c);
            let dz = plain(dy, &same);
            pointwise::backward(&dz, &input, &pass, &mut unused, sink, workspace)
        };
        let grad = norm.backward(&state, &sums, &mut grads);
        case.check("dweight", &grads[..c]);
        case.check("dbias", &grads[c..]);
        let dz = GradSource::Normed {
            dy: &g,
            z: &z,
            grad: &grad,
        };
        let mut dx = vec![0.0; x.len()];
        dz.copy(0..x.len() / c, c, &mut dx);
        case.check("dx", &dx);
    });
}

#[test]
fn squeeze_excite_matches() {
    for_each_case("se", 4, |case, workspace| {
        let (x, dy) = (case.get("x"), case.get("dy"));
        let [n, h, width, c] = case.dims();
        let names = ["fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"];
        let values = names.map(|name| case.get(name)).concat();
        let hidden = case.get("fc1_bias").len();
        let layer = SqueezeExcite::new(
            &mut Layout::default(),
            "se",
            c,
            (hidden, Act::Relu),
            Gate::HardSigmoid,
        );
        let (rows, per_image) = (n * h * width, h * width);
        let ones = vec![1.0; c];
        let zeros = vec![0.0; c];
        let state = affine(&ones, &zeros, &zeros);
        let activated = Source::normed(x, &state, Act::Identity);

        let mut pooled = vec![0.0; n * c];
        pool::forward(&activated, per_image, &mut pooled);
        let saved = layer.forward(&values, pooled);
        let gate = PerImage::new(&saved.gate, c, per_image);
        let gated = Source {
            gate: Some(&gate),
            ..activated
        };
        let mut y = vec![0.0; x.len()];
        let pass = identity(c);
        pointwise::forward(&gated, &pass, &mut y, false, workspace);
        case.check("y", &y);

        let mut g = vec![0.0; x.len()];
        let mut unused = vec![0.0; pass.len()];
        let rows_per_image = per_image;
        let sink = (&mut g[..], Gated { rows_per_image });
        let same = unchanged(c);
        let dz = plain(dy, &same);
        let images = pointwise::backward(&dz, &gated, &pass, &mut unused, sink, workspace);
        let mut grads = vec![0.0; values.len()];
        let (pool, _) = layer.backward(&values, &saved, &images, per_image, &mut grads);
        let mut at = 0;
        for name in names {
            let len = case.get(name).len();
            case.check(&format!("d{name}"), &grads[at..at + len]);
            at += len;
        }
        let pool = PerImage::new(&pool, c, per_image);
        let dz = GradSource::Gated {
            g: &g,
            z: x,
            norm: &state,
            act: Act::Identity,
            gate: &gate,
            pool: &pool,
            grad: &same,
        };
        let mut dx = vec![0.0; x.len()];
        dz.copy(0..rows, c, &mut dx);
        case.check("dx", &dx);
    });
}

#[test]
fn pooling_matches() {
    for_each_case("pool", 4, |case, _| {
        let (x, dy) = (case.get("x"), case.get("dy"));
        let [n, h, width, c] = case.dims();
        let per_image = h * width;
        let mut y = vec![0.0; n * c];
        pool::forward(&Source::plain(x, c), per_image, &mut y);
        case.check("y", &y);

        let dpool: Vec<f32> = dy.iter().map(|g| g / per_image as f32).collect();
        let (ones, zeros, same) = (vec![1.0; c], vec![0.0; c], unchanged(c));
        let dz = GradSource::Pooled {
            z: x,
            norm: &affine(&ones, &zeros, &zeros),
            act: Act::Identity,
            pool: &PerImage::new(&dpool, c, per_image),
            grad: &same,
        };
        let mut dx = vec![0.0; x.len()];
        dz.copy(0..n * per_image, c, &mut dx);
        case.check("dx", &dx);
    });
}

#[test]
fn linear_matches() {
    for_each_case("linear", 10, |case, _| {
        let act = match case.rest().split('_').next().unwrap() {
            "relu" => Act::Relu,
            "hardswish" => Act::HardSwish,
            _ => Act::Identity,
        };
        let (x, w, bias) = (case.get("x"), case.get("weight"), case.get("bias"));
        let mut u = vec![0.0; case.get("y").len()];
        linear::forward(x, w, bias, &mut u);
        let mut y = vec![f32::NAN; u.len()];
        linear::activate(&u, act, &mut y);
        case.check("y", &y);
        let mut du = case.get("dy").to_vec();
        linear::activate_backward(&mut du, &u, act);
        let (mut dw, mut db) = (vec![0.0; w.len()], vec![0.0; bias.len()]);
        let mut dx = vec![0.0; x.len()];
        linear::backward(&du, x, w, &mut dw, &mut db, Some(&mut dx));
        case.check("dx", &dx);
        case.check("dweight", &dw);
        case.check("dbias", &db);
    });
}

#[test]
fn l2_normalization_matches() {
    for_each_case("l2", 3, |case, _| {
        let shape = case.golden.shape(&format!("{}.x", case.name));
        let mut y = case.get("x").to_vec();
        let inverse = l2_normalize::forward(&mut y, shape[1]);
        case.check("y", &y);
        let mut dx = case.get("dy").to_vec();
        // Rows of one number: the two terms cancel altogether.
        let terms = dx.iter().fold(0f32, |m, g| m.max(g.abs()))
            * inverse.iter().copied().fold(0.0, f32::max);
        l2_normalize::backward(&mut dx, &y, &inverse, shape[1]);
        case.check_terms("dx", &dx, terms as f64);
    });
}
