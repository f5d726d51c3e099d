//! Inner products of two sets of rows, block by block.

use super::features::Features;
use seedling_nn::gemm::{Matrix, gemm};

/// Rows in a block: 256 x 256 products of 4 bytes stay in a core's own cache.
pub(crate) const BLOCK: usize = 256;

/// The first row and the number of rows of every block of a set of `rows`.
pub(crate) fn blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..rows)
        .step_by(BLOCK)
        .map(move |start| (start, BLOCK.min(rows - start)))
}

/// `out[i * nb + j]` = a's row `a0 + i` . b's row `b0 + j`, for `na` x `nb` pairs, in f32.
///
/// Single-threaded and of fixed block sizes, so that the result depends on no thread count;
/// callers run blocks in parallel.
pub(crate) fn products(
    (a, a0, na): (&Features, usize, usize),
    (b, b0, nb): (&Features, usize, usize),
    out: &mut Vec<f32>,
) {
    debug_assert_eq!(a.dim, b.dim);
    let dim = a.dim;
    out.clear();
    out.resize(na * nb, 0.0);
    let lhs = &a.values[a0 * dim..(a0 + na) * dim];
    let rhs = &b.values[b0 * dim..(b0 + nb) * dim];
    gemm(
        (na, nb, dim),
        Matrix::rows(lhs, dim),
        Matrix::rows(rhs, dim).transposed(),
        out,
        false,
    );
}
