//! Photos that an app hands over one by one: as files, as encoded bytes, or as pixels that the
//! platform has decoded (HEIC).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::budget::DecodeBudget;
use super::outline::Outline;
use super::photo::Photo;
use super::pixels::Pixels;
use super::source::{MAX_ENCODED_BYTES, PhotoSource};
use crate::{Error, Result};

/// An app's list of photos. A photo's name is how the app knows it again; a run that continues asks for
/// the same names in the same order.
#[derive(Clone, Debug, Default)]
pub struct Photos {
    ids: Vec<String>,
    contents: Vec<Content>,
    places: HashMap<String, usize>,
    /// Names of classes, sorted, and the class of each photo that has one.
    classes: Vec<String>,
    labels: HashMap<usize, String>,
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
        let bytes = Pixels::packed(size, rgba).reduced(id)?;
        self.add_encoded(id, bytes)
    }

    /// The same photos, decoded within so many megabytes.
    pub fn within(&self, megabytes: usize) -> Photos {
        Photos {
            budget: Arc::new(DecodeBudget::megabytes(megabytes)),
            ..self.clone()
        }
    }

    /// Says what class the photo of that name is of: for measurements, never for training.
    ///
    /// # Errors
    /// There is no photo of that name.
    pub fn set_label(&mut self, id: &str, class: &str) -> Result<()> {
        let place = self.place(id).ok_or_else(|| Error::Photo {
            photo: id.into(),
            reason: "there is no photo of that name".into(),
        })?;
        if let Err(place) = self
            .classes
            .binary_search_by(|known| known.as_str().cmp(class))
        {
            self.classes.insert(place, class.into());
        }
        self.labels.insert(place, class.into());
        Ok(())
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
        let (photo, _reservation) = Photo::decode_within(id, bytes, &self.budget)?;
        show(photo);
        Ok(())
    }

    fn outline(&self, index: usize) -> Option<Outline> {
        match &self.contents[index] {
            Content::File(path) => Outline::of_file(path),
            Content::Encoded(bytes) => Outline::of_bytes(bytes),
        }
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.classes.binary_search(self.labels.get(&index)?).ok()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pixels::KEPT_SIDE;

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
        // As large as a phone's, opaque: means of blocks of four.
        let large = [10, 200, 30, 255].repeat(4032 * 3024);
        photos.add_rgba("d", (4032, 3024), &large).unwrap();
        let photo = photos.load(3).unwrap();
        for (got, wanted) in photo.rgb[..3].iter().zip([10i32, 200, 30]) {
            assert!((i32::from(*got) - wanted).abs() <= 3, "{:?}", photo.rgb[0]);
        }
        assert_eq!(photos.len(), 4);
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
    fn classes_are_sorted_and_known_by_name() {
        let mut photos = Photos::default();
        for name in ["a", "b", "c"] {
            photos.add_encoded(name, vec![1]).unwrap();
        }
        photos.set_label("a", "rose").unwrap();
        photos.set_label("b", "daisy").unwrap();
        assert!(photos.set_label("x", "rose").is_err());
        let labels = [0, 1, 2].map(|index| PhotoSource::label(&photos, index));
        assert_eq!(labels, [Some(1), Some(0), None]);
        assert_eq!(photos.classes(), ["daisy", "rose"]);
        // A photo may be seen to be of another class.
        photos.set_label("a", "daisy").unwrap();
        assert_eq!(PhotoSource::label(&photos, 0), Some(0));
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
