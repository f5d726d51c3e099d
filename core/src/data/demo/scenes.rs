//! The scenes. Each paints a whole canvas from a few random choices.

use super::canvas::{Canvas, Light, Noise, add, blend, dim, hsv, mix, smooth};
use crate::rng::Rng;

type Scene = fn(&mut Canvas, &mut Rng);

/// Class names, sorted, and what paints them.
pub(super) const SCENES: [(&str, Scene); 8] = [
    ("beach", beach),
    ("city", city),
    ("flower", flower),
    ("forest", forest),
    ("marbles", marbles),
    ("mountains", mountains),
    ("page", page),
    ("sunset", sunset),
];

/// Sky with clouds above `horizon`, from `low` (at the horizon) to `high`.
fn sky(canvas: &mut Canvas, rng: &mut Rng, horizon: f32, low: Light, high: Light) {
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

/// Day skies from clear to dull.
fn daylight(rng: &mut Rng) -> (Light, Light) {
    let dull = rng.uniform();
    let high = blend([0.10, 0.26, 0.62], [0.42, 0.46, 0.50], dull * 0.8);
    let low = blend([0.55, 0.70, 0.85], [0.62, 0.64, 0.66], dull);
    let light = rng.range(0.7, 1.2);
    (dim(low, light), dim(high, light))
}

fn sunset(canvas: &mut Canvas, rng: &mut Rng) {
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
            if land { dim([0.05, 0.04, 0.05], 0.6) } else { below }
        });
    }
}

fn mountains(canvas: &mut Canvas, rng: &mut Rng) {
    let (low, high) = daylight(rng);
    sky(canvas, rng, 0.7, low, high);
    let ridges = 3 + rng.below(3);
    let side = rng.range(-1.0, 1.0);
    let snow = rng.range(0.15, 0.5);
    let season = rng.uniform();
    let meadow = blend([0.09, 0.17, 0.04], [0.30, 0.20, 0.06], season);
    for ridge in 0..ridges {
        let noise = Noise::new(rng);
        let far = 1.0 - ridge as f32 / ridges as f32;
        let base = mix(0.86, 0.42, far);
        let height = mix(0.22, 0.36, far) * rng.range(0.7, 1.2);
        let scale = mix(1.6, 2.8, far);
        let haze = dim(low, 0.95);
        canvas.paint(|x, y, below| {
            let outline = |x: f32| {
                let n = noise.fractal(x * scale, 0.5, 6);
                base - height * (n * 2.0 - 0.75)
            };
            let top = outline(x);
            if y < top {
                return below;
            }
            let depth = y - top;
            let texture = noise.fractal(x * 16.0 + depth * 9.0 * side, y * 16.0, 4);
            let slope = (outline(x + 0.01) - outline(x - 0.01)) * 25.0 * side;
            let lit = (0.55 + slope * 0.5 + (texture - 0.5) * 1.2).clamp(0.08, 1.3);
            let rock = dim([0.22, 0.20, 0.19], lit);
            let white = smooth(snow, snow - 0.08, y + (texture - 0.5) * 0.3);
            let peak = blend(rock, dim([0.85, 0.88, 0.95], lit), white);
            let green = smooth(0.05, 0.3, depth + (texture - 0.5) * 0.4) * (1.0 - far);
            let ground = blend(peak, dim(meadow, 0.4 + texture), green);
            blend(ground, haze, far * far * 0.75)
        });
    }
}

