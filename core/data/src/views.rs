//! Views: random crops of a photo with random colors, the positives of contrastive learning.
//!
//! A [`Recipe`] draws all random numbers of a view at once into a [`ViewParams`]; applying those
//! is then a pure function. Definitions are torchvision's on 8-bit pictures.

use super::augment;
use super::blur::{self, BlurScratch};
use super::photo::Photo;
use super::pixel_norm::Normalize;
use super::resize::{self, Filter, Rect, ResizeScratch};
use crate::{Error, Result};
use seedling_base::rng::Rng;

/// The distribution views are drawn from.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The name it has in settings.
    pub name: &'static str,
    /// Least and greatest fraction of the photo's area a crop has.
    pub scale: (f32, f32),
    /// Probability of changing colors at all.
    pub jitter_p: f32,
    /// Brightness, contrast and saturation factors lie in 1 +- these; hue turns by +- the last.
    pub jitter: [f32; 4],
    /// Probability of losing color.
    pub gray_p: f32,
    /// Probability of Gaussian blur with a sigma in [`BLUR_SIGMA`].
    pub blur_p: f32,
    /// Probability of mirroring.
    pub flip_p: f32,
}

/// Range of the blur's standard deviation, in pixels of the view.
pub const BLUR_SIGMA: (f32, f32) = (0.1, 2.0);

/// Range of a crop's width / height.
pub const RATIO: (f32, f32) = (3.0 / 4.0, 4.0 / 3.0);

const BASE: Recipe = Recipe {
    name: "standard",
    scale: (0.2, 1.0),
    jitter_p: 0.8,
    jitter: [0.4, 0.4, 0.4, 0.1],
    gray_p: 0.2,
    blur_p: 0.5,
    flip_p: 0.5,
};

const STRONG: [f32; 4] = [0.8, 0.8, 0.8, 0.4];

/// All named recipes. `cifar` is MoCo's for 32-pixel pictures; `plain` crops and mirrors only.
pub const RECIPES: [Recipe; 6] = [
    BASE,
    Recipe {
        name: "hue",
        jitter: [0.4, 0.4, 0.4, 0.2],
        ..BASE
    },
    Recipe {
        name: "aug+",
        jitter: STRONG,
        gray_p: 0.5,
        ..BASE
    },
    Recipe {
        name: "aug+ blur",
        jitter: STRONG,
        gray_p: 0.5,
        blur_p: 1.0,
        ..BASE
    },
    Recipe::PLAIN,
    Recipe {
        name: "cifar",
        scale: (0.08, 1.0),
        blur_p: 0.0,
        ..BASE
    },
];

/// One step of color jitter with its factor (hue: its turn).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Color {
    /// See [`augment::brightness`].
    Brightness(f32),
    /// See [`augment::contrast`].
    Contrast(f32),
    /// See [`augment::saturation`].
    Saturation(f32),
    /// See [`augment::hue`].
    Hue(f32),
}

/// One view, every random number fixed. Applied in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewParams {
    /// The part of the photo that fills the view.
    pub crop: Rect,
    /// Color changes in their order; empty when jitter was not drawn.
    pub jitter: Vec<Color>,
    /// Whether color is dropped.
    pub gray: bool,
    /// Standard deviation of the blur.
    pub blur: Option<f32>,
    /// Whether it is mirrored.
    pub flip: bool,
}

/// Buffers of view making; keep one per thread.
#[derive(Debug, Default)]
pub struct Scratch {
    planes: Vec<u8>,
    packed: Vec<u8>,
    resize: ResizeScratch,
    blur: BlurScratch,
}

impl Recipe {
    /// MoCo v2's.
    pub const STANDARD: Recipe = BASE;

    /// Crops and mirrors only.
    pub const PLAIN: Recipe = Recipe {
        name: "plain",
        jitter_p: 0.0,
        gray_p: 0.0,
        blur_p: 0.0,
        ..BASE
    };

    /// The recipe called `name`.
    ///
    /// # Errors
    /// No such recipe; the text lists those there are.
    pub fn by_name(name: &str) -> Result<Recipe> {
        let found = RECIPES.iter().find(|recipe| recipe.name == name).cloned();
        found.ok_or_else(|| {
            let names = RECIPES.map(|recipe| format!("\"{}\"", recipe.name));
            Error::Config(format!("no views \"{name}\"; one of {}", names.join(", ")))
        })
    }

