//! Rendered scenes for a first run without photos: eight classes, every picture its own.
//!
//! Each scene draws linear light from a few random choices (sun, weather, layout) and noise; a
//! simulated camera then adds exposure, a color cast, vignetting and sensor noise. [`Demo::odd`] takes them
//! through one odd camera more, under which kinds look alike.

mod camera;
mod canvas;
mod land;
mod sea;
mod sky;
mod things;

use super::photo::Photo;
use super::source::PhotoSource;
use crate::{Error, Result};
use canvas::Canvas;
use seedling_base::rng::{Purpose, Rng};

type Scene = fn(&mut Canvas, &mut Rng);

/// Class names, sorted, and what paints them.
const SCENES: [(&str, Scene); 8] = [
    ("beach", sea::beach),
    ("city", things::city),
    ("flower", land::flower),
    ("forest", land::forest),
    ("marbles", things::marbles),
    ("mountains", land::mountains),
    ("page", things::page),
    ("sunset", sea::sunset),
];

/// A dataset of rendered photos, about 300 x 200 pixels. The same seed gives the same dataset.
pub struct Demo {
    seed: u64,
    ids: Vec<String>,
    classes: Vec<String>,
    odd: bool,
}

impl Demo {
    /// `per_class` photos of each class.
    ///
    /// # Errors
    /// `per_class` is zero.
    pub fn new(per_class: usize, seed: u64) -> Result<Demo> {
        if per_class == 0 {
            return Err(Error::Config("a demo dataset needs photos".into()));
        }
        let names = SCENES.iter().map(|(name, _)| name);
        Ok(Demo {
            seed,
            ids: names
                .clone()
                .flat_map(|name| (0..per_class).map(move |n| format!("{name}/{n:04}")))
                .collect(),
            classes: names.map(|name| name.to_string()).collect(),
            odd: false,
        })
    }

    /// The same dataset through one odd camera: the shipped weights see it imperfectly, as they see datasets that
    /// are unlike what they were taught with.
    ///
    /// # Errors
    /// As [`Demo::new`].
    pub fn odd(per_class: usize, seed: u64) -> Result<Demo> {
        let demo = Demo::new(per_class, seed)?;
        Ok(Demo { odd: true, ..demo })
    }

    fn class_of(&self, index: usize) -> usize {
        index * self.classes.len() / self.ids.len()
    }
}

impl PhotoSource for Demo {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    fn load(&self, index: usize) -> Result<Photo> {
        let class = self.class_of(index);
        let within = index - class * (self.ids.len() / self.classes.len());
        // Streams by class and number: a larger dataset begins with the smaller one's photos.
        let mut rng = Rng::new(self.seed, Purpose::Demo, class as u64, within as u64);
        let (width, height) = match rng.below(4) {
            0 => (224, 288),
            1 => (288, 216),
            _ => (300, 200),
        };
        let mut canvas = Canvas::new(width, height);
        SCENES[class].1(&mut canvas, &mut rng);
        let mut photo = canvas.develop(&mut rng)?;
        if self.odd {
            camera::retake(&mut photo, &mut rng);
        }
        Ok(photo)
    }

    fn label(&self, index: usize) -> Option<usize> {
        (index < self.ids.len()).then(|| self.class_of(index))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}
