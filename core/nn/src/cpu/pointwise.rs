//! 1x1 convolution: one matrix product over all rows, tile by tile through the cache.
//!
//! Forward, per tile: compute the input from what is stored, multiply, take the output's moments
//! while it is hot. Backward, per tile: compute dz, add dz' x to the weight's gradient, multiply
//! by the weight, and turn the result into the next layer's dy with its sums.

use super::norm::{GradSums, Moments};
use super::sink::Sink;
use super::source::{GradSource, Source};
use super::sums::{MomentSums, NormSums, merge_moments};
use crate::gemm::{MatMul, Matrix, Packed, outer};
use crate::parallel::{add_up, map_parts, map_pieces, pieces, split, tile_rows, tiles};
use crate::workspace::Workspace;

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
    let parts = map_parts(pieces, outs, |piece, out| {
        let mut scratch = workspace.alloc(tile.min(piece.len()) * cin);
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

/// Adds the weight's gradient to `dw` and gives the input's gradient, written to `out`, to `sink`.
/// `grad` gives dz, `x` the forward's input.
pub fn backward<S: Sink>(
    grad: &GradSource,
    x: &Source,
    w: &[f32],
    dw: &mut [f32],
    (out, sink): (&mut [f32], S),
    workspace: &Workspace,
) -> S::Sums {
    let (cin, cout) = (x.channels, w.len() / x.channels);
    let pieces = pieces(x.z.len() / cin, sink.unit());
    let outs = split(out, &pieces, cin);
    let tile = tile_rows(2 * cin + cout);
    let dw_len = w.len();
    let w = Packed::new(Matrix::rows(w, cin), cout, cin, workspace);
    let parts = map_parts(pieces, outs, |piece, out| {
        let most = tile.min(piece.len());
        let mut dz = workspace.alloc(most * cout);
        let mut scratch = workspace.alloc(most * cin);
        let mut dw = workspace.alloc(dw_len);
        let mut part = sink.new_part(cin);
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let n = rows.len();
            let dz = &mut dz[..n * cout];
            grad.copy(rows.clone(), cout, dz);
            let input = x.tile(rows.clone(), &mut scratch);
            outer(
                MatMul {
                    m: cout,
                    n: cin,
                    k: n,
                },
                dz,
                input,
                &mut dw,
                rows.start > first,
            );
            let out = &mut out[(rows.start - first) * cin..(rows.end - first) * cin];
            let shortcut = sink.shortcut();
            if let Some(shortcut) = shortcut {
                out.copy_from_slice(&shortcut[rows.start * cin..rows.end * cin]);
            }
            w.product(n, Matrix::rows(dz, cout), out, shortcut.is_some());
            sink.accept(&mut part, x, rows, out);
        }
        (dw, part)
    });
    let (weights, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    add_up(dw, &weights);
    sink.finish(parts, cin)
}

/// The sums of a `g` that reaches batch norm directly (no activation between): one narrow pass.
pub fn sums_of(g: &[f32], z: &[f32], norm: &super::norm::NormState) -> GradSums {
    let c = norm.channels;
    let tile = tile_rows(2 * c);
    let parts = map_pieces(pieces(g.len() / c, 1), |piece| {
        let mut sums = NormSums::new(c);
        for rows in tiles(piece, tile) {
            let at = rows.start * c..rows.end * c;
            sums.add(&g[at.clone()], &z[at], &norm.mean);
        }
        sums.finish()
    });
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}
