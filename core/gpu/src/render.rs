//! Views of photos, made where they are trained on: what [`seedling_data::ViewParams::render`] does on the
//! CPU, from the same random numbers and with the same whole-number arithmetic; only where that
//! uses 64-bit numbers (hue) and in the blur's sums a level may come out next to it.
//!
//! A pixel is a word, R lowest. Six launches for a block of views: across, down and the colors before
//! contrast, the mean luma, the other colors, and the blur's two, the second of which mirrors and
//! normalizes.

use cubecl::prelude::*;

use super::rows::total;

/// Words of a view's record, by name.
pub mod record {
    /// Where the bytes of its crop begin.
    pub const CROP: usize = 0;
    /// Pixels in a row of the crop.
    pub const WIDTH: usize = 1;
    /// Where its narrowed rows begin, and how many there are.
    pub const ROWS: usize = 2;
    pub const COUNT: usize = 3;
    /// Where the axis across begins, and its taps.
    pub const ACROSS: usize = 4;
    pub const ACROSS_TAPS: usize = 5;
    /// The same down; starts are counted from the first row that any output reads.
    pub const DOWN: usize = 6;
    pub const DOWN_TAPS: usize = 7;
    /// Four steps of color, each [`super::step`]; what is before contrast is done first.
    pub const STEPS: usize = 8;
    /// Steps before contrast.
    pub const BEFORE: usize = 12;
    /// Whether color is dropped, and whether it is mirrored.
    pub const GRAY: usize = 13;
    pub const FLIP: usize = 14;
    /// Where the blur's weights begin, and how many there are from the middle outwards.
    pub const BLUR: usize = 15;
    pub const BLUR_TAPS: usize = 16;
    pub const LEN: usize = 17;
}

/// Steps of color.
pub mod step {
    pub const BRIGHTNESS: u32 = 1;
    pub const CONTRAST: u32 = 2;
    pub const SATURATION: u32 = 3;
    pub const HUE: u32 = 4;
}

/// Fraction bits of the filter weights.
const BITS: u32 = 22;

/// Units of a cube that sums luma.
pub const UNITS: usize = 256;

#[cube]
fn pack(r: u32, g: u32, b: u32) -> u32 {
    r | (g << 8u32) | (b << 16u32)
}

#[cube]
fn red(p: u32) -> u32 {
    p & 255u32
}

#[cube]
fn green(p: u32) -> u32 {
    (p >> 8u32) & 255u32
}

#[cube]
fn blue(p: u32) -> u32 {
    (p >> 16u32) & 255u32
}

/// ITU-R 601, 16 fraction bits.
#[cube]
fn luma(p: u32) -> u32 {
    (red(p) * 19595u32 + green(p) * 38470u32 + blue(p) * 7471u32 + 32768u32) >> 16u32
}

#[cube]
fn to_byte(x: f32) -> u32 {
    u32::cast_from(clamp(x, 0.0f32, 255.0f32))
}

#[cube]
fn blend(from: f32, to: u32, factor: f32) -> u32 {
    to_byte(from + factor * (f32::cast_from(to) - from))
}

#[cube]
fn blend_all(from: f32, p: u32, factor: f32) -> u32 {
    pack(
        blend(from, red(p), factor),
        blend(from, green(p), factor),
        blend(from, blue(p), factor),
    )
}

/// The integer part of x * 255.
#[cube]
fn whole_255(x: f32) -> f32 {
    (x * 255.0f32).floor()
}

#[cube]
fn wrap(k: f32) -> f32 {
    select(k >= 6.0f32, k - 6.0f32, k)
}

/// One channel of HSV to RGB, at so many sixths from the hue.
#[cube]
fn channel(k: f32, value: f32, saturation: f32) -> u32 {
    let weight = clamp(min(k, 4.0f32 - k), 0.0f32, 1.0f32);
    u32::cast_from(value * (1.0f32 - saturation * weight) + 0.5f32)
}

#[cube]
fn turn_hue(p: u32, turn: f32) -> u32 {
    let (r, g, b) = (
        f32::cast_from(red(p)),
        f32::cast_from(green(p)),
        f32::cast_from(blue(p)),
    );
    let most = max(r, max(g, b));
    let span = most - min(r, min(g, b));
    let safe = select(span == 0.0f32, 1.0f32, span);
    let mut base = 4.0f32;
    let mut plus = g;
    let mut minus = r;
    if r == most {
        base = 0.0f32;
        plus = b;
        minus = g;
    } else if g == most {
        base = 2.0f32;
        plus = r;
        minus = b;
    }
    let sixths = base + (most - plus) / safe - (most - minus) / safe;
    let part = sixths / 6.0f32;
    let part = select(part < 0.0f32, part + 1.0f32, part);
    let hue = whole_255(part) + turn;
    let hue = select(hue >= 256.0f32, hue - 256.0f32, hue);
    let saturation = whole_255(span / select(most == 0.0f32, 1.0f32, most)) / 255.0f32;
    let h = wrap(hue * (6.0f32 / 255.0f32));
    pack(
        channel(wrap(h + 5.0f32), most, saturation),
        channel(wrap(h + 3.0f32), most, saturation),
        channel(wrap(h + 1.0f32), most, saturation),
    )
}

