//! A fully connected layer of many rows, whose input is computed where it is read.

use super::channelwise::{apply, multiply_derivative};
use super::layer_norm::Normed;
use crate::activation::{Act, with_act};
use crate::gemm::{MatMul, Matrix, Packed, outer};
use crate::parallel::{add_up, map_parts, pieces, split, tile_rows, tiles};
use crate::workspace::Workspace;
use std::ops::Range;

/// How rows are read.
#[derive(Clone, Copy)]
pub enum Reading<'a> {
    Plain,
    Act(Act),
    Norm(Normed<'a>),
}

/// Rows that are read through something.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub x: &'a [f32],
    pub dim: usize,
    pub reading: Reading<'a>,
}

impl Input<'_> {
    fn tile<'s>(&'s self, rows: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let x = self.rows(&rows);
        let scratch = &mut scratch[..x.len()];
        match self.reading {
            Reading::Plain => return x,
            Reading::Act(act) => with_act!(act, A => apply::<A>(x, scratch)),
            Reading::Norm(norm) => norm.forward(x, rows.start, scratch),
        }
        scratch
    }

    fn rows(&self, rows: &Range<usize>) -> &[f32] {
        &self.x[rows.start * self.dim..rows.end * self.dim]
    }
}

/// y (rows, out) = x w' + b + shortcut, with w (out, in).
pub fn forward(
    x: &Input,
    w: &[f32],
    bias: &[f32],
    shortcut: Option<&[f32]>,
    y: &mut [f32],
    workspace: &Workspace,
) {
    let (cin, cout) = (x.dim, bias.len());
    let pieces = pieces(y.len() / cout, 1);
    let outs = split(y, &pieces, cout);
    let tile = tile_rows(cin + cout);
    let w = Packed::new(Matrix::rows(w, cin).transposed(), cin, cout, workspace);
    map_parts(pieces, outs, |piece, out| {
        let mut scratch = workspace.alloc(tile.min(piece.len()) * cin);
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let out = &mut out[(rows.start - first) * cout..(rows.end - first) * cout];
            let shortcut = shortcut.map(|all| &all[rows.start * cout..rows.end * cout]);
            for (i, out) in out.chunks_exact_mut(cout).enumerate() {
                match shortcut {
                    None => out.copy_from_slice(bias),
                    Some(shortcut) => {
                        let row = &shortcut[i * cout..(i + 1) * cout];
                        let numbers = out.iter_mut().zip(row.iter().zip(bias));
                        numbers.for_each(|(y, (s, b))| *y = s + b);
                    }
                }
            }
            let n = rows.len();
            let x = x.tile(rows, &mut scratch);
            w.product(n, Matrix::rows(x, cin), out, true);
        }
    });
}

/// Where the gradients of a layer's numbers go.
pub struct Gradients<'a> {
    pub weight: &'a mut [f32],
    pub bias: &'a mut [f32],
}

/// Adds the layer's gradients, writes the stored x's to `dx` (plus `shortcut`), and returns those of
/// weight and bias of the norm that x is read through (empty where there is none).
pub fn backward(
    x: &Input,
    w: &[f32],
    grads: Gradients,
    dy: &[f32],
    shortcut: Option<&[f32]>,
    dx: &mut [f32],
    workspace: &Workspace,
) -> (Vec<f32>, Vec<f32>) {
    let (cin, cout) = (x.dim, grads.bias.len());
    let normed = match x.reading {
        Reading::Norm(_) => cin,
        _ => 0,
    };
    let pieces = pieces(dx.len() / cin, 1);
    let outs = split(dx, &pieces, cin);
    let tile = tile_rows(2 * cin + cout);
    let packed = Packed::new(Matrix::rows(w, cin), cout, cin, workspace);
    let parts = map_parts(pieces, outs, |piece, out| {
        let mut scratch = workspace.alloc(tile.min(piece.len()) * cin);
        let mut dw = workspace.alloc(w.len());
        let mut db = vec![0.0; cout];
        let (mut dscale, mut dshift) = (vec![0.0; normed], vec![0.0; normed]);
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let n = rows.len();
            let dy = &dy[rows.start * cout..rows.end * cout];
            for row in dy.chunks_exact(cout) {
                db.iter_mut().zip(row).for_each(|(b, g)| *b += g);
            }
            let input = x.tile(rows.clone(), &mut scratch);
            outer(
                MatMul {
                    m: cout,
                    n: cin,
                    k: n,
                },
                dy,
                input,
                &mut dw,
                rows.start > first,
            );
            let out = &mut out[(rows.start - first) * cin..(rows.end - first) * cin];
            packed.product(n, Matrix::rows(dy, cout), out, false);
            let stored = x.rows(&rows);
            match x.reading {
                Reading::Plain => {}
                Reading::Act(act) => with_act!(act, A => multiply_derivative::<A>(stored, out)),
                Reading::Norm(norm) => {
                    norm.backward(stored, rows.start, out, (&mut dscale, &mut dshift));
                }
            }
            if let Some(shortcut) = shortcut {
                let from = &shortcut[rows.start * cin..rows.end * cin];
                out.iter_mut().zip(from).for_each(|(x, s)| *x += s);
            }
        }
        (dw, [db, dscale, dshift])
    });
    let (weights, small): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    add_up(grads.weight, &weights);
    let mut norm = (vec![0.0; normed], vec![0.0; normed]);
    for [db, dscale, dshift] in &small {
        for (into, from) in [
            (&mut *grads.bias, db),
            (&mut norm.0[..], dscale),
            (&mut norm.1[..], dshift),
        ] {
            into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        }
    }
    norm
}