fn city(canvas: &mut Canvas, rng: &mut Rng) {
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
            let top = street - rng.range(0.15, 0.62) * mix(1.0, 0.75, near);
            let wall = dim(blend(low, [0.05, 0.05, 0.07], 0.5 + 0.5 * near), 0.25 + 0.2 * rng.uniform());
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
                let on = windows.at(which.0 * 3.0, which.1 * 3.0);
                if inside && on < lit {
                    dim(lamp, 0.25 + 1.1 * windows.at(which.1 * 5.0, which.0 * 5.0))
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
            let hue = if rng.chance(0.7) { rng.range(0.02, 0.14) } else { rng.uniform() };
            let colour = hsv(hue, rng.range(0.3, 0.9), 1.0);
            (rng.range(0.0, aspect), street + rng.range(-0.05, 0.02), colour)
        })
        .collect();
    canvas.paint(|x, y, below| {
        if y < street {
            return below;
        }
        let depth = (y - street) / (1.0 - street);
        let ripple = wet.fractal(x * 6.0, y * 40.0, 3);
        let mut light = dim(low, 0.12 + 0.1 * ripple);
        for (at, _, colour) in &lights {
            let off = (x - at + (ripple - 0.5) * 0.06) / 0.02;
            light = add(light, dim(*colour, (-off * off).exp() * (1.0 - depth) * ripple));
        }
        light
    });
    for (x, y, colour) in lights {
        canvas.stamp((x, y), 0.12, |dx, dy, below| {
            let d = dx.hypot(dy);
            let glow = 1.6 * (-d * d * 12_000.0).exp() + 0.25 * (-d * 40.0).exp();
            add(below, dim(colour, glow))
        });
    }
}

fn forest(canvas: &mut Canvas, rng: &mut Rng) {
    let noise = Noise::new(rng);
    let season = rng.uniform();
    let leaf = if season < 0.7 {
        hsv(rng.range(0.22, 0.36), rng.range(0.6, 0.9), rng.range(0.25, 0.45))
    } else {
        hsv(rng.range(0.05, 0.12), 0.85, rng.range(0.4, 0.6))
    };
    let mist = blend([0.65, 0.75, 0.70], [0.9, 0.85, 0.6], rng.uniform());
    let light = rng.range(0.5, 1.2);
    let aspect = canvas.aspect();
    canvas.paint(|x, y, _| {
        let leaves = noise.fractal(x * 9.0, y * 9.0, 5);
        let gap = smooth(0.52, 0.68, noise.fractal(x * 3.0 + 9.0, y * 3.0, 3) - (y - 0.4) * 0.4);
        let shade = dim(leaf, 0.15 + 1.5 * leaves * leaves);
        blend(shade, dim(mist, light), gap * 0.8)
    });
    let ground = rng.range(0.72, 0.86);
    let soil = blend([0.10, 0.06, 0.03], leaf, rng.uniform() * 0.6);
    canvas.paint(|x, y, below| {
        let edge = ground + (noise.fractal(x * 4.0, 3.0, 3) - 0.5) * 0.1;
        let litter = noise.fractal(x * 30.0, y * 50.0, 4);
        let sunny = smooth(0.5, 0.7, noise.fractal(x * 4.0, y * 9.0, 2));
        let floor = dim(soil, (0.3 + 1.4 * litter) * (0.5 + sunny * light));
        blend(below, floor, smooth(edge - 0.01, edge + 0.02, y))
    });
    let bark_hue = rng.range(0.05, 0.1);
    let birch = rng.chance(0.2);
    for layer in 0..3 {
        let near = layer as f32 / 2.0;
        for _ in 0..3 + rng.below(5) {
            let x0 = rng.range(-0.05, aspect + 0.05);
            let thick = mix(0.012, 0.055, near) * rng.range(0.6, 1.4);
            let lean = rng.range(-0.06, 0.06);
            let foot = mix(ground, 0.97, near * rng.uniform());
            let bark = if birch {
                [0.62, 0.60, 0.55]
            } else {
                hsv(bark_hue, 0.5, rng.range(0.06, 0.2))
            };
            let sun_side = rng.range(-0.6, 0.6);
            canvas.paint(|x, y, below| {
                if y > foot {
                    return below;
                }
                let wobble = (noise.at(x0 * 9.0, y * 4.0) - 0.5) * 0.02;
                let across = (x - x0 - lean * (foot - y) - wobble) / (thick * (0.75 + 0.35 * y));
                if across.abs() > 1.0 {
                    return below;
                }
                let round = (1.0 - across * across).sqrt();
                let rough = noise.fractal(across * 5.0 + x0 * 40.0, y * 14.0, 4);
                let lit = (round * 0.6 + across * sun_side + rough - 0.2).clamp(0.05, 1.4) * light;
                let knot = if birch { smooth(0.62, 0.7, noise.at(x0 * 50.0, y * 40.0)) } else { 0.0 };
                let trunk = dim(bark, lit * (1.0 - 0.8 * knot));
                blend(trunk, dim(mist, light * 0.6), (1.0 - near) * 0.45)
            });
        }
    }
}

