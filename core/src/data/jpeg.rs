//! JPEG, the format nearly every photo has, decoded without the general path's copies.

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::budget::{DecodeBudget, Share};
use super::image::{Decoded, from_dynamic};
use super::photo::Photo;

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
    // Coefficients (16 bits, of every component) that a file of several scans keeps until the last.
    let info = decoder.info().ok_or(odd("it has no header"))?;
    let several = scans > 1 || !info.sof.is_sequential_dct();
    let kept = if several {
        2 * usize::from(info.components)
    } else {
        0
    };
    // Pixels, and the second copy that turning or spreading grey takes for a moment.
    let turned = orientation != Orientation::NoTransforms;
    let copies = match (grey, turned) {
        (false, false) => 3,
        (true, false) => 4,
        (_, true) => 6,
    };
    let bytes = |a_pixel: usize| (width * height * a_pixel) as u64;
    let most = bytes(kept.max(copies - channels) + channels);
    // Rather half the size than not at all: a portrait from a phone's camera is stored lying.
    let half = turned && !grey && most > budget.limit();
    let share = budget
        .take(if half { bytes(kept + channels) } else { most })
        .map_err(Refused::Claims)?;
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let mut pixels = vec![0u8; width * height * channels];
    decoder.decode_into(&mut pixels).map_err(broken)?;
    drop(decoder);
    let (width, height) = match half {
        true => halve(&mut pixels, width, height),
        false => (width, height),
    };
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
        let (half, share) = decode(&lying, &tight).unwrap();
        assert_eq!((half.width, half.height), (600, 800));
        drop(share);
        // Top left of the upright photo is bottom left of the stored one.
        assert!(half.rgb[0] < 5 && half.rgb[1] > 140, "{:?}", &half.rgb[..3]);
        assert!(decode(&jpeg, &tight).is_ok());
        assert!(decode(&lying, &DecodeBudget::megabytes(5)).is_err());
    }
}
