//! A map of photos: features laid out in two dimensions by t-SNE (van der Maaten and Hinton, 2008)
//! after PCA, the same for the same features.

use rayon::prelude::*;
use seedling_core::eval::Features;
use seedling_core::rng::{Purpose, Rng};

/// Dimensions kept by PCA before distances are taken.
pub const PCA_DIM: usize = 50;
/// Neighbors a photo pays attention to, about.
const PERPLEXITY: f64 = 30.0;
/// Steps with attraction exaggerated, so that groups form, and steps in all.
const EXAGGERATED_STEPS: usize = 150;
const STEPS: usize = 500;
/// Power iterations of PCA: the map needs the subspace, not the exact axes.
const PCA_ROUNDS: usize = 12;

/// A place on the map.
pub type Point = [f64; 2];

/// Lays out unit-scaled `features` (exact t-SNE: time O(rows^2), meant for up to about 1000 rows).
/// With `start`, the layout of the same photos by other features, photos begin there and the
/// result is turned to match it, so that the two maps can be compared.
pub fn layout(features: &Features, start: Option<&[Point]>) -> Vec<Point> {
    let coordinates = principal(features);
    let n = coordinates.rows;
    let start = start.filter(|points| points.len() == n);
    let mut points = match start {
        Some(points) => scaled(points, 1.0),
        None => {
            let first: Vec<Point> = coordinates
                .iter()
                .map(|row| [0, 1].map(|i| row.get(i).copied().unwrap_or(0.0) as f64))
                .collect();
            scaled(&first, 1e-2)
        }
    };
    // Three photos or fewer have no neighborhoods to speak of.
    if n > 3 {
        descend(&affinities(&coordinates), &mut points);
    }
    if let Some(start) = start {
        turn_to(&mut points, start);
    }
    points
}

/// Unit rows, centered and projected on their principal subspace of [`PCA_DIM`] dimensions.
pub fn principal(features: &Features) -> Features {
    let mut x = features.normalized();
    let mean = x.mean();
    for row in x.values.chunks_exact_mut(x.dim.max(1)) {
        row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= *m as f32);
    }
    let (n, dim) = (x.rows, x.dim);
    let kept = PCA_DIM.min(dim).min(n);
    let mut rng = Rng::new(0, Purpose::Projection, 0, 0);
    let mut axes: Vec<Vec<f64>> = (0..kept)
        .map(|_| (0..dim).map(|_| rng.normal() as f64).collect())
        .collect();
    orthonormalize(&mut axes);
    for _ in 0..PCA_ROUNDS {
        axes.par_iter_mut().for_each(|axis| {
            let mut next = vec![0.0; dim];
            for row in x.iter() {
                let score = dot(row, axis);
                next.iter_mut()
                    .zip(row)
                    .for_each(|(s, &v)| *s += score * v as f64);
            }
            *axis = next;
        });
        orthonormalize(&mut axes);
    }
    let values = x
        .iter()
        .flat_map(|row| {
            axes.iter()
                .map(|axis| dot(row, axis) as f32)
                .collect::<Vec<_>>()
        })
        .collect();
    Features {
        rows: n,
        dim: kept,
        values,
    }
}

fn dot(row: &[f32], axis: &[f64]) -> f64 {
    row.iter().zip(axis).map(|(&a, b)| a as f64 * b).sum()
}

/// Gram-Schmidt; an axis that depends on the others becomes zero.
fn orthonormalize(axes: &mut [Vec<f64>]) {
    for i in 0..axes.len() {
        let (done, rest) = axes.split_at_mut(i);
        let axis = &mut rest[0];
        let length = |a: &[f64]| a.iter().map(|x| x * x).sum::<f64>().sqrt();
        let before = length(axis);
        for other in done.iter() {
            let along: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut()
                .zip(other)
                .for_each(|(a, b)| *a -= along * b);
        }
        let after = length(axis);
        let scale = if after > 1e-9 * before {
            1.0 / after
        } else {
            0.0
        };
        axis.iter_mut().for_each(|a| *a *= scale);
    }
}

