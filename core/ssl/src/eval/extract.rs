//! From photos to a matrix of features: the only part of this room that knows an encoder.

use super::Features;
use crate::{Error, Result};
use rayon::prelude::*;
use seedling_base::rng::{Purpose, Rng};
use seedling_data::resize::{Filter, evaluation_bytes, shrunk};
use seedling_data::{Normalize, Photo, PhotoSource, Recipe, Scratch, Skipped};
use seedling_nn::encoder::FeatureNet;
use std::slice::from_ref;

/// Photos that are decoded and computed at a time, at most.
const BATCH: usize = 16;
/// Pixels of them, at most, for more than [`LEAST_BATCH`] photos: measuring takes less memory than
/// training.
const PIXELS: usize = 4 * 224 * 224;
/// Photos at a time, at least.
const LEAST_BATCH: usize = 2;

/// Photos of `side` x `side` pixels that are computed at a time.
pub fn batch(side: usize) -> usize {
    (PIXELS / (side * side).max(1)).clamp(LEAST_BATCH, BATCH)
}

/// How a photo is shown to the network.
#[derive(Clone, Debug, PartialEq)]
pub enum EvalView {
    /// Its middle, unaltered, as torchvision's evaluation shows it.
    Plain,
    /// The same, resized by a cubic, as the transfer protocol shows it.
    PlainBicubic,
    /// The same as [`EvalView::Plain`], left and right exchanged.
    Mirrored,
    /// A random view, always the same for the same seed, number and photo.
    Random {
        /// The views it is drawn from.
        recipe: Recipe,
        /// Which of several views.
        number: u64,
        /// Where the randomness starts.
        seed: u64,
    },
    /// A random crop of the photo in its own size, mirrored every other time: what a linear layer is trained on.
    Crop {
        /// Least and greatest part of the photo's area.
        scale: (f32, f32),
        /// How it is resized.
        filter: Filter,
        /// As for [`EvalView::Random`].
        number: u64,
        seed: u64,
    },
}

/// The first number of a [`EvalView::Crop`]'s random stream; those before belong to [`EvalView::Random`].
const CROPS: u64 = 1000;

/// Reads photos and asks an encoder about them.
#[derive(Clone, Copy)]
pub struct Extractor<'a> {
    /// The network, on its running statistics.
    pub encoder: &'a dyn FeatureNet,
    /// The photos.
    pub source: &'a dyn PhotoSource,
    /// Side of the images given to the network, in pixels.
    pub image_size: usize,
    /// How pixels become inputs.
    pub normalize: &'a Normalize,
}

/// Features of the photos that could be read, and what became of the others. `F` is a matrix, or one for
/// each of several views of the same photo.
#[derive(Clone, Debug)]
pub struct Extracted<F = Features> {
    /// One row for each readable photo, in the order asked for.
    pub features: F,
    /// Which photo each row is of.
    pub photos: Vec<usize>,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
}

impl<F> Extracted<F> {
    /// Refuses features of no photo at all, out of `asked`.
    ///
    /// # Errors
    /// [`Error::NoPhotos`] with the first photo's reason.
    pub fn check(&self, asked: usize) -> Result<()> {
        match (self.photos.is_empty(), self.skipped.first()) {
            (true, Some(first)) => Err(Error::NoPhotos(format!(
                "none of {asked} photos could be read; the first, {}: {}",
                first.id, first.reason
            ))),
            _ => Ok(()),
        }
    }

    /// The same photos with other features.
    pub fn map<G>(self, features: impl FnOnce(F) -> G) -> Extracted<G> {
        Extracted {
            features: features(self.features),
            photos: self.photos,
            skipped: self.skipped,
        }
    }
}

