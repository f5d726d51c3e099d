//! `thumbnails.safetensors`: the sample of photos that a report shows, small enough to keep in the run
//! folder, so that the page can be made again without the photos.

use half::f16;
use image::RgbImage;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use seedling_core::error::{Error, Result};
use seedling_core::eval::Features;
use seedling_core::rng::{Purpose, Rng};
use std::collections::HashMap;
use std::path::Path;

/// The file's name in a run folder.
pub const FILE_NAME: &str = "thumbnails.safetensors";
/// Photos kept at most.
pub const MAX_PHOTOS: usize = 600;
/// Longest side of a thumbnail, in pixels.
pub const THUMBNAIL: u32 = 96;

/// A sample of photos with what the report shows of each. All lists have one entry a photo.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thumbnails {
    /// Paths relative to the photo folder.
    pub ids: Vec<String>,
    /// Names of the classes; empty where none are known.
    pub classes: Vec<String>,
    /// Index into `classes` of each photo; empty where none are known.
    pub labels: Vec<u32>,
    /// Features with the initial weights.
    pub before: Option<Features>,
    /// Features with the closed form behind the initial weights.
    pub closed_form: Option<Features>,
    /// Features with the final weights, where these were trained.
    pub after: Option<Features>,
    /// JPEG files; an empty one is a photo without a picture.
    pub thumbnails: Vec<Vec<u8>>,
}

/// Which of `photos` photos to keep: at most [`MAX_PHOTOS`], drawn by `seed`, in their order.
pub fn sample(photos: usize, seed: u64) -> Vec<usize> {
    // Index 3: the streams before it draw the sets of the sampled uniformity.
    let mut kept = Rng::new(seed, Purpose::Measure, 0, 3).permutation(photos);
    kept.truncate(MAX_PHOTOS);
    kept.sort_unstable();
    kept
}

/// A JPEG of `photo`, shrunk to at most [`THUMBNAIL`] pixels a side.
///
/// # Errors
/// [`Error::Photo`] where the encoder refuses (an empty picture).
pub fn thumbnail(photo: &RgbImage) -> Result<Vec<u8>> {
    let (w, h) = photo.dimensions();
    let longest = w.max(h).max(1);
    let side = |x: u32| {
        let scaled = (x as u64 * THUMBNAIL as u64).div_ceil(longest as u64) as u32;
        if longest <= THUMBNAIL {
            x
        } else {
            scaled.max(1)
        }
    };
    let small = image::imageops::thumbnail(photo, side(w), side(h));
    let mut out = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut out, 78)
        .encode_image(&small)
        .map_err(|e| Error::Photo {
            photo: "thumbnail".into(),
            reason: e.to_string(),
        })?;
    Ok(out)
}