    /// Draws a view of a `width` x `height` photo. The same generator state gives the same view.
    pub fn sample(&self, width: usize, height: usize, rng: &mut Rng) -> ViewParams {
        let crop = self.sample_crop(width, height, rng);
        let mut jitter = Vec::new();
        if rng.chance(self.jitter_p) {
            let [b, c, s, h] = self.jitter;
            let mut around_one = |spread: f32| rng.range((1.0 - spread).max(0.0), 1.0 + spread);
            let steps = [
                Color::Brightness(around_one(b)),
                Color::Contrast(around_one(c)),
                Color::Saturation(around_one(s)),
                Color::Hue(rng.range(-h, h)),
            ];
            jitter.extend(rng.permutation(4).into_iter().map(|i| steps[i]));
        }
        ViewParams {
            crop,
            jitter,
            gray: rng.chance(self.gray_p),
            blur: rng
                .chance(self.blur_p)
                .then(|| rng.range(BLUR_SIGMA.0, BLUR_SIGMA.1)),
            flip: rng.chance(self.flip_p),
        }
    }

    /// torchvision's `RandomResizedCrop.get_params`: ten tries, then the largest central crop.
    fn sample_crop(&self, width: usize, height: usize, rng: &mut Rng) -> Rect {
        let area = (width * height) as f64;
        let (low, high) = (
            f64::from(RATIO.0).ln() as f32,
            f64::from(RATIO.1).ln() as f32,
        );
        for _ in 0..10 {
            let target = area * f64::from(rng.range(self.scale.0, self.scale.1));
            let ratio = f64::from(rng.range(low, high)).exp();
            let w = (target * ratio).sqrt().round_ties_even() as usize;
            let h = (target / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = rng.below(height - h + 1);
                let left = rng.below(width - w + 1);
                return Rect {
                    left,
                    top,
                    width: w,
                    height: h,
                };
            }
        }
        largest_crop(width, height)
    }
}

/// The largest central crop of an allowed ratio.
fn largest_crop(width: usize, height: usize) -> Rect {
    let ratio = width as f64 / height as f64;
    let (low, high) = (f64::from(RATIO.0), f64::from(RATIO.1));
    let (w, h) = if ratio < low {
        (width, (width as f64 / low).round_ties_even() as usize)
    } else if ratio > high {
        ((height as f64 * high).round_ties_even() as usize, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    Rect {
        left: (width - w) / 2,
        top: (height - h) / 2,
        width: w,
        height: h,
    }
}

impl Color {
    fn apply(self, planes: &mut [u8]) {
        match self {
            Color::Brightness(factor) => augment::brightness(planes, factor),
            Color::Contrast(factor) => augment::contrast(planes, factor),
            Color::Saturation(factor) => augment::saturation(planes, factor),
            Color::Hue(shift) => augment::hue(planes, shift),
        }
    }
}

impl ViewParams {
    /// The crop, cut to what there is of `photo`.
    pub fn crop_of(&self, photo: &Photo) -> Rect {
        inside(self.crop, photo)
    }

    /// Makes the view as bytes: `out` takes `size * size * 3`, rows of R, G, B.
    ///
    /// A crop that reaches outside the photo is cut to it.
    pub fn render(&self, photo: &Photo, size: usize, scratch: &mut Scratch, out: &mut [u8]) {
        self.render_by(Filter::Bilinear, photo, size, scratch, out);
    }

    /// The same, with the crop resized by any filter.
    pub fn render_by(
        &self,
        filter: Filter,
        photo: &Photo,
        size: usize,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) {
        let crop = self.crop_of(photo);
        scratch.planes.resize(size * size * 3, 0);
        let planes = scratch.planes.as_mut_slice();
        let resized = (filter, size, size);
        resize::crop_resize(photo, crop, resized, &mut scratch.resize, planes);
        for step in &self.jitter {
            step.apply(planes);
        }
        if self.gray {
            augment::grayscale(planes);
        }
        if let Some(sigma) = self.blur {
            let kernel = blur::kernel_size(size);
            // Gray planes are equal: blur one and copy it.
            let blurred = if self.gray { size * size } else { planes.len() };
            let part = &mut planes[..blurred];
            blur::gaussian(part, size, size, sigma, kernel, &mut scratch.blur);
            if self.gray {
                let (first, others) = planes.split_at_mut(size * size);
                for other in others.chunks_exact_mut(size * size) {
                    other.copy_from_slice(first);
                }
            }
        }
        resize::interleave(planes, size, self.flip, out);
    }

    /// Makes the view as a network reads it: `out` takes `size * size * 3` numbers (H, W, C).
    pub fn apply(
        &self,
        photo: &Photo,
        size: usize,
        normalize: &Normalize,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) {
        let mut packed = std::mem::take(&mut scratch.packed);
        packed.resize(size * size * 3, 0);
        self.render(photo, size, scratch, &mut packed);
        normalize.apply(&packed, out);
        scratch.packed = packed;
    }
}

fn inside(crop: Rect, photo: &Photo) -> Rect {
    let left = crop.left.min(photo.width - 1);
    let top = crop.top.min(photo.height - 1);
    Rect {
        left,
        top,
        width: crop.width.clamp(1, photo.width - left),
        height: crop.height.clamp(1, photo.height - top),
    }
}
