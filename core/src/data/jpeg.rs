//! JPEG, the format nearly every photo has, decoded without the general path's copies.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::image::{MAX_DECODED_BYTES, Photo, from_dynamic};

/// Decodes a whole JPEG. Small damage is tolerated as browsers do; a file that was cut off is not,
/// because half a grey photo would teach nothing.
pub(super) fn decode(bytes: &[u8]) -> Result<Photo, String> {
    match decode_with(bytes, true) {
        Err(reason) if !has_end(bytes) => Err(format!("cut off or broken: {reason}")),
        Err(_) => decode_with(bytes, false),
        whole => whole,
    }
}

fn decode_with(bytes: &[u8], strict: bool) -> Result<Photo, String> {
    let one_line = |e: zune_jpeg::errors::DecodeErrors| {
        let text = e.to_string();
        text.lines().next().unwrap_or("broken").to_string()
    };
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(1 << 16)
        .set_max_height(1 << 16);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(one_line)?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    if (width * height * 3) as u64 > MAX_DECODED_BYTES {
        return Err(format!(
            "claims {width} x {height} pixels, more than is allowed"
        ));
    }
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (out, channels) = if grey {
        (ColorSpace::Luma, 1)
    } else {
        (ColorSpace::RGB, 3)
    };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let mut pixels = vec![0u8; width * height * channels];
    decoder.decode_into(&mut pixels).map_err(one_line)?;
    let orientation = decoder
        .exif()
        .and_then(|exif| Orientation::from_exif_chunk(exif))
        .unwrap_or(Orientation::NoTransforms);
    if grey {
        pixels = pixels.iter().flat_map(|&v| [v; 3]).collect();
    }
    if orientation == Orientation::NoTransforms {
        return Photo::new(width, height, pixels).map_err(|_| "it has no pixels".into());
    }
    let picture = RgbImage::from_raw(width as u32, height as u32, pixels)
        .ok_or("its pixels don't fit its size")?;
    from_dynamic(DynamicImage::ImageRgb8(picture), orientation)
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
