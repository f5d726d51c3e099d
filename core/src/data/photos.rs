//! Photos that an app hands over one by one: as files, as encoded bytes, or as pixels that the
//! platform has decoded (HEIC).

use std::collections::HashMap;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ExtendedColorType, RgbaImage};

use super::budget::DecodeBudget;
use super::image::from_dynamic;
use super::outline::Outline;
use super::photo::Photo;
use super::source::{MAX_ENCODED_BYTES, PhotoSource};
use crate::{Error, Result};

/// Pixels are kept at this size of their shorter side, or their own: more than any view needs.
const KEPT_SIDE: usize = 320;
/// Quality of what they are kept as.
const KEPT_QUALITY: u8 = 95;

/// An app's list of photos. A photo's name is how the app knows it again; a run that goes on asks for
/// the same names in the same order.
#[derive(Clone, Debug, Default)]
pub struct Photos {
    ids: Vec<String>,
    contents: Vec<Content>,
    places: HashMap<String, usize>,
    budget: Arc<DecodeBudget>,
}

#[derive(Clone, Debug)]
enum Content {
    File(PathBuf),
    /// Shared: lists are copied, photos are not.
    Encoded(Arc<[u8]>),
}

impl Photos {
    /// None yet; decoding stays within `budget`.
    pub fn new(budget: Arc<DecodeBudget>) -> Photos {
        Photos {
            budget,
            ..Photos::default()
        }
    }

    /// A file that is read whenever it is needed. It may vanish meanwhile: then it is skipped.
    ///
    /// # Errors
    /// There is a photo of that name.
    pub fn add_file(&mut self, id: &str, path: PathBuf) -> Result<()> {
        self.add(id, Content::File(path))
    }

    /// A whole encoded picture, kept in memory.
    ///
    /// # Errors
    /// There is a photo of that name.
    pub fn add_encoded(&mut self, id: &str, bytes: Vec<u8>) -> Result<()> {
        self.add(id, Content::Encoded(bytes.into()))
    }

    /// `height` rows of `width` pixels R, G, B, A, upright, alpha not multiplied in. They are kept
    /// smaller, as a JPEG.
    ///
    /// # Errors
    /// `rgba` is not of that size; there is a photo of that name.
    pub fn add_rgba(&mut self, id: &str, size: (u32, u32), rgba: &[u8]) -> Result<()> {
        let bytes = Photos::reduced(id, size, rgba)?;
        self.add_encoded(id, bytes)
    }

    /// What [`Photos::add_rgba`] keeps of pixels: (width, height) of them.
    ///
    /// # Errors
    /// `rgba` is not of that size.
    pub fn reduced(id: &str, (width, height): (u32, u32), rgba: &[u8]) -> Result<Vec<u8>> {
        let wrong = |reason: String| Error::Photo {
            photo: id.into(),
            reason,
        };
        let expected = u64::from(width) * u64::from(height) * 4;
        if rgba.len() as u64 != expected || expected == 0 {
            let got = rgba.len();
            return Err(wrong(format!(
                "{width} x {height} pixels are {expected} bytes, not {got}"
            )));
        }
        let picture = RgbaImage::from_raw(width, height, rgba.to_vec())
            .ok_or_else(|| wrong("its pixels don't fit its size".into()))?;
        let picture = DynamicImage::ImageRgba8(picture);
        let kept = from_dynamic(picture, Orientation::NoTransforms)
            .map_err(wrong)?
            .shrunk(KEPT_SIDE);
        let mut bytes = Cursor::new(Vec::new());
        let size = (kept.width as u32, kept.height as u32);
        JpegEncoder::new_with_quality(&mut bytes, KEPT_QUALITY)
            .encode(&kept.rgb, size.0, size.1, ExtendedColorType::Rgb8)
            .map_err(|e| wrong(format!("it cannot be kept ({e})")))?;
        Ok(bytes.into_inner())
    }

    /// The same photos, decoded within so many megabytes.
    pub fn within(&self, megabytes: usize) -> Photos {
        Photos {
            budget: Arc::new(DecodeBudget::megabytes(megabytes)),
            ..self.clone()
        }
    }

