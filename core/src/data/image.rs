//! A decoded photo, and decoding: whatever a camera or an archive holds becomes upright 8-bit RGB.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::budget::{DecodeBudget, Share};
use super::{jpeg, resize};
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

    /// Decodes JPEG, PNG, WebP, BMP, GIF (its first frame) or TIFF, told apart by content.
    ///
    /// EXIF orientation is applied; grey, CMYK and 16-bit pictures become 8-bit RGB;
    /// transparency is laid over white. `id` only names the photo in errors.
    ///
    /// # Errors
    /// [`Error::Photo`] for anything that is not a whole picture of a known format, or takes more
    /// than the usual [`DecodeBudget`].
    pub fn decode(id: &str, bytes: &[u8]) -> Result<Photo> {
        let budget = DecodeBudget::default();
        Photo::decode_within(id, bytes, &budget).map(|(photo, _)| photo)
    }

    /// The same within a shared budget; the photo's share of it comes along.
    pub(super) fn decode_within<'a>(
        id: &str,
        bytes: &[u8],
        budget: &'a DecodeBudget,
    ) -> Result<(Photo, Share<'a>)> {
        // Decoders are given whatever lies in the folder: one that panics must not end a run.
        catch_unwind(AssertUnwindSafe(|| decode(bytes, budget)))
            .unwrap_or_else(|_| Err(DECODER_PANICKED.into()))
            .map_err(|reason| Error::Photo {
                photo: id.into(),
                reason,
            })
    }

    /// This photo with its shorter side reduced to at most `side` (never enlarged).
    pub fn shrunk(self, side: usize) -> Photo {
        if self.width.min(self.height) <= side {
            return self;
        }
        resize::shorter_side(&self, side)
    }
}

/// The reason given where a decoder panicked.
pub const DECODER_PANICKED: &str = "the decoder failed on it";

/// A photo, or why it is none.
pub(super) type Decoded<'a> = std::result::Result<(Photo, Share<'a>), String>;

fn decode<'a>(bytes: &[u8], budget: &'a DecodeBudget) -> Decoded<'a> {
    if bytes.is_empty() {
        return Err("empty file".into());
    }
    if let Some(name) = foreign_format(bytes) {
        return Err(format!(
            "{name} is not decoded here; convert it to JPEG or PNG first"
        ));
    }
    let format = image::guess_format(bytes).map_err(|_| "not an image format known here")?;
    if format == ImageFormat::Jpeg {
        return jpeg::decode(bytes, budget);
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(budget.limit());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| one_line(&e))?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    // What the decoder fills, and what becomes of it: upright, without alpha, in 8 bits.
    let pixels = u64::from(width) * u64::from(height);
    let share = budget.take(decoder.total_bytes().saturating_add(3 * pixels))?;
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| one_line(&e))?;
    Ok((from_dynamic(picture, orientation)?, share))
}

/// Turns upright, composites transparency over white and drops to 8 bits.
pub(super) fn from_dynamic(
    mut picture: DynamicImage,
    orientation: Orientation,
) -> std::result::Result<Photo, String> {
    picture.apply_orientation(orientation);
    let rgb = if picture.color().has_alpha() {
        let rgba = picture.into_rgba8();
        let (w, h) = rgba.dimensions();
        let over_white = |v: u8, a: u8| {
            let (v, a) = (u32::from(v), u32::from(a));
            ((v * a + 255 * (255 - a) + 127) / 255) as u8
        };
        let flat = rgba
            .pixels()
            .flat_map(|p| [0, 1, 2].map(|c| over_white(p.0[c], p.0[3])))
            .collect();
        image::RgbImage::from_raw(w, h, flat).ok_or("its pixels don't fit its size")?
    } else {
        picture.into_rgb8()
    };
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Photo::new(width, height, rgb.into_raw()).map_err(|_| "it has no pixels".into())
}

/// Names the phone formats that would need a video decoder (ISO media files, by brand).
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8)? != b"ftyp" {
        return None;
    }
    match bytes.get(8..12)? {
        b"avif" | b"avis" => Some("AVIF"),
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1" => {
            Some("HEIC")
        }
        _ => None,
    }
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or("broken").into()
}
