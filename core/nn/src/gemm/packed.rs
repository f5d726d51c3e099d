//! Products of a convolution: tall activations times a small weight that many tiles share, on the
//! calling thread.
//!
//! These shapes are where a general library spends its time on packing: it packs the weight again
//! for every tile, and the activations too. So on AVX-512 a kernel of our own ([`super::avx512`])
//! packs the weight once per operation and reads activations as they lie; everywhere else it is
//! the `gemm` crate.

use super::{MatMul, Matrix, gemm};
use crate::workspace::{Buffer, Workspace};
use seedling_base::simd::{Isa, isa};

/// The right-hand side of several products, brought once into the order the kernel reads.
pub struct Packed<'a> {
    matrix: Matrix<'a>,
    depth: usize,
    width: usize,
    /// On AVX-512: column panels, each (depth, panel width); see [`panels`].
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    panels: Option<Buffer>,
}

/// Floats in a vector of the AVX-512 kernel.
const LANES: usize = 16;
/// Vectors in the widest panel: 8 rows x 3 vectors of sums fill 24 of the 32 registers.
const PANEL_VECTORS: usize = 3;

/// Cuts `width` columns into panels of at most 3 vectors, as even as they come: (start, vectors).
fn panels(width: usize) -> impl Iterator<Item = (usize, usize)> {
    let vectors = width.div_ceil(LANES);
    let count = vectors.div_ceil(PANEL_VECTORS).max(1);
    (0..count).map(move |i| {
        let (start, end) = (vectors * i / count, vectors * (i + 1) / count);
        (start * LANES, end - start)
    })
}

impl<'a> Packed<'a> {
    /// Of a (depth, width) matrix.
    pub fn new(matrix: Matrix<'a>, depth: usize, width: usize, workspace: &Workspace) -> Self {
        assert!(matrix.holds(depth, width));
        let panels = (isa() == Isa::Avx512).then(|| {
            let mut packed = workspace.alloc(depth * width.next_multiple_of(LANES));
            let mut at = 0;
            for (start, vectors) in panels(width) {
                let columns = (width - start).min(vectors * LANES);
                let panel = &mut packed[at..at + depth * vectors * LANES];
                pack(&matrix, start, columns, vectors * LANES, panel);
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
        if let Some(packed) = &self.panels {
            assert!(lhs.holds(m, k) && out.len() >= m * n);
            let mut at = 0;
            for (start, vectors) in panels(n) {
                let panel = super::avx512::Panel {
                    data: &packed[at..at + k * vectors * LANES],
                    row_stride: vectors * LANES,
                    columns: (n - start).min(vectors * LANES),
                };
                at += panel.data.len();
                let out = (&mut out[start..], n);
                super::avx512::multiply((m, k), lhs, panel, out, accumulate);
            }
            return;
        }
        gemm(MatMul { m, n, k }, lhs, self.matrix, out, accumulate);
    }
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

/// `out (m, n) = lhs' x rhs`, or `out += ...` if `accumulate`, with lhs (k, m) and rhs
/// (k, n), all row-major: the gradient of a weight from a tile of rows.
///
/// # Panics
/// As [`Packed::product`].
pub fn outer(
    MatMul { m, n, k: rows }: MatMul,
    lhs: &[f32],
    rhs: &[f32],
    out: &mut [f32],
    accumulate: bool,
) {
    let lhs = Matrix::rows(lhs, m).transposed();
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        assert!(lhs.holds(m, rows) && rhs.len() >= rows * n && out.len() >= m * n);
        for (start, vectors) in panels(n) {
            let panel = super::avx512::Panel {
                data: &rhs[start..],
                row_stride: n,
                columns: (n - start).min(vectors * LANES),
            };
            let out = (&mut out[start..], n);
            super::avx512::multiply((m, rows), lhs, panel, out, accumulate);
        }
        return;
    }
    gemm(
        MatMul { m, n, k: rows },
        lhs,
        Matrix::rows(rhs, n),
        out,
        accumulate,
    );
}
