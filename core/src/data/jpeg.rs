//! JPEG, the format nearly every photo has, decoded without the general path's copies.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::budget::{DecodeBudget, Share};
use super::image::{Decoded, Photo, from_dynamic};

/// Decodes a whole JPEG. Small damage is tolerated as browsers do; a file that was cut off is not,
/// because half a grey photo would teach nothing, and neither is one with next to nothing in it.
pub(super) fn decode<'a>(bytes: &[u8], budget: &'a DecodeBudget) -> Decoded<'a> {
    match decode_with(bytes, true, budget) {
        Err(Refused::Claims(reason)) => Err(reason),
        Err(Refused::Broken(reason)) if !has_end(bytes) => {
            Err(format!("cut off or broken: {reason}"))
        }
        Err(Refused::Broken(_)) => decode_with(bytes, false, budget).map_err(|refused| {
            let (Refused::Claims(reason) | Refused::Broken(reason)) = refused;
            reason
        }),
        Ok(whole) => Ok(whole),
    }
}

/// Why there is no photo.
enum Refused {
    /// Its header asks for what it can't have.
    Claims(String),
    /// The decoder gave up.
    Broken(String),
}

fn decode_with<'a>(
    bytes: &[u8],
    strict: bool,
    budget: &'a DecodeBudget,
) -> Result<(Photo, Share<'a>), Refused> {
    let broken = |e: zune_jpeg::errors::DecodeErrors| {
        let text = e.to_string();
        Refused::Broken(text.lines().next().unwrap_or("broken").to_string())
    };
    let odd = |text: &str| Refused::Broken(text.into());
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(1 << 16)
        .set_max_height(1 << 16);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().ok_or(odd("it has no size"))?;
    // Every 8 x 8 block costs one bit at the very least.
    let blocks = width.div_ceil(8) * height.div_ceil(8);
    let (scans, coded) = scans(bytes);
    if coded * 8 < blocks {
        return Err(Refused::Claims(format!(
            "claims {width} x {height} pixels and holds {coded} bytes of them"
        )));
    }
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (out, channels) = if grey {
        (ColorSpace::Luma, 1)
    } else {
        (ColorSpace::RGB, 3)
    };
    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    // Pixels; the coefficients (16 bits, of every component) that a file of several scans keeps
    // until the last; and the second copy that turning or spreading grey takes.
    let info = decoder.info().ok_or(odd("it has no header"))?;
    let mut bytes_a_pixel = channels;
    if scans > 1 || !info.sof.is_sequential_dct() {
        bytes_a_pixel += 2 * usize::from(info.components);
    }
    if grey || orientation != Orientation::NoTransforms {
        bytes_a_pixel += 3;
    }
    let share = budget
        .take((width * height * bytes_a_pixel) as u64)
        .map_err(Refused::Claims)?;
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let mut pixels = vec![0u8; width * height * channels];
    decoder.decode_into(&mut pixels).map_err(broken)?;
    if grey {
        pixels = pixels.iter().flat_map(|&v| [v; 3]).collect();
    }
    let photo = if orientation == Orientation::NoTransforms {
        Photo::new(width, height, pixels).map_err(|_| odd("it has no pixels"))?
    } else {
        let picture = RgbImage::from_raw(width as u32, height as u32, pixels)
            .ok_or(odd("its pixels don't fit its size"))?;
        from_dynamic(DynamicImage::ImageRgb8(picture), orientation).map_err(Refused::Broken)?
    };
    Ok((photo, share))
}

/// How many scans there are, and their bytes of coded pixels: what follows each start of a scan,
/// up to the next marker.
fn scans(bytes: &[u8]) -> (usize, usize) {
    let mut at = 2;
    let (mut scans, mut coded) = (0, 0);
    while let Some(&[0xFF, marker, high, low]) = bytes.get(at..at + 4) {
        // Fill bytes, and markers that stand alone.
        if marker == 0xFF || marker == 0x01 || (0xD0..=0xD8).contains(&marker) {
            at += if marker == 0xFF { 1 } else { 2 };
            continue;
        }
        if marker == 0xD9 {
            break;
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker != 0xDA {
            continue;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        // Inside a scan 0xFF is followed by 0 or by a restart marker.
        let len = rest
            .windows(2)
            .position(|pair| pair[0] == 0xFF && pair[1] != 0 && !(0xD0..=0xD7).contains(&pair[1]))
            .unwrap_or(rest.len());
        scans += 1;
        coded += len;
        at += len;
    }
    (scans, coded)
}

/// Whether an end-of-image marker follows the start of the pixels (inside them it cannot occur).
fn has_end(bytes: &[u8]) -> bool {
    let mut at = 2;
    // Segments before the pixels each tell their length; a thumbnail's own end lies inside one.
    while let Some(&[0xFF, marker, high, low]) = bytes.get(at..at + 4) {
        if marker == 0xDA {
            return bytes[at..].windows(2).any(|pair| pair == [0xFF, 0xD9]);
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
    false
}
