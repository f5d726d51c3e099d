//! What a photo's header says, without decoding it.

use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::Path;

use imagesize::ImageSize;

/// How large a photo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Pixels across, as they are stored.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Bytes of the encoded photo.
    pub encoded: usize,
}

impl Outline {
    /// Of a file; `None` where it says nothing. Reads its first few kilobytes.
    pub fn of_file(path: &Path) -> Option<Outline> {
        let file = File::open(path).ok()?;
        let encoded = file.metadata().ok()?.len() as usize;
        let size = imagesize::reader_size(BufReader::new(file)).ok()?;
        Some(Outline::new(size, encoded))
    }

    /// Of an encoded photo in memory.
    pub fn of_bytes(bytes: &[u8]) -> Option<Outline> {
        let size = imagesize::reader_size(Cursor::new(bytes)).ok()?;
        Some(Outline::new(size, bytes.len()))
    }

    fn new(size: ImageSize, encoded: usize) -> Outline {
        Outline {
            width: size.width,
            height: size.height,
            encoded,
        }
    }

    /// How many pixels it has.
    pub fn pixels(self) -> usize {
        self.width.saturating_mul(self.height)
    }

    /// Bytes of its pixels once its shorter side is shrunk to `side`.
    pub fn shrunk_bytes(self, side: usize) -> usize {
        let (short, long) = (self.width.min(self.height), self.width.max(self.height));
        let side = side.min(short);
        3 * side * long.saturating_mul(side).div_ceil(short.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_how_large_photos_are() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.jpg", "a.png", "a.webp", "a.bmp", "a.gif", "a.tiff"] {
            let path = folder.path().join(name);
            image::RgbImage::new(40, 30).save(&path).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let outline = Outline::of_file(&path).unwrap();
            assert_eq!((outline.width, outline.height), (40, 30), "{name}");
            assert_eq!(outline.encoded, bytes.len());
            assert_eq!(Outline::of_bytes(&bytes), Some(outline));
        }
        assert_eq!(Outline::of_bytes(b"garbage"), None);
        assert_eq!(Outline::of_file(&folder.path().join("none")), None);
        let photo = Outline {
            width: 4000,
            height: 3000,
            encoded: 1,
        };
        assert_eq!(photo.shrunk_bytes(300), 300 * 400 * 3);
        assert_eq!(photo.shrunk_bytes(9000), 4000 * 3000 * 3);
    }
}
