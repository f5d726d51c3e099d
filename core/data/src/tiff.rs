//! TIFF: what scanners, microscopes and cameras put into it, by the `tiff` crate; turned into 8-bit RGB as
//! Pillow does.

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, RgbaImage};
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::budget::DecodeBudget;
use super::image::{Decoded, from_dynamic, left_by};

/// Values of the tag that says what samples mean.
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;

/// Decodes the first picture of a file.
pub(super) fn decode<'a>(bytes: &[u8], budget: &'a DecodeBudget) -> Decoded<'a> {
    // The crate reads no palettes: places in one are gray values to it, and become colors here.
    let indexed = photometric(bytes).filter(|(_, meaning)| *meaning == PALETTE);
    let bytes = match indexed {
        None => Cow::Borrowed(bytes),
        Some((at, _)) => {
            let mut gray = bytes.to_vec();
            let value = match gray.starts_with(b"II") {
                true => BLACK_IS_ZERO.to_le_bytes(),
                false => BLACK_IS_ZERO.to_be_bytes(),
            };
            gray[at..at + 2].copy_from_slice(&value);
            Cow::Owned(gray)
        }
    };
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(budget.limit()).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    let mut decoder = Decoder::new(Cursor::new(&*bytes))
        .map_err(|e| reason(&e))?
        .with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(|e| reason(&e))?;
    let color = decoder.colortype().map_err(|e| reason(&e))?;
    let samples = usize::from(color.num_samples());
    let orientation = decoder
        .find_tag_unsigned::<u8>(Tag::Orientation)
        .ok()
        .flatten();
    let orientation = orientation
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms);
    let palette = match indexed {
        None => Vec::new(),
        Some(_) => decoder
            .get_tag_u16_vec(Tag::ColorMap)
            .map_err(|e| reason(&e))?,
    };
    // Beside the colors: 1 and 2 are alpha, 0 is not said.
    let extra = decoder
        .find_tag_unsigned_vec::<u16>(Tag::ExtraSamples)
        .ok()
        .flatten();
    let alpha = extra.is_some_and(|extra| matches!(extra.first(), Some(1 | 2)));
    let pixels = u64::from(width) * u64::from(height);
    let layout = decoder.image_buffer_layout().map_err(|e| reason(&e))?;
    // Samples as they are stored, as bytes, as pixels, and turned.
    let reservation = budget
        .reserve((layout.complete_len as u64).saturating_add(pixels * (samples as u64 + 8)))?;
    let mut stored = DecodingResult::U8(Vec::new());
    let layout = decoder
        .read_image_to_buffer(&mut stored)
        .map_err(|e| reason(&e))?;
    let (width, height) = (width as usize, height as usize);
    let depth = u32::from(color.bit_depth());
    let planes = layout.planes.max(1);
    let row = samples / planes * width;
    let mut bytes = match stored {
        DecodingResult::U8(packed) if depth < 8 => unpacked(&packed, (row, height * planes), depth),
        stored => as_bytes(stored, !palette.is_empty()),
    };
    if planes > 1 {
        let plane = width * height;
        bytes = (0..plane * samples)
            .map(|i| {
                bytes
                    .get(i % samples * plane + i / samples)
                    .copied()
                    .unwrap_or(0)
            })
            .collect();
    }
    if bytes.len() < width * height * samples {
        return Err("holds fewer samples than pixels".into());
    }
    // Numbers of fewer than 8 bits are fractions of the largest; places in a palette are what they are.
    if palette.is_empty() && depth < 8 {
        let most = (1u32 << depth) - 1;
        bytes
            .iter_mut()
            .for_each(|v| *v = (u32::from(*v) * 255 / most) as u8);
    }
    let rgba = pixels_of(&bytes, color, samples, (&palette, alpha))?;
    let picture = RgbaImage::from_raw(width as u32, height as u32, rgba)
        .ok_or("its pixels don't fit its size")?;
    Ok((
        from_dynamic(DynamicImage::ImageRgba8(picture), orientation)?,
        reservation,
    ))
}

fn reason(error: &tiff::TiffError) -> String {
    error.to_string().lines().next().unwrap_or("broken").into()
}

