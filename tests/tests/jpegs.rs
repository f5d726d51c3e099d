//! JPEGs as libjpeg writes them, and as people have them: every sampling, scan order and restart interval, bytes
//! between segments, no Huffman tables. Pixels are compared with Pillow's.

use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::SafeTensors;
use seedling_core::data::Photo;
use seedling_tests::require;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// How far the photo lies from `expected`: the largest difference and the mean one.
fn difference(photo: &Photo, expected: &[u8]) -> (u8, f64) {
    assert_eq!(photo.rgb.len(), expected.len());
    let off = photo.rgb.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let mean = off.clone().map(f64::from).sum::<f64>() / expected.len() as f64;
    (off.max().unwrap_or(0), mean)
}

/// What neither decoder gets right is refused, and said to be.
const REFUSED: &str = "components of three sizes";

/// What is wrong. Rounding apart, decoders may differ in how they enlarge chroma, and in how they mix inks.
fn check(
    name: &str,
    bytes: &[u8],
    (height, width): (usize, usize),
    expected: &[u8],
) -> Option<String> {
    match Photo::decode(name, bytes) {
        // Luma four times as fine as it could be, and chroma twice: no camera writes that.
        Err(error) if name.contains(" 4x") && error.to_string().contains(REFUSED) => None,
        Err(error) => Some(error.to_string()),
        Ok(photo) if (photo.height, photo.width) != (height, width) => {
            Some(format!("{name}: {} x {}", photo.width, photo.height))
        }
        Ok(photo) => {
            let (worst, mean) = difference(&photo, expected);
            (worst > 8 || mean > 1.0).then(|| format!("{name}: worst {worst}, mean {mean:.2}"))
        }
    }
}

