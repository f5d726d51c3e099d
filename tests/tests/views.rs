//! Views against torchvision's, for fixed parameters (stored by `golden/views.py`).

use std::path::Path;

use safetensors::SafeTensors;
use seedling_core::data::resize::{Rect, evaluation_view};
use seedling_core::data::views::{Color, RECIPES};
use seedling_core::data::{Normalize, Photo, Recipe, Scratch, ViewParams};
use seedling_core::rng::{Purpose, Rng};
use serde_json::Value;

struct Golden {
    bytes: Vec<u8>,
    cases: Vec<Value>,
}

impl Golden {
    fn read() -> Golden {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/views.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let cases = header.metadata().as_ref().unwrap()["cases"].clone();
        let cases = serde_json::from_str(&cases).unwrap();
        Golden { bytes, cases }
    }

    fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    fn photo(&self) -> Photo {
        let (shape, rgb) = self.bytes("photo");
        Photo::new(shape[1], shape[0], rgb).unwrap()
    }
}

fn params(case: &Value) -> (ViewParams, usize) {
    let number = |v: &Value| v.as_u64().unwrap() as usize;
    let crop = &case["crop"];
    let jitter = case["jitter"].as_array().unwrap().iter().map(|step| {
        let factor = step[1].as_f64().unwrap() as f32;
        match step[0].as_str().unwrap() {
            "brightness" => Color::Brightness(factor),
            "contrast" => Color::Contrast(factor),
            "saturation" => Color::Saturation(factor),
            _ => Color::Hue(factor),
        }
    });
    let view = ViewParams {
        crop: Rect {
            left: number(&crop[0]),
            top: number(&crop[1]),
            width: number(&crop[2]),
            height: number(&crop[3]),
        },
        jitter: jitter.collect(),
        gray: case["gray"].as_bool().unwrap(),
        blur: case["blur"].as_f64().map(|sigma| sigma as f32),
        flip: case["flip"].as_bool().unwrap(),
    };
    (view, number(&case["size"]))
}

/// Operations that are integer or single-rounded arithmetic agree to the bit. A hue may fall on
/// the other side of one rounding, and a chain carries that on through its contrast. Pillow 13
/// resizes some shapes downwards first (all before it: across first, as here): one rounding.
fn tolerance(name: &str) -> (u8, f64) {
    match name.split('/').next().unwrap() {
        "resize" if name.ends_with("mixed") => (1, 0.2),
        "hue" | "blur" => (1, 0.001),
        "chain" => (2, 0.01),
        _ => (0, 0.0),
    }
}

#[test]
fn every_operation_is_torchvisions() {
    let golden = Golden::read();
    let photo = golden.photo();
    let mut scratch = Scratch::default();
    for case in &golden.cases {
        let name = case["name"].as_str().unwrap();
        let (view, size) = params(case);
        let mut out = vec![0u8; size * size * 3];
        view.render(&photo, size, &mut scratch, &mut out);
        let (_, expected) = golden.bytes(name);
        assert_eq!(expected.len(), out.len(), "{name}");
        let off = out.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
        let worst = off.clone().max().unwrap();
        let mean = off.map(f64::from).sum::<f64>() / out.len() as f64;
        let (allowed, allowed_mean) = tolerance(name);
        println!("{name}: worst {worst}, mean {mean:.5}");
        assert!(
            worst <= allowed && mean <= allowed_mean,
            "{name}: {worst}, {mean}"
        );
    }
}

#[test]
fn evaluation_view_is_torchvisions() {
    let golden = Golden::read();
    let photo = golden.photo();
    for size in [32, 45, 56] {
        let mut out = vec![0.0; size * size * 3];
        evaluation_view(&photo, size, &Normalize::default(), &mut out);
        let (_, bytes) = golden.bytes(&format!("evaluation/{size}"));
        let expected = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b));
        for (ours, theirs) in out.iter().zip(expected) {
            assert!((ours - theirs).abs() < 1e-5, "{size}: {ours} {theirs}");
        }
    }
}

