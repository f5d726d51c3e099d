//! An odd camera: what a scene becomes through cheap optics, under one colored light, upside down. Features
//! of photos that share all that differ less in what they show, and a dataset's statistics say in what.

use crate::photo::Photo;
use seedling_base::rng::Rng;

/// Pixels that its blur runs together, on a side.
const BLUR: usize = 7;
/// What is left of red, green and blue under its light.
const LIGHT: [f32; 3] = [0.95, 0.70, 0.40];
/// What is left of the difference of colors.
const COLOR: f32 = 0.35;
/// Its darkest gray, and how much brighter its brightest is.
const HAZE: (f32, f32) = (40.0, 0.55);
/// Levels by which pixels differ by chance.
const NOISE: f32 = 14.0;

/// Takes the photo again, through the odd camera.
pub(super) fn retake(photo: &mut Photo, rng: &mut Rng) {
    let (width, height) = (photo.width, photo.height);
    let scene = photo.rgb.clone();
    let (columns, rows) = (width.div_ceil(BLUR), height.div_ceil(BLUR));
    // The mean of every square of pixels.
    let mut means = vec![[0.0f32; 3]; columns * rows];
    for (i, mean) in means.iter_mut().enumerate() {
        let (left, top) = (i % columns * BLUR, i / columns * BLUR);
        let mut count = 0.0;
        for y in top..(top + BLUR).min(height) {
            for x in left..(left + BLUR).min(width) {
                let pixel = &scene[3 * (y * width + x)..][..3];
                (0..3).for_each(|c| mean[c] += f32::from(pixel[c]));
                count += 1.0;
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= count);
    }
    let at = |x: usize, y: usize| means[y.min(rows - 1) * columns + x.min(columns - 1)];
    for (i, pixel) in photo.rgb.chunks_exact_mut(3).enumerate() {
        // Upside down, and between the squares' middles.
        let (x, y) = (width - 1 - i % width, height - 1 - i / width);
        let place = |v: usize| ((v as f32 + 0.5) / BLUR as f32 - 0.5).max(0.0);
        let (u, v) = (place(x), place(y));
        let (fu, fv) = (u.fract(), v.fract());
        let (u, v) = (u as usize, v as usize);
        let corners = [at(u, v), at(u + 1, v), at(u, v + 1), at(u + 1, v + 1)];
        let weights = [
            (1.0 - fu) * (1.0 - fv),
            fu * (1.0 - fv),
            (1.0 - fu) * fv,
            fu * fv,
        ];
        let color: [f32; 3] =
            std::array::from_fn(|c| corners.iter().zip(weights).map(|(p, w)| p[c] * w).sum());
        let gray = (color[0] + color[1] + color[2]) / 3.0;
        for (c, out) in pixel.iter_mut().enumerate() {
            let seen = (gray + COLOR * (color[c] - gray)) * LIGHT[c];
            let level = HAZE.0 * LIGHT[c] + HAZE.1 * seen + NOISE * rng.normal();
            *out = level.clamp(0.0, 255.0) as u8;
        }
    }
}