/// R, G, B and alpha of every pixel; what stands beside gray is `alpha`, or means nothing.
fn pixels_of(
    bytes: &[u8],
    color: ColorType,
    samples: usize,
    (palette, alpha): (&[u16], bool),
) -> Result<Vec<u8>, String> {
    let pixels = bytes.chunks_exact(samples);
    let all = |of: &dyn Fn(&[u8]) -> [u8; 4]| pixels.clone().flat_map(of).collect();
    Ok(match color {
        ColorType::Gray(_) if !palette.is_empty() => {
            let size = palette.len() / 3;
            all(&|p| {
                let place = usize::from(p[0]).min(size.saturating_sub(1));
                // Red, green and blue one behind the other, 16 bits each.
                let part = |n: usize| palette.get(n * size + place).map_or(0, |v| (v >> 8) as u8);
                [part(0), part(1), part(2), 255]
            })
        }
        ColorType::Gray(_) => all(&|p| [p[0], p[0], p[0], 255]),
        ColorType::GrayA(_) => all(&|p| [p[0], p[0], p[0], p[1]]),
        ColorType::Multiband { num_samples: 2, .. } => {
            all(&|p| [p[0], p[0], p[0], if alpha { p[1] } else { 255 }])
        }
        ColorType::RGB(_) => all(&|p| [p[0], p[1], p[2], 255]),
        ColorType::RGBA(_) => all(&|p| [p[0], p[1], p[2], p[3]]),
        ColorType::CMYK(_) | ColorType::CMYKA(_) => all(&|p| {
            [
                left_by(p[0], p[3]),
                left_by(p[1], p[3]),
                left_by(p[2], p[3]),
                255,
            ]
        }),
        ColorType::YCbCr(_) => all(&|p| {
            let [y, cb, cr] = [
                f32::from(p[0]),
                f32::from(p[1]) - 128.0,
                f32::from(p[2]) - 128.0,
            ];
            let byte = |v: f32| v.round().clamp(0.0, 255.0) as u8;
            // ITU-R BT.601, full range, as JPEG.
            [
                byte(y + 1.402 * cr),
                byte(y - 0.344_136 * cb - 0.714_136 * cr),
                byte(y + 1.772 * cb),
                255,
            ]
        }),
        other => return Err(format!("{other:?} is not decoded here")),
    })
}

/// Samples of fewer than 8 bits, of rows that begin with whole bytes.
fn unpacked(packed: &[u8], (row, rows): (usize, usize), depth: u32) -> Vec<u8> {
    let stride = (row * depth as usize).div_ceil(8);
    let mask = (1u16 << depth) - 1;
    let mut out = Vec::with_capacity(row * rows);
    for line in packed.chunks(stride.max(1)).take(rows) {
        for i in 0..row {
            let bit = i * depth as usize;
            // A sample may lie in two bytes (depths of 3, 5, 6 or 7).
            let two =
                [bit / 8, bit / 8 + 1].map(|at| u16::from(line.get(at).copied().unwrap_or(0)));
            let shift = 16 - bit % 8 - depth as usize;
            out.push(((two[0] << 8 | two[1]) >> shift & mask) as u8);
        }
    }
    out
}

/// Samples as bytes: of 16 bits their upper half, rounded; all wider ones, and signed ones, cut to 0..255 as
/// Pillow does; floating-point ones likewise, but where all lie between 0 and 1.
fn as_bytes(samples: DecodingResult, places: bool) -> Vec<u8> {
    let cut = |v: i64| v.clamp(0, 255) as u8;
    match samples {
        DecodingResult::U8(all) => all,
        DecodingResult::U16(all) if places => all.into_iter().map(|v| v.min(255) as u8).collect(),
        DecodingResult::U16(all) => all
            .into_iter()
            .map(|v| ((u32::from(v) + 128) / 257) as u8)
            .collect(),
        DecodingResult::U32(all) => all.into_iter().map(|v| cut(v.into())).collect(),
        DecodingResult::U64(all) => all.into_iter().map(|v| v.min(255) as u8).collect(),
        DecodingResult::I8(all) => all.into_iter().map(|v| cut(v.into())).collect(),
        DecodingResult::I16(all) => all.into_iter().map(|v| cut(v.into())).collect(),
        DecodingResult::I32(all) => all.into_iter().map(|v| cut(v.into())).collect(),
        DecodingResult::I64(all) => all.into_iter().map(cut).collect(),
        DecodingResult::F16(all) => of_floats(all.into_iter().map(|v| v.to_f64())),
        DecodingResult::F32(all) => of_floats(all.into_iter().map(f64::from)),
        DecodingResult::F64(all) => of_floats(all.into_iter()),
    }
}

fn of_floats(all: impl Iterator<Item = f64> + Clone) -> Vec<u8> {
    let unit = all.clone().all(|v| v.is_nan() || (0.0..=1.0).contains(&v));
    let scale = if unit { 255.0 } else { 1.0 };
    // A float that is no number becomes 0.
    all.map(|v| (v * scale) as u8).collect()
}

/// What the samples of the first picture mean (tag 262), and where that stands. Everything is looked up, nothing
/// believed.
fn photometric(bytes: &[u8]) -> Option<(usize, u16)> {
    let little = match bytes.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let number = |at: usize, len: usize| -> Option<u64> {
        let part = bytes.get(at..at.checked_add(len)?)?;
        let step = |n: u64, byte: &u8| n << 8 | u64::from(*byte);
        Some(match little {
            true => part.iter().rev().fold(0, step),
            false => part.iter().fold(0, step),
        })
    };
    let big = number(2, 2)? == 43;
    // Where the directory's place, its count and an entry's value stand.
    let (first, width, entry, value) = match big {
        true => (number(8, 8)?, 8, 20, 12),
        false => (number(4, 4)?, 2, 12, 8),
    };
    let first = usize::try_from(first).ok()?;
    let count = usize::try_from(number(first, width)?).ok()?.min(1 << 16);
    for n in 0..count {
        let at = first.checked_add(width + n * entry)?;
        if number(at, 2)? == 262 {
            return Some((at + value, number(at + value, 2)? as u16));
        }
    }
    None
}
