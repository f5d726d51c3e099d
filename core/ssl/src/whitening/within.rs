//! Whitening by the differences within: between a photo and its mirror image, and between neighbors.
//!
//! Relevant component analysis (Bar-Hillel et al. 2003) and within-class covariance normalization (Hatch
//! et al. 2006) whiten features by the covariance within known clusters. Nobody has sorted a person's
//! album; but what differs between a photo and its mirror image, or between photos that are among each
//! other's nearest, is mostly no difference of class. In the first K principal components of the dataset,
//!
//! ```text
//! R = N / tr N + M / tr M + I / K        W = R^(-1/2) V^T        b = -W mean
//! ```
//!
//! with N the scatter of differences of neighbors (weighted by their cosine), M that of mirror images, and
//! V the components. Unlike whitening by the dataset's own covariance (`R = diag(lambda)`), it leaves alone
//! how far apart classes lie. Measured in docs/results.md.

use super::Moments;
use crate::Result;
use crate::eigen;
use crate::eval::Features;
use crate::eval::Metric;
use crate::eval::neighbors::{Exclude, search};
use seedling_nn::encoder::LinearLayer;
use seedling_nn::gemm::{MatMul, Matrix, gemm_columns};

/// Fewer photos say nothing about a dataset.
pub const LEAST_PHOTOS: usize = 8;
/// More photos change the layer no further; it is fitted to so many of a larger dataset.
pub const MAX_PHOTOS: usize = 2000;

/// Components that are kept.
const COMPONENTS: usize = 128;
/// Variances below this fraction of the largest are rounding.
const FLAT: f64 = 1e-9;
/// Neighbors of a photo that are processed.
const NEIGHBORS: usize = 10;
/// Neighbors are found among the first components, each over lambda^(EXPONENT / 2).
const NEIGHBOR_COMPONENTS: usize = 64;
/// See [`NEIGHBOR_COMPONENTS`].
const EXPONENT: f64 = 0.25;
/// What lies outside the components of a small dataset, as a fraction of what lies in the least certain of
/// them: a few photos do not span what others will show.
const OUTSIDE: f64 = 0.5;

/// Numbers of the layer for a dataset of `photos` photos.
pub fn numbers(photos: usize, dim: usize) -> usize {
    let components = COMPONENTS.min(dim);
    outputs(photos > COMPONENTS, components, dim) * (dim + 1)
}

fn outputs(whole: bool, components: usize, dim: usize) -> usize {
    if whole { components } else { dim }
}

/// Bytes that extracting features of `photos` photos and [`fit`] take at most, for features of `dim` numbers:
/// features of photos and mirror images, one of them centered, a matrix of products with its eigenvectors, and the
/// layer while it is shared out.
pub fn bytes(photos: usize, dim: usize) -> usize {
    let photos = photos.min(MAX_PHOTOS);
    let side = photos.min(dim);
    (3 * photos * dim + numbers(photos, dim)) * 4 + side * side * (4 + 8 + 8)
}

/// The layer for a dataset of which `plain` are the features, and `mirrored` those of the mirror images,
/// row by row. It has 128 outputs, or for a dataset of up to 128 photos as many as features. `None` below
/// [`LEAST_PHOTOS`], and where all photos look alike.
///
/// Takes some dim x dim numbers of 8 bytes where there are more photos than features.
///
/// # Errors
/// [`crate::Error::Shape`] where the two differ in shape, [`crate::Error::Training`] where a feature is not finite.
pub fn fit(plain: &Features, mirrored: &Features) -> Result<Option<LinearLayer>> {
    plain.check_like(mirrored, "mirror images' features", true)?;
    plain.check_finite()?;
    mirrored.check_finite()?;
    if plain.rows < LEAST_PHOTOS || plain.dim == 0 {
        return Ok(None);
    }
    let Some(components) = Components::fit(plain)? else {
        return Ok(None);
    };
    let scores = components.scores(plain);
    let differences = difference(&scores, &components.scores(mirrored));
    let k = components.count();
    let mut r = identity(k, 1.0 / k as f64);
    add_unit_trace(&mut r, scatter(&differences, &vec![1.0; differences.rows]));
    let (pairs, weights) = neighbors(&scores, &components.variances)?;
    add_unit_trace(&mut r, scatter(&pairs, &weights));
    components.layer(&inverse_root(k, r)).map(Some)
}

