//! What scenes are painted with: linear light per pixel, value noise, and a camera.

use crate::Result;
use crate::photo::Photo;
use seedling_base::rng::Rng;

/// Linear red, green and blue.
pub(super) type Light = [f32; 3];

/// A picture in the making. Positions are in units of its height: y from 0 (top) to 1, x from 0
/// to [`Canvas::aspect`].
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Light>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Canvas {
        Canvas {
            width,
            height,
            pixels: vec![[0.0; 3]; width * height],
        }
    }

    /// Width over height: the right edge.
    pub(super) fn aspect(&self) -> f32 {
        self.width as f32 / self.height as f32
    }

    /// One pixel's size.
    pub(super) fn pixel(&self) -> f32 {
        1.0 / self.height as f32
    }

    /// Repaints every pixel from its position and what is there.
    pub(super) fn paint(&mut self, mut shade: impl FnMut(f32, f32, Light) -> Light) {
        let step = self.pixel();
        for (row, pixels) in self.pixels.chunks_exact_mut(self.width).enumerate() {
            let y = (row as f32 + 0.5) * step;
            for (column, pixel) in pixels.iter_mut().enumerate() {
                *pixel = shade((column as f32 + 0.5) * step, y, *pixel);
            }
        }
    }

    /// Repaints the pixels within `reach` of a point; `shade` gets the position relative to it.
    pub(super) fn stamp(
        &mut self,
        (x, y): (f32, f32),
        reach: f32,
        mut shade: impl FnMut(f32, f32, Light) -> Light,
    ) {
        let n = self.height as f32;
        let clip = |v: f32, end: usize| (v.max(0.0) as usize).min(end);
        let rows = clip((y - reach) * n, self.height)..clip((y + reach) * n + 1.0, self.height);
        let columns = clip((x - reach) * n, self.width)..clip((x + reach) * n + 1.0, self.width);
        for row in rows {
            for column in columns.clone() {
                let pixel = &mut self.pixels[row * self.width + column];
                let dx = (column as f32 + 0.5) / n - x;
                let dy = (row as f32 + 0.5) / n - y;
                *pixel = shade(dx, dy, *pixel);
            }
        }
    }

    /// Takes the photograph: exposure, color cast, vignette, sensor noise, gamma, 8 bits.
    pub(super) fn develop(self, rng: &mut Rng) -> Result<Photo> {
        let exposure = rng.range(0.65, 1.35);
        let warmth = rng.range(-0.14, 0.14);
        let tint = rng.range(-0.05, 0.05);
        let gain = [
            exposure * (1.0 + warmth),
            exposure * (1.0 + tint),
            exposure * (1.0 - warmth),
        ];
        let vignette = rng.range(0.0, 0.5);
        let grain = rng.range(0.004, 0.03);
        let contrast = rng.range(0.85, 1.15);
        let mut noise = Static(rng.next_u64());
        let mut rgb = Vec::with_capacity(self.pixels.len() * 3);
        let (w, h) = (self.width as f32, self.height as f32);
        for (i, light) in self.pixels.iter().enumerate() {
            let x = (i % self.width) as f32 / w - 0.5;
            let y = (i / self.width) as f32 / h - 0.5;
            let fall = 1.0 - vignette * (x * x + y * y) * 1.6;
            for c in 0..3 {
                let v = (light[c] * gain[c] * fall).max(0.0);
                // A film-like shoulder keeps suns and lamps from clipping flat.
                let v = v * (1.0 + v / 9.0) / (1.0 + v * 0.45);
                let v = v.powf(contrast / 2.2) + grain * noise.next();
                rgb.push((v * 255.0 + 0.5).clamp(0.0, 255.0) as u8);
            }
        }
        Photo::new(self.width, self.height, rgb)
    }
}

/// Cheap sensor noise: about normal (four uniform numbers), a number per call.
struct Static(u64);

impl Static {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let bits = self.0 >> 32;
        let sum = (0..4).map(|k| (bits >> (8 * k) & 255) as f32).sum::<f32>();
        (sum - 510.0) / 148.0
    }
}

/// Smooth random height fields; each has its own pattern.
#[derive(Clone, Copy)]
pub(super) struct Noise(u32);

impl Noise {
    pub(super) fn new(rng: &mut Rng) -> Noise {
        Noise(rng.next_u64() as u32)
    }

    fn corner(self, x: i32, y: i32) -> f32 {
        let mut h =
            self.0 ^ (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
        h = (h ^ (h >> 15)).wrapping_mul(0x2C1B_3C6D);
        h = (h ^ (h >> 12)).wrapping_mul(0x297A_2D39);
        (h >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// One octave: 0 to 1, features about 1 across.
    pub(super) fn sample(self, x: f32, y: f32) -> f32 {
        let (fx, fy) = (x.floor(), y.floor());
        let (ix, iy) = (fx as i32, fy as i32);
        let ease = |t: f32| t * t * (3.0 - 2.0 * t);
        let (u, v) = (ease(x - fx), ease(y - fy));
        let top = lerp(self.corner(ix, iy), self.corner(ix + 1, iy), u);
        let bottom = lerp(self.corner(ix, iy + 1), self.corner(ix + 1, iy + 1), u);
        lerp(top, bottom, v)
    }

    /// `octaves` of it, each half as large and half as strong: 0 to 1.
    pub(super) fn fractal(self, x: f32, y: f32, octaves: u32) -> f32 {
        let (mut sum, mut weight, mut total, mut scale) = (0.0, 1.0, 0.0, 1.0);
        for k in 0..octaves {
            sum += weight * Noise(self.0.wrapping_add(k * 7919)).sample(x * scale, y * scale);
            total += weight;
            weight *= 0.5;
            scale *= 2.03;
        }
        sum / total
    }
}

/// From `a` (`t` = 0) to `b` (`t` = 1).
pub(super) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// [`lerp`] of colors.
pub(super) fn blend(a: Light, b: Light, t: f32) -> Light {
    [0, 1, 2].map(|c| lerp(a[c], b[c], t))
}

/// A color made brighter or darker.
pub(super) fn dim(light: Light, factor: f32) -> Light {
    light.map(|v| v * factor)
}

/// Two lights together.
pub(super) fn add(a: Light, b: Light) -> Light {
    [0, 1, 2].map(|c| a[c] + b[c])
}

/// 0 below `from`, 1 above `to`, smooth between.
pub(super) fn smooth(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A color from hue (turns), saturation and brightness, linear.
pub(super) fn hsv(hue: f32, saturation: f32, value: f32) -> Light {
    [5.0, 3.0, 1.0].map(|n| {
        let k = (n + hue.rem_euclid(1.0) * 6.0) % 6.0;
        value * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    })
}
