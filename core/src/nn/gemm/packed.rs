//! Products of a convolution: tall activations times a small weight that many tiles share, on the
//! calling thread.
//!
//! These shapes are where a general library spends its time on packing: it packs the weight again
//! for every tile, and the activations too. So on x86-64 kernels of our own ([`super::avx512`],
//! [`super::avx2`]) pack the weight once per operation and read activations as they lie; everywhere
//! else it is the `gemm` crate.

use super::{Matrix, gemm};
use crate::nn::workspace::{Buffer, Workspace};
#[cfg(target_arch = "x86_64")]
use crate::simd::{Isa, isa};

/// The right-hand side of several products, brought once into the order the kernel reads.
pub struct Packed<'a> {
    matrix: Matrix<'a>,
    depth: usize,
    width: usize,
    /// Column panels, each (depth, panel width); see [`panels`]. None where there is no kernel of ours.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    panels: Option<Buffer>,
}

/// Floats in a vector, and vectors in the widest panel, of this machine's kernel: of AVX-512 8 rows x 3
/// vectors of sums fill 24 of 32 registers, of AVX2 6 x 2 fill 12 of 16.
#[cfg(target_arch = "x86_64")]
fn panel_shape() -> Option<(usize, usize)> {
    match isa() {
        Isa::Avx512 => Some((16, 3)),
        Isa::Avx2 => Some((super::avx2::LANES, super::avx2::WIDTH / super::avx2::LANES)),
        Isa::Baseline => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn panel_shape() -> Option<(usize, usize)> {
    None
}

/// Cuts `width` columns into panels of at most so many vectors: (start, columns with padding). Of
/// AVX-512 they are as even as they come, of AVX2 all but the last are full.
fn panels(width: usize, (lanes, most): (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
    let vectors = width.div_ceil(lanes);
    let count = vectors.div_ceil(most).max(1);
    let even = lanes == 16;
    (0..count).map(move |i| {
        let place = |i: usize| match even {
            true => vectors * i / count,
            false => (most * i).min(count * most),
        };
        (place(i) * lanes, (place(i + 1) - place(i)) * lanes)
    })
}

impl<'a> Packed<'a> {
    /// Of a (depth, width) matrix.
    pub fn new(matrix: Matrix<'a>, depth: usize, width: usize, workspace: &Workspace) -> Self {
        assert!(matrix.holds(depth, width));
        let panels = panel_shape().map(|shape| {
            let total: usize = panels(width, shape).map(|(_, padded)| padded).sum();
            let mut packed = workspace.take(depth * total);
            let mut at = 0;
            for (start, padded) in panels(width, shape) {
                let columns = (width - start).min(padded);
                let panel = &mut packed[at..at + depth * padded];
                pack(&matrix, start, columns, padded, panel);
                at += panel.len();
            }
            packed
        });
        Packed {
            matrix,
            depth,
            width,
            panels,
        }
    }

    /// `out (m, width) = lhs (m, depth) x self`, or `out += ...` if `accumulate`; `out` is
    /// row-major.
    ///
    /// # Panics
    /// If a slice is too short for its shape (a bug in an operation, never in its input).
    pub fn product(&self, m: usize, lhs: Matrix, out: &mut [f32], accumulate: bool) {
        let (k, n) = (self.depth, self.width);
        #[cfg(target_arch = "x86_64")]
        if let (Some(packed), Some(shape)) = (&self.panels, panel_shape()) {
            assert!(lhs.holds(m, k) && out.len() >= m * n);
            match isa() {
                Isa::Avx512 => {
                    let mut at = 0;
                    for (start, padded) in panels(n, shape) {
                        let panel = super::avx512::Panel {
                            data: &packed[at..at + k * padded],
                            row_stride: padded,
                            columns: (n - start).min(padded),
                        };
                        at += panel.data.len();
                        let out = (&mut out[start..], n);
                        super::avx512::multiply((m, k), lhs, panel, out, accumulate);
                    }
                }
                _ => {
                    for depth in depths(k) {
                        let lhs = lhs.skip_columns(depth.start);
                        let more = accumulate || depth.start > 0;
                        let mut at = 0;
                        for (start, padded) in panels(n, shape) {
                            let panel = &packed[at + depth.start * padded..at + depth.end * padded];
                            let panel = (panel, (n - start).min(padded));
                            let out = (&mut out[start..], n);
                            super::avx2::multiply((m, depth.len()), lhs, panel, out, more);
                            at += k * padded;
                        }
                    }
                }
            }
            return;
        }
        gemm((m, n, k), lhs, self.matrix, out, accumulate);
    }
}

/// The blocks of a depth.
#[cfg(target_arch = "x86_64")]
fn depths(k: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let most = super::avx2::DEPTH;
    // One block even of nothing: it writes zeros.
    let count = k.div_ceil(most).max(1);
    (0..count).map(move |i| k * i / count..k * (i + 1) / count)
}

/// One panel: row k holds columns `start..start + columns` of the matrix's row k, then zeros.
fn pack(matrix: &Matrix, start: usize, columns: usize, width: usize, panel: &mut [f32]) {
    if matrix.col_stride == 1 {
        for (k, row) in panel.chunks_exact_mut(width).enumerate() {
            let from = k * matrix.row_stride + start;
            row[..columns].copy_from_slice(&matrix.data[from..from + columns]);
            row[columns..].fill(0.0);
        }
        return;
    }
    // Transposing: blocks of 16 rows keep both sides in the first-level cache.
    for (block, rows) in panel.chunks_mut(width * 16).enumerate() {
        for j in 0..columns {
            let column = (start + j) * matrix.col_stride + block * 16 * matrix.row_stride;
            for (k, row) in rows.chunks_exact_mut(width).enumerate() {
                row[j] = matrix.data[column + k * matrix.row_stride];
            }
        }
        for row in rows.chunks_exact_mut(width) {
            row[columns..].fill(0.0);
        }
    }
}

/// `out (m, n) = lhs' x rhs`, or `out += ...` if `accumulate`, with lhs (rows, m) and rhs
/// (rows, n), all row-major: the gradient of a weight from a tile of rows.
///
/// # Panics
/// As [`Packed::product`].
pub fn outer(
    (m, n, rows): (usize, usize, usize),
    lhs: &[f32],
    rhs: &[f32],
    out: &mut [f32],
    accumulate: bool,
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] workspace: &Workspace,
) {
    let lhs = Matrix::rows(lhs, m).transposed();
    #[cfg(target_arch = "x86_64")]
    match isa() {
        Isa::Avx512 => {
            assert!(lhs.holds(m, rows) && rhs.len() >= rows * n && out.len() >= m * n);
            for (start, padded) in panels(n, (16, 3)) {
                let panel = super::avx512::Panel {
                    data: &rhs[start..],
                    row_stride: n,
                    columns: (n - start).min(padded),
                };
                let out = (&mut out[start..], n);
                super::avx512::multiply((m, rows), lhs, panel, out, accumulate);
            }
            return;
        }
        Isa::Avx2 => {
            assert!(lhs.holds(m, rows) && rhs.len() >= rows * n && out.len() >= m * n);
            outer_by_blocks(
                (m, n, rows),
                lhs,
                Matrix::rows(rhs, n),
                out,
                accumulate,
                workspace,
            );
            return;
        }
        Isa::Baseline => {}
    }
    gemm((m, n, rows), lhs, Matrix::rows(rhs, n), out, accumulate);
}

/// [`outer`] on AVX2. Rows of both sides lie far apart, many in the same sets of the cache: a block of
/// each is brought together first.
#[cfg(target_arch = "x86_64")]
fn outer_by_blocks(
    (m, n, rows): (usize, usize, usize),
    lhs: Matrix,
    rhs: Matrix,
    out: &mut [f32],
    accumulate: bool,
    workspace: &Workspace,
) {
    use super::avx2::{DEPTH, ROWS, WIDTH, multiply};
    let deepest = rows.min(DEPTH);
    let mut left = workspace.take(deepest * m.next_multiple_of(ROWS));
    let mut panel = workspace.take(deepest * WIDTH);
    for depth in depths(rows) {
        let (k, more) = (depth.len(), accumulate || depth.start > 0);
        // Blocks of six columns, each (depth, 6).
        let blocks = left.chunks_exact_mut(k * ROWS).take(m.div_ceil(ROWS));
        for (i, block) in blocks.enumerate() {
            let first = i * ROWS;
            let count = (m - first).min(ROWS);
            for (l, row) in block.chunks_exact_mut(ROWS).enumerate() {
                let from = (depth.start + l) * lhs.col_stride + first;
                row[..count].copy_from_slice(&lhs.data[from..from + count]);
            }
        }
        for start in (0..n).step_by(WIDTH) {
            let columns = (n - start).min(WIDTH);
            let from = Matrix {
                data: &rhs.data[depth.start * rhs.row_stride..],
                ..rhs
            };
            pack(&from, start, columns, WIDTH, &mut panel[..k * WIDTH]);
            for (i, block) in left
                .chunks_exact(k * ROWS)
                .take(m.div_ceil(ROWS))
                .enumerate()
            {
                let first = i * ROWS;
                let count = (m - first).min(ROWS);
                let lhs = Matrix {
                    data: block,
                    row_stride: 1,
                    col_stride: ROWS,
                };
                let out = (&mut out[first * n + start..], n);
                multiply((count, k), lhs, (&panel[..k * WIDTH], columns), out, more);
            }
        }
    }
}
