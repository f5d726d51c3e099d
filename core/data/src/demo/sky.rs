//! Skies, which most scenes begin with.

use super::canvas::{Canvas, Light, Noise, blend, dim, smooth};
use seedling_base::rng::Rng;

pub(super) fn sky(canvas: &mut Canvas, rng: &mut Rng, horizon: f32, low: Light, high: Light) {
    let noise = Noise::new(rng);
    let cover = rng.range(0.35, 0.75);
    let shift = rng.range(0.0, 50.0);
    let white = blend(low, [1.0, 0.98, 0.95], 0.7);
    canvas.paint(|x, y, _| {
        let depth = (y / horizon).min(1.0);
        let base = blend(high, low, depth * depth);
        // Clouds flatten towards the horizon.
        let far = 1.0 / (1.15 - depth);
        let density = noise.fractal(x * 1.6 * far.sqrt() + shift, y * 3.0 * far, 5);
        let cloud = smooth(cover, cover + 0.25, density);
        let shade = 0.75 + 0.35 * smooth(cover, cover + 0.5, density);
        blend(base, dim(white, shade), cloud * 0.85)
    });
}

pub(super) fn daylight(rng: &mut Rng) -> (Light, Light) {
    let dull = rng.uniform();
    let high = blend([0.10, 0.26, 0.62], [0.42, 0.46, 0.50], dull * 0.8);
    let low = blend([0.55, 0.70, 0.85], [0.62, 0.64, 0.66], dull);
    let light = rng.range(0.7, 1.2);
    (dim(low, light), dim(high, light))
}
