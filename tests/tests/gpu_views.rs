//! Views that a GPU makes, against the CPU's of the same random numbers. Resizing is the same
//! whole-number arithmetic; colors may be a level off where a product lies next to a whole number, and a
//! hue one of its 256 steps.

use seedling_core::data::views::RECIPES;
use seedling_core::data::{Color, Normalize, Photo, Rect, Scratch, ViewParams};
use seedling_core::nn::backend::Backend;
use seedling_core::nn::cpu::Cpu;
use seedling_core::ops::ViewOps;
use seedling_core::rng::{Purpose, Rng};
use seedling_tests::gpu::gpu;

fn photo((width, height): (usize, usize), seed: u64) -> Photo {
    let mut rng = Rng::new(seed, Purpose::Measure, 0, 0);
    // Waves and noise: edges, flat parts, and every level.
    let wave: [f32; 6] = std::array::from_fn(|_| rng.range(0.01, 0.3));
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let at = x as f32 * wave[c] + y as f32 * wave[3 + c];
                let noise = rng.range(-20.0, 20.0);
                rgb.push((127.0 + 120.0 * at.sin() + noise).clamp(0.0, 255.0) as u8);
            }
        }
    }
    Photo::new(width, height, rgb).unwrap()
}

/// Levels, from what a network reads.
fn levels(numbers: &[f32], normalize: &Normalize) -> Vec<i32> {
    let level = |(i, x): (usize, &f32)| {
        let level = (x * normalize.std[i % 3] + normalize.mean[i % 3]) * 255.0;
        assert!((level - level.round()).abs() < 1e-2, "{level} is no level");
        level.round() as i32
    };
    numbers.iter().enumerate().map(level).collect()
}

/// The share of numbers that differ, and by how many levels at most.
fn differences(views: &[(&Photo, &ViewParams)], size: usize) -> Option<(f64, i32)> {
    let gpu = gpu()?;
    let normalize = Normalize::default();
    let expected = Cpu::default().views(views, size, &normalize).unwrap();
    let expected = levels(&Cpu::default().download(&expected).unwrap(), &normalize);
    let got = gpu.views(views, size, &normalize).unwrap();
    let got = levels(&gpu.download(&got).unwrap(), &normalize);
    assert_eq!(got.len(), expected.len());
    let off: Vec<i32> = got
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .collect();
    let differ = off.iter().filter(|off| **off > 0).count();
    let most = off.iter().max().copied().unwrap_or(0);
    Some((differ as f64 / off.len() as f64, most))
}

#[test]
fn crops_of_any_size_are_the_same_bytes() {
    for (of, size) in [
        ((37, 61), 32),
        ((224, 50), 33),
        ((3, 5), 32),
        ((1, 1), 40),
        ((500, 90), 32),
    ] {
        let photo = photo(of, 1);
        let view = |left, top, width, height, flip| ViewParams {
            crop: Rect {
                left,
                top,
                width,
                height,
            },
            jitter: Vec::new(),
            gray: false,
            blur: None,
            flip,
        };
        let (w, h) = of;
        let views = [
            view(0, 0, w, h, false),
            view(w / 3, h / 4, w / 2, h / 2, true),
            view(w - 1, h - 1, 9, 9, false),
        ];
        let views: Vec<_> = views.iter().map(|view| (&photo, view)).collect();
        if let Some(found) = differences(&views, size) {
            assert_eq!(found, (0.0, 0), "{of:?} to {size}");
        }
    }
}

#[test]
fn each_color_is_the_cpus_but_for_rounding() {
    let photo = photo((80, 70), 2);
    for (jitter, share, most) in [
        (Color::Brightness(1.37), 1e-3, 1),
        (Color::Contrast(0.62), 1e-3, 1),
        (Color::Saturation(1.4), 1e-3, 1),
        // A step of hue is up to six levels.
        (Color::Hue(0.1), 1e-2, 6),
        (Color::Hue(-0.37), 1e-2, 6),
    ] {
        let view = ViewParams {
            crop: Rect {
                left: 0,
                top: 0,
                width: 80,
                height: 70,
            },
            jitter: vec![jitter],
            gray: false,
            blur: None,
            flip: false,
        };
        if let Some((differ, off)) = differences(&[(&photo, &view)], 64) {
            assert!(differ <= share && off <= most, "{jitter:?}: {differ} {off}");
        }
    }
}

/// More views than are made at a time, of photos of several sizes, by every recipe.
#[test]
fn every_recipe_draws_the_same_views() {
    let photos = [(64, 48), (51, 97), (128, 128)].map(|size| photo(size, 3));
    for recipe in &RECIPES {
        let mut rng = Rng::new(7, Purpose::Augment, 0, 0);
        let views: Vec<(&Photo, ViewParams)> = (0..70)
            .map(|i| {
                let photo = &photos[i % 3];
                (photo, recipe.sample(photo.width, photo.height, &mut rng))
            })
            .collect();
        let views: Vec<_> = views.iter().map(|(photo, view)| (*photo, view)).collect();
        if let Some((differ, most)) = differences(&views, 48) {
            // A level that is off before a hard change of colors is several behind it.
            assert!(
                differ < 0.01 && most <= 16,
                "{}: {differ} {most}",
                recipe.name
            );
        }
    }
}

/// The backend that has no views of its own makes the host's.
#[test]
fn without_a_gpu_the_bytes_are_the_hosts() {
    let photo = photo((40, 40), 4);
    let mut rng = Rng::new(1, Purpose::Augment, 0, 0);
    let view = RECIPES[0].sample(40, 40, &mut rng);
    let normalize = Normalize::default();
    let made = Cpu::default()
        .views(&[(&photo, &view)], 32, &normalize)
        .unwrap();
    let mut expected = vec![0.0; 32 * 32 * 3];
    view.apply(
        &photo,
        32,
        &normalize,
        &mut Scratch::default(),
        &mut expected,
    );
    assert_eq!(Cpu::default().download(&made).unwrap(), expected);
}
