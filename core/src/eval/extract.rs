//! From photos to a matrix of features: the only part of this room that knows an encoder.

use super::Features;
use crate::data::resize::evaluation_view;
use crate::data::{Normalise, Photo, PhotoSource, Recipe, Scratch};
use crate::encoder::{Encoder, Images};
use crate::rng::{Purpose, Rng};
use crate::{Error, Result};
use rayon::prelude::*;

/// Photos that are decoded and computed at a time: enough for all threads, few enough that
/// measuring takes no more memory than training.
fn batch() -> usize {
    (4 * rayon::current_num_threads()).clamp(8, 64)
}

/// How a photo is shown to the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Look {
    /// Its middle, unaltered, as torchvision's evaluation shows it.
    Plain,
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
    pub encoder: &'a Encoder,
    /// The photos.
    pub source: &'a dyn PhotoSource,
    /// Side of the images given to the network, in pixels.
    pub image_size: usize,
    /// How pixels become inputs.
    pub normalise: &'a Normalise,
}

impl Extractor<'_> {
    /// Features of the photos at `indices`, and the indices of those that could be read: one row
    /// each, in order. `done` is told the number of photos after every batch.
    ///
    /// # Errors
    /// The network refuses, or no photo can be read.
    pub fn features(
        &self,
        indices: &[usize],
        look: &Look,
        mut done: impl FnMut(usize),
    ) -> Result<(Features, Vec<usize>)> {
        let dim = self.encoder.feature_dim();
        let (mut values, mut readable) = (Vec::with_capacity(indices.len() * dim), Vec::new());
        let mut seen = 0;
        for chunk in indices.chunks(batch()) {
            let (images, found) = self.images(chunk, look)?;
            if let Some(images) = images {
                values.extend(self.encoder.features(&images));
            }
            readable.extend(found);
            seen += chunk.len();
            done(seen);
        }
        if readable.is_empty() && !indices.is_empty() {
            return Err(Error::NoPhotos(format!(
                "none of {} photos could be read{}",
                indices.len(),
                self.first_reason(indices)
            )));
        }
        Ok((Features::new(readable.len(), dim, values)?, readable))
    }

    /// The readable photos among `indices` as one batch, `None` for none.
    ///
    /// # Errors
    /// `image_size` is 0.
    pub fn images(&self, indices: &[usize], look: &Look) -> Result<(Option<Images>, Vec<usize>)> {
        let size = self.image_size;
        let made: Vec<(usize, Vec<f32>)> = indices
            .par_iter()
            .filter_map(|&index| {
                let photo = self.source.load(index).ok()?;
                let mut pixels = vec![0.0; size * size * 3];
                look.write(&photo, index, size, self.normalise, &mut pixels);
                Some((index, pixels))
            })
            .collect();
        if made.is_empty() {
            return Ok((None, Vec::new()));
        }
        let (readable, pixels): (Vec<usize>, Vec<Vec<f32>>) = made.into_iter().unzip();
        let images = self.encoder.images(pixels.len(), (size, size), |out| {
            for (image, out) in pixels.iter().zip(out.chunks_exact_mut(size * size * 3)) {
                out.copy_from_slice(image);
            }
        })?;
        Ok((Some(images), readable))
    }

    /// Why the first photo could not be read, for an error message.
    fn first_reason(&self, indices: &[usize]) -> String {
        indices
            .first()
            .and_then(|&index| self.source.load(index).err())
            .map_or_else(String::new, |error| format!("; the first: {error}"))
    }
}

impl Look {
    /// Writes what the network sees of photo number `index`: `size * size * 3` numbers.
    fn write(&self, photo: &Photo, index: usize, size: usize, norm: &Normalise, out: &mut [f32]) {
        match self {
            Look::Plain => evaluation_view(photo, size, norm, out),
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
