//! What a resumed run holds on to: its first measurement, the photos it was taken on, its
//! teacher, its micro-batch. And what it does not care about: how many threads there are.

use seedling_core::config::Config;
use seedling_core::encoder::Head;
use seedling_core::memory::{Budget, fit_budget};
use seedling_tests::program::{SMALL, adapt, album, run, seedling};
use std::fs;
use std::path::Path;

/// A run in `to` as `from` was after step 2 of 4.
fn stopped(from: &Path, to: &Path, with_log: bool) {
    fs::create_dir_all(to).unwrap();
    let checkpoint = from.join("checkpoint.previous.safetensors");
    fs::copy(checkpoint, to.join("checkpoint.safetensors")).unwrap();
    if with_log {
        fs::copy(from.join("metrics.jsonl"), to.join("metrics.jsonl")).unwrap();
    }
}

const FOUR: &[&str] = &["--steps", "4", "--set", "checkpoint_every=2", "--json"];

#[test]
fn the_first_measurement_outlives_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, whole) = (folder.path().join("photos"), folder.path().join("whole"));
    album(&photos, 16);
    let first = adapt(&photos, &whole, FOUR);
    assert_eq!(first.code, Some(0), "{first:?}");
    let again = folder.path().join("again");
    stopped(&whole, &again, false);
    let second = adapt(&photos, &again, &[FOUR, &["--resume"]].concat());
    assert_eq!(second.code, Some(0), "{second:?}");
    let (first, second) = (first.json(), second.json());
    assert!(first["before"].is_object());
    assert_eq!(first["before"], second["before"]);
    assert_eq!(first["after"], second["after"]);
    assert_ne!(second["before"], second["after"]);
}

#[test]
fn before_and_after_are_of_the_same_photos() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    album(&at("photos"), 16);
    album(&at("held"), 8);
    let held = at("held").to_string_lossy().into_owned();
    let measured = [FOUR, &["--measure-on", &held]].concat();
    let first = adapt(&at("photos"), &at("whole"), &measured);
    assert_eq!(first.code, Some(0), "{first:?}");
    stopped(&at("whole"), &at("again"), true);
    let resume = [FOUR, &["--resume"]].concat();
    adapt(&at("photos"), &at("again"), &resume).refused(1, &["8 then, 16 now", "--measure-on"]);
    let more = [
        &resume[..],
        &["--measure-on", &held, "--set", "measure_photos=4"],
    ]
    .concat();
    adapt(&at("photos"), &at("again"), &more).refused(2, &["measure_photos"]);
    let ran = adapt(
        &at("photos"),
        &at("again"),
        &[&measured[..], &["--resume"]].concat(),
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["before"], first.json()["before"]);
}

#[test]
fn another_teacher_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    album(Path::new(&at("photos")), 16);
    for (seed, out) in [("1", "one"), ("2", "two")] {
        let (photos, out) = (at("photos"), at(out));
        let mut arguments = vec![
            "adapt", &photos, "--out", &out, "--seed", seed, "--steps", "1",
        ];
        arguments.extend(SMALL);
        assert_eq!(run(&arguments).code, Some(0));
    }
    let teacher = at("teacher.safetensors");
    fs::copy(at("one") + "/weights.safetensors", &teacher).unwrap();
    let distill = |out: &str, resume: bool| {
        let (photos, out) = (at("photos"), at(out));
        let mut arguments = vec!["distill", &photos, "--out", &out, "--teacher", &teacher];
        arguments.extend(["--teacher-arch", "mobilenet_v3_small"]);
        arguments.extend(SMALL.iter().chain(FOUR));
        arguments.extend(resume.then_some("--resume"));
        run(&arguments)
    };
    let whole = distill("whole", false);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    stopped(Path::new(&at("whole")), Path::new(&at("again")), true);
    fs::copy(at("two") + "/weights.safetensors", &teacher).unwrap();
    distill("again", true).refused(2, &["teacher.safetensors", "is not the file"]);
    fs::copy(at("one") + "/weights.safetensors", &teacher).unwrap();
    let ran = distill("again", true);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let weights = |run: &str| fs::read(at(run) + "/weights.safetensors").unwrap();
    assert!(weights("again") == weights("whole"));
}

