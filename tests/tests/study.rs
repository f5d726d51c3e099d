//! `seedling study`: a table of runs, continued, shared between plans, and with a run that fails.

use seedling_tests::program::{album, run, seedling};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PLAN: &str = r#"
table = "Table 0"
title = "two temperatures"
train = "train"
data = "."
seeds = [0, 1]
measures = ["best_nn", "linear", "loss", "minutes", "parameters_m", "train_uniformity"]
crops = 1

[settings]
arch = "mobilenet_v3_small"
image_size = 32
batch_size = 8
bn_group = 8
queue_size = 16
measure_photos = 8
checkpoint_every = 1

[[rows]]
label = "small"
steps = 2

[[columns]]
label = "0.1"
temperature = 0.1

[[columns]]
label = "0.2, no teacher"
temperature = 0.2
distill_steps = 2

[distill]
teacher = "nowhere.safetensors"

[paper.small]
"0.1" = { linear = 36.7 }
"#;

fn study(plan: &Path, data: &Path, out: &Path) -> seedling_tests::program::Ran {
    let words = [plan, Path::new("--data"), data, Path::new("--out"), out];
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    run(&[&["study".to_string()], &words[..], &["--json".to_string()]].concat())
}

#[test]
fn a_table_is_filled_and_what_fails_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    album(&at("data/train"), 16);
    album(&at("data/test"), 8);
    let (plan, out) = (at("plan.toml"), at("out"));
    fs::write(&plan, PLAN).unwrap();
    let (name, data) = (plan.to_string_lossy(), at("data"));
    run(&[
        "study",
        &name,
        "--data",
        &data.to_string_lossy(),
        "--set",
        "steps=1",
    ])
    .refused(2, &["--set", "plan"]);
    run(&["study", "small/tabel3", "--data", "."]).refused(2, &["small/tabel3", "--list"]);
    run(&["study", &name]).refused(2, &["--data"]);

    let first = study(&plan, &at("data"), &out);
    // Two runs of each column; those of the second, and what measures them, can't begin.
    first.refused(1, &["6 of 10 tasks failed", "tries them again"]);
    assert!(first.stdout.contains("nowhere.safetensors"), "{first:?}");
    let csv = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let csv = csv
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "csv"));
    let csv = fs::read_to_string(csv.unwrap()).unwrap();
    // A line of each seed and measure, and one of names.
    assert_eq!(csv.lines().count(), 1 + 2 * 2 * 6, "{csv}");
    let value = |line: &str| line.split(',').rev().nth(1).unwrap().parse::<f64>();
    for line in csv.lines().filter(|line| line.contains(",0.1,")) {
        assert!(value(line).unwrap().is_finite(), "{line}");
        assert_eq!(line.contains(",linear,"), line.ends_with(",36.7"), "{line}");
    }
    let missing = csv.lines().filter(|line| line.contains("no teacher"));
    assert!(
        missing
            .filter(|line| line.contains(",loss,"))
            .all(|line| value(line).is_err())
    );
    let page = fs::read_to_string(out.join("study.html")).unwrap();
    assert!(page.contains("failed: ") && page.contains("36.7") && page.contains("<polyline"));

    // Again: what is done stays as it is, and what failed is tried.
    let runs = || {
        let folders = fs::read_dir(out.join("runs")).unwrap();
        let weights = folders.map(|entry| entry.unwrap().path().join("weights.safetensors"));
        let times = weights.filter_map(|path| fs::metadata(path).ok()?.modified().ok());
        let mut times: Vec<_> = times.collect();
        times.sort();
        times
    };
    let before = runs();
    assert_eq!(before.len(), 2);
    let again = study(&plan, &at("data"), &out);
    again.refused(1, &["6 of 10"]);
    assert!(
        again.stderr.contains("4 of 10 tasks are done already"),
        "{again:?}"
    );
    assert_eq!(runs(), before);

    // Another plan that has runs in common takes them; a changed one of the same name is refused.
    let half = PLAN
        .replace("distill_steps = 2", "")
        .replace("seeds = [0, 1]", "seeds = [0]");
    let other = at("other.toml");
    fs::write(&other, &half).unwrap();
    let other = study(&other, &at("data"), &out);
    assert_eq!(other.code, Some(0), "{other:?}");
    assert_eq!(other.json()["tasks"], 4);
    assert!(
        other.stderr.contains("2 of 4 tasks are done already"),
        "{other:?}"
    );
    fs::write(&plan, &half).unwrap();
    let changed = study(&plan, &at("data"), &out);
    changed.refused(1, &["another plan", "columns[1].distill_steps", "seeds"]);
}

#[cfg(unix)]
#[test]
fn a_study_that_was_killed_continues() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    album(&at("data/train"), 16);
    album(&at("data/test"), 8);
    let (plan, out) = (at("plan.toml"), at("out"));
    let text = PLAN
        .replace("distill_steps = 2", "")
        .replace("seeds = [0, 1]", "seeds = [0]")
        .replace("steps = 2", "steps = 40");
    fs::write(&plan, text).unwrap();
    let mut command = seedling();
    command
        .arg("study")
        .arg(&plan)
        .arg("--data")
        .arg(at("data"));
    command
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Killed once a run has a checkpoint.
    let begun = Instant::now();
    let saved = || {
        let runs = fs::read_dir(out.join("runs")).into_iter().flatten();
        runs.flatten()
            .any(|run| run.path().join("checkpoint.safetensors").exists())
    };
    while !saved() {
        assert!(begun.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // The run that it began may still be on its way: it is waited for.
    let done = study(&plan, &at("data"), &out);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.json()["done"], 4);
}