#[cube]
fn colored(p: u32, kind: u32, factor: f32, mean: f32) -> u32 {
    let mut out = p;
    if kind == 1u32 {
        out = blend_all(0.0f32, p, factor);
    } else if kind == 2u32 {
        out = blend_all(mean, p, factor);
    } else if kind == 3u32 {
        out = blend_all(f32::cast_from(luma(p)), p, factor);
    } else if kind == 4u32 {
        out = turn_hue(p, factor);
    }
    out
}

#[cube]
fn byte(crops: &Array<u32>, at: usize) -> u32 {
    (crops[at / 4] >> ((at % 4) as u32 * 8u32)) & 255u32
}

/// Level of a weighted sum.
#[cube]
fn clip(sum: u32) -> u32 {
    min(sum >> BITS, 255u32)
}

/// The view that a unit works on, where its record begins, and the unit's place in the view. Cubes are
/// (parts of a view, views).
#[cube]
fn here() -> (usize, usize, usize) {
    let view = CUBE_POS_Y as usize;
    let place = CUBE_POS_X as usize * comptime!(UNITS) + UNIT_POS as usize;
    (view, view * comptime!(record::LEN), place)
}

/// Rows of the crops, narrowed.
#[cube(launch_unchecked)]
pub fn across(
    crops: &Array<u32>,
    records: &Array<u32>,
    axes: &Array<u32>,
    rows: &mut Array<u32>,
    size: usize,
) {
    let (_, at, place) = here();
    let (y, x) = (place / size, place % size);
    if y < records[at + comptime!(record::COUNT)] as usize {
        let axis = records[at + comptime!(record::ACROSS)] as usize;
        let taps = records[at + comptime!(record::ACROSS_TAPS)] as usize;
        let width = records[at + comptime!(record::WIDTH)] as usize;
        let first = y * width + axes[axis + x] as usize;
        let from = records[at + comptime!(record::CROP)] as usize + first * 3;
        let weights = axis + size + x * taps;
        let half = comptime!(1u32 << (BITS - 1));
        let mut r = half.runtime();
        let mut g = half.runtime();
        let mut b = half.runtime();
        for tap in 0..taps {
            let weight = axes[weights + tap];
            r += byte(crops, from + tap * 3) * weight;
            g += byte(crops, from + tap * 3 + 1) * weight;
            b += byte(crops, from + tap * 3 + 2) * weight;
        }
        let to = records[at + comptime!(record::ROWS)] as usize;
        rows[to + place] = pack(clip(r), clip(g), clip(b));
    }
}

/// The narrowed rows, shortened, through the colors before contrast.
#[cube(launch_unchecked)]
pub fn down(
    rows: &Array<u32>,
    records: &Array<u32>,
    axes: &Array<u32>,
    factors: &Array<f32>,
    out: &mut Array<u32>,
    size: usize,
) {
    let (view, at, place) = here();
    let (y, x) = (place / size, place % size);
    if y < size {
        let axis = records[at + comptime!(record::DOWN)] as usize;
        let taps = records[at + comptime!(record::DOWN_TAPS)] as usize;
        let first = axes[axis + y] as usize;
        let from = records[at + comptime!(record::ROWS)] as usize + first * size + x;
        let weights = axis + size + y * taps;
        let half = comptime!(1u32 << (BITS - 1));
        let mut r = half.runtime();
        let mut g = half.runtime();
        let mut b = half.runtime();
        for tap in 0..taps {
            let weight = axes[weights + tap];
            let p = rows[from + tap * size];
            r += red(p) * weight;
            g += green(p) * weight;
            b += blue(p) * weight;
        }
        let mut p = pack(clip(r), clip(g), clip(b));
        let before = records[at + comptime!(record::BEFORE)] as usize;
        for s in 0..before {
            let kind = records[at + comptime!(record::STEPS) + s];
            p = colored(p, kind, factors[view * 4 + s], 0.0f32);
        }
        out[view * size * size + place] = p;
    }
}

