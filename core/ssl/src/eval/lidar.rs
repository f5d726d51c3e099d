//! LiDAR (Thilak et al. 2023): how many directions tell photos apart, seen against how far views of
//! one photo differ. The name stands for linear discriminant analysis rank.

use super::features::Features;
use crate::eigen;
use rayon::prelude::*;
use seedling_base::error::Result;

/// Photos processed: more change the figure little and take cubic time.
const MAX_PHOTOS: usize = 256;
/// Directions of the photos' means that are kept, the widest first.
const MAX_DIRECTIONS: usize = 100;
/// Added to the scatter within photos, as a fraction of its mean eigenvalue: no direction is free of it.
const FLOOR: f64 = 1e-4;
/// Directions narrower than the widest by this factor (of variance) are rounding.
const FLAT: f64 = 1e-10;

/// The effective rank (exponential of the spectrum's entropy) of W^-1/2 B W^-1/2, with B the scatter
/// of the photos' means and W that of the views about their photo's mean; between 1 and 100.
/// `views[v]` has view v of photo i in row i, features as they are. `None` where photos or views do
/// not differ.
///
/// # Errors
/// [`crate::Error::Shape`] where the views differ in shape.
pub fn lidar(views: &[&Features]) -> Result<Option<f64>> {
    let Some((first, others)) = views.split_first() else {
        return Ok(None);
    };
    for view in others {
        first.check_like(view, "another view's features", true)?;
    }
    let n = first.rows.min(MAX_PHOTOS);
    if n < 2 || others.is_empty() {
        return Ok(None);
    }
    // Spread evenly: a dataset is sorted.
    let row = |view: &Features, i: usize| -> Vec<f64> {
        let row = view.row(i * view.rows / n);
        row.iter().map(|&x| x as f64).collect()
    };
    let mut means: Vec<Vec<f64>> = vec![vec![0.0; first.dim]; n];
    for view in views {
        for (i, mean) in means.iter_mut().enumerate() {
            add(mean, &row(view, i), 1.0 / views.len() as f64);
        }
    }
    let deviations: Vec<Vec<f64>> = views
        .iter()
        .flat_map(|view| (0..n).map(move |i| (view, i)))
        .map(|(view, i)| {
            let mut deviation = row(view, i);
            add(&mut deviation, &means[i], -1.0);
            deviation
        })
        .collect();
    let mut center = vec![0.0; first.dim];
    means
        .iter()
        .for_each(|mean| add(&mut center, mean, 1.0 / n as f64));
    let mut centered = means;
    centered
        .iter_mut()
        .for_each(|mean| add(mean, &center, -1.0));

    // The means' own directions, by way of their Gram matrix: fewer photos than features.
    let (values, vectors) = eigen::symmetric(n, gram(&centered));
    let widest = values[0];
    let kept = values.iter().take(MAX_DIRECTIONS);
    let k = kept.take_while(|v| **v > FLAT * widest).count();
    if k == 0 || widest <= 0.0 {
        return Ok(None);
    }
    let directions: Vec<Vec<f64>> = (0..k)
        .map(|j| {
            let mut direction = vec![0.0; first.dim];
            for (mean, u) in centered.iter().zip(&vectors[j * n..]) {
                add(&mut direction, mean, u / values[j].sqrt());
            }
            direction
        })
        .collect();

    // Deviations as the directions see them, one list a direction, and their scatter.
    let seen: Vec<Vec<f64>> = directions
        .par_iter()
        .map(|direction| deviations.iter().map(|x| dot(x, direction)).collect())
        .collect();
    let mut scatter = gram(&seen);
    let trace: f64 = (0..k).map(|i| scatter[i * k + i]).sum();
    if trace <= 0.0 {
        return Ok(None);
    }
    (0..k).for_each(|i| scatter[i * k + i] += FLOOR * trace / k as f64);
    let (variances, axes) = eigen::symmetric(k, scatter);

    // The means' scores, diag(values) in their own directions, whitened.
    let mut white = vec![0.0; k * k];
    for (i, (vi, axis)) in variances.iter().zip(axes.chunks_exact(k)).enumerate() {
        for (j, (vj, other)) in variances.iter().zip(axes.chunks_exact(k)).enumerate() {
            let terms = axis.iter().zip(other).zip(&values);
            let sum: f64 = terms.map(|((a, b), value)| a * b * value).sum();
            white[i * k + j] = sum / (vi * vj).sqrt();
        }
    }
    let (spectrum, _) = eigen::symmetric(k, white);
    let sum: f64 = spectrum.iter().map(|e| e.max(0.0)).sum();
    let weight = spectrum.iter().map(|e| e / sum).filter(|p| *p > 0.0);
    Ok(Some((-weight.map(|p| p * p.ln()).sum::<f64>()).exp()))
}

/// to += weight * x
fn add(to: &mut [f64], x: &[f64], weight: f64) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to += weight * x);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The products of all rows with each other.
fn gram(rows: &[Vec<f64>]) -> Vec<f64> {
    let row = |a: &Vec<f64>| -> Vec<f64> { rows.iter().map(|b| dot(a, b)).collect() };
    rows.par_iter().map(row).flatten_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    /// `photos` means on `used` axes of 12, and a view of each with noise on every axis.
    fn views(photos: usize, used: usize, noise: f32) -> [Features; 3] {
        let mut rng = Rng::new(5, Purpose::Measure, 0, 0);
        let mut mean = |axis: usize| if axis < used { rng.normal() } else { 0.0 };
        let means: Vec<f32> = (0..photos * 12).map(|i| mean(i % 12)).collect();
        [0, 1, 2].map(|view| {
            let mut rng = Rng::new(6, Purpose::Measure, 0, view);
            let values = means.iter().map(|m| m + noise * rng.normal()).collect();
            Features::new(photos, 12, values).unwrap()
        })
    }

    fn lidar_of(views: &[Features; 3]) -> Option<f64> {
        lidar(&[&views[0], &views[1], &views[2]]).unwrap()
    }

    #[test]
    fn counts_the_directions_that_tell_photos_apart() {
        for used in [1, 3, 8] {
            let found = lidar_of(&views(1000, used, 0.01)).unwrap();
            assert!((found - used as f64).abs() < 0.3, "{used}: {found}");
        }
        // Against noise as large as what the photos differ in, fewer count for more.
        assert!(lidar_of(&views(300, 3, 1.0)).unwrap() > 3.5);
    }

    #[test]
    fn nothing_to_tell_is_no_figure() {
        let same = Features::new(9, 2, [1.0, 2.0].repeat(9)).unwrap();
        assert_eq!(lidar(&[&same, &same]).unwrap(), None);
        let differ = Features::new(9, 2, (0..18).map(|x| x as f32).collect()).unwrap();
        assert_eq!(lidar(&[&differ, &differ]).unwrap(), None);
        assert_eq!(lidar(&[&differ]).unwrap(), None);
        assert_eq!(lidar(&[]).unwrap(), None);
        assert!(lidar(&[&differ, &same.select(&[0])]).is_err());
    }
}
