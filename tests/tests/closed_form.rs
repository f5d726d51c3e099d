//! The closed form, the index and the panel, asked of the program.

use seedling_core::eval::Features;
use seedling_core::tensor_file::TensorFile;
use seedling_core::weights::WeightFile;
use seedling_tests::program::{Ran, SMALL, adapt, album, run, seedling};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const CLOSED: &[&str] = &["--epochs", "0", "--json"];

fn done(ran: Ran) -> Value {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.json()
}

/// `seedling COMMAND PATH --weights W MORE`, which succeeds.
fn run_with(command: &str, path: &Path, weights: &Path, more: &[&str]) -> Ran {
    let (path, weights) = (path.to_string_lossy(), weights.to_string_lossy());
    let mut arguments = vec![command, &*path, "--weights", &*weights, "--threads", "2"];
    arguments.extend(more);
    let ran = run(&arguments);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

fn features(path: &Path) -> Features {
    let file = TensorFile::read(path).unwrap();
    let shape = file.shape("features").unwrap().to_vec();
    Features::new(shape[0], shape[1], file.f32("features").unwrap()).unwrap()
}

fn unit(features: &Features) -> bool {
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>();
    features.iter().all(|row| (length(row) - 1.0).abs() < 1e-4)
}

#[test]
fn the_layer_is_in_the_one_file_and_everything_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    album(&at("photos"), 140);
    let json = done(adapt(&at("photos"), &at("run"), CLOSED));
    assert_eq!(
        (json["steps"].as_u64(), &json["trained"]),
        (Some(0), &Value::Bool(false))
    );
    assert_eq!(json["verdict"]["untrained"], "no_steps");
    assert_eq!(json["verdict"]["closed_form"], true);
    let weights = at("run/weights.safetensors");
    let layer = WeightFile::open(&weights, None).unwrap().linear_layer();
    // As many components as these photos have, 128 at most.
    let outputs = layer.unwrap().unwrap().outputs();
    assert!((64..=128).contains(&outputs), "{outputs}");
    assert!(!at("run/projection_head.safetensors").exists());
    assert!(!at("run/features.chunks").exists());
    let page = fs::read_to_string(at("run/report.html")).unwrap();
    assert!(page.contains("Closed form") && page.contains("no step of training was asked for"));

    // Measured by anyone, the file gives what the run has said.
    let same = ["--set", "image_size=32", "--json"];
    let eval = run_with("eval", &at("photos"), &weights, &same).json();
    for figure in [
        "precision_at_10",
        "mean_average_precision",
        "one_shot",
        "five_shot",
        "purity",
    ] {
        let (run, eval) = (&json["after"][figure], &eval["panel"][figure]);
        assert!(
            (run.as_f64().unwrap() - eval.as_f64().unwrap()).abs() < 0.5,
            "{figure}: {run} {eval}"
        );
    }
    let out = at("features.safetensors");
    let path = out.to_string_lossy().into_owned();
    run_with("embed", &at("photos"), &weights, &["--out", &path]);
    let plain = features(&out);
    assert_eq!((plain.rows, plain.dim), (140, outputs));
    assert!(unit(&plain));

    // Beginning with such a file, a run fits a layer of its own.
    let (photos, again) = (at("photos"), at("again"));
    let mut command = seedling();
    command.arg("adapt").arg(&photos).arg("--out").arg(&again);
    command
        .arg("--init")
        .arg(&weights)
        .args(&SMALL[2..])
        .args(CLOSED);
    let again = done(command.output().unwrap().into());
    assert_eq!(again["before"]["alignment"], json["before"]["alignment"]);
    assert_eq!(again["after"]["alignment"], json["after"]["alignment"]);
    // Without one, features are the network's own.
    let off = [&["--steps", "1", "--json", "--set", "whitening=false"][..]].concat();
    let plain = done(adapt(&at("photos"), &at("off"), &off));
    assert!(plain["closed_form"].is_null());
    let file = WeightFile::open(&at("off/weights.safetensors"), None).unwrap();
    assert_eq!(file.linear_layer().unwrap(), None);
}

