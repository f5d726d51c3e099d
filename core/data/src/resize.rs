//! Antialiased resizing, bit for bit Pillow's: a filter widened by the scale, 22-bit fixed-point
//! weights, first across (rounded to 8 bits), then down.

use std::borrow::Cow;
use std::ops::Range;

use super::photo::Photo;
use super::pixel_norm::Normalize;
use seedling_base::simd::dispatch;

/// A rectangle of a photo, in whole pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// Columns left of it.
    pub left: usize,
    /// Rows above it.
    pub top: usize,
    /// Columns in it.
    pub width: usize,
    /// Rows in it.
    pub height: usize,
}

/// What pixels between pixels are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Filter {
    /// A triangle.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -1/2 (1981).
    Bicubic,
}

impl Filter {
    /// How far it reaches, in input pixels of an unscaled picture.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Bicubic => 0.0,
        }
    }
}

/// Fraction bits of the filter weights.
const BITS: u32 = 22;
const HALF: i32 = 1 << (BITS - 1);

/// For every output position: where its window starts and its weights, zero-padded to `taps`.
#[derive(Debug, Default)]
pub struct Axis {
    pub starts: Vec<usize>,
    pub weights: Vec<i32>,
    pub taps: usize,
}

/// The axis of `from` input positions that become `to`, bilinear.
pub fn resize_axis(from: usize, to: usize) -> Axis {
    let mut axis = Axis::default();
    axis.set(Filter::Bilinear, (from, to), 0..to);
    axis
}