/// The first principal components of a dataset.
struct Components {
    mean: Vec<f64>,
    /// The largest first.
    variances: Vec<f64>,
    /// A row of unit length for each variance.
    directions: Features,
    /// Whether the dataset could have more: it is larger than they are many.
    whole: bool,
}

impl Components {
    /// By the covariance, or by the inner products of photos where these are fewer than features.
    fn fit(photos: &Features) -> Result<Option<Components>> {
        let (n, dim) = (photos.rows, photos.dim);
        let mean = photos.mean();
        let few = n <= dim;
        let mut centered = Features::default();
        let (values, vectors) = if few {
            centered = center(photos, &mean);
            let mut products = vec![0.0f32; n * n];
            let rows = Matrix::rows(&centered.values, dim);
            gemm_columns(
                MatMul { m: n, n, k: dim },
                rows,
                rows.transposed(),
                &mut products,
                false,
            );
            let gram = products.iter().map(|&x| f64::from(x) / n as f64).collect();
            eigen::symmetric(n, gram)
        } else {
            let mut moments = Moments::new(dim);
            moments.add(photos)?;
            eigen::symmetric(dim, moments.into_covariance())
        };
        let widest = values[0];
        let limit = COMPONENTS.min(n - 1).min(dim);
        let kept = values.iter().take(limit);
        let k = kept.take_while(|&&v| v > FLAT * widest && v > 0.0).count();
        // Rounding of features alone is about 1e-7 of their length.
        let length: f64 = mean.iter().map(|m| m * m).sum();
        if k == 0 || widest <= 1e-12 * length {
            return Ok(None);
        }
        let size = if few { n } else { dim };
        let first: Vec<f32> = vectors[..k * size].iter().map(|&x| x as f32).collect();
        let directions = if few {
            // Of the photos' combinations: X^T u, which has length sqrt(n lambda).
            let mut out = vec![0.0f32; k * dim];
            let shape = MatMul { m: k, n: dim, k: n };
            let rows = Matrix::rows(&centered.values, dim);
            gemm_columns(shape, Matrix::rows(&first, n), rows, &mut out, false);
            Features::new(k, dim, out)?.normalized()
        } else {
            Features::new(k, dim, first)?
        };
        Ok(Some(Components {
            mean,
            variances: values[..k].to_vec(),
            directions,
            whole: n > COMPONENTS,
        }))
    }

    fn count(&self) -> usize {
        self.variances.len()
    }

    /// Where photos lie along each component, (photos, components).
    fn scores(&self, photos: &Features) -> Features {
        let centered = center(photos, &self.mean);
        let (n, dim, k) = (photos.rows, photos.dim, self.count());
        let mut values = vec![0.0; n * k];
        gemm_columns(
            MatMul { m: n, n: k, k: dim },
            Matrix::rows(&centered.values, dim),
            Matrix::rows(&self.directions.values, dim).transposed(),
            &mut values,
            false,
        );
        Features {
            rows: n,
            dim: k,
            values,
        }
    }

    /// `root` is R^(-1/2), (k, k).
    fn layer(&self, root: &[f64]) -> Result<LinearLayer> {
        let (k, dim) = (self.count(), self.directions.dim);
        let direction = |j: usize| self.directions.row(j);
        // W = R^(-1/2) V^T
        let mut weight = vec![0.0f64; k * dim];
        for (row, out) in root.chunks_exact(k).zip(weight.chunks_exact_mut(dim)) {
            for (j, &r) in row.iter().enumerate() {
                let pairs = out.iter_mut().zip(direction(j));
                pairs.for_each(|(w, &v)| *w += r * f64::from(v));
            }
        }
        let mut out = Vec::with_capacity(outputs(self.whole, k, dim) * dim);
        let mut bias = Vec::new();
        let mut add = |row: &[f64]| {
            let at_mean: f64 = row.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
            bias.push(-at_mean as f32);
            out.extend(row.iter().map(|&w| w as f32));
        };
        if self.whole {
            weight.chunks_exact(dim).for_each(&mut add);
        } else {
            // Back among the features, with what lies outside the components:
            // W = V R^(-1/2) V^T + outside (I - V V^T)
            let outside = OUTSIDE * (k as f64).sqrt();
            let mut row = vec![0.0f64; dim];
            for i in 0..dim {
                row.fill(0.0);
                row[i] = outside;
                for j in 0..k {
                    let v = f64::from(direction(j)[i]);
                    let rotated = &weight[j * dim..(j + 1) * dim];
                    for ((w, r), &u) in row.iter_mut().zip(rotated).zip(direction(j)) {
                        *w += v * (r - outside * f64::from(u));
                    }
                }
                add(&row);
            }
        }
        LinearLayer::new(dim, out, bias)
    }
}