#[test]
fn an_index_is_made_searched_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    album(&at("photos"), 60);
    done(adapt(&at("photos"), &at("run"), CLOSED));
    let weights = at("run/weights.safetensors");
    let text = |name: &str| at(name).to_string_lossy().into_owned();
    let (index, out) = (text("album.index"), text("features.safetensors"));
    let make = || {
        run_with(
            "embed",
            &at("photos"),
            &weights,
            &["--index", "--out", &index],
        )
        .stdout
    };
    assert!(make().contains(", 0 of them known before"));
    assert!(make().contains(", 60 of them known before"));

    // A photo of the album finds itself first, and is found by no other name.
    let photo = text("photos/warm/004.png");
    let found = run_with(
        "search",
        &at("album.index"),
        &weights,
        &["--count", "3", "--json", &photo],
    );
    let found = found.json()["answers"][0]["found"].clone();
    assert_eq!(found.as_array().unwrap().len(), 3);
    assert_eq!(found[0]["id"], "warm/004.png");
    assert!(found[0]["distance"].as_f64().unwrap() < 1e-3);
    let warm = |found: &Value| found["id"].as_str().unwrap().starts_with("warm/");
    assert!(found.as_array().unwrap().iter().all(warm), "{found}");

    // One goes, one comes: only that one is processed.
    fs::remove_file(at("photos/warm/004.png")).unwrap();
    fs::copy(at("photos/cold/001.png"), at("photos/cold/999.png")).unwrap();
    assert!(make().contains("60 features") && make().contains(", 60 of them known before"));
    let found = run_with(
        "search",
        &at("album.index"),
        &weights,
        &["--json", &photo.replace("004", "006")],
    );
    assert!(!found.stdout.contains("warm/004.png"), "{found:?}");

    // The diffused rows, rows of queries, several views and two networks.
    let embed = |more: &[&str]| {
        run_with(
            "embed",
            &at("photos"),
            &weights,
            &[more, &["--out", &out]].concat(),
        );
        let found = features(&at("features.safetensors"));
        assert!(unit(&found), "{more:?}");
        found
    };
    let diffused = embed(&["--diffuse"]);
    assert_eq!((diffused.rows, diffused.dim), (60, 1024));
    // Every photo of the album is known to its index.
    let within = embed(&["--within", &index]);
    for (a, b) in within.values.iter().zip(&diffused.values) {
        assert!((a - b).abs() < 1e-3);
    }
    let weights_text = weights.to_string_lossy().into_owned();
    assert_eq!(
        embed(&["--tta-views", "8", "--and", &weights_text]).dim,
        2048
    );

    // What is no index of these weights is refused and left alone.
    let refused = |index: &str, more: &[&str], part: &str| {
        let mut arguments = vec!["search", index, &*photo, "--weights", &*weights_text];
        arguments.extend(more);
        run(&arguments).refused(1, &[part]);
    };
    fs::write(at("other"), b"\xff\xd8 a photo").unwrap();
    refused(&text("other"), &[], "something else");
    refused(&text("nowhere"), &[], "no such index");
    refused(&index, &["--tta-views", "1"], "no index of these weights");
    let over = [
        "embed",
        &text("photos"),
        "--weights",
        &weights_text,
        "--index",
        "--out",
        &text("other"),
    ];
    run(&over).refused(1, &["something else"]);
    assert_eq!(fs::read(at("other")).unwrap(), b"\xff\xd8 a photo");
}

#[test]
fn small_datasets_are_not_trained_on_unless_requested() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Fewer than one micro-batch: no reason to refuse where nothing is trained.
    album(&at("photos"), 12);
    let ran = adapt(
        &at("photos"),
        &at("few"),
        &["--json", "--set", "bn_group=32", "--set", "batch_size=32"],
    );
    assert!(
        ran.stderr.contains("fewer than train_from = 1500"),
        "{ran:?}"
    );
    let json = done(ran);
    assert_eq!(
        json["verdict"]["untrained"]["few_photos"]["train_from"],
        1500
    );
    let sentence = json["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("fewer than 1500 photos") && sentence.contains("linear layer"),
        "{sentence}"
    );
    // As many numbers as features: twelve photos do not span what others show.
    let file = WeightFile::open(&at("few/weights.safetensors"), None).unwrap();
    assert_eq!(file.linear_layer().unwrap().unwrap().outputs(), 1024);
    let asked = done(adapt(
        &at("photos"),
        &at("no_steps"),
        &["--json", "--epochs", "1"],
    ));
    assert_eq!(asked["steps"], 1);
    let asked = done(adapt(
        &at("photos"),
        &at("set"),
        &["--json", "--set", "train_from=12"],
    ));
    assert!(asked["steps"].as_u64().unwrap() > 0);
    // Two photos say nothing of an album, and one line says so.
    let (one, two) = (at("two/a.png"), at("two/b.png"));
    fs::create_dir(at("two")).unwrap();
    fs::copy(at("photos/warm/000.png"), one).unwrap();
    fs::copy(at("photos/cold/001.png"), two).unwrap();
    let ran = adapt(&at("two"), &at("none"), CLOSED);
    assert!(ran.stderr.contains("too few photos"), "{ran:?}");
    assert!(done(ran)["closed_form"].is_null());
}

#[test]
fn killed_during_extraction_it_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    album(&at("photos"), 150);
    done(adapt(&at("photos"), &at("whole"), CLOSED));
    let (photos, out) = (at("photos"), at("killed"));
    let mut lives = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    // Each life is killed when what it has seen has grown, or ends.
    loop {
        assert!(Instant::now() < deadline, "it comes to no end");
        let resume = out.join("checkpoint.safetensors").exists();
        let mut command = seedling();
        command.arg("adapt").arg(&photos).arg("--out").arg(&out);
        // All but its number of threads, which no bit depends on.
        command.args(&SMALL[..2]).args(&SMALL[4..]).args(CLOSED);
        command.args(resume.then_some("--resume"));
        command.args(["--threads", if lives % 2 == 0 { "1" } else { "2" }]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let size = || fs::metadata(out.join("features.chunks")).map_or(0, |meta| meta.len());
        let before = size();
        let mut child = command.spawn().unwrap();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if size() > before {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        lives += 1;
        if let Some(status) = ended {
            assert!(status.success());
            break;
        }
    }
    assert!(lives > 1, "it was never killed");
    let bytes = |run: &str| fs::read(at(run).join("weights.safetensors")).unwrap();
    assert!(bytes("whole") == bytes("killed"));
}