/// Symmetric joint probabilities of neighborhood, n x n, each row's width found by bisection so
/// that it has the wanted perplexity.
pub fn affinities(x: &Features) -> Vec<f32> {
    let n = x.rows;
    let perplexity = PERPLEXITY.min((n - 1) as f64 / 3.0).max(1.0);
    let conditional: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|i| {
            let squared: Vec<f64> = x
                .iter()
                .map(|row| {
                    row.iter()
                        .zip(x.row(i))
                        .map(|(&a, &b)| (a as f64 - b as f64).powi(2))
                        .sum()
                })
                .collect();
            let nearest = (0..n)
                .filter(|&j| j != i)
                .map(|j| squared[j])
                .fold(f64::INFINITY, f64::min);
            let (mut low, mut high, mut beta) = (0.0, f64::INFINITY, 1.0);
            let mut row = vec![0.0; n];
            for _ in 0..60 {
                let (mut sum, mut weighted) = (0.0, 0.0);
                for j in 0..n {
                    // Distances beyond the nearest one: the exponent never underflows for all.
                    let d = squared[j] - nearest;
                    row[j] = if j == i { 0.0 } else { (-beta * d).exp() };
                    sum += row[j];
                    weighted += row[j] * d;
                }
                let entropy = sum.ln() + beta * weighted / sum;
                let excess = entropy - perplexity.ln();
                row.iter_mut().for_each(|p| *p /= sum);
                if excess.abs() < 1e-5 {
                    break;
                }
                if excess > 0.0 {
                    low = beta;
                    beta = if high.is_finite() {
                        (low + high) / 2.0
                    } else {
                        beta * 2.0
                    };
                } else {
                    high = beta;
                    beta = (low + high) / 2.0;
                }
            }
            row
        })
        .collect();
    (0..n * n)
        .map(|at| {
            let (i, j) = (at / n, at % n);
            ((conditional[i][j] + conditional[j][i]) / (2.0 * n as f64)).max(1e-12) as f32
        })
        .collect()
}

/// Kullback and Leibler's divergence of a map from `affinities`: what t-SNE makes small.
pub fn divergence(affinities: &[f32], points: &[Point]) -> f64 {
    let near = |a: &Point, b: &Point| {
        let d = [a[0] - b[0], a[1] - b[1]];
        1.0 / (1.0 + d[0] * d[0] + d[1] * d[1])
    };
    let q: Vec<f64> = points
        .iter()
        .flat_map(|a| points.iter().map(move |b| near(a, b)))
        .collect();
    let total = q.iter().sum::<f64>() - points.len() as f64;
    let n = points.len();
    let pairs = affinities.iter().zip(&q).enumerate();
    let apart = pairs.filter(|(at, _)| at / n != at % n);
    let terms = apart.map(|(_, (&p, q))| f64::from(p) * (f64::from(p) * total / q).ln());
    terms.sum()
}

/// Gradient descent with momentum and per-coordinate gains, as in the t-SNE paper.
fn descend(p: &[f32], points: &mut [Point]) {
    let n = points.len();
    let rate = (n as f64 / 12.0 / 4.0).max(10.0);
    let mut speed = vec![[0.0; 2]; n];
    let mut gains = vec![[1.0; 2]; n];
    for step in 0..STEPS {
        let early = step < EXAGGERATED_STEPS;
        let (exaggeration, momentum) = if early { (12.0, 0.5) } else { (1.0, 0.8) };
        // Per point: attraction, repulsion, and its part of the normalizer, in a fixed order.
        let here = &*points;
        let forces: Vec<(Point, Point, f64)> = (0..n)
            .into_par_iter()
            .map(|i| {
                let (mut pull, mut push, mut total) = ([0.0; 2], [0.0; 2], 0.0);
                for (other, &p) in here.iter().zip(&p[i * n..(i + 1) * n]) {
                    let d = [here[i][0] - other[0], here[i][1] - other[1]];
                    let q = 1.0 / (1.0 + d[0] * d[0] + d[1] * d[1]);
                    total += q;
                    for c in 0..2 {
                        pull[c] += p as f64 * q * d[c];
                        push[c] += q * q * d[c];
                    }
                }
                (pull, push, total - 1.0)
            })
            .collect();
        let normalizer = forces.iter().map(|f| f.2).sum::<f64>().max(1e-12);
        for (i, (pull, push, _)) in forces.iter().enumerate() {
            for c in 0..2 {
                let gradient = 4.0 * (exaggeration * pull[c] - push[c] / normalizer);
                let gain: &mut f64 = &mut gains[i][c];
                *gain = if gradient * speed[i][c] < 0.0 {
                    *gain + 0.2
                } else {
                    (*gain * 0.8).max(0.01)
                };
                speed[i][c] = momentum * speed[i][c] - rate * *gain * gradient;
                points[i][c] += speed[i][c];
            }
        }
    }
}

