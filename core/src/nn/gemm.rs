//! Matrix products on slices: tall activations times small weights, on the calling thread (the
//! operations above split their rows over threads themselves).
//!
//! The shapes of these networks are tall and thin, where a general library spends its time on
//! packing. So on AVX-512 there is a kernel of our own (`gemm_avx512`) that packs the
//! weight once per operation and reads activations as they lie; everywhere else the `gemm` crate.

use super::simd::{Isa, isa};
use super::workspace::{Buffer, Workspace};

/// A read-only matrix: element (i, j) lies at `i * row_stride + j * col_stride`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major with `width` columns.
    pub fn rows(data: &'a [f32], width: usize) -> Self {
        Matrix {
            data,
            row_stride: width,
            col_stride: 1,
        }
    }

    /// The same numbers read the other way round.
    pub fn transposed(self) -> Self {
        Matrix {
            data: self.data,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0
            || cols == 0
            || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// The right-hand side of several products, brought once into the order the kernel reads.
pub struct Packed<'a> {
    matrix: Matrix<'a>,
    depth: usize,
    width: usize,
    /// On AVX-512: column panels, each (depth, panel width); see [`panels`].
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
            let mut packed = workspace.take(depth * width.next_multiple_of(LANES));
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

/// `out (m, width) = lhs (m, depth) x rhs`, or `out += ...` if `accumulate`; `out` is row-major.
///
/// # Panics
/// If a slice is too short for its shape (a bug in an operation, never in its input).
pub fn product(m: usize, lhs: Matrix, rhs: &Packed, out: &mut [f32], accumulate: bool) {
    let (k, n) = (rhs.depth, rhs.width);
    #[cfg(target_arch = "x86_64")]
    if let Some(packed) = &rhs.panels {
        assert!(lhs.holds(m, k) && out.len() >= m * n);
        let mut at = 0;
        for (start, vectors) in panels(n) {
            let panel = super::gemm_avx512::Panel {
                data: &packed[at..at + k * vectors * LANES],
                row_stride: vectors * LANES,
                columns: (n - start).min(vectors * LANES),
            };
            at += panel.data.len();
            let lhs = (lhs.data, lhs.row_stride, lhs.col_stride);
            super::gemm_avx512::multiply((m, k), lhs, panel, (&mut out[start..], n), accumulate);
        }
        return;
    }
    gemm((m, n, k), lhs, rhs.matrix, out, accumulate);
}

/// `out (m, n) += lhs' x rhs` with lhs (rows, m) and rhs (rows, n), all row-major: the gradient
/// of a weight from a tile of rows.
///
/// # Panics
/// As [`product`].
pub fn accumulate_outer(
    (m, n, rows): (usize, usize, usize),
    lhs: &[f32],
    rhs: &[f32],
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        assert!(lhs.len() >= rows * m && rhs.len() >= rows * n && out.len() >= m * n);
        for (start, vectors) in panels(n) {
            let panel = super::gemm_avx512::Panel {
                data: &rhs[start..],
                row_stride: n,
                columns: (n - start).min(vectors * LANES),
            };
            let lhs = (lhs, 1, m);
            super::gemm_avx512::multiply((m, rows), lhs, panel, (&mut out[start..], n), true);
        }
        return;
    }
    let lhs = Matrix::rows(lhs, m).transposed();
    gemm((m, n, rows), lhs, Matrix::rows(rhs, n), out, true);
}

/// `out (m, n) = lhs (m, k) x rhs (k, n)`, or `out += ...` if `accumulate`, for any strides, by
/// the `gemm` crate; `out` is row-major.
///
/// # Panics
/// As [`product`].
pub fn gemm(
    (m, n, k): (usize, usize, usize),
    lhs: Matrix,
    rhs: Matrix,
    out: &mut [f32],
    accumulate: bool,
) {
    assert!(lhs.holds(m, k) && rhs.holds(k, n) && out.len() >= m * n);
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: the asserts above bound every access; `out` is exclusive and apart from both inputs.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    fn numbers(n: usize, stream: u64) -> Vec<f32> {
        let mut rng = Rng::new(0, Purpose::Measure, 0, stream);
        (0..n).map(|_| rng.normal()).collect()
    }

    fn close(got: &[f32], expected: &[f64], what: &str) {
        for (g, e) in got.iter().zip(expected) {
            assert!(
                (*g as f64 - e).abs() < 1e-4 * (1.0 + e.abs()),
                "{what}: {g} {e}"
            );
        }
    }

    #[test]
    fn every_shape_and_form_is_the_plain_product() {
        let workspace = Workspace::default();
        for m in [1, 2, 3, 7, 8, 9, 23] {
            for n in [1, 7, 16, 17, 24, 40, 48, 50, 72, 100] {
                for k in [1, 2, 5, 16, 33] {
                    let (a, b, start) = (numbers(m * k, 1), numbers(k * n, 2), numbers(m * n, 3));
                    let mut expected = vec![0.0f64; m * n];
                    for i in 0..m {
                        for j in 0..n {
                            expected[i * n + j] = (0..k)
                                .map(|l| a[i * k + l] as f64 * b[l * n + j] as f64)
                                .sum();
                        }
                    }
                    let added: Vec<f64> = expected
                        .iter()
                        .zip(&start)
                        .map(|(e, s)| e + *s as f64)
                        .collect();
                    let mut b_t = vec![0.0; k * n];
                    let mut a_t = vec![0.0; m * k];
                    (0..k).for_each(|l| (0..n).for_each(|j| b_t[j * k + l] = b[l * n + j]));
                    (0..m).for_each(|i| (0..k).for_each(|l| a_t[l * m + i] = a[i * k + l]));

                    let mut out = vec![f32::NAN; m * n];
                    let rhs = Packed::new(Matrix::rows(&b, n), k, n, &workspace);
                    product(m, Matrix::rows(&a, k), &rhs, &mut out, false);
                    close(&out, &expected, "product");
                    let rhs = Packed::new(Matrix::rows(&b_t, k).transposed(), k, n, &workspace);
                    let mut out = start.clone();
                    product(m, Matrix::rows(&a, k), &rhs, &mut out, true);
                    close(&out, &added, "product with a transposed weight");
                    let mut out = start.clone();
                    accumulate_outer((m, n, k), &a_t, &b, &mut out);
                    close(&out, &added, "outer");
                    let mut out = start.clone();
                    gemm(
                        (m, n, k),
                        Matrix::rows(&a, k),
                        Matrix::rows(&b, n),
                        &mut out,
                        true,
                    );
                    close(&out, &added, "gemm");
                }
            }
        }
    }
}
