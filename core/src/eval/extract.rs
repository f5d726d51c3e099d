//! From photos to a matrix of features: the only part of this room that knows an encoder.

use super::Features;
use crate::data::resize::evaluation_view;
use crate::data::{Normalise, Photo, PhotoSource, Recipe, Scratch, Skipped};
use crate::encoder::FeatureNet;
use crate::rng::{Purpose, Rng};
use crate::{Error, Result};
use rayon::prelude::*;

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
pub enum Look {
    /// Its middle, unaltered, as torchvision's evaluation shows it.
    Plain,
    /// The same, left and right exchanged.
    Mirrored,
    /// A random view, always the same for the same seed, number and photo.
    View {
        /// The views it is drawn from.
        recipe: Recipe,
        /// Which of several views.
        number: u64,
        /// Where the randomness starts.
        seed: u64,
    },
}

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
    pub normalise: &'a Normalise,
}

/// Features of the photos that could be read, and what became of the others.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// One row for each readable photo, in the order asked for.
    pub features: Features,
    /// Which photo each row is of.
    pub photos: Vec<usize>,
    /// Photos that could not be read.
    pub skipped: Vec<Skipped>,
}

impl Extracted {
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
        look: &Look,
        done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Extracted> {
        let found = self.readable(indices, look, done)?;
        found.check(indices.len())?;
        Ok(found)
    }

    /// The same, where it may be that none of these photos can be read: they are some of many.
    ///
    /// # Errors
    /// The network refuses, or what `done` says.
    pub fn readable(
        &self,
        indices: &[usize],
        look: &Look,
        mut done: impl FnMut(usize) -> Result<()>,
    ) -> Result<Extracted> {
        let dim = self.encoder.feature_dim();
        let mut values = Vec::with_capacity(indices.len() * dim);
        let (mut photos, mut skipped) = (Vec::new(), Vec::new());
        let mut seen = 0;
        let size = (self.image_size, self.image_size);
        // What training left, and then what this leaves, would only lie beside the other.
        self.encoder.release();
        for chunk in indices.chunks(batch(self.image_size)) {
            let (images, found) = self.images(chunk, look, &mut skipped);
            if !images.is_empty() {
                values.extend(self.encoder.features_of(&images, size)?);
            }
            photos.extend(found);
            seen += chunk.len();
            done(seen)?;
        }
        self.encoder.release();
        Ok(Extracted {
            features: Features::new(photos.len(), dim, values)?,
            photos,
            skipped,
        })
    }

    /// The readable photos among `indices` as the network sees them, (height, width, 3) each; the
    /// others are added to `skipped`.
    pub fn images(
        &self,
        indices: &[usize],
        look: &Look,
        skipped: &mut Vec<Skipped>,
    ) -> (Vec<Vec<f32>>, Vec<usize>) {
        let size = self.image_size;
        let made: Vec<Result<Vec<f32>>> = indices
            .par_iter()
            .map(|&index| {
                self.source.with(index, |photo| {
                    let mut pixels = vec![0.0; size * size * 3];
                    look.write(&photo, index, size, self.normalise, &mut pixels);
                    pixels
                })
            })
            .collect();
        let (mut readable, mut pixels) = (Vec::new(), Vec::new());
        for (&index, made) in indices.iter().zip(made) {
            match made {
                Ok(image) => {
                    readable.push(index);
                    pixels.push(image);
                }
                Err(error) => skipped.push(Skipped {
                    id: self.source.id(index).into(),
                    reason: error.reason(),
                }),
            }
        }
        (pixels, readable)
    }
}

impl Look {
    /// Writes what the network sees of photo number `index`: `size * size * 3` numbers.
    pub(super) fn write(
        &self,
        photo: &Photo,
        index: usize,
        size: usize,
        norm: &Normalise,
        out: &mut [f32],
    ) {
        match self {
            Look::Plain => evaluation_view(photo, size, norm, out),
            Look::Mirrored => {
                evaluation_view(photo, size, norm, out);
                for row in out.chunks_exact_mut(3 * size) {
                    let pixels = row.as_chunks_mut::<3>().0;
                    pixels.reverse();
                }
            }
            Look::View {
                recipe,
                number,
                seed,
            } => {
                // Epoch 0 of this purpose belongs to the measurements themselves.
                let mut rng = Rng::new(*seed, Purpose::Measure, 1 + number, index as u64);
                let view = recipe.sample(photo.width, photo.height, &mut rng);
                view.apply(photo, size, norm, &mut Scratch::default(), out);
            }
        }
    }
}
