//! Every format but JPEG and TIFF, by the `image` crate.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::budget::{DecodeBudget, Reservation};
use super::orientation::orientation;
use super::photo::Photo;

/// A photo, or why it is none.
pub(super) type Decoded<'a> = std::result::Result<(Photo, Reservation<'a>), String>;

/// Decodes `bytes`, which are of `format`.
pub(super) fn decode<'a>(
    bytes: &[u8],
    format: ImageFormat,
    budget: &'a DecodeBudget,
) -> Decoded<'a> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(budget.limit());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|e| one_line(&e))?;
    let (width, height) = decoder.dimensions();
    let block = decoder.exif_metadata().ok().flatten();
    let orientation = block.map_or(Orientation::NoTransforms, |block| orientation(&block));
    // What the decoder fills, and what becomes of it: upright, without alpha, in 8 bits.
    let pixels = u64::from(width) * u64::from(height);
    let reservation = budget.reserve(decoder.total_bytes().saturating_add(3 * pixels))?;
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| one_line(&e))?;
    Ok((from_dynamic(picture, orientation)?, reservation))
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
        // Where nothing is to be seen at all, alpha was never written.
        let unwritten = rgba.pixels().all(|p| p.0[3] == 0);
        let over_white = |v: u8, a: u8| {
            let (v, a) = (u32::from(v), u32::from(a));
            ((v * a + 255 * (255 - a) + 127) / 255) as u8
        };
        let flat = rgba
            .pixels()
            .flat_map(|p| {
                let alpha = if unwritten { 255 } else { p.0[3] };
                [0, 1, 2].map(|c| over_white(p.0[c], alpha))
            })
            .collect();
        image::RgbImage::from_raw(w, h, flat).ok_or("its pixels don't fit its size")?
    } else {
        picture.into_rgb8()
    };
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    Photo::new(width, height, rgb.into_raw()).map_err(|_| "it has no pixels".into())
}

/// A color of CMYK's as one of RGB's: what an ink and black leave of white.
pub(super) fn left_by(ink: u8, black: u8) -> u8 {
    let product = u16::from(255 - ink) * u16::from(255 - black);
    ((u32::from(product) + 127) / 255) as u8
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or("broken").into()
}