fn flower(canvas: &mut Canvas, rng: &mut Rng) {
    let blurred = Noise::new(rng);
    let green = hsv(rng.range(0.2, 0.4), rng.range(0.4, 0.8), rng.range(0.12, 0.5));
    let other = hsv(rng.uniform(), 0.5, rng.range(0.2, 0.6));
    let light = rng.range(0.7, 1.2);
    canvas.paint(|x, y, _| {
        let soft = blurred.fractal(x * 3.0, y * 3.0, 2);
        let spots = smooth(0.6, 0.85, blurred.at(x * 5.0 + 30.0, y * 5.0));
        dim(blend(dim(green, 0.3 + 1.2 * soft), other, spots * 0.6), light)
    });
    let hue = match rng.below(4) {
        0 => rng.range(0.9, 1.02),
        1 => rng.range(0.1, 0.17),
        2 => rng.range(0.7, 0.85),
        _ => rng.uniform(),
    };
    let saturation = if rng.chance(0.2) { 0.08 } else { rng.range(0.5, 0.95) };
    let petal = hsv(hue, saturation, 0.85);
    let heart = hsv(rng.range(0.06, 0.16), 0.9, rng.range(0.15, 0.7));
    let count = 5 + rng.below(9);
    let blooms = if rng.chance(0.3) { 3 } else { 1 };
    let aspect = canvas.aspect();
    for bloom in 0..blooms {
        let center = (rng.range(0.3, 0.7) * aspect, rng.range(0.35, 0.6));
        let center = if bloom == 0 { center } else { (rng.range(0.1, 0.9) * aspect, rng.range(0.2, 0.8)) };
        let size = rng.range(0.24, 0.42) / (1.0 + 0.5 * bloom as f32);
        let bend = rng.range(-0.2, 0.2);
        canvas.paint(|x, y, below| {
            let stem = center.0 + bend * (y - center.1) + 0.06 * (y * 3.0).sin() * bend;
            if y > center.1 && (x - stem).abs() < 0.014 {
                dim(green, 0.8 + 20.0 * (x - stem))
            } else {
                below
            }
        });
        let turn = rng.range(0.0, 6.3);
        let (squash, plump) = (rng.range(0.65, 1.0), rng.range(0.35, 0.8));
        let vein = Noise::new(rng);
        for ring in 0..2 {
            let reach = size * (1.0 - 0.28 * ring as f32);
            let offset = turn + ring as f32 * std::f32::consts::PI / count as f32;
            canvas.stamp(center, reach, |dx, dy, below| {
                let dy = dy / squash;
                let radius = dx.hypot(dy) / reach;
                let angle = (dy.atan2(dx) + offset) * count as f32 / std::f32::consts::TAU;
                let across = (angle - angle.round()).abs() * 2.0;
                let edge = (1.0 - across.powf(1.0 / plump)).max(0.0).powf(0.4);
                let cover = smooth(edge, edge - 0.05, radius);
                let fold = vein.fractal(angle * 14.0, radius * 2.0, 3);
                let shade = 0.45 + 0.5 * radius - 0.35 * across + 0.45 * fold - 0.1 * ring as f32;
                let base = blend(petal, heart, (1.0 - radius).powi(4));
                blend(below, dim(base, shade.max(0.1) * light * 1.1), cover)
            });
        }
        let core = size * rng.range(0.14, 0.28);
        canvas.stamp(center, core, |dx, dy, below| {
            let d = dx.hypot(dy / squash) / core;
            let grain = vein.at(dx * 160.0, dy * 160.0);
            let shade = (1.15 - d * 0.7) * (0.4 + grain) * light;
            blend(below, dim(heart, shade), smooth(1.0, 0.92, d))
        });
    }
}

