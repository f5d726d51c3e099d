//! The dataset as the initial weights, or a teacher, see it, in a few numbers a photo.

use super::Session;
use crate::Result;
use seedling_nn::cpu::l2_normalize;
use seedling_nn::gemm::{MatMul, Matrix, gemm_columns};
use seedling_ssl::eval::Features;
use seedling_ssl::eval::extract::{EvalView, Extractor};
use seedling_ssl::teacher::projection;

/// Photos whose features are held at a time.
const CHUNK: usize = 256;

impl Session {
    /// Whether training wants to know which photos are near each other, and does not yet.
    pub fn wants_neighbors(&self) -> bool {
        self.wants_initial_embeddings()
    }

    /// Keeps these features of the photos in mind: `photos` says which photo each row is of. Training then
    /// holds near each other what is near by them.
    ///
    /// # Errors
    /// The backend's.
    pub fn keep_in_mind(&mut self, features: &Features, photos: &[usize]) -> Result<()> {
        let to = self.config().head.embedding_dim();
        let mut embeddings = vec![0.0; self.source().len() * to];
        let rows = features.normalized();
        let projection = match rows.dim > to {
            true => projection(rows.dim, to, self.config().seed),
            false => Vec::new(),
        };
        for (row, &photo) in rows.iter().zip(photos) {
            let place = &mut embeddings[photo * to..(photo + 1) * to];
            match rows.dim > to {
                false => place[..rows.dim].copy_from_slice(row),
                true => {
                    let (row, onto) = (
                        Matrix::rows(row, rows.dim),
                        Matrix::rows(&projection, rows.dim),
                    );
                    gemm_columns(
                        MatMul {
                            m: 1,
                            n: to,
                            k: rows.dim,
                        },
                        row,
                        onto.transposed(),
                        place,
                        false,
                    );
                    l2_normalize::forward(place, to);
                }
            }
        }
        self.set_initial_embeddings(embeddings)
    }

    /// (photos, dim of an embedding): unit rows that keep the angles between the photos' features, after
    /// what all have in common is taken away (as `teacher::Teacher` does); zeros for a photo that
    /// can't be read.
    pub(super) fn initial_embeddings(&self) -> Result<Vec<f32>> {
        let (encoder, rescale) = self.knows_neighbors();
        let ours = self.metadata().normalize;
        // A teacher's pixels are factor * ours + offset.
        let (mut normalize, mut image_size) = (ours, self.metadata().image_size);
        if let Some(rescale) = rescale {
            for (c, (factor, offset)) in rescale.into_iter().enumerate() {
                normalize.std[c] = ours.std[c] / factor;
                normalize.mean[c] = ours.mean[c] - offset * normalize.std[c];
            }
            image_size = match self.config().teacher_size {
                0 => self.config().image_size,
                side => side,
            };
        }
        let extractor = Extractor {
            encoder,
            source: &**self.source(),
            image_size,
            normalize: &normalize,
        };
        let all: Vec<usize> = (0..self.source().len()).collect();
        let dim = encoder.feature_dim();
        let to = self.config().head.embedding_dim();
        let projection = projection(dim, to, self.config().seed);
        let project = |rows: &[f32], out: &mut [f32]| {
            let n = rows.len() / dim;
            gemm_columns(
                MatMul {
                    m: n,
                    n: to,
                    k: dim,
                },
                Matrix::rows(rows, dim),
                Matrix::rows(&projection, dim).transposed(),
                out,
                false,
            );
        };
        let mut embeddings = vec![0.0; all.len() * to];
        let (mut sum, mut known) = (vec![0.0f64; dim], Vec::new());
        for chunk in all.chunks(CHUNK) {
            let Ok(found) = extractor.features(chunk, &EvalView::Plain, |_| self.cancel().check())
            else {
                self.cancel().check()?;
                continue;
            };
            for row in found.features.iter() {
                sum.iter_mut().zip(row).for_each(|(s, &x)| *s += x as f64);
            }
            let mut rows = vec![0.0; found.photos.len() * to];
            project(&found.features.values, &mut rows);
            for (row, &photo) in rows.chunks_exact(to).zip(&found.photos) {
                embeddings[photo * to..(photo + 1) * to].copy_from_slice(row);
            }
            known.extend(found.photos);
        }
        // A projection is linear: the mean may be taken away behind it, and one view is enough.
        let mean: Vec<f32> = sum
            .iter()
            .map(|s| (s / known.len() as f64) as f32)
            .collect();
        let mut center = vec![0.0; to];
        project(&mean, &mut center);
        for photo in known {
            let row = &mut embeddings[photo * to..(photo + 1) * to];
            row.iter_mut().zip(&center).for_each(|(x, c)| *x -= c);
            l2_normalize::forward(row, to);
        }
        Ok(embeddings)
    }
}
