//! What goes into a network.

use crate::backend::Backend;
use crate::cpu::Cpu;
use seedling_base::error::{Error, Result};

/// RGB images (n, height, width, 3), row-major, normalized. Made by [`super::Encoder::images`].
#[derive(Debug)]
pub struct Images<B: Backend = Cpu> {
    /// In memory of the backend.
    pub pixels: B::Buf,
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
    pub fn new(
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
}
