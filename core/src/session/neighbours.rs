//! The album as the initial weights see it, in a few numbers a photo.

use super::Session;
use super::build::CENTRE_PHOTOS;
use crate::Result;
use crate::distill::projection;
use crate::encoder::EMBEDDING_DIM;
use crate::eval::extract::{Extractor, Look};
use crate::nn::cpu::normalize;
use crate::nn::gemm::{Matrix, gemm_columns};

/// Photos whose features are held at a time.
const CHUNK: usize = 256;

impl Session {
    /// (photos, EMBEDDING_DIM): unit rows that keep the angles between the photos' features, after
    /// what all have in common is taken away (as `distill::Teacher` does); zeros for a photo that
    /// can't be read.
    pub(super) fn album_in_mind(&self) -> Result<Vec<f32>> {
        let extractor = Extractor {
            encoder: self.network(),
            source: &*self.source,
            image_size: self.config.image_size,
            normalise: &self.about.normalise,
        };
        let photos = self.source.len();
        let centre = self.mean_feature(&extractor)?;
        let dim = centre.len();
        let projection = projection(dim, self.config.seed);
        let mut album = vec![0.0; photos * EMBEDDING_DIM];
        let all: Vec<usize> = (0..photos).collect();
        for chunk in all.chunks(CHUNK) {
            let Ok(found) = extractor.features(chunk, &Look::Plain, |_| self.cancel.check()) else {
                self.cancel.check()?;
                continue;
            };
            let mut features = found.features.values;
            for row in features.chunks_exact_mut(dim) {
                row.iter_mut().zip(&centre).for_each(|(x, c)| *x -= c);
            }
            let mut rows = vec![0.0; found.photos.len() * EMBEDDING_DIM];
            gemm_columns(
                (found.photos.len(), EMBEDDING_DIM, dim),
                Matrix::rows(&features, dim),
                Matrix::rows(&projection, dim).transposed(),
                &mut rows,
                false,
            );
            normalize::forward(&mut rows, EMBEDDING_DIM);
            for (row, photo) in rows.chunks_exact(EMBEDDING_DIM).zip(found.photos) {
                album[photo * EMBEDDING_DIM..(photo + 1) * EMBEDDING_DIM].copy_from_slice(row);
            }
        }
        Ok(album)
    }

    /// The mean over a sample of the photos.
    pub(super) fn mean_feature(&self, extractor: &Extractor<'_>) -> Result<Vec<f32>> {
        let photos = self.source.len();
        // Spread evenly: a data set sorted by class must not give one class's mean.
        let sample: Vec<usize> = (0..photos.min(CENTRE_PHOTOS))
            .map(|i| i * photos / photos.min(CENTRE_PHOTOS))
            .collect();
        let found = extractor.features(&sample, &Look::Plain, |_| self.cancel.check())?;
        Ok(found
            .features
            .mean()
            .into_iter()
            .map(|x| x as f32)
            .collect())
    }
}