fn marbles(canvas: &mut Canvas, rng: &mut Rng) {
    let grain = Noise::new(rng);
    let wood = rng.chance(0.6);
    let cloth = hsv(rng.uniform(), rng.range(0.2, 0.7), rng.range(0.1, 0.5));
    let angle = rng.range(-0.6, 0.6);
    canvas.paint(|x, y, _| {
        let (u, v) = (x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin());
        if wood {
            let rings = (v * 26.0 + 3.0 * grain.fractal(u * 1.2, v * 5.0, 3)).sin() * 0.5 + 0.5;
            let fibre = grain.fractal(u * 6.0, v * 140.0, 3);
            blend([0.22, 0.10, 0.04], [0.42, 0.24, 0.11], rings * 0.6 + fibre * 0.5)
        } else {
            let weave = ((u * 160.0).sin() * (v * 160.0).sin()) * 0.1 + 0.9;
            dim(cloth, weave * (0.7 + 0.6 * grain.fractal(x * 3.0, y * 3.0, 4)))
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
        let colour = hsv(rng.uniform(), rng.range(0.3, 0.95), rng.range(0.3, 0.9));
        let swirl = hsv(rng.uniform(), rng.range(0.0, 0.9), rng.range(0.4, 1.0));
        let metal = rng.chance(0.2);
        let edge = canvas.pixel() / size;
        canvas.stamp((x, y), size * 1.02, |dx, dy, below| {
            let (u, v) = (dx / size, dy / size);
            let flat = u * u + v * v;
            let depth = (1.0 - flat).max(0.0).sqrt();
            let stripe = grain.fractal(u * 2.0 + x * 20.0, v * 2.0 + depth * 2.0, 3);
            let body = blend(colour, swirl, smooth(0.45, 0.6, stripe));
            let body = if metal { [0.45, 0.44, 0.42] } else { body };
            let norm = (lamp.0 * lamp.0 + lamp.1 * lamp.1 + 1.0).sqrt();
            let facing = (u * lamp.0 + v * lamp.1 + depth) / norm;
            let shine = (2.0 * facing * depth - 1.0 / norm).max(0.0).powi(24) * 3.0;
            let room = if metal { 0.6 * smooth(-0.1, 0.1, v + 0.2 * u) } else { 0.0 };
            let ball = dim(body, (0.12 + facing.max(0.0) + room) * power);
            let lit = add(ball, [shine * power; 3]);
            blend(below, lit, smooth(1.0 + edge, 1.0 - edge, flat.sqrt()))
        });
    }
}

fn page(canvas: &mut Canvas, rng: &mut Rng) {
    let desk = hsv(rng.uniform(), rng.range(0.1, 0.6), rng.range(0.05, 0.35));
    let noise = Noise::new(rng);
    let (turn, zoom) = (rng.range(-0.18, 0.18), rng.range(0.85, 1.5));
    let center = (canvas.aspect() * rng.range(0.42, 0.58), rng.range(0.42, 0.58));
    let paper = blend([0.86, 0.85, 0.82], [0.85, 0.74, 0.52], rng.uniform() * rng.uniform());
    let ink = blend([0.02, 0.02, 0.025], [0.03, 0.05, 0.25], if rng.chance(0.3) { 1.0 } else { 0.0 });
    let line = rng.range(0.034, 0.06);
    let heading = rng.chance(0.6);
    let figure = rng.chance(0.45).then(|| (rng.range(-0.3, 0.05), rng.range(-0.25, 0.2), hsv(rng.uniform(), 0.5, 0.5)));
    let shadow = (rng.range(-1.0, 1.0), rng.range(-1.0, 1.0), rng.range(0.1, 0.6));
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
        let sheet = dim(paper, light * (0.96 + 0.06 * noise.fractal(x * 8.0, y * 8.0, 3)));
        let margin = 0.06;
        if u.abs() > half.0 - margin || v.abs() > half.1 - margin {
            return sheet;
        }
        if let Some((fu, fv, colour)) = figure
            && u > fu && u < fu + 0.28 && v > fv && v < fv + 0.2
        {
            let inside = noise.fractal(u * 12.0, v * 12.0, 4);
            return dim(blend(colour, [0.8, 0.8, 0.85], smooth(0.4, 0.6, inside)), light);
        }
        let row = ((v + half.1) / line).floor();
        let in_row = (v + half.1) / line - row;
        let title = heading && row < 4.0 && row >= 1.0;
        let glyph = if title { 0.75 } else { 0.36 } * line;
        let column = ((u + half.0) / glyph).floor();
        let in_column = (u + half.0) / glyph - column;
        // Words end at spaces, paragraphs before the right margin.
        let space = noise.at(column * 0.37, row * 7.3) > 0.72;
        let ends = row as i32 % 7 == 6 && u > half.0 * (noise.at(row * 9.1, 5.5) - 0.4);
        let blank = title && (row as i32 % 2 == 0 || u > 0.1);
        if space || ends || blank || !(0.25..0.8).contains(&in_row) {
            return sheet;
        }
        let stroke = noise.at(column * 31.7 + in_column * 2.6, row * 17.3 + in_row * 3.4);
        let dark = smooth(0.38, 0.58, stroke) * smooth(0.0, 0.15, in_column) * smooth(1.0, 0.85, in_column);
        blend(sheet, dim(ink, light), dark)
    });
}