#[test]
fn the_command_that_began_a_run_in_little_memory_resumes_it() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, whole) = (folder.path().join("photos"), folder.path().join("whole"));
    album(&photos, 16);
    // The least budget in which a micro-batch of 8 fits and one of 16 does not.
    let source = seedling_core::data::open(&photos).unwrap();
    let picked = |budget: usize| {
        let mut config = Config {
            image_size: 128,
            batch_size: 16,
            bn_group: 16,
            queue_size: 16,
            head: Head::Simple,
            threads: 2,
            init: "random".into(),
            ..Config::adapt()
        };
        let asked = |key: &str| key == "image_size";
        let budget = Budget {
            megabytes: budget,
            unified: false,
        };
        fit_budget(&mut config, (None, &*source), budget, asked).ok()?;
        Some(config.bn_group)
    };
    let budget = (30..400)
        .find(|&b| picked(b) == Some(8))
        .unwrap()
        .to_string();
    let more = [
        "--set",
        "image_size=128",
        "--set",
        "batch_size=16",
        "--set",
        "bn_group=16",
    ];
    let more = [FOUR, &more, &["--memory-mb", &budget]].concat();
    let ran = adapt(&photos, &whole, &more);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("in micro-batches of 8"), "{ran:?}");
    let again = folder.path().join("again");
    stopped(&whole, &again, true);
    let ran = adapt(&photos, &again, &[&more[..], &["--resume"]].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
    assert!(weights(&again) == weights(&whole));
    // A smaller micro-batch than was picked is another run.
    stopped(&whole, &folder.path().join("third"), true);
    let less = ["--set", "bn_group=2", "--resume"];
    let ran = adapt(
        &photos,
        &folder.path().join("third"),
        &[&more[..], &less].concat(),
    );
    ran.refused(2, &["bn_group = 8", "bn_group = 2"]);
}

#[test]
fn a_head_that_lies_about_is_not_taken_for_the_shipped_weights() {
    let folder = tempfile::tempdir().unwrap();
    album(&folder.path().join("photos"), 8);
    fs::write(
        folder.path().join("projection_head.safetensors"),
        b"not mine",
    )
    .unwrap();
    let small = SMALL
        .iter()
        .filter(|word| !["--init", "random"].contains(word));
    let ran = seedling()
        .current_dir(folder.path())
        .args(["adapt", "photos", "--out", "run", "--steps", "1"])
        .args(small)
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn skipped_photos_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 8);
    assert_eq!(adapt(&photos, &out, &["--steps", "1"]).code, Some(0));
    fs::write(photos.join("warm/000.png"), b"no photo").unwrap();
    let weights = out
        .join("weights.safetensors")
        .to_string_lossy()
        .into_owned();
    let photos = photos.to_string_lossy().into_owned();
    let features = folder
        .path()
        .join("features.csv")
        .to_string_lossy()
        .into_owned();
    for command in [
        vec!["eval", &photos, "--weights", &weights, "--json"],
        vec![
            "embed",
            &photos,
            "--weights",
            &weights,
            "--out",
            &features,
            "--json",
        ],
    ] {
        let ran = run(&command);
        assert!(ran.stderr.contains("-v lists"), "{ran:?}");
        assert!(!ran.stderr.contains("warm/000.png"), "{ran:?}");
        let ran = run(&[&command[..], &["-v"]].concat());
        assert_eq!(ran.json()["skipped"], 1, "{ran:?}");
        assert!(ran.stderr.contains("skipped warm/000.png: "), "{ran:?}");
    }
}