impl Thumbnails {
    /// Writes the thumbnails into the run folder, atomically.
    ///
    /// # Errors
    /// [`Error::Shape`] where the lists differ in length, [`Error::Io`] where the file cannot be
    /// written.
    pub fn write(&self, run: &Path) -> Result<()> {
        let path = run.join(FILE_NAME);
        self.check()?;
        let fail = |e: &dyn std::fmt::Display| Error::file(&path, e.to_string());
        let mut offsets = vec![0u64];
        let mut pictures = Vec::new();
        for thumbnail in &self.thumbnails {
            pictures.extend_from_slice(thumbnail);
            offsets.push(pictures.len() as u64);
        }
        let offsets: Vec<u8> = offsets.iter().flat_map(|o| o.to_le_bytes()).collect();
        let labels: Vec<u8> = self.labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        let halves = |f: &Features| -> Vec<u8> {
            let clamp = |x: f32| f16::from_f32(x.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()));
            f.values
                .iter()
                .flat_map(|&x| clamp(x).to_le_bytes())
                .collect()
        };
        let sets = [
            ("features_before", &self.before),
            ("features_closed_form", &self.closed_form),
            ("features_after", &self.after),
        ];
        let sets = sets.map(|(name, set)| (name, set, set.as_ref().map(halves)));
        let n = self.ids.len();
        let mut tensors = Vec::new();
        let mut add = |name, dtype, shape: Vec<usize>, bytes| {
            TensorView::new(dtype, shape, bytes)
                .map(|view| tensors.push((name, view)))
                .map_err(|e| fail(&e))
        };
        add("thumbnails", Dtype::U8, vec![pictures.len()], &pictures)?;
        add("thumbnail_offsets", Dtype::U64, vec![n + 1], &offsets)?;
        if !self.labels.is_empty() {
            add("labels", Dtype::U32, vec![n], &labels)?;
        }
        for (name, features, bytes) in &sets {
            if let (Some(f), Some(bytes)) = (features, bytes) {
                add(name, Dtype::F16, vec![f.rows, f.dim], bytes)?;
            }
        }
        let json = |list: &[String]| serde_json::to_string(list).map_err(|e| fail(&e));
        let meta = HashMap::from([
            ("ids".to_string(), json(&self.ids)?),
            ("classes".to_string(), json(&self.classes)?),
        ]);
        let bytes = serialize(tensors, Some(meta)).map_err(|e| fail(&e))?;
        seedling_core::atomic::write(&path, |file| file.write_all(&bytes))
    }

    /// Reads the thumbnails of a run folder; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] where it is there and cannot be read.
    pub fn read(run: &Path) -> Result<Option<Thumbnails>> {
        let path = run.join(FILE_NAME);
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&path))?,
        };
        let thumbnails = Thumbnails::decode(&bytes).map_err(|reason| Error::file(&path, reason))?;
        thumbnails
            .check()
            .map_err(|e| Error::file(&path, e.to_string()))?;
        Ok(Some(thumbnails))
    }

    fn decode(bytes: &[u8]) -> std::result::Result<Thumbnails, String> {
        let text = |e: safetensors::SafeTensorError| format!("no thumbnails: {e}");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(text)?;
        let file = SafeTensors::deserialize(bytes).map_err(text)?;
        let list = |key: &str| -> std::result::Result<Vec<String>, String> {
            let meta = header.metadata().as_ref().and_then(|m| m.get(key));
            let json = meta.ok_or_else(|| format!("no thumbnails: no {key}"))?;
            serde_json::from_str(json).map_err(|e| format!("{key}: {e}"))
        };
        let tensor = |name: &str, dtype: Dtype| match file.tensor(name) {
            Ok(t) if t.dtype() == dtype => Ok(Some(t)),
            Ok(t) => Err(format!("{name}: expected {dtype:?}, got {:?}", t.dtype())),
            Err(_) => Ok(None),
        };
        let pictures = tensor("thumbnails", Dtype::U8)?;
        let pictures = pictures.as_ref().map_or(&[][..], |t| t.data());
        let offsets: Vec<usize> = tensor("thumbnail_offsets", Dtype::U64)?.map_or(vec![], |t| {
            let words = t.data().as_chunks::<8>().0.iter();
            words.map(|&w| u64::from_le_bytes(w) as usize).collect()
        });
        let thumbnails = offsets
            .windows(2)
            .map(|w| pictures.get(w[0]..w[1]).map(<[u8]>::to_vec))
            .collect::<Option<Vec<_>>>()
            .ok_or("thumbnails: offsets out of range")?;
        let labels = tensor("labels", Dtype::U32)?.map_or(vec![], |t| {
            let words = t.data().as_chunks::<4>().0.iter();
            words.map(|&w| u32::from_le_bytes(w)).collect()
        });
        let features = |name: &str| -> std::result::Result<Option<Features>, String> {
            let Some(t) = tensor(name, Dtype::F16)? else {
                return Ok(None);
            };
            let &[rows, dim] = t.shape() else {
                return Err(format!("{name}: not a matrix"));
            };
            let words = t.data().as_chunks::<2>().0.iter();
            let values = words.map(|&w| f16::from_le_bytes(w).to_f32()).collect();
            Features::new(rows, dim, values)
                .map(Some)
                .map_err(|e| e.to_string())
        };
        Ok(Thumbnails {
            ids: list("ids")?,
            classes: list("classes")?,
            labels,
            before: features("features_before")?,
            closed_form: features("features_closed_form")?,
            after: features("features_after")?,
            thumbnails,
        })
    }

    /// All lists of one length, all labels among the classes.
    fn check(&self) -> Result<()> {
        let n = self.ids.len();
        let rows = |f: &Option<Features>| f.as_ref().map_or(n, |f| f.rows);
        let labels = if self.labels.is_empty() {
            n
        } else {
            self.labels.len()
        };
        for (name, got) in [
            ("thumbnails", self.thumbnails.len()),
            ("labels", labels),
            ("features before", rows(&self.before)),
            ("features of the closed form", rows(&self.closed_form)),
            ("features after", rows(&self.after)),
        ] {
            if got != n {
                return Err(Error::Shape {
                    tensor: format!("the thumbnails' {name}"),
                    expected: vec![n],
                    got: vec![got],
                });
            }
        }
        if self
            .labels
            .iter()
            .any(|&l| l as usize >= self.classes.len())
        {
            return Err(Error::Shape {
                tensor: "the thumbnails' classes".into(),
                expected: vec![self.labels.iter().max().map_or(0, |&l| l as usize + 1)],
                got: vec![self.classes.len()],
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_come_back_and_broken_ones_are_refused() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Thumbnails::read(run.path()).unwrap(), None);
        let photo = RgbImage::from_pixel(300, 200, image::Rgb([200, 30, 90]));
        let small = thumbnail(&photo).unwrap();
        let shown = image::load_from_memory(&small).unwrap();
        assert_eq!((shown.width(), shown.height()), (96, 64));
        let thumbnails = Thumbnails {
            ids: vec!["a/1.jpg".into(), "b/\"2\".jpg".into()],
            classes: vec!["a".into(), "b".into()],
            labels: vec![0, 1],
            before: Some(Features::new(2, 3, vec![0.5, 1.0, -2.0, 0.0, 8.0, 0.25]).unwrap()),
            closed_form: Some(Features::new(2, 1, vec![0.5, 1.0]).unwrap()),
            after: None,
            thumbnails: vec![small, vec![]],
        };
        thumbnails.write(run.path()).unwrap();
        assert_eq!(Thumbnails::read(run.path()).unwrap().unwrap(), thumbnails);

        let path = run.path().join(FILE_NAME);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = Thumbnails::read(run.path()).unwrap_err().to_string();
        assert!(error.contains("no thumbnails"), "{error}");
        let bad = Thumbnails {
            labels: vec![0, 7],
            ..thumbnails
        };
        assert!(bad.write(run.path()).is_err());
    }

    #[test]
    fn samples_are_bounded_sorted_and_seeded() {
        assert_eq!(sample(5, 1), [0, 1, 2, 3, 4]);
        let kept = sample(5000, 1);
        assert_eq!(kept.len(), MAX_PHOTOS);
        assert!(kept.is_sorted());
        assert_ne!(kept, sample(5000, 2));
    }
}