fn beach(canvas: &mut Canvas, rng: &mut Rng) {
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
            return blend(surface, dim([0.9, 0.93, 0.95], light), (crest * 0.7 + foam).min(1.0));
        }
        let wet = smooth(0.1, 0.0, y - edge);
        let ripples = noise.fractal(x * 8.0 / near, y * 60.0, 3);
        let grains = noise.fractal(x * 90.0, y * 90.0, 2);
        dim(sand, light * (0.65 + 0.25 * ripples + 0.2 * grains) * (1.0 - 0.45 * wet))
    });
    let aspect = canvas.aspect();
    for _ in 0..rng.below(5) {
        let spot = (rng.range(0.05, 0.95) * aspect, rng.range(0.78, 0.95));
        let size = rng.range(0.05, 0.13) * (spot.1 - 0.4) * 2.0;
        let hue = rng.uniform();
        canvas.stamp((spot.0 + size * 0.6, spot.1 + size * 0.55), size, |dx, dy, below| {
            let d = (dx / size).hypot(dy / size * 3.0);
            dim(below, 1.0 - 0.6 * smooth(1.0, 0.6, d))
        });
        canvas.stamp(spot, size * 1.1, |dx, dy, below| {
            let pole = dx.abs() < size * 0.035 && dy > 0.0 && dy < size * 0.6;
            let dome = dx.hypot(dy * 1.4) / size;
            if dome < 1.0 && dy < 0.12 * size {
                let stripe = ((dy - 0.2 * size).atan2(dx) * 5.0).floor() as i32 % 2 == 0;
                let colour = hsv(hue, if stripe { 0.85 } else { 0.08 }, 0.8);
                dim(colour, light * (0.8 - 0.4 * dx / size))
            } else if pole {
                [0.3, 0.28, 0.25]
            } else {
                below
            }
        });
    }
}
