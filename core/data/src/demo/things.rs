//! Scenes of made things.

use super::canvas::{Canvas, Light, Noise, add, blend, dim, hsv, lerp, smooth};
use super::sky::sky;
use seedling_base::rng::Rng;

pub(super) fn city(canvas: &mut Canvas, rng: &mut Rng) {
    let dusk = rng.uniform();
    let high = blend([0.004, 0.006, 0.02], [0.02, 0.04, 0.14], dusk);
    let low = blend([0.03, 0.02, 0.025], [0.35, 0.16, 0.10], dusk);
    sky(canvas, rng, 0.75, dim(low, 0.8), high);
    let aspect = canvas.aspect();
    let street = rng.range(0.78, 0.9);
    for layer in 0..3 {
        let near = layer as f32 / 2.0;
        let mut left = -0.05;
        while left < aspect {
            let width = rng.range(0.07, 0.2);
            let top = street - rng.range(0.15, 0.62) * lerp(1.0, 0.75, near);
            let wall = dim(
                blend(low, [0.05, 0.05, 0.07], 0.5 + 0.5 * near),
                0.25 + 0.2 * rng.uniform(),
            );
            let (dx, dy) = (rng.range(0.011, 0.02), rng.range(0.017, 0.03));
            let lit = rng.range(0.15, 0.6);
            let lamp = blend([1.0, 0.66, 0.26], [0.75, 0.9, 1.0], rng.uniform() * 0.8);
            let windows = Noise::new(rng);
            let right = left + width;
            canvas.paint(|x, y, below| {
                if x < left || x > right || y < top || y > street {
                    return below;
                }
                let (column, row) = ((x - left) / dx, (y - top) / dy);
                let inside = column.fract() > 0.3 && row.fract() > 0.4;
                let which = (column.floor() * 1.7 + 0.5, row.floor() * 2.3 + 0.5);
                let on = windows.sample(which.0 * 3.0, which.1 * 3.0);
                if inside && on < lit {
                    dim(
                        lamp,
                        0.25 + 1.1 * windows.sample(which.1 * 5.0, which.0 * 5.0),
                    )
                } else {
                    wall
                }
            });
            left = right + rng.range(-0.01, 0.03);
        }
    }
    let wet = Noise::new(rng);
    let lights: Vec<(f32, f32, Light)> = (0..8 + rng.below(14))
        .map(|_| {
            let hue = if rng.chance(0.7) {
                rng.range(0.02, 0.14)
            } else {
                rng.uniform()
            };
            let color = hsv(hue, rng.range(0.3, 0.9), 1.0);
            (
                rng.range(0.0, aspect),
                street + rng.range(-0.05, 0.02),
                color,
            )
        })
        .collect();
    canvas.paint(|x, y, below| {
        if y < street {
            return below;
        }
        let depth = (y - street) / (1.0 - street);
        let ripple = wet.fractal(x * 6.0, y * 40.0, 3);
        let mut light = dim(low, 0.12 + 0.1 * ripple);
        for (at, _, color) in &lights {
            let off = (x - at + (ripple - 0.5) * 0.06) / 0.02;
            light = add(
                light,
                dim(*color, (-off * off).exp() * (1.0 - depth) * ripple),
            );
        }
        light
    });
    for (x, y, color) in lights {
        canvas.stamp((x, y), 0.12, |dx, dy, below| {
            let d = dx.hypot(dy);
            let glow = 1.6 * (-d * d * 12_000.0).exp() + 0.25 * (-d * 40.0).exp();
            add(below, dim(color, glow))
        });
    }
}

pub(super) fn marbles(canvas: &mut Canvas, rng: &mut Rng) {
    let grain = Noise::new(rng);
    let wood = rng.chance(0.6);
    let cloth = hsv(rng.uniform(), rng.range(0.2, 0.7), rng.range(0.1, 0.5));
    let angle = rng.range(-0.6, 0.6);
    canvas.paint(|x, y, _| {
        let (u, v) = (
            x * angle.cos() + y * angle.sin(),
            y * angle.cos() - x * angle.sin(),
        );
        if wood {
            let rings = (v * 26.0 + 3.0 * grain.fractal(u * 1.2, v * 5.0, 3)).sin() * 0.5 + 0.5;
            let fibre = grain.fractal(u * 6.0, v * 140.0, 3);
            blend(
                [0.22, 0.10, 0.04],
                [0.42, 0.24, 0.11],
                rings * 0.6 + fibre * 0.5,
            )
        } else {
            let weave = ((u * 160.0).sin() * (v * 160.0).sin()) * 0.1 + 0.9;
            dim(
                cloth,
                weave * (0.7 + 0.6 * grain.fractal(x * 3.0, y * 3.0, 4)),
            )
        }
    });
    let lamp = (rng.range(-0.6, 0.6), rng.range(-0.8, -0.2));
    let power = rng.range(0.7, 1.4);
    let aspect = canvas.aspect();
    let mut placed: Vec<(f32, f32, f32)> = Vec::new();
    for _ in 0..60 {
        let size = rng.range(0.06, 0.17);
        let (x, y) = (rng.range(0.0, aspect), rng.range(0.05, 0.95));
        let free = |p: &(f32, f32, f32)| (p.0 - x).hypot(p.1 - y) > p.2 + size;
        if placed.len() < 12 && placed.iter().all(free) {
            placed.push((x, y, size));
        }
    }
    for (x, y, size) in placed {
        let shadow = (x - lamp.0 * size * 0.9, y - lamp.1 * size * 0.9);
        canvas.stamp(shadow, size * 1.3, |dx, dy, below| {
            let d = dx.hypot(dy) / size;
            dim(below, 1.0 - 0.65 * smooth(1.25, 0.5, d))
        });
        let color = hsv(rng.uniform(), rng.range(0.3, 0.95), rng.range(0.3, 0.9));
        let swirl = hsv(rng.uniform(), rng.range(0.0, 0.9), rng.range(0.4, 1.0));
        let metal = rng.chance(0.2);
        let edge = canvas.pixel() / size;
        canvas.stamp((x, y), size * 1.02, |dx, dy, below| {
            let (u, v) = (dx / size, dy / size);
            let flat = u * u + v * v;
            let depth = (1.0 - flat).max(0.0).sqrt();
            let stripe = grain.fractal(u * 2.0 + x * 20.0, v * 2.0 + depth * 2.0, 3);
            let body = blend(color, swirl, smooth(0.45, 0.6, stripe));
            let body = if metal { [0.45, 0.44, 0.42] } else { body };
            let norm = (lamp.0 * lamp.0 + lamp.1 * lamp.1 + 1.0).sqrt();
            let facing = (u * lamp.0 + v * lamp.1 + depth) / norm;
            let shine = (2.0 * facing * depth - 1.0 / norm).max(0.0).powi(24) * 3.0;
            let room = if metal {
                0.6 * smooth(-0.1, 0.1, v + 0.2 * u)
            } else {
                0.0
            };
            let ball = dim(body, (0.12 + facing.max(0.0) + room) * power);
            let lit = add(ball, [shine * power; 3]);
            blend(below, lit, smooth(1.0 + edge, 1.0 - edge, flat.sqrt()))
        });
    }
}