    /// Where the photo of that name stands.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(id).copied()
    }

    fn add(&mut self, id: &str, content: Content) -> Result<()> {
        if self.places.contains_key(id) {
            return Err(Error::Photo {
                photo: id.into(),
                reason: "there is a photo of that name already".into(),
            });
        }
        self.places.insert(id.into(), self.ids.len());
        self.ids.push(id.into());
        self.contents.push(content);
        Ok(())
    }
}

impl PhotoSource for Photos {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    fn load(&self, index: usize) -> Result<Photo> {
        let mut found = None;
        self.visit(index, &mut |photo| found = Some(photo))?;
        found.ok_or_else(|| Error::Photo {
            photo: self.ids[index].clone(),
            reason: "nothing was decoded".into(),
        })
    }

    fn visit(&self, index: usize, show: &mut dyn FnMut(Photo)) -> Result<()> {
        let id = &self.ids[index];
        let read;
        let bytes: &[u8] = match &self.contents[index] {
            Content::Encoded(bytes) => bytes,
            Content::File(path) => {
                let length = std::fs::metadata(path).map_err(Error::io(path))?.len();
                if length > MAX_ENCODED_BYTES {
                    return Err(Error::Photo {
                        photo: id.clone(),
                        reason: "the file is too large for a photo".into(),
                    });
                }
                read = std::fs::read(path).map_err(Error::io(path))?;
                &read
            }
        };
        let (photo, _share) = Photo::decode_within(id, bytes, &self.budget)?;
        show(photo);
        Ok(())
    }

    fn outline(&self, index: usize) -> Option<Outline> {
        match &self.contents[index] {
            Content::File(path) => Outline::of_file(path),
            Content::Encoded(bytes) => Outline::of_bytes(bytes),
        }
    }

    fn label(&self, _index: usize) -> Option<usize> {
        None
    }

    fn classes(&self) -> &[String] {
        &[]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_bytes_and_pixels_are_photos() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        image::RgbImage::from_pixel(40, 30, image::Rgb([9, 8, 7]))
            .save(&path)
            .unwrap();
        let mut photos = Photos::default();
        photos.add_file("a", path.clone()).unwrap();
        photos
            .add_encoded("b", std::fs::read(&path).unwrap())
            .unwrap();
        // Half transparent red over white.
        let rgba = [200, 0, 0, 128].repeat(700 * 500);
        photos.add_rgba("c", (700, 500), &rgba).unwrap();
        assert_eq!(photos.len(), 3);
        assert_eq!((photos.id(2), photos.place("c")), ("c", Some(2)));
        for index in 0..2 {
            let photo = photos.load(index).unwrap();
            assert_eq!((photo.width, photo.height), (40, 30));
            assert_eq!(photo.rgb[..3], [9, 8, 7]);
        }
        let photo = photos.load(2).unwrap();
        assert_eq!(photo.width.min(photo.height), KEPT_SIDE);
        for (got, wanted) in photo.rgb[..3].iter().zip([227i32, 127, 127]) {
            assert!(
                (i32::from(*got) - wanted).abs() <= 3,
                "{:?}",
                &photo.rgb[..3]
            );
        }
        std::fs::remove_file(path).unwrap();
        assert!(photos.load(0).is_err());
        assert!(photos.load(1).is_ok());
    }

    #[test]
    fn what_is_no_photo_is_said_so() {
        let mut photos = Photos::default();
        photos.add_encoded("x", b"garbage".to_vec()).unwrap();
        assert!(photos.load(0).unwrap_err().to_string().contains('x'));
        assert!(photos.add_encoded("x", Vec::new()).is_err());
        assert!(photos.add_rgba("y", (2, 2), &[0; 15]).is_err());
        assert!(photos.add_rgba("y", (0, 2), &[]).is_err());
        assert!(
            photos
                .add_rgba("y", (u32::MAX, u32::MAX), &[0; 16])
                .is_err()
        );
        assert_eq!(photos.len(), 1);
    }
}