#[test]
fn a_photo_of_one_by_many_is_measured_in_little_memory() {
    let started = std::time::Instant::now();
    for (width, height) in [(1, 300_000), (300_000, 1), (3, 200_000)] {
        // Its middle is gray, the rest black.
        let middle = |i: usize| (i / 3 / width * width).abs_diff(width * height / 2) < 100 * width;
        let rgb = (0..width * height * 3).map(|i| match height > width {
            true => 128 * u8::from(middle(i)),
            false => 128,
        });
        let photo = Photo::new(width, height, rgb.collect()).unwrap();
        let size = 224;
        let mut out = vec![f32::NAN; size * size * 3];
        let normalize = Normalize {
            mean: [0.0; 3],
            std: [1.0; 3],
        };
        evaluation_view(&photo, size, &normalize, &mut out);
        assert!(
            out.iter().all(|&x| (x - 128.0 / 255.0).abs() < 1e-6),
            "{width} x {height}"
        );
    }
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn apply_is_render_normalized() {
    let photo = Golden::read().photo();
    let recipe = Recipe::by_name("aug+ blur").unwrap();
    let normalize = Normalize {
        mean: [0.5, 0.4, 0.3],
        std: [0.1, 0.2, 0.3],
    };
    let mut scratch = Scratch::default();
    for index in 0..20 {
        let mut rng = Rng::new(3, Purpose::Augment, 0, index);
        let view = recipe.sample(photo.width, photo.height, &mut rng);
        let mut again = Rng::new(3, Purpose::Augment, 0, index);
        assert_eq!(view, recipe.sample(photo.width, photo.height, &mut again));
        let (mut bytes, mut floats) = (vec![0; 37 * 37 * 3], vec![0.0; 37 * 37 * 3]);
        view.render(&photo, 37, &mut scratch, &mut bytes);
        view.apply(&photo, 37, &normalize, &mut scratch, &mut floats);
        for (i, (&byte, &float)) in bytes.iter().zip(&floats).enumerate() {
            let c = i % 3;
            let expected = (f32::from(byte) / 255.0 - normalize.mean[c]) / normalize.std[c];
            assert!((float - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn recipes_draw_what_they_say() {
    let n = 4000;
    for recipe in &RECIPES {
        let (mut jittered, mut gray, mut blurred, mut flipped, mut area) = (0, 0, 0, 0, 0.0);
        for index in 0..n {
            let mut rng = Rng::new(1, Purpose::Augment, 0, index);
            let view = recipe.sample(300, 200, &mut rng);
            let crop = view.crop;
            assert!(crop.left + crop.width <= 300 && crop.top + crop.height <= 200);
            let ratio = crop.width as f64 / crop.height as f64;
            assert!((0.72..1.39).contains(&ratio), "{crop:?}");
            area += (crop.width * crop.height) as f64 / 60_000.0;
            jittered += u32::from(!view.jitter.is_empty());
            gray += u32::from(view.gray);
            blurred += u32::from(view.blur.is_some_and(|s| (0.1..=2.0).contains(&s)));
            flipped += u32::from(view.flip);
        }
        let near = |count: u32, p: f32| (count as f32 / n as f32 - p).abs() < 0.03;
        let name = recipe.name;
        assert!(near(jittered, recipe.jitter_p), "{name}");
        assert!(
            near(gray, recipe.gray_p) && near(blurred, recipe.blur_p),
            "{name}"
        );
        assert!(near(flipped, recipe.flip_p), "{name}");
        // Crops too wide for the photo are drawn again, so the mean lies below the middle.
        let middle = f64::from(recipe.scale.0 + recipe.scale.1) / 2.0;
        assert!(
            area / n as f64 > middle - 0.2 && area / (n as f64) < middle + 0.01,
            "{name}"
        );
    }
}

#[test]
fn odd_photos_have_views() {
    let mut scratch = Scratch::default();
    for (width, height) in [(1, 1), (1, 500), (400, 2), (7, 3)] {
        let photo = Photo::new(width, height, vec![90; width * height * 3]).unwrap();
        for index in 0..50 {
            let mut rng = Rng::new(9, Purpose::Augment, 0, index);
            let recipe = Recipe::by_name("plain").unwrap();
            let view = recipe.sample(width, height, &mut rng);
            let mut out = vec![0; 32 * 32 * 3];
            view.render(&photo, 32, &mut scratch, &mut out);
            assert!(out.iter().all(|&v| v == 90), "a flat photo has flat views");
        }
    }
}

#[test]
fn unknown_recipe_lists_the_known() {
    let text = Recipe::by_name("augplus").unwrap_err().to_string();
    assert!(
        text.contains("augplus") && text.contains("\"aug+ blur\""),
        "{text}"
    );
}