/// The mean luma of each view, as a whole level. A cube a view.
#[cube(launch_unchecked)]
pub fn mean_luma(pixels: &Array<u32>, means: &mut Array<f32>, size: usize) {
    let view = CUBE_POS_X as usize + CUBE_POS_Y as usize * CUBE_COUNT_X as usize;
    let unit = UNIT_POS as usize;
    let mut shared = SharedMemory::<u32>::new(UNITS);
    let count = size * size;
    let mut sum = 0u32;
    if view < means.len() {
        let mut i = unit;
        while i < count {
            sum += luma(pixels[view * count + i]);
            i += comptime!(UNITS);
        }
    }
    let sum = total(sum, &mut shared);
    if unit == 0 && view < means.len() {
        let n = count as u32;
        means[view] = f32::cast_from((2u32 * sum + n) / (2u32 * n));
    }
}

/// The other colors.
#[cube(launch_unchecked)]
pub fn colors(
    pixels: &mut Array<u32>,
    records: &Array<u32>,
    factors: &Array<f32>,
    means: &Array<f32>,
    size: usize,
) {
    let (view, at, place) = here();
    if place < size * size {
        let to = view * size * size + place;
        let mut p = pixels[to];
        let before = records[at + comptime!(record::BEFORE)] as usize;
        for s in before..4 {
            let kind = records[at + comptime!(record::STEPS) + s];
            p = colored(p, kind, factors[view * 4 + s], means[view]);
        }
        if records[at + comptime!(record::GRAY)] == 1u32 {
            let gray = luma(p);
            p = pack(gray, gray, gray);
        }
        pixels[to] = p;
    }
}

/// `x` mirrored at the ends of 0..n, within which one reflection brings it.
#[cube]
fn mirrored(x: i32, n: i32) -> usize {
    let x = select(x < 0i32, 0i32 - x, x);
    usize::cast_from(select(x >= n, 2i32 * (n - 1i32) - x, x))
}

/// Blurred rows, (views, size, size, 3).
#[cube(launch_unchecked)]
pub fn blur_across(
    pixels: &Array<u32>,
    records: &Array<u32>,
    weights: &Array<f32>,
    out: &mut Array<f32>,
    size: usize,
) {
    let (view, at, place) = here();
    let (y, x) = (place / size, place % size);
    if y < size {
        let first = records[at + comptime!(record::BLUR)] as usize;
        let taps = records[at + comptime!(record::BLUR_TAPS)] as usize;
        let row = (view * size + y) * size;
        let p = pixels[row + x];
        let w = weights[first];
        let mut r = f32::cast_from(red(p)) * w;
        let mut g = f32::cast_from(green(p)) * w;
        let mut b = f32::cast_from(blue(p)) * w;
        let (x, n) = (x as i32, size as i32);
        for tap in 1..taps {
            let w = weights[first + tap];
            let k = tap as i32;
            let (p, q) = (
                pixels[row + mirrored(x - k, n)],
                pixels[row + mirrored(x + k, n)],
            );
            r += f32::cast_from(red(p) + red(q)) * w;
            g += f32::cast_from(green(p) + green(q)) * w;
            b += f32::cast_from(blue(p) + blue(q)) * w;
        }
        let to = (view * size * size + place) * 3;
        out[to] = r;
        out[to + 1] = g;
        out[to + 2] = b;
    }
}

/// Blurred columns, as a network reads them: a unit has a number of a pixel. `normal` are the scales of
/// the three channels, then their shifts; views begin at `from` in `out`.
#[cube(launch_unchecked)]
pub fn blur_down(
    rows: &Array<f32>,
    records: &Array<u32>,
    weights: &Array<f32>,
    normal: &Array<f32>,
    out: &mut Array<f32>,
    from: usize,
    size: usize,
) {
    let (view, at, place) = here();
    let (pixel, c) = (place / 3, place % 3);
    let (y, x) = (pixel / size, pixel % size);
    if y < size {
        let first = records[at + comptime!(record::BLUR)] as usize;
        let taps = records[at + comptime!(record::BLUR_TAPS)] as usize;
        let begin = view * size * size * 3;
        let column = begin + x * 3 + c;
        let mut sum = rows[column + y * size * 3] * weights[first];
        let n = size as i32;
        for tap in 1..taps {
            let k = tap as i32;
            let (above, below) = (mirrored(y as i32 - k, n), mirrored(y as i32 + k, n));
            sum += (rows[column + above * size * 3] + rows[column + below * size * 3])
                * weights[first + tap];
        }
        let level = f32::cast_from(to_byte(sum + 0.5f32));
        let mut x_out = x;
        if records[at + comptime!(record::FLIP)] == 1u32 {
            x_out = size - 1 - x;
        }
        let to = from + begin + (y * size + x_out) * 3 + c;
        out[to] = level * normal[c] + normal[3 + c];
    }
}
