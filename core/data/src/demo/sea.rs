//! Scenes at the sea.

use super::canvas::{Canvas, Noise, add, blend, dim, hsv, smooth};
use super::sky::{daylight, sky};
use seedling_base::rng::Rng;

pub(super) fn sunset(canvas: &mut Canvas, rng: &mut Rng) {
    let horizon = rng.range(0.45, 0.68);
    let red = rng.uniform();
    let low = blend([1.0, 0.42, 0.08], [0.9, 0.16, 0.10], red);
    let high = blend([0.16, 0.18, 0.42], [0.22, 0.08, 0.26], rng.uniform());
    sky(canvas, rng, horizon, low, high);
    let sun = (
        rng.range(0.15, 0.85) * canvas.aspect(),
        horizon - rng.range(-0.02, 0.22),
    );
    let size = rng.range(0.025, 0.06);
    let glow = [1.0, 0.62, 0.22];
    canvas.paint(|x, y, below| {
        let distance = (x - sun.0).hypot(y - sun.1);
        let disc = 1.0 - smooth(size * 0.9, size * 1.1, distance);
        let halo = 0.5 * (-distance * 5.0).exp() + 0.5 * (-distance * 16.0).exp();
        add(below, dim(glow, halo * 0.9 + disc * 4.0))
    });
    let waves = Noise::new(rng);
    let rough = rng.range(0.5, 1.5);
    let deep = blend([0.03, 0.06, 0.12], [0.12, 0.05, 0.10], red);
    canvas.paint(|x, y, sky| {
        if y < horizon {
            return sky;
        }
        let depth = (y - horizon) / (1.0 - horizon);
        let near = 0.03 + depth;
        let wave = waves.fractal(x * 3.0 / near, 22.0 * near.ln(), 3);
        let mirror = dim(low, (1.0 - depth) * 0.5 + 0.1);
        let path = (-((x - sun.0) / (0.05 + 0.22 * depth * rough)).powi(2)).exp();
        let glint = smooth(0.45, 0.75, wave) * path * 2.5;
        let surface = blend(deep, mirror, 0.25 + 0.6 * wave * (1.0 - 0.5 * depth));
        add(surface, dim(glow, glint))
    });
    if rng.chance(0.5) {
        let shore = Noise::new(rng);
        let (from, rise) = (rng.range(0.0, canvas.aspect()), rng.range(0.04, 0.16));
        canvas.paint(|x, y, below| {
            let hill = rise * shore.fractal(x * 3.0, 0.0, 4) * smooth(0.0, 0.5, (x - from).abs());
            let land = y < horizon + 0.004 && y > horizon - hill;
            if land {
                dim([0.05, 0.04, 0.05], 0.6)
            } else {
                below
            }
        });
    }
}

pub(super) fn beach(canvas: &mut Canvas, rng: &mut Rng) {
    let horizon = rng.range(0.3, 0.5);
    let (low, high) = daylight(rng);
    sky(canvas, rng, horizon, low, high);
    let noise = Noise::new(rng);
    let (sway, swing) = (rng.range(-0.35, 0.35), rng.range(0.0, 6.0));
    let coast = rng.range(0.62, 0.75);
    let shallow = blend([0.10, 0.55, 0.55], [0.20, 0.40, 0.42], rng.uniform());
    let deep = blend([0.02, 0.16, 0.34], [0.08, 0.18, 0.22], rng.uniform());
    let sand = blend([0.72, 0.56, 0.36], [0.80, 0.74, 0.62], rng.uniform());
    let light = rng.range(0.75, 1.2);
    canvas.paint(|x, y, sky| {
        if y < horizon {
            return sky;
        }
        let edge = coast + sway * (x - 0.75) * 0.5 + 0.03 * (x * 4.0 + swing).sin();
        let edge = edge + (noise.fractal(x * 5.0, 2.0, 3) - 0.5) * 0.05;
        let depth = (y - horizon) / (1.0 - horizon);
        let near = 0.05 + depth;
        if y < edge {
            let out = ((edge - y) / (edge - horizon).max(0.05)).clamp(0.0, 1.0);
            let wave = noise.fractal(x * 2.0 / near, 16.0 * near.ln(), 4);
            let water = blend(shallow, deep, out.sqrt());
            let crest = smooth(0.62, 0.75, wave) * (1.0 - out * 0.7);
            let foam = smooth(0.03, 0.0, edge - y - 0.02 * wave);
            let surface = dim(water, (0.6 + 0.7 * wave) * light);
            return blend(
                surface,
                dim([0.9, 0.93, 0.95], light),
                (crest * 0.7 + foam).min(1.0),
            );
        }
        let wet = smooth(0.1, 0.0, y - edge);
        let ripples = noise.fractal(x * 8.0 / near, y * 60.0, 3);
        let grains = noise.fractal(x * 90.0, y * 90.0, 2);
        dim(
            sand,
            light * (0.65 + 0.25 * ripples + 0.2 * grains) * (1.0 - 0.45 * wet),
        )
    });
    let aspect = canvas.aspect();
    for _ in 0..rng.below(5) {
        let spot = (rng.range(0.05, 0.95) * aspect, rng.range(0.78, 0.95));
        let size = rng.range(0.05, 0.13) * (spot.1 - 0.4) * 2.0;
        let hue = rng.uniform();
        canvas.stamp(
            (spot.0 + size * 0.6, spot.1 + size * 0.55),
            size,
            |dx, dy, below| {
                let d = (dx / size).hypot(dy / size * 3.0);
                dim(below, 1.0 - 0.6 * smooth(1.0, 0.6, d))
            },
        );
        canvas.stamp(spot, size * 1.1, |dx, dy, below| {
            let pole = dx.abs() < size * 0.035 && dy > 0.0 && dy < size * 0.6;
            let dome = dx.hypot(dy * 1.4) / size;
            if dome < 1.0 && dy < 0.12 * size {
                let stripe = ((dy - 0.2 * size).atan2(dx) * 5.0).floor() as i32 % 2 == 0;
                let color = hsv(hue, if stripe { 0.85 } else { 0.08 }, 0.8);
                dim(color, light * (0.8 - 0.4 * dx / size))
            } else if pole {
                [0.3, 0.28, 0.25]
            } else {
                below
            }
        });
    }
}