#[test]
fn a_stored_selection_is_decoded_as_pillow_does() {
    let bytes = std::fs::read(golden("jpegs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let names = tensors.names();
    let files = names.iter().filter_map(|name| name.strip_suffix(".jpg"));
    let mut count = 0;
    let wrong: Vec<String> = files
        .filter_map(|name| {
            count += 1;
            let data = tensors.tensor(&format!("{name}.jpg")).unwrap();
            let expected = tensors.tensor(&format!("{name}.rgb")).unwrap();
            let size = (expected.shape()[0], expected.shape()[1]);
            check(name, data.data(), size, expected.data())
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
    assert!(count >= 250);
}

/// More than a thousand, made on the spot where Pillow is at hand.
#[test]
fn everything_that_can_be_written_is_decoded_as_pillow_does() {
    let here = Command::new("python3")
        .args(["-c", "import PIL, numpy"])
        .output();
    if !here.is_ok_and(|ran| ran.status.success()) {
        println!("Pillow is not at hand: the stored selection stands for all");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("python3")
        .arg(golden("jpegs.py"))
        .arg("--all")
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jpg") {
            count += 1;
            let expected = std::fs::read(path.with_extension("rgb")).unwrap();
            let side =
                |at: usize| u32::from_le_bytes(expected[at..at + 4].try_into().unwrap()) as usize;
            let name = path.file_stem().unwrap().to_string_lossy();
            wrong.extend(check(
                &name,
                &std::fs::read(&path).unwrap(),
                (side(0), side(4)),
                &expected[8..],
            ));
        }
    }
    println!("{count} files");
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
    assert!(count >= 300);
}

/// Where segments begin that stand before the coded pixels, the first start of a scan included.
fn headers(jpeg: &[u8]) -> Vec<(usize, u8)> {
    let (mut at, mut found) = (2, Vec::new());
    loop {
        assert_eq!(jpeg[at], 0xFF);
        let marker = jpeg[at + 1];
        found.push((at, marker));
        if marker == 0xDA {
            return found;
        }
        at += 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
    }
}

fn whole(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(golden("photos.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    tensors.tensor(name).unwrap().data().to_vec()
}

#[test]
fn bytes_between_segments_are_passed_over() {
    for name in ["baseline.jpg", "progressive.jpg", "subsampled.jpg"] {
        let jpeg = whole(name);
        let usual = Photo::decode(name, &jpeg).unwrap();
        for (at, marker) in headers(&jpeg) {
            for stray in [
                &[0x00][..],
                &[0x12, 0x34, 0x56],
                &[0xFF, 0x00, 0x77],
                &[0xFF, 0xFF],
                &[0; 300],
            ] {
                let untidy = [&jpeg[..at], stray, &jpeg[at..]].concat();
                let photo = Photo::decode(name, &untidy)
                    .unwrap_or_else(|e| panic!("{marker:x} {stray:?}: {e}"));
                let (worst, mean) = difference(&photo, &usual.rgb);
                assert!(
                    worst <= 8 && mean <= 1.0,
                    "{name} before {marker:x}: {worst}, {mean}"
                );
            }
        }
    }
}

#[test]
fn without_huffman_tables_the_standard_ones_are_meant() {
    let jpeg = whole("baseline.jpg");
    let usual = Photo::decode("usual", &jpeg).unwrap();
    // As webcams and old video files have it.
    let mut bare = jpeg[..2].to_vec();
    let all = headers(&jpeg);
    for (n, &(at, marker)) in all.iter().enumerate() {
        let end = all.get(n + 1).map_or(jpeg.len(), |next| next.0);
        if marker != 0xC4 {
            bare.extend(&jpeg[at..end]);
        }
    }
    assert!(bare.len() < jpeg.len());
    let photo = Photo::decode("bare", &bare).unwrap();
    let (worst, mean) = difference(&photo, &usual.rgb);
    assert!(worst <= 3 && mean <= 0.2, "{worst}, {mean}");
}

/// An EXIF block with one entry: orientation 6, in this type.
fn exif(big: bool, kind: u16) -> Vec<u8> {
    let two = |n: u16| {
        if big {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let four = |n: u32| {
        if big {
            n.to_be_bytes()
        } else {
            n.to_le_bytes()
        }
    };
    let mut block = if big { b"MM".to_vec() } else { b"II".to_vec() };
    block.extend(two(42));
    block.extend(four(8));
    block.extend(two(1));
    block.extend(two(0x0112));
    block.extend(two(kind));
    block.extend(four(1));
    match kind {
        1 | 6 => block.extend([6, 0, 0, 0]),
        3 | 8 => {
            block.extend(two(6));
            block.extend([0, 0]);
        }
        _ => block.extend(four(6)),
    }
    block.extend(four(0));
    block
}

#[test]
fn orientation_counts_in_every_type_of_number() {
    let jpeg = whole("baseline.jpg");
    let lying = Photo::decode("lying", &jpeg).unwrap();
    let png = {
        let mut out = std::io::Cursor::new(Vec::new());
        let picture =
            image::RgbImage::from_raw(lying.width as u32, lying.height as u32, lying.rgb.clone());
        picture
            .unwrap()
            .write_to(&mut out, image::ImageFormat::Png)
            .unwrap();
        out.into_inner()
    };
    for big in [false, true] {
        for kind in [1, 3, 4, 6, 8, 9] {
            let block = exif(big, kind);
            let mut segment = vec![0xFF, 0xE1, 0, block.len() as u8 + 8];
            segment.extend(b"Exif\0\0");
            segment.extend(&block);
            let turned =
                Photo::decode("jpeg", &[&jpeg[..2], &segment, &jpeg[2..]].concat()).unwrap();
            // A PNG's chunk: length, name, data, checksum; behind the header's 33 bytes.
            let mut chunk = (block.len() as u32).to_be_bytes().to_vec();
            let named = [&b"eXIf"[..], &block].concat();
            chunk.extend(&named);
            chunk.extend(crc32(&named).to_be_bytes());
            let png = [&png[..33], &chunk, &png[33..]].concat();
            for (what, photo) in [
                ("jpeg", turned),
                ("png", Photo::decode("png", &png).unwrap()),
            ] {
                assert_eq!(
                    (photo.width, photo.height),
                    (lying.height, lying.width),
                    "{what} {kind} {big}"
                );
                // Bottom left of the stored picture is top left of the upright one.
                let stored = &lying.rgb[(lying.height - 1) * lying.width * 3..][..3];
                assert_eq!(&photo.rgb[..3], stored, "{what} {kind} {big}");
            }
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Files that other programs' users reported, beside what Pillow shows of them.
#[test]
fn reported_files_are_decoded_as_pillow_does() {
    let Some(bugs) = require::data("bugs") else {
        return;
    };
    for case in std::fs::read_dir(bugs).unwrap() {
        let case = case.unwrap().path();
        for file in std::fs::read_dir(case.join("in")).unwrap() {
            let file = file.unwrap().path();
            let reference = case
                .join("ref")
                .join(file.with_extension("png").file_name().unwrap());
            let expected = Photo::decode("ref", &std::fs::read(reference).unwrap()).unwrap();
            let photo = Photo::decode("in", &std::fs::read(&file).unwrap());
            let photo = photo.unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            assert_eq!(
                (photo.width, photo.height),
                (expected.width, expected.height)
            );
            let (worst, mean) = difference(&photo, &expected.rgb);
            println!("{}: {worst}, {mean:.2}", file.display());
            assert!(
                worst <= 8 && mean <= 1.0,
                "{}: {worst}, {mean}",
                file.display()
            );
        }
    }
}
