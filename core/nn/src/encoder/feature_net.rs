//! Features of a network without knowing its backend.

use super::{Encoder, Mode};
use crate::Result;
use crate::backend::ForwardOps;

/// A network on whatever backend, for those who only want its features: measurements and searches.
/// Images are (height, width, 3), normalized.
pub trait FeatureNet: Send + Sync {
    /// Length of a feature vector.
    fn feature_dim(&self) -> usize;

    /// Features (n, feature_dim) of images of `size` (height, width), on the running statistics.
    ///
    /// # Errors
    /// There is no image, or the backend's.
    fn features_of(&self, images: &[Vec<f32>], size: (usize, usize)) -> Result<Vec<f32>>;

    /// Gives memory that waits to be used again back to the system: before work of other shapes.
    fn release(&self);
}

impl<B: ForwardOps> FeatureNet for Encoder<B> {
    fn feature_dim(&self) -> usize {
        Encoder::feature_dim(self)
    }

    fn features_of(&self, images: &[Vec<f32>], size: (usize, usize)) -> Result<Vec<f32>> {
        self.features(&self.images(images.len(), size, |out| lay(images, out))?)
    }

    fn release(&self) {
        self.backend().release();
    }
}

impl<B: ForwardOps> Encoder<B> {
    /// Moves the running statistics towards those of the images by `norm_momentum`.
    ///
    /// # Errors
    /// There is no image, or the backend's.
    pub fn observe(
        &mut self,
        images: &[Vec<f32>],
        size: (usize, usize),
        norm_momentum: f32,
    ) -> Result<()> {
        let images = self.images(images.len(), size, |out| lay(images, out))?;
        self.embed_in(&images, Mode::train(norm_momentum)).map(drop)
    }
}

fn lay(images: &[Vec<f32>], out: &mut [f32]) {
    for (image, out) in images
        .iter()
        .zip(out.chunks_exact_mut(out.len() / images.len()))
    {
        out.copy_from_slice(image);
    }
}