/// Differences of the photos that are among each other's nearest, (pairs, components), and the cosine of
/// each pair.
fn neighbors(scores: &Features, variances: &[f64]) -> Result<(Features, Vec<f64>)> {
    let kept = scores.dim.min(NEIGHBOR_COMPONENTS);
    let scale: Vec<f64> = variances[..kept]
        .iter()
        .map(|v| v.powf(-EXPONENT / 2.0))
        .collect();
    let values = scores.iter().flat_map(|row| {
        let row = row.iter().zip(&scale);
        row.map(|(&x, s)| (f64::from(x) * s) as f32)
    });
    let seen = Features::new(scores.rows, kept, values.collect())?;
    let near = search(
        &seen,
        &seen,
        NEIGHBORS.min(scores.rows - 1),
        Metric::Cosine,
        Exclude::Itself,
        |_, near| near.to_vec(),
    )?;
    let (mut differences, mut weights) = (Vec::new(), Vec::new());
    for (i, found) in near.iter().enumerate() {
        for other in found.iter().filter(|other| other.index > i) {
            let mutual = near[other.index].iter().any(|back| back.index == i);
            let cosine = other.cosine();
            if mutual && cosine > 0.0 {
                let pairs = scores.row(i).iter().zip(scores.row(other.index));
                differences.extend(pairs.map(|(a, b)| a - b));
                weights.push(cosine);
            }
        }
    }
    let pairs = Features::new(weights.len(), scores.dim, differences)?;
    Ok((pairs, weights))
}

/// Sum of weight x x^T over the rows, (dim, dim).
fn scatter(rows: &Features, weights: &[f64]) -> Vec<f64> {
    let dim = rows.dim;
    let weighted: Vec<f32> = rows
        .iter()
        .zip(weights)
        .flat_map(|(row, w)| row.iter().map(move |&x| (f64::from(x) * w) as f32))
        .collect();
    let mut sum = vec![0.0f64; dim * dim];
    let mut products = vec![0.0f32; dim * dim];
    const BLOCK: usize = 256;
    for start in (0..rows.rows).step_by(BLOCK) {
        let n = BLOCK.min(rows.rows - start);
        let range = start * dim..(start + n) * dim;
        gemm_columns(
            MatMul {
                m: dim,
                n: dim,
                k: n,
            },
            Matrix::rows(&weighted[range.clone()], dim).transposed(),
            Matrix::rows(&rows.values[range], dim),
            &mut products,
            false,
        );
        let pairs = sum.iter_mut().zip(&products);
        pairs.for_each(|(s, &p)| *s += f64::from(p));
    }
    sum
}

/// r += scatter / tr scatter; nothing where there is none.
fn add_unit_trace(r: &mut [f64], scatter: Vec<f64>) {
    let k = r.len().isqrt();
    let trace: f64 = (0..k).map(|i| scatter[i * k + i]).sum();
    if trace > 0.0 {
        let pairs = r.iter_mut().zip(scatter);
        pairs.for_each(|(r, s)| *r += s / trace);
    }
}

/// r^(-1/2) of a positive definite matrix.
fn inverse_root(k: usize, mut r: Vec<f64>) -> Vec<f64> {
    // Sums in another order on either side of the diagonal.
    for i in 0..k {
        for j in 0..i {
            r[i * k + j] = r[j * k + i];
        }
    }
    let (values, vectors) = eigen::symmetric(k, r);
    let mut root = vec![0.0; k * k];
    for (value, vector) in values.iter().zip(vectors.chunks_exact(k)) {
        let scale = value.max(f64::MIN_POSITIVE).sqrt().recip();
        for (out, v) in root.chunks_exact_mut(k).zip(vector) {
            let pairs = out.iter_mut().zip(vector);
            pairs.for_each(|(r, u)| *r += scale * v * u);
        }
    }
    root
}

