//! The work that the views figure of a benchmark measures; the caller owns the clock.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;

use super::demo::Demo;
use super::photo::Photo;
use super::pixel_norm::Normalize;
use super::source::PhotoSource;
use super::views::{Recipe, Scratch};
use crate::{Error, Result};
use seedling_base::rng::{Purpose, Rng};

/// Read, decode, and two `aug+` views of 224 pixels as floats, photo after photo.
pub struct ViewsWork<'a> {
    source: &'a dyn PhotoSource,
    recipe: Recipe,
    scratch: Scratch,
    out: Vec<f32>,
    done: u64,
}

impl<'a> ViewsWork<'a> {
    const SIZE: usize = 224;

    /// Over the photos of `source` in turn.
    ///
    /// # Errors
    /// None in practice: the recipe is a known one.
    pub fn new(source: &'a dyn PhotoSource) -> Result<ViewsWork<'a>> {
        Ok(ViewsWork {
            source,
            recipe: Recipe::by_name("aug+")?,
            scratch: Scratch::default(),
            out: vec![0.0; Self::SIZE * Self::SIZE * 3],
            done: 0,
        })
    }

    /// One photo, two views.
    ///
    /// # Errors
    /// The photo cannot be read.
    pub fn photo(&mut self) -> Result<()> {
        let photo = self
            .source
            .load(self.done as usize % self.source.len().max(1))?;
        let mut rng = Rng::new(0, Purpose::Augment, 0, self.done);
        for _ in 0..2 {
            let view = self.recipe.sample(photo.width, photo.height, &mut rng);
            let normalize = Normalize::default();
            view.apply(
                &photo,
                Self::SIZE,
                &normalize,
                &mut self.scratch,
                &mut self.out,
            );
        }
        self.done += 1;
        Ok(())
    }
}

/// A few rendered scenes as JPEG files in memory: photos to measure with where none are at hand.
pub struct RenderedPhotos {
    ids: Vec<String>,
    files: Vec<Vec<u8>>,
}

impl RenderedPhotos {
    /// Renders and encodes `count` scenes.
    ///
    /// # Errors
    /// An encoder error.
    pub fn new(count: usize, seed: u64) -> Result<RenderedPhotos> {
        let demo = Demo::new(count, seed)?;
        let mut photos = RenderedPhotos {
            ids: Vec::new(),
            files: Vec::new(),
        };
        // The scenes of one class follow each other: take them from all classes.
        for i in (0..demo.len()).step_by((demo.len() / count.max(1)).max(1)) {
            let photo = demo.load(i)?;
            let mut file = Cursor::new(Vec::new());
            let (width, height) = (photo.width as u32, photo.height as u32);
            JpegEncoder::new_with_quality(&mut file, 90)
                .encode(&photo.rgb, width, height, image::ExtendedColorType::Rgb8)
                .map_err(|e| Error::Photo {
                    photo: demo.id(i).into(),
                    reason: e.to_string(),
                })?;
            photos.ids.push(demo.id(i).into());
            photos.files.push(file.into_inner());
        }
        Ok(photos)
    }
}

impl PhotoSource for RenderedPhotos {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    fn load(&self, index: usize) -> Result<Photo> {
        Photo::decode(&self.ids[index], &self.files[index])
    }

    fn label(&self, _: usize) -> Option<usize> {
        None
    }

    fn classes(&self) -> &[String] {
        &[]
    }
}
