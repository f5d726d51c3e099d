//! Matrix product on slices with strides: the `gemm` crate behind bounds checks.

/// A read-only matrix: element (i, j) lies at `i * rows + j * cols`.
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

/// `out (m, n) = lhs (m, k) x rhs (k, n)`, or `out += ...` if `accumulate`; `out` is row-major.
/// Runs on the calling thread: the operations above it split their rows over threads themselves.
///
/// # Panics
/// If a slice is too short for its shape (a bug in an operation, never in its input).
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
