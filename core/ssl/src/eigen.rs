//! Eigenvalues and eigenvectors of symmetric matrices, by `nalgebra` (tridiagonal QR): on one thread, so
//! that the bits depend on the matrix alone. 1,024 rows take about a second.

use nalgebra::DMatrix;

/// A symmetric matrix of `n` rows becomes (eigenvalues, eigenvectors), the largest first; row i of
/// the second (n numbers) belongs to value i and has length 1. `a` is used up.
pub fn symmetric(n: usize, a: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    debug_assert_eq!(a.len(), n * n);
    if n == 0 {
        return (Vec::new(), Vec::new());
    }
    let found = DMatrix::from_vec(n, n, a).symmetric_eigen();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| found.eigenvalues[j].total_cmp(&found.eigenvalues[i]));
    let values = order.iter().map(|&i| found.eigenvalues[i]).collect();
    // Columns lie one after another: each is a row of ours.
    let columns = found.eigenvectors.as_slice();
    let vectors = order.iter().flat_map(|&i| &columns[i * n..(i + 1) * n]);
    (values, vectors.copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    #[test]
    fn a_matrix_is_put_together_again() {
        for n in [0, 1, 2, 7, 40] {
            let mut rng = Rng::new(2, Purpose::Measure, 0, n as u64);
            let half: Vec<f64> = (0..n * n).map(|_| rng.normal() as f64).collect();
            let a: Vec<f64> = (0..n * n)
                .map(|i| half[i] + half[i % n * n + i / n])
                .collect();
            let (values, vectors) = symmetric(n, a.clone());
            assert!(values.is_sorted_by(|x, y| x >= y));
            let dot = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();
            for i in 0..n {
                for j in 0..n {
                    let again = dot(&|k| values[k] * vectors[k * n + i] * vectors[k * n + j]);
                    assert!((again - a[i * n + j]).abs() < 1e-12 * n as f64);
                    let unit = dot(&|k| vectors[i * n + k] * vectors[j * n + k]);
                    assert!((unit - f64::from(i == j)).abs() < 1e-12 * n as f64);
                }
            }
        }
        assert_eq!(symmetric(2, vec![0.0; 4]).0, [0.0, 0.0]);
    }
}
