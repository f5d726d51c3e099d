//! Eigenvalues and eigenvectors of small symmetric matrices, by cyclic Jacobi rotations: slow for
//! thousands of rows, accurate to the last digits, the same on every machine. A library for this one
//! use would weigh more than the rest of the room.

/// A symmetric matrix of `n` rows becomes (eigenvalues, eigenvectors), the largest first; row i of
/// the second (n numbers) belongs to value i and has length 1. `a` is used up.
pub fn symmetric(n: usize, mut a: Vec<f64>) -> (Vec<f64>, Vec<f64>) {
    debug_assert_eq!(a.len(), n * n);
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let total: f64 = a.iter().map(|x| x * x).sum();
    // Converges quadratically: a dozen sweeps is more than any matrix takes.
    for _ in 0..30 {
        let mut rest = 0.0;
        for p in 0..n {
            for q in p + 1..n {
                rest += a[p * n + q] * a[p * n + q];
            }
        }
        if rest <= 1e-28 * total {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(n, &mut a, &mut v, (p, q));
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let vectors = order.iter().flat_map(|&i| &v[i * n..(i + 1) * n]);
    (values, vectors.copied().collect())
}

/// Turns axes p and q so that `a` has a zero where they meet; rows of `v` turn along.
fn rotate(n: usize, a: &mut [f64], v: &mut [f64], (p, q): (usize, usize)) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    let turn = |rows: &mut [f64]| {
        let (head, tail) = rows.split_at_mut(q * n);
        let pairs = head[p * n..(p + 1) * n].iter_mut().zip(&mut tail[..n]);
        for (x, y) in pairs {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    };
    turn(a);
    turn(v);
    for row in a.chunks_exact_mut(n) {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Rng};

    #[test]
    fn a_matrix_is_put_together_again() {
        for n in [1, 2, 7, 40] {
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
