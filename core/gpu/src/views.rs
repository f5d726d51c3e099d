//! From photos and the random numbers of their views to the kernels of [`super::render`].

use cubecl::prelude::*;

use super::Gpu;
use super::launch::launch;
use super::memory::DeviceBuffer;
use super::render::{self, UNITS, record, step};
use crate::Result;
use seedling_data::{Color, Normalize, Photo, ViewParams, blur_kernel, resize_axis};

/// Views that are made together: what is between photos and views is there for so many at a time.
const BLOCK: usize = 64;

/// What a block of views needs from the host.
#[derive(Default)]
struct Block {
    photos: Vec<u8>,
    records: Vec<u32>,
    axes: Vec<u32>,
    factors: Vec<f32>,
    weights: Vec<f32>,
    /// Rows of all crops, narrowed, and the most that a view has.
    rows: usize,
    most_rows: usize,
}

impl Block {
    fn add(&mut self, photo: &Photo, params: &ViewParams, size: usize) {
        let crop = params.crop_of(photo);
        let mut words = [0; record::LEN];
        let across = resize_axis(crop.width, size);
        let down = resize_axis(crop.height, size);
        let needed = down.reach();
        words[record::PHOTO] = self.photos.len() as u32;
        words[record::WIDTH] = photo.width as u32;
        words[record::LEFT] = crop.left as u32;
        words[record::TOP] = (crop.top + needed.start) as u32;
        words[record::ROWS] = (self.rows * size) as u32;
        words[record::COUNT] = needed.len() as u32;
        for (axis, first, at, taps) in [
            (&across, 0, record::ACROSS, record::ACROSS_TAPS),
            (&down, needed.start, record::DOWN, record::DOWN_TAPS),
        ] {
            words[at] = self.axes.len() as u32;
            words[taps] = axis.taps as u32;
            let starts = axis.starts.iter().map(|start| (start - first) as u32);
            self.axes.extend(starts);
            self.axes
                .extend(axis.weights.iter().map(|weight| *weight as u32));
        }
        let mut factors = [0.0; 4];
        let contrast = |step: &Color| matches!(step, Color::Contrast(_));
        let before = params.jitter.iter().position(contrast);
        words[record::BEFORE] = before.unwrap_or(0) as u32;
        for (i, color) in params.jitter.iter().take(4).enumerate() {
            let (kind, factor) = match *color {
                Color::Brightness(factor) => (step::BRIGHTNESS, factor),
                Color::Contrast(factor) => (step::CONTRAST, factor),
                Color::Saturation(factor) => (step::SATURATION, factor),
                // In steps of 1 / 256 of the circle, truncated towards zero.
                Color::Hue(turn) => {
                    let turn = (f64::from(turn) * 255.0) as i32 as u8;
                    (step::HUE, f32::from(turn))
                }
            };
            words[record::STEPS + i] = kind;
            factors[i] = factor;
        }
        self.factors.extend(factors);
        words[record::GRAY] = params.gray.into();
        words[record::FLIP] = params.flip.into();
        let weights = match params.blur {
            Some(sigma) => blur_kernel(sigma, size),
            None => vec![1.0],
        };
        words[record::BLUR] = self.weights.len() as u32;
        words[record::BLUR_TAPS] = weights.len() as u32;
        self.weights.extend(weights);
        self.photos.extend(&photo.rgb);
        self.rows += needed.len();
        self.most_rows = self.most_rows.max(needed.len());
        self.records.extend(words);
    }
}

/// A length that few others share: buffers are used again by their size.
fn round(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(64);
    len.next_multiple_of(step)
}

impl<R: Runtime> Gpu<R> {
    /// (views, size, size, 3), normalized.
    pub fn make_views(
        &self,
        views: &[(&Photo, &ViewParams)],
        size: usize,
        normalize: &Normalize,
    ) -> Result<DeviceBuffer> {
        let image = size * size * 3;
        let out = self.alloc(views.len() * image)?;
        let scale = normalize.std.map(|std| 1.0 / (255.0 * std));
        let shift: [f32; 3] = std::array::from_fn(|c| -normalize.mean[c] / normalize.std[c]);
        let normal = self.send(&[scale, shift].concat())?;
        // Blocks take the same memory one after another: a dry run has seen them all when it has seen one.
        let blocks = if self.dry_run { 1 } else { usize::MAX };
        for (i, views) in views.chunks(BLOCK).take(blocks).enumerate() {
            let mut block = Block::default();
            for (photo, params) in views {
                block.add(photo, params, size);
            }
            self.make_block(block, views.len(), size, (&out, i * BLOCK * image), &normal)?;
        }
        Ok(out)
    }

    fn make_block(
        &self,
        mut block: Block,
        views: usize,
        size: usize,
        (out, at): (&DeviceBuffer, usize),
        normal: &DeviceBuffer,
    ) -> Result<()> {
        block.photos.resize(round(block.photos.len()), 0);
        block.axes.resize(round(block.axes.len()), 0);
        block.weights.resize(round(block.weights.len()), 0.0);
        let photos = self.send_bytes(&block.photos)?;
        let records = self.send_whole(&block.records)?;
        let axes = self.send_whole(&block.axes)?;
        let factors = self.send(&block.factors)?;
        let weights = self.send(&block.weights)?;
        let rows = self.alloc(round(block.rows * size))?;
        let pixels = self.alloc(views * size * size)?;
        let means = self.alloc(views)?;
        let blurred = self.alloc(views * size * size * 3)?;
        let units = CubeDim::new_1d(UNITS as u32);
        let cubes = |places: usize| {
            let parts = places.div_ceil(UNITS) as u32;
            (CubeCount::Static(parts, views as u32, 1), units)
        };
        launch!(
            self,
            render::across,
            cubes(block.most_rows * size),
            photos.arg(),
            records.arg(),
            axes.arg(),
            rows.arg(),
            size
        );
        launch!(
            self,
            render::down,
            cubes(size * size),
            rows.arg(),
            records.arg(),
            axes.arg(),
            factors.arg(),
            pixels.arg(),
            size
        );
        launch!(
            self,
            render::mean_luma,
            (CubeCount::Static(views as u32, 1, 1), units),
            pixels.arg(),
            means.arg(),
            size
        );
        launch!(
            self,
            render::colors,
            cubes(size * size),
            pixels.arg(),
            records.arg(),
            factors.arg(),
            means.arg(),
            size
        );
        launch!(
            self,
            render::blur_across,
            cubes(size * size),
            pixels.arg(),
            records.arg(),
            weights.arg(),
            blurred.arg(),
            size
        );
        launch!(
            self,
            render::blur_down,
            cubes(size * size * 3),
            blurred.arg(),
            records.arg(),
            weights.arg(),
            normal.arg(),
            out.arg(),
            at,
            size
        );
        Ok(())
    }
}
