//! 1x1 convolution: one matrix product over all rows, tile by tile through the cache.
//!
//! Forward, per tile: compute the input from what is stored, multiply, take the output's moments
//! while it is hot. Backward, per tile: compute dz, add dz' x to the weight's gradient, multiply
//! by the weight, and turn the result into the next layer's dy with its sums.

use super::channelwise::{GateSums, fold, gate_sums, period};
use super::norm::{GradSums, Moments};
use super::source::{GradSource, Source, by_image};
use super::sums::{MomentSums, NormSums, merge_moments};
use crate::nn::activation::with_act;
use crate::nn::gemm::{Matrix, Packed, outer};
use crate::nn::parallel::{add_up, each, over, pieces, split, tile_rows, tiles};
use crate::nn::workspace::Workspace;

/// z (rows, out) = x (rows, in) w' with w (out, in). Returns z's moments if asked for.
pub fn forward(
    x: &Source,
    w: &[f32],
    z: &mut [f32],
    with_moments: bool,
    workspace: &Workspace,
) -> Option<Moments> {
    let (cin, cout) = (x.channels, w.len() / x.channels);
    let rows = z.len() / cout;
    let pieces = pieces(rows, 1);
    let outs = split(z, &pieces, cout);
    let tile = tile_rows(cin + cout);
    let w = Packed::new(Matrix::rows(w, cin).transposed(), cin, cout, workspace);
    let parts = over(pieces, outs, |piece, out| {
        let mut scratch = workspace.take(tile.min(piece.len()) * cin);
        let mut sums = MomentSums::new(cout);
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let n = rows.len();
            let out = &mut out[(rows.start - first) * cout..(rows.end - first) * cout];
            let x = x.tile(rows, &mut scratch);
            w.product(n, Matrix::rows(x, cin), out, false);
            if with_moments {
                sums.add(out);
            }
        }
        sums.finish()
    });
    with_moments.then(|| merge_moments(&parts, cout))
}

/// Where the gradient with respect to the input goes.
pub enum Sink<'a> {
    /// The input is stored as it is read: dx, plus the gradient that a shortcut brings.
    Plain {
        dx: &'a mut [f32],
        shortcut: Option<&'a [f32]>,
    },
    /// The input is act(norm(z)): its dy, and the sums batch norm needs.
    Activation { dy: &'a mut [f32] },
    /// The input is gated: the gradient behind the gate, and per-image sums.
    Gate { g: &'a mut [f32] },
}

/// What a backward pass has summed, depending on its [`Sink`].
pub enum Sums {
    /// For [`Sink::Plain`].
    None,
    /// For [`Sink::Activation`].
    Norm(GradSums),
    /// For [`Sink::Gate`].
    Gate(Vec<ImageSums>),
}

/// [`GateSums`] of one image, per channel.
#[derive(Clone, Debug)]
pub struct ImageSums {
    pub gate: Vec<f64>,
    pub grad: Vec<f64>,
    pub grad_centred: Vec<f64>,
    pub slope: Vec<f64>,
    pub slope_centred: Vec<f64>,
}

impl ImageSums {
    fn zeros(channels: usize) -> ImageSums {
        let zeros = || vec![0.0; channels];
        ImageSums {
            gate: zeros(),
            grad: zeros(),
            grad_centred: zeros(),
            slope: zeros(),
            slope_centred: zeros(),
        }
    }
}

/// Adds the weight's gradient to `dw` and sends the input's gradient to `sink`. `grad` gives dz,
/// `x` the forward's input; for a gated input `rows_per_image` says where images end.
pub fn backward(
    grad: &GradSource,
    x: &Source,
    w: &[f32],
    dw: &mut [f32],
    sink: Sink,
    rows_per_image: usize,
    workspace: &Workspace,
) -> Sums {
    let (cin, cout) = (x.channels, w.len() / x.channels);
    let rows = x.z.len() / cin;
    let gated = matches!(sink, Sink::Gate { .. });
    let pieces = pieces(rows, if gated { rows_per_image } else { 1 });
    let (out, shortcut, normed) = match sink {
        Sink::Plain { dx, shortcut } => (dx, shortcut, false),
        Sink::Activation { dy } => (dy, None, true),
        Sink::Gate { g } => (g, None, false),
    };
    let outs = split(out, &pieces, cin);
    let tile = tile_rows(2 * cin + cout);
    let dw_len = w.len();
    let w = Packed::new(Matrix::rows(w, cin), cout, cin, workspace);
    let parts = over(pieces, outs, |piece, out| {
        let most = tile.min(piece.len());
        let mut dz = workspace.take(most * cout);
        let mut scratch = workspace.take(most * cin);
        let mut dw = workspace.take(dw_len);
        let mut sums = NormSums::new(if normed { cin } else { 0 });
        let mut images: Vec<(usize, ImageSums)> = Vec::new();
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let n = rows.len();
            let dz = &mut dz[..n * cout];
            grad.copy(rows.clone(), cout, dz);
            let input = x.tile(rows.clone(), &mut scratch);
            outer((cout, cin, n), dz, input, &mut dw, rows.start > first);
            let out = &mut out[(rows.start - first) * cin..(rows.end - first) * cin];
            if let Some(shortcut) = shortcut {
                out.copy_from_slice(&shortcut[rows.start * cin..rows.end * cin]);
            }
            w.product(n, Matrix::rows(dz, cout), out, shortcut.is_some());
            if normed {
                sums.through(x, &x.z[rows.start * cin..rows.end * cin], out);
            } else if gated {
                sum_gate(x, rows, rows_per_image, out, &mut images);
            }
        }
        (dw, sums.finish(), images)
    });
    let mut norm = GradSums::zeros(if normed { cin } else { 0 });
    let mut images = Vec::new();
    let mut partial = Vec::with_capacity(parts.len());
    for (dw, sums, part_images) in parts {
        partial.push(dw);
        norm = norm.merge(&sums);
        images.extend(part_images.into_iter().map(|(_, sums)| sums));
    }
    add_up(dw, &partial);
    if normed {
        Sums::Norm(norm)
    } else if gated {
        Sums::Gate(images)
    } else {
        Sums::None
    }
}

