//! Decoding: every format, upright and in color, against Pillow; and everything that is broken.

use std::path::Path;

use safetensors::SafeTensors;
use seedling_core::Error;
use seedling_core::data::Photo;
use seedling_core::data::decode::DECODER_PANICKED;

fn golden() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/photos.safetensors");
    std::fs::read(path).unwrap()
}

fn file(name: &str) -> Vec<u8> {
    let bytes = golden();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.tensor(name).unwrap().data().to_vec()
}

/// JPEG decoders may differ by a level or two (more where chroma is enlarged).
fn tolerance(name: &str) -> (u8, f64) {
    match name {
        "subsampled.jpg" => (8, 1.0),
        name if name.ends_with(".jpg") => (2, 0.1),
        _ => (0, 0.0),
    }
}

#[test]
fn every_format_is_decoded_as_pillow_does() {
    let bytes = golden();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<_> = tensors
        .names()
        .into_iter()
        .filter(|n| !n.ends_with(".rgb"))
        .collect();
    names.sort_unstable();
    assert!(names.len() >= 28);
    for name in names {
        let expected = tensors.tensor(&format!("{name}.rgb")).unwrap();
        let photo = Photo::decode(name, tensors.tensor(name).unwrap().data()).unwrap();
        assert_eq!(expected.shape(), [photo.height, photo.width, 3], "{name}");
        let off = photo
            .rgb
            .iter()
            .zip(expected.data())
            .map(|(a, b)| a.abs_diff(*b));
        let worst = off.clone().max().unwrap();
        let mean = off.map(f64::from).sum::<f64>() / photo.rgb.len() as f64;
        println!("{name}: worst {worst}, mean {mean:.3}");
        let (allowed, allowed_mean) = tolerance(name);
        assert!(
            worst <= allowed && mean <= allowed_mean,
            "{name}: {worst}, {mean}"
        );
    }
}

#[test]
fn sixteen_bit_color_is_rounded() {
    let deep = image::ImageBuffer::from_fn(9, 7, |x, y| {
        image::Rgb([x as u16 * 8000, y as u16 * 9000, 65535 - x as u16 * 100])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    image::DynamicImage::ImageRgb16(deep.clone())
        .write_to(&mut png, image::ImageFormat::Png)
        .unwrap();
    let photo = Photo::decode("deep", png.get_ref()).unwrap();
    for (byte, deep) in photo.rgb.iter().zip(deep.as_raw()) {
        assert!((f64::from(*byte) - f64::from(*deep) / 257.0).abs() <= 0.51);
    }
}

/// Alpha that was never written hides nothing; alpha that was is laid over white.
#[test]
fn alpha_of_zero_throughout_is_none() {
    let picture = |alpha: fn(u32) -> u8| {
        image::RgbaImage::from_fn(9, 7, |x, y| {
            image::Rgba([x as u8 * 20, y as u8 * 30, 90, alpha(x)])
        })
    };
    for format in [
        image::ImageFormat::Bmp,
        image::ImageFormat::Png,
        image::ImageFormat::WebP,
    ] {
        let decoded = |alpha| {
            let (picture, mut file) = (picture(alpha), std::io::Cursor::new(Vec::new()));
            picture.write_to(&mut file, format).unwrap();
            Photo::decode("alpha", file.get_ref()).unwrap().rgb
        };
        let opaque = decoded(|_| 255);
        assert_eq!(opaque[3..6], [20, 0, 90]);
        assert!(decoded(|_| 0) == opaque, "{format:?}");
        let partly = decoded(|x| if x == 0 { 0 } else { 255 });
        assert_eq!(
            (&partly[..3], &partly[3..6]),
            (&[255; 3][..], &opaque[3..6]),
            "{format:?}"
        );
    }
}

fn reason(bytes: &[u8]) -> String {
    match Photo::decode("album/x.jpg", bytes).unwrap_err() {
        Error::Photo { photo, reason } => {
            assert_eq!(photo, "album/x.jpg");
            assert!(!reason.is_empty() && !reason.contains('\n'), "{reason}");
            reason
        }
        other => panic!("{other}"),
    }
}

#[test]
fn broken_files_are_refused() {
    assert_eq!(reason(b""), "empty file");
    reason(b"not an image at all, just text");
    reason(&[0xFF, 0xD8]);
    reason(&[0xFF, 0xD8, 0xFF]);
    reason(&[0; 5000]);
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "cmyk.jpg",
        "plain.png",
        "plain.gif",
        "plain.tiff",
        "lossless.webp",
        "plain.bmp",
    ] {
        let whole = file(name);
        for part in [whole.len() / 10, whole.len() / 3, whole.len() * 2 / 3] {
            println!("{name} cut at {part}: {}", reason(&whole[..part]));
        }
    }
}

#[test]
fn a_flipped_bit_never_panics() {
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "plain.png",
        "plain.gif",
        "lzw.tiff",
        "lossless.webp",
        "plain.bmp",
        "cmyk.jpg",
    ] {
        let whole = file(name);
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            // Decoding catches a decoder's panics, and says so.
            if let Err(error) = Photo::decode(name, &damaged) {
                let error = error.to_string();
                assert!(!error.contains(DECODER_PANICKED), "byte {at} of {error}");
            }
        }
    }
}

