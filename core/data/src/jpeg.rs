//! JPEG, the format nearly every photo has, decoded without the general path's copies.
//!
//! Two decoders: a fast one for what cameras and programs usually write, and one that is right about the rest
//! (components in scans of their own, chroma finer than luma, bytes between segments, no Huffman tables).

mod segments;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use jpeg_decoder::PixelFormat;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::budget::{DecodeBudget, Reservation};
use super::image::{Decoded, from_dynamic, left_by};
use super::orientation::orientation;
use super::photo::Photo;
use segments::Segments;

/// Decodes a whole JPEG. Small damage is tolerated as browsers do; a file that was cut off is not,
/// because half a gray photo would teach nothing, and neither is one with next to nothing in it.
pub(super) fn decode<'a>(bytes: &[u8], budget: &'a DecodeBudget) -> Decoded<'a> {
    let segments = Segments::parse(bytes);
    if segments.is_between() {
        return Err("components of three sizes in scans of their own are not decoded here".into());
    }
    let frame = (&segments, budget);
    let decoded = match segments.is_usual() {
        true => decode_usual(bytes, true, frame),
        false => decode_unusual(bytes, frame),
    };
    match decoded {
        Ok(whole) => Ok(whole),
        Err(Refused::Claims(reason)) => Err(reason),
        Err(Refused::Broken(reason)) if !segments.ended => {
            Err(format!("cut off or broken: {reason}"))
        }
        Err(Refused::Broken(reason)) if !segments.is_usual() => Err(reason),
        Err(Refused::Broken(_)) => decode_usual(bytes, false, frame).map_err(|refused| {
            let (Refused::Claims(reason) | Refused::Broken(reason)) = refused;
            reason
        }),
    }
}

/// Why there is no photo.
enum Refused {
    /// Its header asks for what it can't have.
    Claims(String),
    /// The decoder gave up.
    Broken(String),
}

fn broken(error: impl std::fmt::Display) -> Refused {
    let text = error.to_string();
    Refused::Broken(text.lines().next().unwrap_or("broken").to_string())
}

/// Refuses a frame of more pixels than the bytes of its scans can hold: every 8 x 8 block costs one bit at
/// the very least.
fn check_claim((width, height): (usize, usize), segments: &Segments<'_>) -> Result<(), Refused> {
    let blocks = width.div_ceil(8) * height.div_ceil(8);
    match segments.coded * 8 < blocks {
        false => Ok(()),
        true => Err(Refused::Claims(format!(
            "claims {width} x {height} pixels and holds {} bytes of them",
            segments.coded
        ))),
    }
}

/// By zune-jpeg.
fn decode_usual<'a>(
    bytes: &[u8],
    strict: bool,
    (segments, budget): (&Segments<'_>, &'a DecodeBudget),
) -> Result<(Photo, Reservation<'a>), Refused> {
    let odd = |text: &str| Refused::Broken(text.into());
    let options = DecoderOptions::default()
        .set_strict_mode(strict)
        .set_max_width(1 << 16)
        .set_max_height(1 << 16);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().ok_or(odd("it has no size"))?;
    check_claim((width, height), segments)?;
    let gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (out, channels) = if gray {
        (ColorSpace::Luma, 1)
    } else {
        (ColorSpace::RGB, 3)
    };
    let orientation = segments.exif.map_or(Orientation::NoTransforms, orientation);
    // Coefficients (16 bits, of every component) that a file of several scans keeps until the last.
    let kept = match segments.scans > 1 || segments.progressive {
        true => 2 * segments.sampling.len(),
        false => 0,
    };
    // Pixels, and the second copy that turning or spreading gray takes for a moment.
    let turned = orientation != Orientation::NoTransforms;
    let copies = match (gray, turned) {
        (false, false) => 3,
        (true, false) => 4,
        (_, true) => 6,
    };
    let bytes = |a_pixel: usize| (width * height * a_pixel) as u64;
    let most = bytes(kept.max(copies - channels) + channels);
    // Rather half the size than not at all: a portrait from a phone's camera is stored lying.
    let half = turned && !gray && most > budget.limit();
    let reservation = budget
        .reserve(if half { bytes(kept + channels) } else { most })
        .map_err(Refused::Claims)?;
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let mut pixels = vec![0u8; width * height * channels];
    decoder.decode_into(&mut pixels).map_err(broken)?;
    drop(decoder);
    let (width, height) = match half {
        true => halve(&mut pixels, width, height),
        false => (width, height),
    };
    if gray {
        pixels = pixels.iter().flat_map(|&v| [v; 3]).collect();
    }
    Ok((upright((width, height), pixels, orientation)?, reservation))
}

/// A segment by which jpeg-decoder knows a picture of a video without Huffman tables of its own, and takes
/// the standard's.
const OF_A_VIDEO: &[u8] = b"\xFF\xE0\0\x07AVI1\0";

