//! Several looks at a photo, and several networks: what they see is averaged, or put side by side. Each look
//! costs a pass through the network; what it gives stands in docs/results.md.

use super::Features;
use super::extract::{Extracted, Look, batch, floats, read};
use crate::{Error, Result};
use seedling_data::{Normalize, PhotoSource};
use seedling_nn::encoder::{FeatureNet, LinearLayer};

/// How many looks there may be: one; with the mirror image; both at four sizes.
pub const COUNTS: [usize; 3] = [1, 2, 8];

/// The sizes of eight looks, as shares of the size that the weights ask for. A network that was taught with
/// crops sees well at somewhat more pixels, too (Touvron et al. 2019).
const SIZES: [f64; 4] = [0.8, 1.0, 1.2, 1.4];
/// Sizes are multiples of the network's stride.
const STRIDE: usize = 32;

/// A network that looks at photos.
#[derive(Clone, Copy)]
pub struct Viewer<'a> {
    /// It, on its running statistics.
    pub encoder: &'a dyn FeatureNet,
    /// Side of the images that its weights ask for, in pixels.
    pub image_size: usize,
    /// How pixels become inputs.
    pub normalize: &'a Normalize,
    /// What lies behind its features, where that is no part of it.
    pub layer: Option<&'a LinearLayer>,
}

impl Viewer<'_> {
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

/// Refuses a number of looks that there is not.
///
/// # Errors
/// [`Error::Config`] with those that there are.
pub fn check(looks: usize) -> Result<()> {
    match COUNTS.contains(&looks) {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "looks = {looks}: expected 1 (the photo), 2 (and its mirror image) or 8 (both at four sizes)"
        ))),
    }
}

/// Length of the features that these viewers give together.
pub fn feature_dim(viewers: &[Viewer<'_>]) -> usize {
    viewers.iter().map(Viewer::feature_dim).sum()
}

/// Features of the photos at `indices`: of one viewer at one look as its network gives them; otherwise a
/// viewer's unit rows are averaged over the looks, and those of all viewers stand side by side, together of
/// unit length. Every photo is decoded once. `done` is told the number of photos after every batch, and may
/// stop the work by an error.
///
/// # Errors
/// There are no such looks, a network refuses, or what `done` says. That no photo can be read is no error.
pub fn look(
    viewers: &[Viewer<'_>],
    looks: usize,
    source: &dyn PhotoSource,
    indices: &[usize],
    mut done: impl FnMut(usize) -> Result<()>,
) -> Result<Extracted> {
    check(looks)?;
    let plain = viewers.len() == 1 && looks == 1;
    let each: Vec<(&Viewer<'_>, Vec<(usize, Look)>)> = viewers
        .iter()
        .map(|viewer| (viewer, sizes(viewer.image_size, looks)))
        .collect();
    let largest = each
        .iter()
        .flat_map(|(_, looks)| looks)
        .map(|(side, _)| *side);
    let batch = batch(largest.max().unwrap_or(1));
    let dim = feature_dim(viewers);
    let mut found = Extracted {
        features: Features {
            rows: 0,
            dim,
            values: Vec::with_capacity(indices.len() * dim),
        },
        photos: Vec::new(),
        skipped: Vec::new(),
    };
    // In the order of viewers and their looks.
    let all: Vec<(usize, &Look)> = each
        .iter()
        .flat_map(|(_, looks)| looks.iter().map(|(side, look)| (*side, look)))
        .collect();
    viewers.iter().for_each(|viewer| viewer.encoder.release());
    for (i, chunk) in indices.chunks(batch).enumerate() {
        let (photos, images) = read(source, chunk, &all, &mut found.skipped);
        found.photos.extend(photos);
        if !images.is_empty() {
            let rows = images.len();
            let (mut parts, mut place) = (Vec::new(), 0);
            for (viewer, looks) in &each {
                let mut sum: Option<Features> = None;
                for (side, _) in looks {
                    let of_look = floats(&images, place, viewer.normalize);
                    place += 1;
                    let seen = viewer.features_of(&of_look, *side)?;
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
    viewers.iter().for_each(|viewer| viewer.encoder.release());
    Ok(found)
}

/// Side and look of each.
fn sizes(image_size: usize, looks: usize) -> Vec<(usize, Look)> {
    let sides: Vec<usize> = match looks {
        8 => SIZES
            .iter()
            .map(|share| {
                let strides = (share * image_size as f64 / STRIDE as f64).round() as usize;
                (strides * STRIDE).max(STRIDE)
            })
            .collect(),
        _ => vec![image_size],
    };
    let both = [Look::Plain, Look::Mirrored];
    let both = &both[..looks.min(2)];
    let pairs = sides
        .iter()
        .flat_map(|&side| both.iter().map(move |look| (side, look.clone())));
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
    fn looks_are_averaged_and_viewers_stand_side_by_side() {
        let photos = Demo::new(2, 0).unwrap();
        let norm = Normalize::default();
        let viewer = Viewer {
            encoder: &Halves,
            image_size: 64,
            normalize: &norm,
            layer: None,
        };
        let all: Vec<usize> = (0..photos.len()).collect();
        let seen = |viewers: &[Viewer<'_>], looks| {
            let mut told = 0;
            let found = look(viewers, looks, &photos, &all, |done| {
                told = done;
                Ok(())
            });
            assert_eq!(told, all.len());
            found.unwrap().features
        };
        let (one, two) = (seen(&[viewer], 1), seen(&[viewer], 2));
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
        let both = seen(&[viewer, viewer], 2);
        assert_eq!(both.dim, 12);
        for (pair, row) in both.iter().zip(two.iter()) {
            for (a, b) in pair.iter().zip([row, row].concat()) {
                assert!((a - b * 0.5f32.sqrt()).abs() < 1e-5);
            }
        }
        assert_eq!(seen(&[viewer], 8).dim, 6);
        let sides: Vec<usize> = sizes(160, 8).iter().step_by(2).map(|(s, _)| *s).collect();
        assert_eq!(sides, [128, 160, 192, 224]);
        assert!(look(&[viewer], 3, &photos, &all, |_| Ok(())).is_err());
    }
}
