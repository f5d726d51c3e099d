//! Inner products of two sets of rows, block by block.

use seedling_nn::gemm::{MatMul, Matrix, gemm};

/// Rows in a block: 256 x 256 products of 4 bytes stay in a core's own cache.
pub(crate) const BLOCK: usize = 256;

/// The first row and the number of rows of every block of a set of `rows`.
pub(crate) fn blocks(rows: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    (0..rows)
        .step_by(BLOCK)
        .map(move |start| (start, BLOCK.min(rows - start)))
}

/// `out[i * nb + j]` = a's row i . b's row j, of rows of `dim` numbers, for all `na` x `nb` pairs, in f32.
///
/// Single-threaded, and for blocks of fixed sizes, so that the result depends on no thread count;
/// callers run blocks in parallel.
pub(crate) fn products(a: &[f32], b: &[f32], dim: usize, out: &mut Vec<f32>) {
    let (m, n) = (a.len() / dim.max(1), b.len() / dim.max(1));
    out.clear();
    out.resize(m * n, 0.0);
    gemm(
        MatMul { m, n, k: dim },
        Matrix::rows(a, dim),
        Matrix::rows(b, dim).transposed(),
        out,
        false,
    );
}