pub(super) fn page(canvas: &mut Canvas, rng: &mut Rng) {
    let desk = hsv(rng.uniform(), rng.range(0.1, 0.6), rng.range(0.05, 0.35));
    let noise = Noise::new(rng);
    let (turn, zoom) = (rng.range(-0.18, 0.18), rng.range(0.85, 1.5));
    let center = (
        canvas.aspect() * rng.range(0.42, 0.58),
        rng.range(0.42, 0.58),
    );
    let paper = blend(
        [0.86, 0.85, 0.82],
        [0.85, 0.74, 0.52],
        rng.uniform() * rng.uniform(),
    );
    let ink = blend(
        [0.02, 0.02, 0.025],
        [0.03, 0.05, 0.25],
        if rng.chance(0.3) { 1.0 } else { 0.0 },
    );
    let line = rng.range(0.034, 0.06);
    let heading = rng.chance(0.6);
    let figure = rng.chance(0.45).then(|| {
        (
            rng.range(-0.3, 0.05),
            rng.range(-0.25, 0.2),
            hsv(rng.uniform(), 0.5, 0.5),
        )
    });
    let shadow = (
        rng.range(-1.0, 1.0),
        rng.range(-1.0, 1.0),
        rng.range(0.1, 0.6),
    );
    let half = (0.40, 0.54);
    canvas.paint(|x, y, _| {
        let (dx, dy) = ((x - center.0) / zoom, (y - center.1) / zoom);
        let u = dx * turn.cos() + dy * turn.sin();
        let v = dy * turn.cos() - dx * turn.sin();
        let light = 1.0 - shadow.2 * smooth(-0.6, 0.6, shadow.0 * (x - 0.7) + shadow.1 * (y - 0.5));
        if u.abs() > half.0 || v.abs() > half.1 {
            let table = dim(desk, 0.5 + noise.fractal(x * 4.0, y * 40.0, 4));
            let near = (u.abs() - half.0).max(v.abs() - half.1);
            return dim(table, light * (0.55 + 0.45 * smooth(0.0, 0.05, near)));
        }
        let sheet = dim(
            paper,
            light * (0.96 + 0.06 * noise.fractal(x * 8.0, y * 8.0, 3)),
        );
        let margin = 0.06;
        if u.abs() > half.0 - margin || v.abs() > half.1 - margin {
            return sheet;
        }
        if let Some((fu, fv, color)) = figure
            && u > fu
            && u < fu + 0.28
            && v > fv
            && v < fv + 0.2
        {
            let inside = noise.fractal(u * 12.0, v * 12.0, 4);
            return dim(
                blend(color, [0.8, 0.8, 0.85], smooth(0.4, 0.6, inside)),
                light,
            );
        }
        let row = ((v + half.1) / line).floor();
        let in_row = (v + half.1) / line - row;
        let title = heading && (1.0..4.0).contains(&row);
        let glyph = if title { 0.75 } else { 0.36 } * line;
        let column = ((u + half.0) / glyph).floor();
        let in_column = (u + half.0) / glyph - column;
        // Words end at spaces, paragraphs before the right margin.
        let space = noise.sample(column * 0.37, row * 7.3) > 0.72;
        let ends = row as i32 % 7 == 6 && u > half.0 * (noise.sample(row * 9.1, 5.5) - 0.4);
        let blank = title && (row as i32 % 2 == 0 || u > 0.1);
        if space || ends || blank || !(0.25..0.8).contains(&in_row) {
            return sheet;
        }
        let stroke = noise.sample(column * 31.7 + in_column * 2.6, row * 17.3 + in_row * 3.4);
        let dark = smooth(0.38, 0.58, stroke)
            * smooth(0.0, 0.15, in_column)
            * smooth(1.0, 0.85, in_column);
        blend(sheet, dim(ink, light), dark)
    });
}