/// By jpeg-decoder.
fn decode_unusual<'a>(
    bytes: &[u8],
    (segments, budget): (&Segments<'_>, &'a DecodeBudget),
) -> Result<(Photo, Reservation<'a>), Refused> {
    let with_tables = segments
        .bare
        .then(|| [&bytes[..2], OF_A_VIDEO, &bytes[2..]].concat());
    let mut decoder = jpeg_decoder::Decoder::new(with_tables.as_deref().unwrap_or(bytes));
    decoder.read_info().map_err(broken)?;
    let info = decoder.info().ok_or(broken("it has no header"))?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    check_claim((width, height), segments)?;
    let orientation = segments.exif.map_or(Orientation::NoTransforms, orientation);
    // Coefficients of all components, each in full size; then planes and pixels; then what turns them.
    let components = segments.sampling.len().max(1);
    let most = width * height * (3 * components).max(components + 3).max(6);
    let reservation = budget.reserve(most as u64).map_err(Refused::Claims)?;
    decoder.set_max_decoding_buffer_size(most);
    let pixels = decoder.decode().map_err(broken)?;
    let pixels = match info.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.iter().flat_map(|&v| [v; 3]).collect(),
        PixelFormat::CMYK32 => {
            let inks = pixels.as_chunks::<4>().0.iter();
            inks.flat_map(|&[c, m, y, k]| [c, m, y].map(|ink| left_by(ink, k)))
                .collect()
        }
        PixelFormat::L16 => return Err(broken("samples of more than 8 bits")),
    };
    Ok((upright((width, height), pixels, orientation)?, reservation))
}

/// A photo of these pixels, turned as they ask to be.
fn upright(
    (width, height): (usize, usize),
    pixels: Vec<u8>,
    orientation: Orientation,
) -> Result<Photo, Refused> {
    if orientation == Orientation::NoTransforms {
        return Photo::new(width, height, pixels).map_err(|_| broken("it has no pixels"));
    }
    let picture = RgbImage::from_raw(width as u32, height as u32, pixels)
        .ok_or_else(|| broken("its pixels don't fit its size"))?;
    from_dynamic(DynamicImage::ImageRgb8(picture), orientation).map_err(Refused::Broken)
}

/// Averages two by two pixels (R, G, B) in place and returns the new width and height; an odd last
/// row or column is left out.
fn halve(pixels: &mut Vec<u8>, width: usize, height: usize) -> (usize, usize) {
    let (w, h) = ((width / 2).max(1), (height / 2).max(1));
    let (right, below) = (3 * (width > 1) as usize, 3 * width * (height > 1) as usize);
    for y in 0..h {
        for i in 0..3 * w {
            // What is written lies before all that is still to be read.
            let at = 2 * y * 3 * width + i / 3 * 6 + i % 3;
            let four = [at, at + right, at + below, at + right + below];
            let sum: u32 = four.iter().map(|&at| u32::from(pixels[at])).sum();
            pixels[y * 3 * w + i] = ((sum + 2) / 4) as u8;
        }
    }
    pixels.truncate(3 * w * h);
    pixels.shrink_to_fit();
    (w, h)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::codecs::jpeg::JpegEncoder;

    #[test]
    fn halving_averages_in_place() {
        let mut pixels: Vec<u8> = (0..5 * 3 * 3).map(|i| i as u8 * 2).collect();
        let expected: Vec<u8> = (0..2 * 3)
            .map(|i| {
                let at = i / 3 * 6 + i % 3;
                let four = [at, at + 3, at + 15, at + 18].map(|at| at as u32 * 2);
                ((four.iter().sum::<u32>() + 2) / 4) as u8
            })
            .collect();
        assert_eq!(halve(&mut pixels, 5, 3), (2, 1));
        assert_eq!(pixels, expected);
        let mut one = vec![1, 2, 3];
        assert_eq!(halve(&mut one, 1, 1), (1, 1));
        assert_eq!(one, [1, 2, 3]);
    }

    #[test]
    fn a_lying_portrait_is_halved_where_turning_it_takes_too_much() {
        let picture = image::RgbImage::from_fn(1600, 1200, |x, y| {
            image::Rgb([(x / 8) as u8, (y / 8) as u8, 90])
        });
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 95)
            .encode_image(&picture)
            .unwrap();
        // EXIF: one entry, orientation 6 (turn clockwise).
        let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        let mut lying = jpeg[..2].to_vec();
        lying.extend([0xFF, 0xE1, 0, exif.len() as u8 + 2]);
        lying.extend(exif);
        lying.extend(&jpeg[2..]);

        let (enough, tight) = (DecodeBudget::megabytes(12), DecodeBudget::megabytes(8));
        let (whole, _) = decode(&lying, &enough).unwrap();
        assert_eq!((whole.width, whole.height), (1200, 1600));
        let (half, reservation) = decode(&lying, &tight).unwrap();
        assert_eq!((half.width, half.height), (600, 800));
        drop(reservation);
        // Top left of the upright photo is bottom left of the stored one.
        assert!(half.rgb[0] < 5 && half.rgb[1] > 140, "{:?}", &half.rgb[..3]);
        assert!(decode(&jpeg, &tight).is_ok());
        assert!(decode(&lying, &DecodeBudget::megabytes(5)).is_err());
    }
}
