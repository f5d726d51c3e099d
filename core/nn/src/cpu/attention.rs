//! Scaled dot-product attention, head by head. Its weights are computed again where the backward
//! needs them: stored, they would be a transformer's largest tensor.

use crate::activation::exp;
use crate::gemm::{MatMul, Matrix, gemm};
use crate::layer::Heads;
use crate::parallel::{map_parts, pieces, split};
use crate::workspace::Workspace;
use seedling_base::simd::dispatch;

/// softmax(q k' / sqrt(head)) v: (n, tokens, dim) from (n, tokens, 3, heads, head).
pub fn forward(qkv: &[f32], heads: &Heads, out: &mut [f32], workspace: &Workspace) {
    let (t, dim) = (heads.tokens, heads.dim);
    let pieces = pieces(out.len() / dim, t);
    let outs = split(out, &pieces, dim);
    map_parts(pieces, outs, |piece, out| {
        let mut weights = workspace.alloc(t * t);
        let mut attended = workspace.alloc(t * heads.head());
        for (i, out) in out.chunks_exact_mut(t * dim).enumerate() {
            let image = Image::new(qkv, heads, piece.start / t + i);
            for head in 0..heads.heads {
                image.weights(head, &mut weights);
                let shape = MatMul {
                    m: t,
                    n: heads.head(),
                    k: t,
                };
                gemm(
                    shape,
                    Matrix::rows(&weights, t),
                    image.part(2, head),
                    &mut attended,
                    false,
                );
                heads.store(&attended, head, dim, out);
            }
        }
    });
}

/// The gradient of q, k and v, as they lie.
pub fn backward(qkv: &[f32], heads: &Heads, dy: &[f32], out: &mut [f32], workspace: &Workspace) {
    let (t, dim, head_dim) = (heads.tokens, heads.dim, heads.head());
    let pieces = pieces(out.len() / (3 * dim), t);
    let outs = split(out, &pieces, 3 * dim);
    map_parts(pieces, outs, |piece, out| {
        let mut weights = workspace.alloc(t * t);
        let mut dweights = workspace.alloc(t * t);
        let mut found = workspace.alloc(t * head_dim);
        for (i, out) in out.chunks_exact_mut(t * 3 * dim).enumerate() {
            let index = piece.start / t + i;
            let image = Image::new(qkv, heads, index);
            for head in 0..heads.heads {
                image.weights(head, &mut weights);
                let dy = Matrix::rows(&dy[index * t * dim + head * head_dim..], dim);
                gemm(
                    MatMul {
                        m: t,
                        n: t,
                        k: head_dim,
                    },
                    dy,
                    image.part(2, head).transposed(),
                    &mut dweights,
                    false,
                );
                let square = Matrix::rows(&weights, t);
                let tall = MatMul {
                    m: t,
                    n: head_dim,
                    k: t,
                };
                gemm(tall, square.transposed(), dy, &mut found, false);
                heads.store(&found, 2 * heads.heads + head, 3 * dim, out);
                softmax_back(&weights, t, heads.scale(), &mut dweights);
                let square = Matrix::rows(&dweights, t);
                gemm(tall, square, image.part(1, head), &mut found, false);
                heads.store(&found, head, 3 * dim, out);
                gemm(
                    tall,
                    square.transposed(),
                    image.part(0, head),
                    &mut found,
                    false,
                );
                heads.store(&found, heads.heads + head, 3 * dim, out);
            }
        }
    });
}

impl Heads {
    /// Length of a head's vectors.
    pub fn head(&self) -> usize {
        self.dim / self.heads
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head() as f32).sqrt()
    }

    /// Writes (tokens, head) to the columns of the `place`-th head in rows of `width`.
    fn store(&self, from: &[f32], place: usize, width: usize, to: &mut [f32]) {
        let n = self.head();
        for (from, to) in from.chunks_exact(n).zip(to.chunks_exact_mut(width)) {
            to[place * n..(place + 1) * n].copy_from_slice(from);
        }
    }
}

/// q, k and v of an image.
struct Image<'a> {
    rows: &'a [f32],
    heads: &'a Heads,
}

impl<'a> Image<'a> {
    fn new(qkv: &'a [f32], heads: &'a Heads, index: usize) -> Image<'a> {
        let len = heads.tokens * 3 * heads.dim;
        Image {
            rows: &qkv[index * len..(index + 1) * len],
            heads,
        }
    }

    /// q (0), k (1) or v (2) of a head: (tokens, head).
    fn part(&self, which: usize, head: usize) -> Matrix<'a> {
        let start = which * self.heads.dim + head * self.heads.head();
        Matrix::rows(&self.rows[start..], 3 * self.heads.dim)
    }

    /// What each token takes of each: (tokens, tokens).
    fn weights(&self, head: usize, out: &mut [f32]) {
        let t = self.heads.tokens;
        let (q, k) = (self.part(0, head), self.part(1, head).transposed());
        gemm(
            MatMul {
                m: t,
                n: t,
                k: self.heads.head(),
            },
            q,
            k,
            out,
            false,
        );
        softmax(out, t, self.heads.scale());
    }
}

/// Numbers summed side by side, so that sums vectorize.
const LANES: usize = 16;

/// The fold of `f` over `x`, whose order depends on its length alone.
#[inline(always)]
fn reduce(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32 + Copy) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = f(*lane, *x);
        }
    }
    let all = lanes.iter().chain(rest);
    all.fold(start, |a, b| f(a, *b))
}

dispatch! {
    /// softmax(x * scale) of rows, in place.
    fn softmax(x: &mut [f32], width: usize, scale: f32) {
        for row in x.chunks_exact_mut(width) {
            let largest = reduce(row, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
            for x in row.iter_mut() {
                *x = exp((*x - largest) * scale);
            }
            let inverse = 1.0 / reduce(row, 0.0, |a, b| a + b);
            for x in row.iter_mut() {
                *x *= inverse;
            }
        }
    }
}

dispatch! {
    /// The gradient before softmax and scale, in place of the one behind: p * (g - sum(p g)) * scale.
    fn softmax_back(p: &[f32], width: usize, scale: f32, g: &mut [f32]) {
        for (p, g) in p.chunks_exact(width).zip(g.chunks_exact_mut(width)) {
            for (g, p) in g.iter_mut().zip(p) {
                *g *= p;
            }
            let sum = reduce(g, 0.0, |a, b| a + b);
            for (g, p) in g.iter_mut().zip(p) {
                *g = (*g - p * sum) * scale;
            }
        }
    }
}