/// Rows `rows` of `x`: takes `g` through the activation in place and returns its sums.
pub fn through(x: &Source, rows: std::ops::Range<usize>, g: &mut [f32]) -> GradSums {
    let c = x.channels;
    let tile = tile_rows(2 * c);
    let first = rows.start;
    let mut sums = NormSums::new(c);
    for rows in tiles(rows, tile) {
        let g = &mut g[(rows.start - first) * c..(rows.end - first) * c];
        sums.through(x, &x.z[rows.start * c..rows.end * c], g);
    }
    sums.finish()
}

fn sum_gate(
    x: &Source,
    rows: std::ops::Range<usize>,
    rows_per_image: usize,
    g: &[f32],
    images: &mut Vec<(usize, ImageSums)>,
) {
    let Some((norm, act)) = x.norm else { return };
    let c = x.channels;
    let p = period(c);
    let mut sums = [const { Vec::new() }; 5];
    for (image, part) in by_image(rows.clone(), rows_per_image) {
        if images.last().is_none_or(|(last, _)| *last != image) {
            images.push((image, ImageSums::zeros(c)));
        }
        for s in &mut sums {
            s.clear();
            s.resize(p, 0.0f32);
        }
        let [s0, s1, s2, s3, s4] = &mut sums;
        let g = &g[(part.start - rows.start) * c..(part.end - rows.start) * c];
        let z = &x.z[part.start * c..part.end * c];
        let mut into = GateSums {
            gate: s0,
            grad: s1,
            grad_centred: s2,
            slope: s3,
            slope_centred: s4,
        };
        with_act!(act, A => gate_sums::<A>(
            g, z, &norm.scale, &norm.shift, &norm.mean, &mut into,
        ));
        if let Some((_, total)) = images.last_mut() {
            fold(s0, &mut total.gate);
            fold(s1, &mut total.grad);
            fold(s2, &mut total.grad_centred);
            fold(s3, &mut total.slope);
            fold(s4, &mut total.slope_centred);
        }
    }
}

/// The sums of a `g` that reaches batch norm directly (no activation between): one narrow pass.
pub fn sums_of(g: &[f32], z: &[f32], norm: &super::norm::NormState) -> GradSums {
    let c = norm.channels;
    let tile = tile_rows(2 * c);
    let parts = each(pieces(g.len() / c, 1), |piece| {
        let mut sums = NormSums::new(c);
        for rows in tiles(piece, tile) {
            let at = rows.start * c..rows.end * c;
            sums.add(&g[at.clone()], &z[at], &norm.mean);
        }
        sums.finish()
    });
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}
