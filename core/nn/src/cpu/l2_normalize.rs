//! L2 normalization of rows: y = x / max(|x|, 1e-12), as torch.nn.functional.normalize.

const EPS: f32 = 1e-12;

/// Normalizes rows of `dim` numbers in place; returns 1 / max(|x|, eps) of each.
pub fn forward(x: &mut [f32], dim: usize) -> Vec<f32> {
    x.chunks_exact_mut(dim)
        .map(|row| {
            let norm = row.iter().map(|&v| v as f64 * v as f64).sum::<f64>().sqrt() as f32;
            let inverse = 1.0 / norm.max(EPS);
            row.iter_mut().for_each(|v| *v *= inverse);
            inverse
        })
        .collect()
}

/// dx = (dy - y (y . dy)) / |x|, in place of dy; `y` and `inverse` are the forward's results.
pub fn backward(dy: &mut [f32], y: &[f32], inverse: &[f32], dim: usize) {
    for ((dy, y), inverse) in dy
        .chunks_exact_mut(dim)
        .zip(y.chunks_exact(dim))
        .zip(inverse)
    {
        let dot = y
            .iter()
            .zip(&*dy)
            .map(|(&a, &b)| a as f64 * b as f64)
            .sum::<f64>() as f32;
        for (g, y) in dy.iter_mut().zip(y) {
            *g = (*g - y * dot) * inverse;
        }
    }
}
