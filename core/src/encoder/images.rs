//! What goes into a network.

use crate::data::{Normalise, Photo, ViewParams};
use crate::error::{Error, Result};
use crate::nn::backend::Backend;
use crate::nn::cpu::Cpu;

/// RGB images (n, height, width, 3), row-major, normalised. Made by [`super::Encoder::images`].
#[derive(Debug)]
pub struct Images<B: Backend = Cpu> {
    pub(crate) pixels: B::Buf,
    /// How many.
    pub n: usize,
    /// Height and width.
    pub size: (usize, usize),
}

impl<B: Backend> Images<B> {
    /// In memory of `backend`, which `fill` writes.
    ///
    /// # Errors
    /// There would be no pixel.
    pub(crate) fn new(
        backend: &B,
        n: usize,
        size: (usize, usize),
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<Images<B>> {
        let len = n * size.0 * size.1 * 3;
        if len == 0 {
            return Err(Error::Shape {
                tensor: "images".into(),
                expected: vec![0, 0, 0, 3],
                got: vec![n, size.0, size.1, 3],
            });
        }
        let pixels = backend.upload(len, fill)?;
        Ok(Images { pixels, n, size })
    }

    /// Views of photos that `backend` makes, `side` pixels wide and high.
    ///
    /// # Errors
    /// The backend's.
    pub(crate) fn of_views(
        backend: &B,
        views: &[(&Photo, &ViewParams)],
        side: usize,
        normalise: &Normalise,
    ) -> Result<Images<B>> {
        Ok(Images {
            pixels: backend.views(views, side, normalise)?,
            n: views.len(),
            size: (side, side),
        })
    }
}
