//! A decoded photo.

use crate::{Error, Result};

/// An upright 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Photo {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Rows from the top, pixels from the left, bytes R, G, B: `height * width * 3` of them.
    pub rgb: Vec<u8>,
}

impl Photo {
    /// A photo of the given size.
    ///
    /// # Errors
    /// `rgb` doesn't hold `width * height * 3` bytes, or a side is zero.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Photo> {
        if width == 0 || height == 0 || rgb.len() != width * height * 3 {
            return Err(Error::Shape {
                tensor: "photo".into(),
                expected: vec![height, width, 3],
                got: vec![rgb.len()],
            });
        }
        Ok(Photo { width, height, rgb })
    }
}