impl Axis {
    /// Refills for the output positions `wanted` out of `to`, made of `from` input positions;
    /// keeps the buffers.
    fn set(&mut self, filter: Filter, (from, to): (usize, usize), wanted: Range<usize>) {
        let scale = from as f64 / to as f64;
        let widened = scale.max(1.0);
        let support = filter.support() * widened;
        // Padding every window to the same length makes the inner loops' bounds known.
        self.taps = (support.ceil() as usize * 2 + 1).min(from);
        self.starts.clear();
        self.weights.clear();
        self.weights.resize(wanted.len() * self.taps, 0);
        let mut window = Vec::with_capacity(self.taps);
        for (position, weights) in wanted.zip(self.weights.chunks_exact_mut(self.taps)) {
            let center = (position as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let last = ((center + support + 0.5) as usize).min(from);
            window.clear();
            let mut total = 0.0;
            for x in first..last {
                let weight = filter.weight((x as f64 - center + 0.5) / widened);
                total += weight;
                window.push(weight);
            }
            let start = first.min(from - self.taps);
            self.starts.push(start);
            for (slot, weight) in weights[first - start..].iter_mut().zip(&window) {
                let scaled = weight / total * f64::from(1u32 << BITS);
                *slot = (scaled + 0.5f64.copysign(scaled)) as i32;
            }
        }
    }

    /// The input positions that any output looks at.
    pub fn reach(&self) -> Range<usize> {
        let first = self.starts.first().copied().unwrap_or(0);
        let last = self.starts.last().copied().unwrap_or(0);
        first..last + self.taps
    }
}

fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Buffers of one resize, reused from call to call.
#[derive(Debug, Default)]
pub struct ResizeScratch {
    across: Axis,
    down: Axis,
    rows: Vec<u8>,
}

/// Cuts `rect` out of `photo` and resizes it by `filter` to `width` x `height`, into three planes
/// (R, then G, then B; `3 * height * width` bytes). Pixels outside `rect` have no influence.
///
/// `rect` must lie inside the photo and `planes` have that length; both are the caller's duty.
pub fn crop_resize(
    photo: &Photo,
    rect: Rect,
    (filter, width, height): (Filter, usize, usize),
    scratch: &mut ResizeScratch,
    planes: &mut [u8],
) {
    let whole = Rect {
        left: 0,
        top: 0,
        width,
        height,
    };
    resize_window(photo, rect, (filter, width, height), whole, scratch, planes);
}

/// The part `window` of what `rect` of `photo` is when resized to a width and a height: nothing
/// is computed but this part, however large the whole would be.
fn resize_window(
    photo: &Photo,
    rect: Rect,
    (filter, whole_width, whole_height): (Filter, usize, usize),
    window: Rect,
    scratch: &mut ResizeScratch,
    planes: &mut [u8],
) {
    let (width, height) = (window.width, window.height);
    let columns = window.left..window.left + width;
    let lines = window.top..window.top + height;
    let (across, down) = ((rect.width, whole_width), (rect.height, whole_height));
    scratch.across.set(filter, across, columns);
    scratch.down.set(filter, down, lines);
    // Rows of the narrowed picture, each as three runs of `width` bytes.
    let needed = scratch.down.reach();
    scratch.rows.resize(needed.len() * width * 3, 0);
    for (y, row) in needed.clone().zip(scratch.rows.chunks_exact_mut(width * 3)) {
        let start = ((rect.top + y) * photo.width + rect.left) * 3;
        let pixels = &photo.rgb[start..start + rect.width * 3];
        narrow(pixels, &scratch.across, row);
    }
    let axis = &scratch.down;
    let plane = width * height;
    for y in 0..height {
        let weights = &axis.weights[y * axis.taps..(y + 1) * axis.taps];
        let first = (axis.starts[y] - needed.start) * width * 3;
        let rows = &scratch.rows[first..first + axis.taps * width * 3];
        for c in 0..3 {
            let out = &mut planes[c * plane + y * width..][..width];
            blend_rows(rows, c * width, width * 3, weights, out);
        }
    }
}

/// One row of interleaved pixels, resized into three runs.
fn narrow(pixels: &[u8], axis: &Axis, row: &mut [u8]) {
    let width = axis.starts.len();
    let (red, rest) = row.split_at_mut(width);
    let (green, blue) = rest.split_at_mut(width);
    match axis.taps {
        3 => narrow_taps::<3>(pixels, axis, red, green, blue),
        5 => narrow_taps::<5>(pixels, axis, red, green, blue),
        taps => {
            for (x, weights) in axis.weights.chunks_exact(taps).enumerate() {
                let window = &pixels[axis.starts[x] * 3..(axis.starts[x] + taps) * 3];
                let mut sums = [HALF; 3];
                for (pixel, &weight) in window.chunks_exact(3).zip(weights) {
                    for (sum, &value) in sums.iter_mut().zip(pixel) {
                        *sum += i32::from(value) * weight;
                    }
                }
                red[x] = clip(sums[0]);
                green[x] = clip(sums[1]);
                blue[x] = clip(sums[2]);
            }
        }
    }
}

/// [`narrow`] with the number of taps known to the compiler: enlarging has 3, up to half size 5.
fn narrow_taps<const TAPS: usize>(
    pixels: &[u8],
    axis: &Axis,
    red: &mut [u8],
    green: &mut [u8],
    blue: &mut [u8],
) {
    let (weights, _) = axis.weights.as_chunks::<TAPS>();
    let outs = red.iter_mut().zip(green).zip(blue);
    for ((weights, &start), ((r, g), b)) in weights.iter().zip(&axis.starts).zip(outs) {
        let window = &pixels[start * 3..(start + TAPS) * 3];
        let mut sums = [HALF; 3];
        for t in 0..TAPS {
            for c in 0..3 {
                sums[c] += i32::from(window[t * 3 + c]) * weights[t];
            }
        }
        *r = clip(sums[0]);
        *g = clip(sums[1]);
        *b = clip(sums[2]);
    }
}

dispatch! {
    /// A weighted sum of rows (`stride` apart, from `offset`), 64 columns at a time so that the sums
    /// stay in registers.
    fn blend_rows(rows: &[u8], offset: usize, stride: usize, weights: &[i32], out: &mut [u8]) {
        let mut x = 0;
        for chunk in out.chunks_mut(64) {
            let mut sums = [HALF; 64];
            for (row, &weight) in rows.chunks_exact(stride).zip(weights) {
                let values = &row[offset + x..offset + x + chunk.len()];
                if let Ok(values) = <&[u8; 64]>::try_from(values) {
                    for (sum, &value) in sums.iter_mut().zip(values) {
                        *sum += i32::from(value) * weight;
                    }
                } else {
                    for (sum, &value) in sums.iter_mut().zip(values) {
                        *sum += i32::from(value) * weight;
                    }
                }
            }
            for (slot, &sum) in chunk.iter_mut().zip(&sums) {
                *slot = clip(sum);
            }
            x += chunk.len();
        }
    }
}

/// Weaves three planes of `pixels` bytes into R, G, B triples, each row of `width` mirrored if
/// `flip`.
pub(super) fn interleave(planes: &[u8], width: usize, flip: bool, out: &mut [u8]) {
    let plane = planes.len() / 3;
    let (red, rest) = planes.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    let rows = red
        .chunks_exact(width)
        .zip(green.chunks_exact(width))
        .zip(blue.chunks_exact(width));
    for (((r, g), b), row) in rows.zip(out.chunks_exact_mut(width * 3)) {
        weave(r, g, b, flip, row);
    }
}

dispatch! {
    fn weave(r: &[u8], g: &[u8], b: &[u8], flip: bool, out: &mut [u8]) {
        let (pixels, _) = out.as_chunks_mut::<3>();
        let n = pixels.len();
        let (r, g, b) = (&r[..n], &g[..n], &b[..n]);
        if flip {
            for (i, pixel) in pixels.iter_mut().rev().enumerate() {
                *pixel = [r[i], g[i], b[i]];
            }
        } else {
            for (i, pixel) in pixels.iter_mut().enumerate() {
                *pixel = [r[i], g[i], b[i]];
            }
        }
    }
}

/// The whole of `photo` at another size.
pub fn resize(photo: &Photo, width: usize, height: usize) -> Photo {
    let whole = Rect {
        left: 0,
        top: 0,
        width: photo.width,
        height: photo.height,
    };
    resize_rect(photo, whole, width, height)
}

fn resize_rect(photo: &Photo, rect: Rect, width: usize, height: usize) -> Photo {
    let (width, height) = (width.max(1), height.max(1));
    let mut planes = vec![0; width * height * 3];
    let mut scratch = ResizeScratch::default();
    let size = (Filter::Bilinear, width, height);
    crop_resize(photo, rect, size, &mut scratch, &mut planes);
    let mut rgb = vec![0; planes.len()];
    interleave(&planes, width, false, &mut rgb);
    Photo { width, height, rgb }
}

/// The size `photo` has once its shorter side is `side` (torchvision: the longer side truncated).
fn shorter_side_size(photo: &Photo, side: usize) -> (usize, usize) {
    let (w, h) = (photo.width, photo.height);
    if w <= h {
        (side, side * h / w)
    } else {
        (side * w / h, side)
    }
}

/// torchvision's `Resize(side)`: the shorter side becomes `side`, the proportions stay.
pub fn shorter_side(photo: &Photo, side: usize) -> Photo {
    let (width, height) = shorter_side_size(photo, side.max(1));
    if (width, height) == (photo.width, photo.height) {
        return photo.clone();
    }
    resize(photo, width, height)
}

/// `photo` with its shorter side reduced to at most `side` (never enlarged).
pub fn shrunk(photo: &Photo, side: usize) -> Cow<'_, Photo> {
    match photo.width.min(photo.height) <= side {
        true => Cow::Borrowed(photo),
        false => Cow::Owned(shorter_side(photo, side)),
    }
}