/// Centered, and scaled to the standard deviation `std` on the first axis.
fn scaled(points: &[Point], std: f64) -> Vec<Point> {
    let center = center(points);
    let n = points.len().max(1) as f64;
    let spread = (points
        .iter()
        .map(|p| (p[0] - center[0]).powi(2))
        .sum::<f64>()
        / n)
        .sqrt();
    let scale = if spread > 0.0 { std / spread } else { 0.0 };
    points
        .iter()
        .map(|p| [(p[0] - center[0]) * scale, (p[1] - center[1]) * scale])
        .collect()
}

fn center(points: &[Point]) -> Point {
    let n = points.len().max(1) as f64;
    let sum = points
        .iter()
        .fold([0.0; 2], |s, p| [s[0] + p[0], s[1] + p[1]]);
    [sum[0] / n, sum[1] / n]
}

/// Rotates (or mirrors) and moves `points` as near to `target` as that can bring them.
fn turn_to(points: &mut [Point], target: &[Point]) {
    let (from, to) = (center(points), center(target));
    // Best angle of a pure rotation, and of a rotation after mirroring the second axis.
    let best = |mirror: f64| {
        let (mut cos, mut sin) = (0.0, 0.0);
        for (p, t) in points.iter().zip(target) {
            let (x, y) = (p[0] - from[0], mirror * (p[1] - from[1]));
            let (u, v) = (t[0] - to[0], t[1] - to[1]);
            cos += x * u + y * v;
            sin += x * v - y * u;
        }
        (cos.hypot(sin), sin.atan2(cos))
    };
    let (plain, mirrored) = (best(1.0), best(-1.0));
    let (mirror, angle) = if mirrored.0 > plain.0 {
        (-1.0, mirrored.1)
    } else {
        (1.0, plain.1)
    };
    let (sin, cos) = angle.sin_cos();
    for p in points {
        let (x, y) = (p[0] - from[0], mirror * (p[1] - from[1]));
        *p = [to[0] + cos * x - sin * y, to[1] + sin * x + cos * y];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clusters(per: usize, seed: u64) -> Features {
        let mut rng = Rng::new(seed, Purpose::Measure, 0, 0);
        let (count, dim) = (4, 60);
        let values = (0..per * count * dim)
            .map(|at| {
                let (cluster, d) = (at / dim / per, at % dim);
                0.25 * rng.normal() + if d % count == cluster { 1.0 } else { 0.0 }
            })
            .collect();
        Features::new(per * count, dim, values).unwrap()
    }

    fn same_cluster_nearest(points: &[Point], per: usize) -> f64 {
        let squared = |a: Point, b: Point| (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
        let right = (0..points.len()).filter(|&i| {
            let near = (0..points.len()).filter(|&j| j != i).min_by(|&a, &b| {
                squared(points[i], points[a]).total_cmp(&squared(points[i], points[b]))
            });
            near.is_some_and(|j| j / per == i / per)
        });
        right.count() as f64 / points.len() as f64
    }

    #[test]
    fn clusters_stay_together_and_maps_repeat() {
        let (a, b) = (clusters(40, 1), clusters(40, 2));
        let first = layout(&a, None);
        assert_eq!(first, layout(&a, None));
        assert!(same_cluster_nearest(&first, 40) > 0.98);
        // The second map keeps every group near its place on the first.
        let second = layout(&b, Some(&first));
        assert!(same_cluster_nearest(&second, 40) > 0.98);
        for cluster in 0..4 {
            let range = cluster * 40..(cluster + 1) * 40;
            let (p, q) = (center(&first[range.clone()]), center(&second[range]));
            let size = first.iter().map(|p| p[0].hypot(p[1])).fold(0.0, f64::max);
            assert!((p[0] - q[0]).hypot(p[1] - q[1]) < size, "cluster {cluster}");
        }
    }

    #[test]
    fn small_and_degenerate_sets_have_finite_maps() {
        for n in [0, 1, 2, 3, 4, 5, 9] {
            for values in [
                vec![0.5; n * 3],
                (0..n * 3).map(|i| (i * i % 7) as f32).collect(),
            ] {
                let points = layout(&Features::new(n, 3, values).unwrap(), None);
                assert_eq!(points.len(), n);
                assert!(points.iter().flatten().all(|x| x.is_finite()));
            }
        }
    }
}
