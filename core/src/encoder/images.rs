//! What goes into a network.

use std::ops::Deref;

use crate::error::{Error, Result};
use crate::nn::workspace::{Buffer, Workspace};

/// RGB images (n, height, width, 3), row-major, normalised. Made by [`super::Encoder::images`].
#[derive(Debug)]
pub struct Images {
    pixels: Buffer,
    /// How many.
    pub n: usize,
    /// Height and width.
    pub size: (usize, usize),
}

impl Images {
    /// In a buffer of `workspace`, which `fill` writes.
    ///
    /// # Errors
    /// There would be no pixel.
    pub(super) fn new(
        workspace: &Workspace,
        n: usize,
        size: (usize, usize),
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<Images> {
        let len = n * size.0 * size.1 * 3;
        if len == 0 {
            return Err(Error::Shape {
                tensor: "images".into(),
                expected: vec![0, 0, 0, 3],
                got: vec![n, size.0, size.1, 3],
            });
        }
        let mut pixels = workspace.take(len);
        fill(&mut pixels);
        Ok(Images { pixels, n, size })
    }

    /// To change them in place.
    pub(crate) fn pixels_mut(&mut self) -> &mut [f32] {
        &mut self.pixels
    }
}

impl Deref for Images {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.pixels
    }
}
