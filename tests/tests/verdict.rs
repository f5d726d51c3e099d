//! Which weights a run keeps, asked of the program: sabotaged runs leave the initial ones.

use seedling_core::verdict::LEAST_KEPT;
use seedling_core::weights::WeightFile;
use seedling_tests::formula;
use seedling_tests::program::{Ran, run};
use seedling_tests::require;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Adapts the shipped weights, small enough for a test.
fn adapt(photos: &Path, out: &Path, more: &[&str]) -> (Ran, Value) {
    let (photos, out) = (photos.to_string_lossy(), out.to_string_lossy());
    let mut arguments = vec![
        "adapt",
        &*photos,
        "--out",
        &*out,
        "--json",
        "--threads",
        "2",
    ];
    let small = [
        "image_size=64",
        "measure_size=64",
        "bn_group=16",
        "batch_size=32",
        "head=simple",
    ];
    arguments.extend(small.iter().flat_map(|setting| ["--set", setting]));
    arguments.extend(more);
    let ran = run(&arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json = ran.json();
    (ran, json)
}

/// The weights in `out` are the initial ones, and the run says so.
fn kept_initial(ran: &Ran, json: &Value, out: &Path) {
    assert_eq!(json["verdict"]["accepted"], false, "{json}");
    assert_eq!(json["verdict"]["interpolation"], 0.0);
    let sentence = json["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("initial weights stay"), "{sentence}");
    assert!(ran.stdout.contains(sentence), "{ran:?}");
    assert_eq!(json["trained"], false);
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(log.contains("\"kind\":\"verdict\""));
    // What is left is the initial backbone, with the closed form behind it where there could be one.
    let left = match json["closed_form"].is_null() {
        true => &json["before"],
        false => &json["closed_form"],
    };
    for figure in ["alignment", "uniformity", "effective_rank"] {
        assert_eq!(left[figure], json["after"][figure], "{figure}");
    }
    WeightFile::open(&out.join("weights.safetensors"), None).unwrap();
}

/// Fills a folder with `n` pictures.
fn pictures(folder: &Path, n: usize, pixel: impl Fn(usize, u32, u32) -> [u8; 3]) {
    fs::create_dir_all(folder).unwrap();
    for i in 0..n {
        let picture = image::RgbImage::from_fn(48, 48, |x, y| image::Rgb(pixel(i, x, y)));
        picture.save(folder.join(format!("{i:03}.png"))).unwrap();
    }
}

/// Seven kinds of simple pictures, each somewhat its own.
fn varied(i: usize, x: u32, y: u32) -> [u8; 3] {
    let (kind, own) = (i % 7, (i / 7) as u32);
    let stripe = match kind {
        0 => x / 6 % 2,
        1 => y / 6 % 2,
        2 => (x + y) / 8 % 2,
        3 => (x / 8 + y / 8) % 2,
        4 => u32::from((x as i32 - 24).pow(2) + (y as i32 - 24).pow(2) < 200 + 20 * own as i32),
        5 => u32::from(x > 10 + own && x < 40 && y > 12),
        _ => x * y / 97 % 2,
    };
    let base = 40 + 25 * kind as u8 + 3 * own as u8;
    [
        base,
        255 - base,
        if stripe == 1 { 230 } else { 30 + own as u8 },
    ]
}

/// Waves of every length, direction and color: who is near whom is a matter of degree.
fn waves(i: usize, x: u32, y: u32) -> [u8; 3] {
    std::array::from_fn(|c| {
        let drawn = |k: u64| formula::u(900 + k, 3 * i + c);
        let phase = 1.2 * (drawn(0) * f64::from(x) + drawn(1) * f64::from(y)) + 6.0 * drawn(2);
        (128.0 + 90.0 * phase.sin() * (0.6 + 0.8 * drawn(3))) as u8
    })
}

#[test]
fn a_huge_learning_rate_leaves_the_initial_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    pictures(&photos, 70, waves);
    let (ran, json) = adapt(
        &photos,
        &out,
        &["--steps", "6", "--set", "lr=3", "--set", "interpolation=1"],
    );
    kept_initial(&ran, &json, &out);
    assert_eq!(json["verdict"]["photos"], 70);
    let tried = json["verdict"]["tried"].as_array().unwrap();
    assert_eq!(tried.len(), 2);
    for pair in tried {
        assert!(
            pair[1].as_f64().is_none_or(|kept| kept < LEAST_KEPT),
            "{json}"
        );
    }
    // Whoever wants them all the same gets them.
    let out = folder.path().join("always");
    let (_, json) = adapt(
        &photos,
        &out,
        &[
            "--steps",
            "2",
            "--keep",
            "always",
            "--set",
            "interpolation=1",
        ],
    );
    assert!(json["verdict"].is_null());
    assert_ne!(json["before"]["alignment"], json["after"]["alignment"]);
}

#[test]
fn one_photo_again_and_again_leaves_the_initial_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    pictures(&photos, 40, |_, x, y| varied(3, x, y));
    let (ran, json) = adapt(&photos, &out, &["--steps", "3"]);
    kept_initial(&ran, &json, &out);
}

#[test]
fn black_photos_leave_the_initial_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    pictures(&photos, 40, |_, _, _| [0; 3]);
    let (ran, json) = adapt(&photos, &out, &["--steps", "3"]);
    kept_initial(&ran, &json, &out);
}

#[test]
fn too_few_photos_leave_the_initial_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    pictures(&photos, 20, varied);
    let few = [
        "--steps",
        "2",
        "--set",
        "bn_group=4",
        "--set",
        "batch_size=8",
    ];
    let (ran, json) = adapt(&photos, &out, &few);
    kept_initial(&ran, &json, &out);
    assert!(ran.stdout.contains("too few"), "{ran:?}");
}

/// On real photos that the shipped weights know less well, a usual run is kept.
#[test]
fn a_good_run_is_kept() {
    let Some(album) = require::data("albums/flowers") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (photos, run_text) = (album.to_string_lossy(), out.to_string_lossy());
    let ran = run(&[
        "adapt",
        &*photos,
        "--out",
        &*run_text,
        "--json",
        "--threads",
        "2",
        "--epochs",
        "12",
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json = ran.json();
    assert_eq!(json["verdict"]["accepted"], true, "{json}");
    let sentence = json["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("are kept, interpolated by 0.50"),
        "{sentence}"
    );
    assert!(ran.stdout.contains(sentence));
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("The trained weights are kept"));
    // Side by side, and better than before by the panel.
    for column in ["Before", "Closed form", "Trained"] {
        assert!(
            page.contains(&format!("data-name=\"{column}\"")),
            "{column}"
        );
    }
    for figure in ["precision_at_10", "mean_average_precision", "one_shot"] {
        let at = |when: &str| json[when][figure].as_f64().unwrap();
        assert!(at("closed_form") > at("before") + 1.0, "{figure}: {json}");
        assert!(at("after") > at("before") + 1.0, "{figure}: {json}");
    }
}