#[test]
fn a_header_cannot_claim_gigabytes() {
    // A valid small BMP whose header says 60,000 x 60,000.
    let mut bmp = file("plain.bmp");
    bmp[18..22].copy_from_slice(&60_000u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&60_000u32.to_le_bytes());
    println!("{}", reason(&bmp));
    let mut jpeg = file("baseline.jpg");
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
    assert!(reason(&jpeg).contains("65535"), "{}", reason(&jpeg));
}

#[test]
fn an_almost_empty_scan_is_no_photo() {
    let with_size = |name: &str, frame: u8, width: u16, height: u16| {
        let mut bytes = file(name);
        let at = bytes.windows(2).position(|pair| pair == [0xFF, frame]);
        let at = at.unwrap() + 5;
        bytes[at..at + 2].copy_from_slice(&height.to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
        bytes
    };
    let started = std::time::Instant::now();
    for (name, frame) in [("progressive.jpg", 0xC2), ("baseline.jpg", 0xC0)] {
        let mut huge = with_size(name, frame, 65_500, 3200);
        let text = reason(&huge);
        assert!(text.contains("claims 65500 x 3200"), "{text}");
        // What is not a scan does not count: a comment, or whatever follows the end.
        huge.extend(vec![7; 1 << 20]);
        let comment = [&[0xFF, 0xFE, 0xFF, 0xFF][..], &[7; 65_533]].concat();
        (0..8).for_each(|_| drop(huge.splice(2..2, comment.iter().copied())));
        let text = reason(&huge);
        assert!(text.contains("claims 65500 x 3200"), "{text}");
        Photo::decode(name, &file(name)).unwrap();
    }
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn plain_surfaces_are_photos() {
    // The emptiest that is whole: one color throughout.
    let white = image::GrayImage::from_pixel(1600, 1200, image::Luma([255]));
    for quality in [1, 50, 100] {
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, quality)
            .encode_image(&white)
            .unwrap();
        let photo = Photo::decode("white.jpg", &jpeg).unwrap();
        assert!(photo.rgb.iter().all(|&v| v >= 254), "quality {quality}");
    }
}

#[test]
fn phone_formats_are_named() {
    let heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    assert!(reason(heic).contains("HEIC"));
    let avif = b"\0\0\0\x18ftypavif\0\0\0\0mif1avif";
    assert!(reason(avif).contains("AVIF"));
}

/// TIFFs of scanners, microscopes and cameras (tests/golden/tiffs.py).
#[test]
fn tiffs_of_every_kind_are_decoded_as_pillow_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/tiffs.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let names = tensors.names();
    let mut wrong = Vec::new();
    let files = names.iter().filter_map(|name| name.strip_suffix(".tiff"));
    for name in files {
        let data = tensors.tensor(&format!("{name}.tiff")).unwrap();
        let expected = tensors.tensor(&format!("{name}.rgb")).unwrap();
        // JPEG decoders differ by a level or two; so do mixtures of inks, and of what is transparent.
        let allowed = match name {
            name if name.contains("jpeg") => 8,
            "cmyk" | "rgba" | "gray alpha" | "ycbcr" => 2,
            _ => 0,
        };
        match Photo::decode(name, data.data()) {
            // The one that no decoder here knows.
            Err(error) if name == "bilevel group3" && error.to_string().contains("Fax3") => {}
            Err(error) => wrong.push(error.to_string()),
            Ok(photo) => {
                assert_eq!(expected.shape(), [photo.height, photo.width, 3], "{name}");
                let pairs = photo.rgb.iter().zip(expected.data());
                let worst = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                if worst > allowed {
                    wrong.push(format!("{name}: {worst}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(names.len() >= 2 * 30);
}