impl Extractor<'_> {
    /// Features of the photos at `indices`. `done` is told the number of photos after every batch,
    /// and may stop the work by an error.
    ///
    /// # Errors
    /// The network refuses, no photo can be read, or what `done` says.
    pub fn features(
        &self,
        indices: &[usize],
        view: &EvalView,
        done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Extracted> {
        let found = self.readable(indices, from_ref(view), done)?;
        found.check(indices.len())?;
        Ok(found.map(|mut features| features.pop().unwrap_or_default()))
    }

    /// A matrix for each of `views`, where it may be that none of these photos can be read: they are some
    /// of many. Every photo is decoded once.
    ///
    /// # Errors
    /// The network refuses, or what `done` says.
    pub fn readable(
        &self,
        indices: &[usize],
        views: &[EvalView],
        mut done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Extracted<Vec<Features>>> {
        let dim = self.encoder.feature_dim();
        let mut values = vec![Vec::with_capacity(indices.len() * dim); views.len()];
        let (mut photos, mut skipped) = (Vec::new(), Vec::new());
        let mut seen = 0;
        let size = (self.image_size, self.image_size);
        // What training left, and then what this leaves, would only lie beside the other.
        self.encoder.release();
        let views: Vec<(usize, &EvalView)> =
            views.iter().map(|view| (self.image_size, view)).collect();
        for chunk in indices.chunks(batch(self.image_size)) {
            let (found, images) = read(self.source, chunk, &views, &mut skipped);
            if !found.is_empty() {
                for (place, values) in values.iter_mut().enumerate() {
                    // Bytes until they are needed: all views as floats would be the larger part of the work.
                    let images = floats(&images, place, self.normalize);
                    values.extend(self.encoder.features_of(&images, size)?);
                }
            }
            photos.extend(found);
            seen += chunk.len();
            done(seen)?;
        }
        self.encoder.release();
        let features = values
            .into_iter()
            .map(|values| Features::new(photos.len(), dim, values));
        Ok(Extracted {
            features: features.collect::<Result<_>>()?,
            photos,
            skipped,
        })
    }

    /// The readable photos among `indices` as the network sees them unaltered, (height, width, 3) each; the
    /// others are added to `skipped`.
    pub fn images(&self, indices: &[usize], skipped: &mut Vec<Skipped>) -> Vec<Vec<f32>> {
        let (_, images) = read(
            self.source,
            indices,
            &[(self.image_size, &EvalView::Plain)],
            skipped,
        );
        floats(&images, 0, self.normalize)
    }
}

/// The readable photos among `indices`, and what each shows by `views` ([`shown`]); the others are added to
/// `skipped`.
pub(super) fn read(
    source: &dyn PhotoSource,
    indices: &[usize],
    views: &[(usize, &EvalView)],
    skipped: &mut Vec<Skipped>,
) -> (Vec<usize>, Vec<Vec<Vec<u8>>>) {
    let made: Vec<Result<Vec<Vec<u8>>>> = indices
        .par_iter()
        .map(|&index| source.with_photo(index, |photo| shown(&photo, index, views)))
        .collect();
    let (mut readable, mut images) = (Vec::new(), Vec::new());
    for (&index, made) in indices.iter().zip(made) {
        match made {
            Ok(shown) => {
                readable.push(index);
                images.push(shown);
            }
            Err(error) => skipped.push(Skipped {
                id: source.id(index).into(),
                reason: error.reason(),
            }),
        }
    }
    (readable, images)
}

/// What [`read`] gave by the view at `place`, as a network reads it.
pub(super) fn floats(images: &[Vec<Vec<u8>>], place: usize, norm: &Normalize) -> Vec<Vec<f32>> {
    let float = |shown: &Vec<Vec<u8>>| {
        let mut pixels = vec![0.0; shown[place].len()];
        norm.apply(&shown[place], &mut pixels);
        pixels
    };
    images.par_iter().map(float).collect()
}

/// What a network is shown of photo number `index` by each of some views, at its side in pixels:
/// `side * side * 3` bytes each. Resizing a large photo is most of the work, and done once for views that
/// can share it.
fn shown(photo: &Photo, index: usize, views: &[(usize, &EvalView)]) -> Vec<Vec<u8>> {
    let mut shown: Vec<Vec<u8>> = Vec::new();
    // The plain photo's place among them, and the photo that views are drawn from, each by its side.
    let (mut plain, mut small) = (None, None);
    for (place, &(side, view)) in views.iter().enumerate() {
        let pixels = match view {
            EvalView::Plain => {
                plain = Some((side, place));
                evaluation_bytes(photo, side, Filter::Bilinear)
            }
            EvalView::PlainBicubic => evaluation_bytes(photo, side, Filter::Bicubic),
            EvalView::Mirrored => {
                let mut pixels = match plain {
                    Some((same, place)) if same == side => shown[place].clone(),
                    _ => evaluation_bytes(photo, side, Filter::Bilinear),
                };
                for row in pixels.chunks_exact_mut(3 * side) {
                    row.as_chunks_mut::<3>().0.reverse();
                }
                pixels
            }
            EvalView::Random {
                recipe,
                number,
                seed,
            } => {
                // As in training: from a photo that is not much larger than its views.
                let photo = match &mut small {
                    Some((same, small)) if *same == side => &*small,
                    small => &small.insert((side, shrunk(photo, 2 * side))).1,
                };
                // Epoch 0 of this purpose belongs to the measurements themselves.
                let mut rng = Rng::new(*seed, Purpose::Measure, 1 + number, index as u64);
                let view = recipe.sample(photo.width, photo.height, &mut rng);
                let mut pixels = vec![0; side * side * 3];
                view.render(photo, side, &mut Scratch::default(), &mut pixels);
                pixels
            }
            &EvalView::Crop {
                scale,
                filter,
                number,
                seed,
            } => {
                let recipe = Recipe {
                    scale,
                    ..Recipe::PLAIN
                };
                let mut rng = Rng::new(seed, Purpose::Measure, CROPS + number, index as u64);
                let view = recipe.sample(photo.width, photo.height, &mut rng);
                let mut pixels = vec![0; side * side * 3];
                view.render_by(filter, photo, side, &mut Scratch::default(), &mut pixels);
                pixels
            }
        };
        shown.push(pixels);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::measured::view;
    use seedling_data::demo::Demo;

    #[test]
    fn views_together_are_each_view_alone() {
        let photo = Demo::new(1, 0).unwrap().load(0).unwrap();
        // Smaller than the photo, so that views are drawn from a smaller one, and larger.
        let (small, large) = (photo.height / 4, photo.height);
        let views = [view(0, 3).unwrap(), view(1, 3).unwrap()];
        let views = [
            (small, &EvalView::Plain),
            (small, &EvalView::Mirrored),
            (small, &views[0]),
            (small, &views[1]),
            (large, &views[0]),
            (large, &EvalView::Mirrored),
        ];
        let together = shown(&photo, 5, &views);
        for (view, together) in views.into_iter().zip(&together) {
            let alone = shown(&photo, 5, &[view]);
            assert!(alone[0] == *together, "{view:?}");
            assert_eq!(together.len(), view.0 * view.0 * 3);
        }
        assert!(together[0] != together[1] && together[2] != together[3]);
    }
}