impl Photo {
    /// As [`shrunk`].
    pub fn shrunk(self, side: usize) -> Photo {
        match shrunk(&self, side) {
            Cow::Owned(small) => small,
            Cow::Borrowed(_) => self,
        }
    }
}

/// Half of `slack` with ties to even, as Python rounds.
fn middle(slack: usize) -> usize {
    (slack as f64 / 2.0).round_ties_even() as usize
}

/// What a network sees of `photo` when it is measured: torchvision's `Resize` of the shorter side
/// to 256/224 of `size` (rounded) and `CenterCrop` of the middle `size` x `size`, normalized.
/// `out` takes `size * size * 3` numbers, rows of R, G, B. Only the middle is computed: the whole
/// of a photo of one by many thousand pixels would be enormous.
pub fn evaluation_view(photo: &Photo, size: usize, normalize: &Normalize, out: &mut [f32]) {
    normalize.apply(&evaluation_bytes(photo, size, Filter::Bilinear), out);
}

/// The same as bytes, resized by any filter.
pub fn evaluation_bytes(photo: &Photo, size: usize, filter: Filter) -> Vec<u8> {
    let side = (size * 256 + 112) / 224;
    let (width, height) = shorter_side_size(photo, side.max(1));
    let whole = Rect {
        left: 0,
        top: 0,
        width: photo.width,
        height: photo.height,
    };
    let window = Rect {
        left: middle(width - size),
        top: middle(height - size),
        width: size,
        height: size,
    };
    let mut planes = vec![0; size * size * 3];
    let mut scratch = ResizeScratch::default();
    resize_window(
        photo,
        whole,
        (filter, width, height),
        window,
        &mut scratch,
        &mut planes,
    );
    let mut rgb = vec![0; planes.len()];
    interleave(&planes, size, false, &mut rgb);
    rgb
}
