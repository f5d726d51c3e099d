//! From photos and the random numbers of their views to the kernels of [`super::render`].

use cubecl::prelude::*;

use super::Gpu;
use super::launch::launch;
use super::memory::DeviceBuffer;
use super::render::{self, UNITS, record, step};
use crate::Result;
use rayon::prelude::*;
use seedling_data::{Color, Normalize, Photo, Rect, ViewParams, blur_kernel, resize_axis};

/// Views that are made together: what is between photos and views is there for so many at a time.
const BLOCK: usize = 64;

/// What a view needs from the host. Places in its record are counted from its own beginnings.
struct View<'a> {
    photo: &'a Photo,
    /// What is sent of the photo: the crop, but for rows that no output reads.
    sent: Rect,
    record: [u32; record::LEN],
    axes: Vec<u32>,
    factors: [f32; 4],
    weights: Vec<f32>,
}

impl<'a> View<'a> {
    fn new(photo: &'a Photo, params: &ViewParams, size: usize) -> View<'a> {
        let crop = params.crop_of(photo);
        let mut words = [0; record::LEN];
        let across = resize_axis(crop.width, size);
        let down = resize_axis(crop.height, size);
        let needed = down.reach();
        let sent = Rect {
            top: crop.top + needed.start,
            height: needed.len(),
            ..crop
        };
        words[record::WIDTH] = sent.width as u32;
        words[record::COUNT] = sent.height as u32;
        let mut axes = Vec::new();
        for (axis, first, at, taps) in [
            (&across, 0, record::ACROSS, record::ACROSS_TAPS),
            (&down, needed.start, record::DOWN, record::DOWN_TAPS),
        ] {
            words[at] = axes.len() as u32;
            words[taps] = axis.taps as u32;
            axes.extend(axis.starts.iter().map(|start| (start - first) as u32));
            axes.extend(axis.weights.iter().map(|weight| *weight as u32));
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
        words[record::GRAY] = params.gray.into();
        words[record::FLIP] = params.flip.into();
        let weights = match params.blur {
            Some(sigma) => blur_kernel(sigma, size),
            None => vec![1.0],
        };
        words[record::BLUR_TAPS] = weights.len() as u32;
        View {
            photo,
            sent,
            record: words,
            axes,
            factors,
            weights,
        }
    }

    fn bytes(&self) -> usize {
        self.sent.width * self.sent.height * 3
    }

    fn copy(&self, to: &mut [u8]) {
        let row = self.sent.width * 3;
        let from = (self.sent.top * self.photo.width + self.sent.left) * 3;
        let rows = self.photo.rgb[from..].chunks(self.photo.width * 3);
        for (to, from) in to.chunks_exact_mut(row).zip(rows) {
            to.copy_from_slice(&from[..row]);
        }
    }
}

/// A block of views, as it is sent.
struct Block {
    crops: Vec<u8>,
    records: Vec<u32>,
    axes: Vec<u32>,
    factors: Vec<f32>,
    weights: Vec<f32>,
    /// Rows of all crops, narrowed, and the most that a view has.
    rows: usize,
    most_rows: usize,
}

impl Block {
    fn new(views: &[(&Photo, &ViewParams)], size: usize) -> Block {
        let mut views: Vec<View> = views
            .par_iter()
            .map(|(photo, params)| View::new(photo, params, size))
            .collect();
        let mut block = Block {
            crops: vec![0; round(views.iter().map(View::bytes).sum())],
            records: Vec::new(),
            axes: Vec::new(),
            factors: Vec::new(),
            weights: Vec::new(),
            rows: 0,
            most_rows: 0,
        };
        let (mut rest, mut begin) = (&mut block.crops[..], 0);
        let mut copies = Vec::new();
        for view in &mut views {
            let words = &mut view.record;
            words[record::CROP] = begin as u32;
            words[record::ROWS] = (block.rows * size) as u32;
            words[record::ACROSS] += block.axes.len() as u32;
            words[record::DOWN] += block.axes.len() as u32;
            words[record::BLUR] = block.weights.len() as u32;
            block.records.extend(*words);
            block.axes.append(&mut view.axes);
            block.weights.append(&mut view.weights);
            block.factors.extend(view.factors);
            block.rows += view.sent.height;
            block.most_rows = block.most_rows.max(view.sent.height);
            let (to, behind) = rest.split_at_mut(view.bytes());
            (rest, begin) = (behind, begin + to.len());
            copies.push((&*view, to));
        }
        copies.into_par_iter().for_each(|(view, to)| view.copy(to));
        block.axes.resize(round(block.axes.len()), 0);
        block.weights.resize(round(block.weights.len()), 0.0);
        block
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
            let block = Block::new(views, size);
            self.make_block(
                &block,
                views.len(),
                size,
                (&out, i * BLOCK * image),
                &normal,
            )?;
        }
        Ok(out)
    }

    fn make_block(
        &self,
        block: &Block,
        views: usize,
        size: usize,
        (out, at): (&DeviceBuffer, usize),
        normal: &DeviceBuffer,
    ) -> Result<()> {
        let crops = self.send_bytes(&block.crops)?;
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
            crops.arg(),
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
