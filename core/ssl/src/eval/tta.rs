//! Several views of a photo (test-time augmentation), and several networks: their features are averaged, or put
//! side by side. Each view costs a pass through the network; what it gives stands in docs/results.md.

use super::Features;
use super::extract::{EvalView, Extracted, batch, floats, read};
use crate::{Error, Result};
use seedling_data::{Normalize, PhotoSource};
use seedling_nn::encoder::{FeatureNet, LinearLayer};

/// How many views there may be: one; with the mirror image; both at four sizes.
pub const COUNTS: [usize; 3] = [1, 2, 8];

/// The sizes of eight views, as multiples of the size that the weights ask for. A network that was taught with
/// crops sees well at somewhat more pixels, too (Touvron et al. 2019).
const SIZES: [f64; 4] = [0.8, 1.0, 1.2, 1.4];
/// Sizes are multiples of the network's stride.
const STRIDE: usize = 32;

/// A network that features are extracted with.
#[derive(Clone, Copy)]
pub struct FeatureModel<'a> {
    /// It, on its running statistics.
    pub encoder: &'a dyn FeatureNet,
    /// Side of the images that its weights ask for, in pixels.
    pub image_size: usize,
    /// How pixels become inputs.
    pub normalize: &'a Normalize,
    /// What lies behind its features, where that is no part of it.
    pub layer: Option<&'a LinearLayer>,
}

impl FeatureModel<'_> {
    fn feature_dim(&self) -> usize {
        let own = || self.encoder.feature_dim();
        self.layer.map_or_else(own, LinearLayer::outputs)
    }

    fn features_of(&self, images: &[Vec<f32>], side: usize) -> Result<Features> {
        let features = self.encoder.features_of(images, (side, side))?;
        let features = match self.layer {
            Some(layer) => layer.apply(&features),
            None => features,
        };
        Features::new(images.len(), self.feature_dim(), features)
    }
}

/// Refuses a number of views that there is not.
///
/// # Errors
/// [`Error::Config`] with those that there are.
pub fn check(views: usize) -> Result<()> {
    match COUNTS.contains(&views) {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "tta_views = {views}: expected 1 (the photo), 2 (and its mirror image) or 8 (both at four sizes)"
        ))),
    }
}

