//! Pixels that the platform has decoded (HEIC, a camera's frame), kept small.

use std::io::Cursor;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

use super::photo::Photo;
use crate::{Error, Result};

/// Pixels are kept at this size of their shorter side, or their own: more than any view needs.
pub(super) const KEPT_SIDE: usize = 320;
/// Quality of what they are kept as.
const KEPT_QUALITY: u8 = 95;

/// What the fourth byte of a pixel means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpha {
    /// How opaque it is; the colors know nothing of it.
    Straight,
    /// The same, with the colors multiplied by it (Android's bitmaps).
    Premultiplied,
    /// Nothing.
    Ignored,
}

/// `height` rows of `width` pixels R, G, B, A, upright, where the platform has them.
#[derive(Clone, Copy, Debug)]
pub struct Pixels<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from the beginning of a row to that of the next.
    pub stride: usize,
    /// What the fourth byte means.
    pub alpha: Alpha,
    /// The rows; what the last one has beyond its pixels may be missing.
    pub bytes: &'a [u8],
}

impl<'a> Pixels<'a> {
    /// Rows that follow one another without a gap.
    pub fn packed((width, height): (u32, u32), bytes: &'a [u8]) -> Pixels<'a> {
        Pixels {
            width,
            height,
            stride: width as usize * 4,
            alpha: Alpha::Straight,
            bytes,
        }
    }

    /// What is kept of them: a JPEG over white, its shorter side at most 320 pixels. They are read where
    /// they lie.
    ///
    /// # Errors
    /// There are none, or `bytes` is not of that size; the photo is called `id` then.
    pub fn reduced(&self, id: &str) -> Result<Vec<u8>> {
        let wrong = |reason: String| Error::Photo {
            photo: id.into(),
            reason,
        };
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        let (row, stride) = (width * 4, self.stride as u64);
        let got = self.bytes.len() as u64;
        // Without gaps exactly so many; with them, the last row may end with its last pixel.
        let whole = stride.checked_mul(height);
        let least = whole.map(|whole| whole - stride.min(whole) + row);
        let fits =
            least.is_some_and(|least| got >= least) && whole.is_some_and(|whole| got <= whole);
        if row * height == 0 || stride < row || !fits {
            let (width, height, expected) = (self.width, self.height, row.saturating_mul(height));
            return Err(wrong(format!(
                "{width} x {height} pixels are {expected} bytes, not {got}"
            )));
        }
        // Whole blocks of pixels first: as they lie in the app's memory, without a copy of them all.
        let block = (self.width.min(self.height) as usize / (2 * KEPT_SIDE)).max(1);
        let kept = self.blocks_over_white(block)?.shrunk(KEPT_SIDE);
        let mut bytes = Cursor::new(Vec::new());
        let size = (kept.width as u32, kept.height as u32);
        JpegEncoder::new_with_quality(&mut bytes, KEPT_QUALITY)
            .encode(&kept.rgb, size.0, size.1, ExtendedColorType::Rgb8)
            .map_err(|e| wrong(format!("it cannot be kept ({e})")))?;
        Ok(bytes.into_inner())
    }

    /// Means of `block` x `block` pixels over white; what is over at the right and below is left out.
    fn blocks_over_white(&self, block: usize) -> Result<Photo> {
        let width = self.width as usize;
        let (across, down) = (width / block, self.height as usize / block);
        let mut rgb = Vec::with_capacity(across * down * 3);
        let mut sums = vec![[0u32; 3]; across];
        // A channel's part of white, and of itself, in 255ths.
        let most = 255 * (block * block) as u32;
        for rows in self.bytes.chunks(self.stride * block).take(down) {
            sums.fill([0; 3]);
            for row in rows.chunks(self.stride) {
                for (sum, pixels) in sums.iter_mut().zip(row.chunks_exact(4 * block)) {
                    for pixel in pixels.chunks_exact(4) {
                        let alpha = u32::from(pixel[3]);
                        let (of_itself, of_white) = match self.alpha {
                            Alpha::Straight => (alpha, 255 - alpha),
                            Alpha::Premultiplied => (255, 255 - alpha),
                            Alpha::Ignored => (255, 0),
                        };
                        for (sum, &channel) in sum.iter_mut().zip(pixel) {
                            // Colors that claim more than their part are no more than white.
                            let seen = u32::from(channel) * of_itself + 255 * of_white;
                            *sum += seen.min(255 * 255);
                        }
                    }
                }
            }
            let means = sums.iter().flatten();
            rgb.extend(means.map(|sum| ((sum + most / 2) / most) as u8));
        }
        Photo::new(across, down, rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(pixels: &Pixels) -> Photo {
        let bytes = pixels.reduced("a").unwrap();
        Photo::decode("a", &bytes).unwrap()
    }

    #[track_caller]
    fn assert_color(photo: &Photo, at: usize, wanted: [i32; 3]) {
        let got = &photo.rgb[at * 3..at * 3 + 3];
        let near = got
            .iter()
            .zip(wanted)
            .all(|(&got, wanted)| (i32::from(got) - wanted).abs() <= 3);
        assert!(near, "{got:?}, not {wanted:?}");
    }

    #[test]
    fn alpha_is_what_it_is_said_to_be() {
        // Half transparent red, straight and multiplied, is the same over white.
        for (alpha, pixel, wanted) in [
            (Alpha::Straight, [200, 0, 0, 128], [227, 127, 127]),
            (Alpha::Premultiplied, [100, 0, 0, 128], [227, 127, 127]),
            (Alpha::Ignored, [200, 0, 0, 0], [200, 0, 0]),
            (Alpha::Premultiplied, [255, 255, 255, 0], [255, 255, 255]),
        ] {
            let bytes = pixel.repeat(64 * 48);
            let pixels = Pixels {
                alpha,
                ..Pixels::packed((64, 48), &bytes)
            };
            assert_color(&kept(&pixels), 0, wanted);
        }
    }

    #[test]
    fn gaps_between_rows_are_not_read() {
        let (width, height, stride) = (650usize, 1300usize, 650 * 4 + 24);
        let mut bytes = vec![0; stride * height];
        for row in bytes.chunks_mut(stride) {
            for pixel in row[..width * 4].chunks_mut(4) {
                pixel.copy_from_slice(&[10, 200, 30, 255]);
            }
        }
        // With and without the gap behind the last row.
        for length in [bytes.len(), bytes.len() - 24] {
            let photo = kept(&Pixels {
                width: width as u32,
                height: height as u32,
                stride,
                alpha: Alpha::Straight,
                bytes: &bytes[..length],
            });
            assert_eq!((photo.width, photo.height), (KEPT_SIDE, KEPT_SIDE * 2));
            assert_color(&photo, 0, [10, 200, 30]);
            assert_color(&photo, photo.width * photo.height - 1, [10, 200, 30]);
        }
    }

    #[test]
    fn sizes_that_lie_are_refused() {
        for (width, height, stride, length) in [
            (2, 2, 8, 15),
            (2, 2, 8, 17),
            (0, 2, 0, 0),
            (2, 2, 4, 16),
            (2, 2, 16, 23),
            (2, 2, 16, 33),
            (u32::MAX, u32::MAX, usize::MAX, 16),
        ] {
            let pixels = Pixels {
                width,
                height,
                stride,
                alpha: Alpha::Straight,
                bytes: &vec![0; length],
            };
            assert!(pixels.reduced("a").is_err(), "{width} {height} {stride}");
        }
    }
}
