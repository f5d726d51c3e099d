//! Scenes in the country.

use super::canvas::{Canvas, Noise, blend, dim, hsv, lerp, smooth};
use super::sky::{daylight, sky};
use seedling_base::rng::Rng;

pub(super) fn mountains(canvas: &mut Canvas, rng: &mut Rng) {
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
        let base = lerp(0.86, 0.42, far);
        let height = lerp(0.22, 0.36, far) * rng.range(0.7, 1.2);
        let scale = lerp(1.6, 2.8, far);
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

pub(super) fn forest(canvas: &mut Canvas, rng: &mut Rng) {
    let noise = Noise::new(rng);
    let season = rng.uniform();
    let leaf = if season < 0.7 {
        hsv(
            rng.range(0.22, 0.36),
            rng.range(0.6, 0.9),
            rng.range(0.25, 0.45),
        )
    } else {
        hsv(rng.range(0.05, 0.12), 0.85, rng.range(0.4, 0.6))
    };
    let mist = blend([0.65, 0.75, 0.70], [0.9, 0.85, 0.6], rng.uniform());
    let light = rng.range(0.5, 1.2);
    let aspect = canvas.aspect();
    canvas.paint(|x, y, _| {
        let leaves = noise.fractal(x * 9.0, y * 9.0, 5);
        let gap = smooth(
            0.52,
            0.68,
            noise.fractal(x * 3.0 + 9.0, y * 3.0, 3) - (y - 0.4) * 0.4,
        );
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
            let thick = lerp(0.012, 0.055, near) * rng.range(0.6, 1.4);
            let lean = rng.range(-0.06, 0.06);
            let foot = lerp(ground, 0.97, near * rng.uniform());
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
                let wobble = (noise.sample(x0 * 9.0, y * 4.0) - 0.5) * 0.02;
                let across = (x - x0 - lean * (foot - y) - wobble) / (thick * (0.75 + 0.35 * y));
                if across.abs() > 1.0 {
                    return below;
                }
                let round = (1.0 - across * across).sqrt();
                let rough = noise.fractal(across * 5.0 + x0 * 40.0, y * 14.0, 4);
                let lit = (round * 0.6 + across * sun_side + rough - 0.2).clamp(0.05, 1.4) * light;
                let knot = if birch {
                    smooth(0.62, 0.7, noise.sample(x0 * 50.0, y * 40.0))
                } else {
                    0.0
                };
                let trunk = dim(bark, lit * (1.0 - 0.8 * knot));
                blend(trunk, dim(mist, light * 0.6), (1.0 - near) * 0.45)
            });
        }
    }
}

pub(super) fn flower(canvas: &mut Canvas, rng: &mut Rng) {
    let blurred = Noise::new(rng);
    let green = hsv(
        rng.range(0.2, 0.4),
        rng.range(0.4, 0.8),
        rng.range(0.12, 0.5),
    );
    let other = hsv(rng.uniform(), 0.5, rng.range(0.2, 0.6));
    let light = rng.range(0.7, 1.2);
    canvas.paint(|x, y, _| {
        let soft = blurred.fractal(x * 3.0, y * 3.0, 2);
        let spots = smooth(0.6, 0.85, blurred.sample(x * 5.0 + 30.0, y * 5.0));
        dim(
            blend(dim(green, 0.3 + 1.2 * soft), other, spots * 0.6),
            light,
        )
    });
    let hue = match rng.below(4) {
        0 => rng.range(0.9, 1.02),
        1 => rng.range(0.1, 0.17),
        2 => rng.range(0.7, 0.85),
        _ => rng.uniform(),
    };
    let saturation = if rng.chance(0.2) {
        0.08
    } else {
        rng.range(0.5, 0.95)
    };
    let petal = hsv(hue, saturation, 0.85);
    let heart = hsv(rng.range(0.06, 0.16), 0.9, rng.range(0.15, 0.7));
    let count = 5 + rng.below(9);
    let blooms = if rng.chance(0.3) { 3 } else { 1 };
    let aspect = canvas.aspect();
    for bloom in 0..blooms {
        let center = (rng.range(0.3, 0.7) * aspect, rng.range(0.35, 0.6));
        let center = if bloom == 0 {
            center
        } else {
            (rng.range(0.1, 0.9) * aspect, rng.range(0.2, 0.8))
        };
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
            let grain = vein.sample(dx * 160.0, dy * 160.0);
            let shade = (1.15 - d * 0.7) * (0.4 + grain) * light;
            blend(below, dim(heart, shade), smooth(1.0, 0.92, d))
        });
    }
}
