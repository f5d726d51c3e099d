//! Color arithmetic of the views, on three 8-bit planes in place, exactly as Pillow and
//! torchvision compute it on 8-bit pictures (float blends truncated, hue in 8-bit HSV).

use super::byte::{to_byte, truncate};
use seedling_base::simd::dispatch;

/// Weights of R, G and B in luma (ITU-R 601), 16 fraction bits.
const LUMA: [u32; 3] = [19595, 38470, 7471];

#[inline(always)]
fn luma(r: u8, g: u8, b: u8) -> u32 {
    (u32::from(r) * LUMA[0] + u32::from(g) * LUMA[1] + u32::from(b) * LUMA[2] + 0x8000) >> 16
}

/// `from + factor * (to - from)`, clipped and truncated to 8 bits.
#[inline(always)]
fn blend(from: f32, to: u8, factor: f32) -> u8 {
    to_byte(from + factor * (f32::from(to) - from))
}

fn split(planes: &mut [u8]) -> (&mut [u8], &mut [u8], &mut [u8]) {
    let plane = planes.len() / 3;
    let (red, rest) = planes.split_at_mut(plane);
    let (green, blue) = rest.split_at_mut(plane);
    (red, green, blue)
}

/// Scales brightness by `factor`.
pub fn brightness(planes: &mut [u8], factor: f32) {
    blend_with(planes, 0.0, factor);
}

/// Blends with a flat picture of the mean luma: 0 is flat, 1 unchanged, more is harder.
pub fn contrast(planes: &mut [u8], factor: f32) {
    let (red, green, blue) = split(planes);
    let mut sum = 0;
    sum_luma(red, green, blue, &mut sum);
    let n = red.len() as u64;
    // Pillow rounds the mean to a whole level.
    let mean = (2 * sum + n) / (2 * n.max(1));
    blend_with(planes, mean as f32, factor);
}

/// Blends with the gray picture: 0 is gray, 1 unchanged, more is gaudier.
pub fn saturation(planes: &mut [u8], factor: f32) {
    let (red, green, blue) = split(planes);
    blend_luma(red, green, blue, factor);
}

/// Turns the hue by `shift` of a full circle (-0.5 to 0.5), in steps of 1/256 of it.
pub fn hue(planes: &mut [u8], shift: f32) {
    // As torchvision: truncated towards zero, then modulo 256.
    let step = (f64::from(shift) * 255.0) as i32 as u8;
    let (red, green, blue) = split(planes);
    turn_hue(red, green, blue, step);
}

/// All three planes become luma.
pub fn grayscale(planes: &mut [u8]) {
    let (red, green, blue) = split(planes);
    to_luma(red, green, blue);
    green.copy_from_slice(red);
    blue.copy_from_slice(red);
}

dispatch! {
    fn blend_with(values: &mut [u8], from: f32, factor: f32) {
        for value in values {
            *value = blend(from, *value, factor);
        }
    }
}

dispatch! {
    fn sum_luma(red: &[u8], green: &[u8], blue: &[u8], sum: &mut u64) {
        let rows = red.chunks(4096).zip(green.chunks(4096)).zip(blue.chunks(4096));
        for ((r, g), b) in rows {
            // 4096 lumas fit 32 bits with room to spare, and 32-bit lanes are twice as wide.
            let mut part = 0u32;
            for ((&r, &g), &b) in r.iter().zip(g).zip(b) {
                part += luma(r, g, b);
            }
            *sum += u64::from(part);
        }
    }
}

dispatch! {
    fn blend_luma(red: &mut [u8], green: &mut [u8], blue: &mut [u8], factor: f32) {
        for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
            let gray = luma(*r, *g, *b) as f32;
            *r = blend(gray, *r, factor);
            *g = blend(gray, *g, factor);
            *b = blend(gray, *b, factor);
        }
    }
}

dispatch! {
    fn to_luma(red: &mut [u8], green: &[u8], blue: &[u8]) {
        for ((r, &g), &b) in red.iter_mut().zip(green).zip(blue) {
            *r = luma(*r, g, b) as u8;
        }
    }
}

/// The integer part of `x * 255` without `f32`'s rounding reaching the next integer: the product
/// is `256 x - x`, and the error of that difference is known exactly.
#[inline(always)]
fn whole_255(x: f32) -> f32 {
    let big = x * 256.0;
    let product = big - x;
    let error = (big - product) - x;
    let whole = truncate(product) as f32;
    if whole == product && error < 0.0 {
        whole - 1.0
    } else {
        whole
    }
}

/// One channel of HSV to RGB; `k` is the channel's distance from the hue in sixths, below 6.
#[inline(always)]
fn channel(k: f32, value: f32, saturation: f32) -> u8 {
    let weight = if k < 4.0 - k { k } else { 4.0 - k };
    let weight = if weight > 0.0 { weight } else { 0.0 };
    let weight = if weight < 1.0 { weight } else { 1.0 };
    truncate(value * (1.0 - saturation * weight) + 0.5) as u8
}

#[inline(always)]
fn wrap(k: f32) -> f32 {
    if k >= 6.0 { k - 6.0 } else { k }
}

dispatch! {
    fn turn_hue(red: &mut [u8], green: &mut [u8], blue: &mut [u8], step: u8) {
        let step = f32::from(step);
        for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
            let (max, min) = (*red.max(green).max(blue), *red.min(green).min(blue));
            let (r, g, b) = (f32::from(*red), f32::from(*green), f32::from(*blue));
            let max = f32::from(max);
            let span = max - f32::from(min);
            let safe = if span == 0.0 { 1.0 } else { span };
            // Which color is largest decides the sixth the hue counts from.
            let (base, plus, minus): (f64, f32, f32) = if r == max {
                (0.0, b, g)
            } else if g == max {
                (2.0, r, b)
            } else {
                (4.0, g, r)
            };
            let plus = (max - plus) / safe;
            let minus = (max - minus) / safe;
            // 64-bit where Pillow's doubles decide which 8-bit hue a color gets.
            let sixths = (base + f64::from(plus) - f64::from(minus)) as f32;
            let turn = f64::from(sixths) * (1.0 / 6.0);
            let turn = (if turn < 0.0 { turn + 1.0 } else { turn }) as f32;
            let hue = whole_255(turn) + step;
            let hue = if hue >= 256.0 { hue - 256.0 } else { hue };
            let saturation = whole_255(span / if max == 0.0 { 1.0 } else { max }) * (1.0 / 255.0);
            // 255 of 255 is hue 0 again: six sixths.
            let h = wrap(hue * (6.0 / 255.0));
            *red = channel(wrap(h + 5.0), max, saturation);
            *green = channel(wrap(h + 3.0), max, saturation);
            *blue = channel(wrap(h + 1.0), max, saturation);
        }
    }
}