fn identity(n: usize, value: f64) -> Vec<f64> {
    let mut matrix = vec![0.0; n * n];
    (0..n).for_each(|i| matrix[i * n + i] = value);
    matrix
}

fn center(rows: &Features, mean: &[f64]) -> Features {
    let values = rows.iter().flat_map(|row| {
        let row = row.iter().zip(mean);
        row.map(|(&x, m)| (f64::from(x) - m) as f32)
    });
    Features {
        rows: rows.rows,
        dim: rows.dim,
        values: values.collect(),
    }
}

fn difference(a: &Features, b: &Features) -> Features {
    let values = a.values.iter().zip(&b.values).map(|(x, y)| x - y);
    Features {
        rows: a.rows,
        dim: a.dim,
        values: values.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::panel;
    use seedling_base::rng::{Purpose, Rng};

    /// Kinds far apart along few axes, under noise that mirror images share along others.
    fn dataset(photos: usize, dim: usize) -> (Features, Features, Vec<u32>) {
        let mut rng = Rng::new(9, Purpose::Measure, 0, 0);
        let (mut plain, mut mirrored, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..photos {
            let class = i % 4;
            labels.push(class as u32);
            for j in 0..dim {
                let place = if j == class { 3.0 } else { 0.0 };
                let noise = if j >= dim - dim / 8 { 3.0 } else { 0.4 };
                let own = 0.5 * rng.normal();
                plain.push(5.0 + place + own + noise * rng.normal());
                mirrored.push(5.0 + place + own + noise * rng.normal());
            }
        }
        let features = |values| Features::new(photos, dim, values).unwrap();
        (features(plain), features(mirrored), labels)
    }

    fn applied(layer: &LinearLayer, features: &Features) -> Features {
        let values = layer.apply(&features.values);
        Features::new(features.rows, layer.outputs(), values).unwrap()
    }

    #[test]
    fn what_mirror_images_differ_in_counts_less_by_either_way_to_the_components() {
        // More photos than features, and fewer.
        for (photos, dim) in [(400, 24), (160, 200), (60, 200)] {
            let (plain, mirrored, labels) = dataset(photos, dim);
            let layer = fit(&plain, &mirrored).unwrap().unwrap();
            let outputs = if photos > 128 { dim.min(128) } else { dim };
            assert_eq!((layer.inputs(), layer.outputs()), (dim, outputs));
            let before = panel(&plain, &labels, 0).unwrap();
            let after = panel(&applied(&layer, &plain), &labels, 0).unwrap();
            assert!(
                after.mean_average_precision.unwrap()
                    > before.mean_average_precision.unwrap() + 3.0,
                "{photos} {dim}: {before:?} {after:?}"
            );
        }
    }

    #[test]
    fn bits_depend_on_no_thread() {
        let (plain, mirrored, _) = dataset(300, 40);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let pool = pool.build().unwrap();
            pool.install(|| fit(&plain, &mirrored).unwrap())
        };
        assert_eq!(on(1), on(4));
    }

    #[test]
    fn few_equal_and_broken_photos() {
        let (plain, mirrored, _) = dataset(7, 10);
        assert_eq!(fit(&plain, &mirrored).unwrap(), None);
        let alike = Features::new(40, 3, [0.3, -2.0, 7.7].repeat(40)).unwrap();
        assert_eq!(fit(&alike, &alike).unwrap(), None);
        let (plain, mirrored, _) = dataset(9, 10);
        let layer = fit(&plain, &mirrored).unwrap().unwrap();
        assert!(layer.weight().iter().all(|x| x.is_finite()));
        // Without differences to go by it is the components alone.
        assert!(fit(&plain, &plain).unwrap().is_some());
        let broken = Features::new(40, 3, vec![f32::NAN; 120]).unwrap();
        assert!(fit(&broken, &broken).is_err());
        assert!(fit(&plain, &mirrored.select(&[0])).is_err());
    }
}
