//! Matrix products on slices.
//!
//! [`Packed`] and [`outer`] are the convolutions': on the calling thread, for they split their
//! rows over threads themselves, and with a kernel of our own where it is faster. [`gemm()`] is
//! any product on the calling thread, by the crate `gemm-f32`. [`gemm_columns`] is for products that
//! stand alone (fully connected layers, similarities), and cuts its columns.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod packed;

use rayon::prelude::*;

pub use packed::{Packed, outer};

use super::parallel::columns;

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

    /// Without the columns before `start`.
    fn skip_columns(self, start: usize) -> Self {
        let data = self.data.get(start * self.col_stride..);
        Matrix {
            data: data.unwrap_or_default(),
            ..self
        }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0
            || cols == 0
            || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// The sizes of a product: (m, n) = (m, k) x (k, n).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul {
    pub m: usize,
    pub n: usize,
    /// Summed over.
    pub k: usize,
}

/// `out (m, n) = lhs (m, k) x rhs (k, n)`, or `out += ...` if `accumulate`; `out` is row-major.
///
/// # Panics
/// If a slice is too short for its shape (a bug in an operation, never in its input).
pub fn gemm(
    MatMul { m, n, k }: MatMul,
    lhs: Matrix,
    rhs: Matrix,
    out: &mut [f32],
    accumulate: bool,
) {
    assert!(lhs.holds(m, k) && rhs.holds(k, n) && out.len() >= m * n);
    // SAFETY: the asserts above bound every access, and `out` is exclusive.
    unsafe {
        product(
            MatMul { m, n, k },
            lhs,
            rhs,
            (out.as_mut_ptr(), n),
            accumulate,
        )
    }
}

/// The same on all threads of the current pool, each taking columns of `out`. How they are cut
/// depends on the shape alone, so the bits do not depend on the number of threads.
///
/// # Panics
/// As [`gemm()`].
pub fn gemm_columns(
    MatMul { m, n, k }: MatMul,
    lhs: Matrix,
    rhs: Matrix,
    out: &mut [f32],
    accumulate: bool,
) {
    assert!(lhs.holds(m, k) && rhs.holds(k, n) && out.len() >= m * n);
    let (shared, row) = (Shared(out.as_mut_ptr()), n);
    columns(n).into_par_iter().with_max_len(1).for_each(|part| {
        let out = &shared;
        let (n, rhs) = (part.len(), rhs.skip_columns(part.start));
        // SAFETY: the asserts above bound every access; the parts are columns apart from each
        // other, and `out` stays exclusively borrowed until all are done.
        unsafe {
            product(
                MatMul { m, n, k },
                lhs,
                rhs,
                (out.0.add(part.start), row),
                accumulate,
            )
        }
    });
}

/// Where several threads write, each its own part.
struct Shared(*mut f32);
// SAFETY: `gemm_columns` hands every thread elements that no other touches.
unsafe impl Sync for Shared {}

/// # Safety
/// `lhs` holds (m, k) and `rhs` (k, n); `out` is good for writing m rows of n numbers, `row`
/// apart, and apart from both.
unsafe fn product(
    MatMul { m, n, k }: MatMul,
    lhs: Matrix,
    rhs: Matrix,
    (out, row): (*mut f32, usize),
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    // The crate's kernels like columns: rows of `out` that lie apart are computed as columns of its
    // transpose, out' = rhs' lhs'.
    let (m, n, strides, lhs, rhs) = match row > 1 {
        true => (n, m, (row, 1), rhs.transposed(), lhs.transposed()),
        false => (m, n, (1, row), lhs, rhs),
    };
    let (column, row) = strides;
    // SAFETY: as above.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            m,
            n,
            k,
            out,
            column as isize,
            row as isize,
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
            gemm_common::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Workspace;
    use seedling_base::rng::{Purpose, Rng};

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
            for n in [1, 7, 16, 17, 24, 40, 48, 50, 72, 100, 200] {
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
                    let lhs = [Matrix::rows(&a, k), Matrix::rows(&a_t, m).transposed()];
                    let rhs = [Matrix::rows(&b, n), Matrix::rows(&b_t, k).transposed()];
                    type Product = fn(MatMul, Matrix, Matrix, &mut [f32], bool);
                    for (how, product) in [("alone", gemm as Product), ("columns", gemm_columns)] {
                        for (lhs, rhs) in lhs.iter().zip(&rhs) {
                            let mut out = vec![f32::NAN; m * n];
                            product(MatMul { m, n, k }, *lhs, *rhs, &mut out, false);
                            close(&out, &expected, how);
                            let mut out = start.clone();
                            product(MatMul { m, n, k }, *lhs, *rhs, &mut out, true);
                            close(&out, &added, how);
                        }
                    }
                    for (lhs, rhs) in lhs.iter().zip(&rhs) {
                        let rhs = Packed::new(*rhs, k, n, &workspace);
                        let mut out = vec![f32::NAN; m * n];
                        rhs.product(m, *lhs, &mut out, false);
                        close(&out, &expected, "packed");
                        let mut out = start.clone();
                        rhs.product(m, *lhs, &mut out, true);
                        close(&out, &added, "packed");
                    }
                    let mut out = vec![f32::NAN; m * n];
                    outer(MatMul { m, n, k }, &a_t, &b, &mut out, false);
                    close(&out, &expected, "outer");
                    let mut out = start.clone();
                    outer(MatMul { m, n, k }, &a_t, &b, &mut out, true);
                    close(&out, &added, "outer");
                }
            }
        }
    }
}
