//! Patches become tokens: bias, class token and positions, which are learned for one grid of patches
//! and resampled for others.

use rayon::prelude::*;

use crate::layer::Positions;

/// Tokens (n, 1 + height * width, dim) of patches (n, height, width, dim).
pub fn forward(
    layer: &Positions,
    values: &[f32],
    patches: &[f32],
    grid: (usize, usize),
    out: &mut [f32],
) {
    let dim = layer.dim;
    let positions = &values[layer.grid.clone()];
    let bias = &values[layer.patch_bias.clone()];
    let mut added = vec![0.0; (1 + grid.0 * grid.1) * dim];
    let (first, rest) = added.split_at_mut(dim);
    let class = values[layer.class.clone()].iter().zip(positions);
    first
        .iter_mut()
        .zip(class)
        .for_each(|(x, (c, p))| *x = c + p);
    Resample::new(layer.side, grid).forward(&positions[dim..], dim, rest);
    for row in rest.chunks_exact_mut(dim) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
    out.par_chunks_exact_mut(added.len())
        .zip(patches.par_chunks_exact(rest_len(grid, dim)))
        .for_each(|(tokens, patches)| {
            tokens.copy_from_slice(&added);
            let places = tokens[dim..].iter_mut().zip(patches);
            places.for_each(|(x, p)| *x += p);
        });
}

/// Adds the gradients of class token and positions.
pub fn backward(layer: &Positions, dy: &[f32], grid: (usize, usize), grads: &mut [f32]) {
    let dim = layer.dim;
    let mut sum = vec![0.0; dim + rest_len(grid, dim)];
    for image in dy.chunks_exact(sum.len()) {
        sum.iter_mut().zip(image).for_each(|(s, g)| *s += g);
    }
    let (first, rest) = sum.split_at(dim);
    let add = |into: &mut [f32], from: &[f32]| {
        into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
    };
    add(&mut grads[layer.class.clone()], first);
    let positions = &mut grads[layer.grid.clone()];
    let (place, others) = positions.split_at_mut(dim);
    add(place, first);
    Resample::new(layer.side, grid).backward(rest, dim, others);
}

fn rest_len(grid: (usize, usize), dim: usize) -> usize {
    grid.0 * grid.1 * dim
}

/// From a square grid to another, by a cubic that is widened where the grid shrinks (as
/// torch.nn.functional.interpolate, bicubic with antialias).
pub struct Resample {
    side: usize,
    down: Vec<Vec<f32>>,
    across: Vec<Vec<f32>>,
}

impl Resample {
    pub fn new(side: usize, (height, width): (usize, usize)) -> Resample {
        Resample {
            side,
            down: weights(side, height),
            across: weights(side, width),
        }
    }

    /// All of it as a matrix (places there, places here).
    pub fn matrix(&self) -> Vec<f32> {
        let here = self.side * self.side;
        let mut all = vec![0.0; self.down.len() * self.across.len() * here];
        self.pairs(|there, place, weight| all[there * here + place] = weight);
        all
    }

    /// Calls `each` with (place there, place here, weight) wherever the weight is not 0.
    fn pairs(&self, mut each: impl FnMut(usize, usize, f32)) {
        for (y, down) in self.down.iter().enumerate() {
            for (x, across) in self.across.iter().enumerate() {
                for (from_y, a) in down.iter().enumerate().filter(|(_, a)| **a != 0.0) {
                    for (from_x, b) in across.iter().enumerate().filter(|(_, b)| **b != 0.0) {
                        let to = y * self.across.len() + x;
                        each(to, from_y * self.side + from_x, a * b);
                    }
                }
            }
        }
    }

    fn forward(&self, from: &[f32], dim: usize, to: &mut [f32]) {
        self.pairs(|there, here, weight| {
            let from = &from[here * dim..][..dim];
            let to = &mut to[there * dim..][..dim];
            to.iter_mut().zip(from).for_each(|(t, f)| *t += weight * f);
        });
    }

    fn backward(&self, dy: &[f32], dim: usize, grads: &mut [f32]) {
        self.pairs(|there, here, weight| {
            let dy = &dy[there * dim..][..dim];
            let grads = &mut grads[here * dim..][..dim];
            grads.iter_mut().zip(dy).for_each(|(g, d)| *g += weight * d);
        });
    }
}

/// Of each of `to` places, what it takes of each of `from`.
fn weights(from: usize, to: usize) -> Vec<Vec<f32>> {
    if from == to {
        let one = |i: usize| (0..from).map(|j| f32::from(u8::from(i == j))).collect();
        return (0..to).map(one).collect();
    }
    let scale = from as f64 / to as f64;
    let wide = scale.max(1.0);
    let of = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let inside = |j: usize| (j as f64 + 0.5 - center).abs() < 2.0 * wide;
        let weight = |j: usize| match inside(j) {
            true => cubic((j as f64 + 0.5 - center) / wide),
            false => 0.0,
        };
        let row: Vec<f64> = (0..from).map(weight).collect();
        let sum: f64 = row.iter().sum();
        row.iter().map(|w| (w / sum) as f32).collect()
    };
    (0..to).map(of).collect()
}

/// Keys 1981 with a = -0.5.
fn cubic(x: f64) -> f64 {
    let x = x.abs();
    match x {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
        _ => 0.0,
    }
}