/// Length of the features that these models give together.
pub fn feature_dim(models: &[FeatureModel<'_>]) -> usize {
    models.iter().map(FeatureModel::feature_dim).sum()
}

/// Features of the photos at `indices`: of one model at one view as its network gives them; otherwise a
/// model's unit rows are averaged over the views, and those of all models stand side by side, together of
/// unit length. Every photo is decoded once. `done` is told the number of photos after every batch, and may
/// stop the work by an error.
///
/// # Errors
/// There are no such views, a network refuses, or what `done` says. That no photo can be read is no error.
pub fn extract(
    models: &[FeatureModel<'_>],
    views: usize,
    source: &dyn PhotoSource,
    indices: &[usize],
    mut done: impl FnMut(usize) -> Result<()>,
) -> Result<Extracted> {
    check(views)?;
    let plain = models.len() == 1 && views == 1;
    let each: Vec<(&FeatureModel<'_>, Vec<(usize, EvalView)>)> = models
        .iter()
        .map(|model| (model, sizes(model.image_size, views)))
        .collect();
    let largest = each
        .iter()
        .flat_map(|(_, views)| views)
        .map(|(side, _)| *side);
    let batch = batch(largest.max().unwrap_or(1));
    let dim = feature_dim(models);
    let mut found = Extracted {
        features: Features {
            rows: 0,
            dim,
            values: Vec::with_capacity(indices.len() * dim),
        },
        photos: Vec::new(),
        skipped: Vec::new(),
    };
    // In the order of models and their views.
    let all: Vec<(usize, &EvalView)> = each
        .iter()
        .flat_map(|(_, views)| views.iter().map(|(side, view)| (*side, view)))
        .collect();
    models.iter().for_each(|model| model.encoder.release());
    for (i, chunk) in indices.chunks(batch).enumerate() {
        let (photos, images) = read(source, chunk, &all, &mut found.skipped);
        found.photos.extend(photos);
        if !images.is_empty() {
            let rows = images.len();
            let (mut parts, mut place) = (Vec::new(), 0);
            for (model, views) in &each {
                let mut sum: Option<Features> = None;
                for (side, _) in views {
                    let of_view = floats(&images, place, model.normalize);
                    place += 1;
                    let seen = model.features_of(&of_view, *side)?;
                    let seen = if plain { seen } else { seen.normalized() };
                    match &mut sum {
                        None => sum = Some(seen),
                        Some(sum) => {
                            let pairs = sum.values.iter_mut().zip(&seen.values);
                            pairs.for_each(|(a, b)| *a += b);
                        }
                    }
                }
                let sum = sum.unwrap_or_default();
                parts.push(if plain { sum } else { sum.normalized() });
            }
            let mut together = Features {
                rows,
                dim,
                values: Vec::with_capacity(rows * dim),
            };
            for row in 0..rows {
                let parts = parts.iter().flat_map(|part| part.row(row));
                together.values.extend(parts);
            }
            let together = if plain {
                together
            } else {
                together.normalized()
            };
            found.features.rows += rows;
            found.features.values.extend(together.values);
        }
        done((i * batch + chunk.len()).min(indices.len()))?;
    }
    models.iter().for_each(|model| model.encoder.release());
    Ok(found)
}

/// Side and view of each.
fn sizes(image_size: usize, views: usize) -> Vec<(usize, EvalView)> {
    let sides: Vec<usize> = match views {
        8 => SIZES
            .iter()
            .map(|scale| {
                let strides = (scale * image_size as f64 / STRIDE as f64).round() as usize;
                (strides * STRIDE).max(STRIDE)
            })
            .collect(),
        _ => vec![image_size],
    };
    let both = [EvalView::Plain, EvalView::Mirrored];
    let both = &both[..views.min(2)];
    let pairs = sides
        .iter()
        .flat_map(|&side| both.iter().map(move |view| (side, view.clone())));
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_data::demo::Demo;

    /// Sees the mean colors of an image's left and right half.
    struct Halves;

    impl FeatureNet for Halves {
        fn feature_dim(&self) -> usize {
            6
        }
        fn features_of(&self, images: &[Vec<f32>], (_, width): (usize, usize)) -> Result<Vec<f32>> {
            let means = images.iter().flat_map(|image| {
                let mut sums = [0.0f32; 6];
                for (i, pixel) in image.as_chunks::<3>().0.iter().enumerate() {
                    let right = usize::from(i % width >= width / 2);
                    (0..3).for_each(|c| sums[3 * right + c] += pixel[c]);
                }
                sums.map(|sum| 2.0 * sum / (image.len() / 3) as f32)
            });
            Ok(means.collect())
        }
        fn release(&self) {}
    }

    #[test]
    fn views_are_averaged_and_models_stand_side_by_side() {
        let photos = Demo::new(2, 0).unwrap();
        let norm = Normalize::default();
        let model = FeatureModel {
            encoder: &Halves,
            image_size: 64,
            normalize: &norm,
            layer: None,
        };
        let all: Vec<usize> = (0..photos.len()).collect();
        let seen = |models: &[FeatureModel<'_>], views| {
            let mut told = 0;
            let found = extract(models, views, &photos, &all, |done| {
                told = done;
                Ok(())
            });
            assert_eq!(told, all.len());
            found.unwrap().features
        };
        let (one, two) = (seen(&[model], 1), seen(&[model], 2));
        let swapped = one.iter().flat_map(|r| [&r[3..], &r[..3]].concat());
        let swapped = Features::new(one.rows, 6, swapped.collect()).unwrap();
        let pairs = one
            .normalized()
            .values
            .into_iter()
            .zip(swapped.normalized().values);
        let mean = Features::new(one.rows, 6, pairs.map(|(a, b)| a + b).collect());
        for (a, b) in two.values.iter().zip(&mean.unwrap().normalized().values) {
            assert!((a - b).abs() < 1e-5);
        }
        let both = seen(&[model, model], 2);
        assert_eq!(both.dim, 12);
        for (pair, row) in both.iter().zip(two.iter()) {
            for (a, b) in pair.iter().zip([row, row].concat()) {
                assert!((a - b * 0.5f32.sqrt()).abs() < 1e-5);
            }
        }
        assert_eq!(seen(&[model], 8).dim, 6);
        let sides: Vec<usize> = sizes(160, 8).iter().step_by(2).map(|(s, _)| *s).collect();
        assert_eq!(sides, [128, 160, 192, 224]);
        assert!(extract(&[model], 3, &photos, &all, |_| Ok(())).is_err());
    }
}
