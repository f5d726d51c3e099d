//! The `seedling` command from outside: what it leaves, what it prints, how it refuses.

use seedling_tests::program::{SMALL, adapt, album, run};
use std::fs;
use std::path::Path;

#[test]
fn a_whole_life_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 24);
    fs::write(photos.join("warm/broken.jpg"), b"not a photo").unwrap();
    fs::write(photos.join("warm/empty.png"), b"").unwrap();

    let ran = adapt(&photos, &out, &["--epochs", "2", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let summary = ran.json();
    assert_eq!(summary["steps"], 6);
    assert_eq!(summary["photos"], 26);
    assert!(summary["after"]["best_nn"].is_number());
    assert!(summary["before"]["alignment"].is_number());
    for file in [
        "config.toml",
        "metrics.jsonl",
        "checkpoint.safetensors",
        "weights.safetensors",
        "report.html",
    ] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("</html>") && page.len() > 10_000);

    let weights = out.join("weights.safetensors");
    let weights = weights.to_string_lossy();
    let photos_text = photos.to_string_lossy();
    let judged = run(&["eval", &photos_text, "--weights", &weights, "--json", "-q"]);
    assert_eq!(judged.code, Some(0), "{judged:?}");
    let figures = judged.json();
    assert_eq!(figures["photos"], 24);
    assert_eq!(figures["knn"]["protocol"], "leave-one-out");
    assert_eq!(figures["knn"]["best_nn"], summary["after"]["best_nn"]);
    let seen = &figures["geometry"]["alignment"];
    assert_eq!(*seen, summary["after"]["alignment"]);

    let page = folder.path().join("eval.html");
    let page_text = page.to_string_lossy();
    let more = ["--protocol", "all", "--page", &page_text, "--crops", "2"];
    let all = [
        &[
            "eval",
            &photos_text,
            "--weights",
            &weights,
            "--weights",
            "shipped",
            "--json",
        ],
        &more[..],
    ]
    .concat();
    let judged = run(&all);
    assert_eq!(judged.code, Some(0), "{judged:?}");
    let both = &judged.json()["weights"];
    assert_eq!(both[0]["geometry"], figures["geometry"]);
    for one in [&both[0], &both[1]] {
        for probe in ["linear", "transfer"] {
            let found = &one[probe];
            let photos = |name: &str| found[name].as_u64().unwrap();
            assert_eq!(photos("train_photos") + photos("test_photos"), 24);
            assert!((0.0..=100.0).contains(&found["top1"].as_f64().unwrap()));
            assert_eq!(found["crops"], 2);
        }
    }
    let shown = fs::read_to_string(&page).unwrap();
    assert_eq!(shown.matches("class=\"triangles\"").count(), 2);
    assert_eq!(shown.matches("class=\"plane\"").count(), 1);
    let twice = run(&[&all[..], &["--lr", "search"]].concat()).json();
    assert_eq!(twice["weights"][0]["linear"]["lr_searched"], true);

    for name in ["f.safetensors", "f.csv"] {
        let file = folder.path().join(name);
        let file_text = file.to_string_lossy();
        let embedded = run(&[
            "embed",
            &photos_text,
            "--weights",
            &weights,
            "--out",
            &file_text,
            "--json",
        ]);
        assert_eq!(embedded.code, Some(0), "{embedded:?}");
        assert_eq!(embedded.json()["photos"], 24);
        assert_eq!(embedded.json()["skipped"], 2);
        assert_eq!(embedded.json()["feature_dim"], 1024);
    }
    same_features(
        &folder.path().join("f.safetensors"),
        &folder.path().join("f.csv"),
    );

    // Exists: not overwritten. Finished: resuming finds nothing to do and ends well.
    let before = fs::read(out.join("weights.safetensors")).unwrap();
    adapt(&photos, &out, &["--epochs", "2"]).refused(1, &["holds a run already", "--resume"]);
    let again = adapt(&photos, &out, &["--epochs", "2", "--resume"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(fs::read(out.join("weights.safetensors")).unwrap(), before);
    let changed = adapt(
        &photos,
        &out,
        &["--epochs", "2", "--resume", "--set", "lr=0.5"],
    );
    changed.refused(2, &["lr = 0.03", "lr = 0.5"]);
    album(&photos, 26);
    adapt(&photos, &out, &["--epochs", "2", "--resume"]).refused(1, &["photos are not those"]);

    let wrong = run(&[
        "eval",
        &photos_text,
        "--weights",
        &weights,
        "--arch",
        "mobilenet_v3_large",
    ]);
    wrong.refused(1, &["mobilenet_v3_small", "mobilenet_v3_large"]);
    let run_text = out.to_string_lossy();
    assert_eq!(run(&["report", &run_text, "-q"]).code, Some(0));
}

/// Both files of `embed` hold the same numbers.
fn same_features(tensors: &Path, csv: &Path) {
    let file = seedling_core::tensor_file::TensorFile::read(tensors).unwrap();
    let values = file.f32("features").unwrap();
    let ids: Vec<String> = serde_json::from_str(&file.metadata()["ids"]).unwrap();
    let text = fs::read_to_string(csv).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("id,v0,v1,"));
    let mut numbers = Vec::new();
    for (line, id) in lines.zip(&ids) {
        let (first, rest) = line.split_once(',').unwrap();
        assert_eq!(first, id);
        numbers.extend(rest.split(',').map(|v| v.parse::<f32>().unwrap()));
    }
    assert_eq!(numbers, values);
    assert_eq!(file.shape("features"), Some(&[24, 1024][..]));
}

#[test]
fn refusals_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 10);
    let path = |name: &str| folder.path().join(name);

    fs::create_dir(path("none")).unwrap();
    adapt(&path("none"), &out, &[]).refused(1, &["none", "no photos", "empty"]);
    adapt(&path("missing"), &out, &[]).refused(1, &["missing"]);
    fs::create_dir(path("broken")).unwrap();
    for n in 0..9 {
        fs::write(path("broken").join(format!("{n}.jpg")), b"no photo").unwrap();
    }
    adapt(&path("broken"), &out, &[]).refused(1, &["could be read"]);
    fs::create_dir(path("few")).unwrap();
    fs::copy(photos.join("warm/000.png"), path("few").join("a.png")).unwrap();
    adapt(&path("few"), &out, &["--epochs", "1"]).refused(1, &["1 photos", "bn_group = 4"]);

    let set = |assignment| adapt(&photos, &out, &["--set", assignment]);
    set("tempreature=0.1").refused(2, &["`tempreature`", "`temperature`"]);
    set("lr=-3").refused(2, &["lr = -3", "from 0"]);
    set("epochs=many").refused(2, &["epochs", "whole number"]);
    set("bn_group=3").refused(2, &["batch_size = 8", "bn_group = 3"]);
    set("lr").refused(2, &["key=value"]);
    fs::write(path("c.toml"), "temperature = \"warm\"\n").unwrap();
    let config = path("c.toml");
    let config = config.to_string_lossy();
    adapt(&photos, &out, &["--config", &config]).refused(2, &["c.toml", "temperature", "number"]);
    adapt(&photos, &out, &["--memory-mb", "20"]).refused(2, &["20 MB", "at least"]);
    adapt(&photos, &out, &["--resume"]).refused(1, &["no checkpoint"]);

    fs::write(path("file"), b"").unwrap();
    adapt(&photos, &path("file").join("run"), &[]).refused(1, &["file"]);
    let weights = path("w.safetensors");
    fs::write(&weights, b"not weights").unwrap();
    let weights = weights.to_string_lossy();
    let photos_text = photos.to_string_lossy();
    let damaged = run(&["eval", &photos_text, "--weights", &weights]);
    damaged.refused(1, &["w.safetensors", "not a whole safetensors file"]);
    let nameless = run(&[
        "embed",
        &photos_text,
        "--weights",
        &weights,
        "--out",
        "x.txt",
    ]);
    nameless.refused(2, &["x.txt", ".csv"]);
    assert!(!out.exists() || fs::read_dir(&out).unwrap().count() <= 4);
    assert_eq!(run(&["adapt"]).code, Some(2));
    assert_eq!(run(&["unknown"]).code, Some(2));
    assert_eq!(run(&["--help"]).code, Some(0));
}

#[test]
fn a_diverging_run_stops_and_leaves_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 16);
    let more = [
        "--epochs",
        "40",
        "--set",
        "lr=100",
        "--set",
        "weight_decay=1",
        "--set",
        "sgd_momentum=0.99",
    ];
    adapt(&photos, &out, &more).refused(1, &["diverged at step", "lower lr"]);
    assert!(!out.join("weights.safetensors").exists());
}

#[test]
fn held_out_photos_can_be_measured_on() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, held_out) = (folder.path().join("photos"), folder.path().join("held-out"));
    album(&photos, 16);
    album(&held_out, 10);
    let out = folder.path().join("run");
    let held = held_out.to_string_lossy();
    let more = ["--steps", "2", "--measure-on", &held, "--json"];
    let measured = adapt(&photos, &out, &more).json()["after"].clone();
    // The same figure as measuring the weights on that folder afterwards.
    let weights = out.join("weights.safetensors");
    let weights = weights.to_string_lossy();
    let knn = [
        "eval",
        &*held,
        "--weights",
        &weights,
        "--protocol",
        "knn",
        "--json",
    ];
    let knn = run(&knn);
    let text = knn.json().to_string();
    let best = measured["best_nn"].as_f64().unwrap();
    assert!(text.contains(&format!("{best}")), "{best} in {text}");
    let elsewhere = adapt(
        &photos,
        &folder.path().join("no"),
        &["--measure-on", "/nowhere"],
    );
    elsewhere.refused(1, &["/nowhere"]);
}

#[test]
fn a_contact_sheet_is_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, sheet) = (
        folder.path().join("photos"),
        folder.path().join("sheet.png"),
    );
    album(&photos, 10);
    let ran = adapt(
        &photos,
        &folder.path().join("run"),
        &["--contact-sheet", &sheet.to_string_lossy()],
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(image::open(&sheet).unwrap().width() > 90);
    assert!(!folder.path().join("run").exists());
}

#[test]
fn a_student_learns_from_a_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("teacher"));
    album(&photos, 16);
    assert_eq!(adapt(&photos, &out, &["--steps", "1"]).code, Some(0));
    let (photos, teacher) = (photos.to_string_lossy(), out.join("weights.safetensors"));
    let student = folder.path().join("student");
    let (teacher, student) = (teacher.to_string_lossy(), student.to_string_lossy());
    let distill = |more: &[&str]| {
        let mut arguments = vec![
            "distill", &photos, "--out", &student, "--steps", "3", "--json",
        ];
        arguments.extend(SMALL);
        arguments.extend(more);
        run(&arguments)
    };
    distill(&[]).refused(2, &["--teacher"]);
    let another = ["--teacher", &teacher, "--teacher-arch", "mobilenet_v2"];
    distill(&another).refused(1, &["mobilenet_v3_small", "mobilenet_v2"]);
    // A file says itself what it is.
    let taught = distill(&["--teacher", &teacher]);
    assert_eq!(taught.code, Some(0), "{taught:?}");
    assert_eq!(taught.json()["steps"], 3);
    let again = distill(&["--resume"]);
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[test]
fn a_step_is_measured_within_a_budget_and_a_phones_figures_become_a_table() {
    let words = "bench --image-size 64 --memory-mb 300 --seconds 0.1 --json --quiet";
    let ran = run(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let row = ran.json();
    assert_eq!(
        (&row["arch"], &row["image_size"]),
        (&"mobilenet_v3_small".into(), &64.into())
    );
    assert!(row["predicted_mb"].as_f64().unwrap() <= 300.0);
    assert!(row["fastest_ms"].as_f64().unwrap() <= row["mean_ms"].as_f64().unwrap());

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("phone.json");
    let shared = serde_json::json!({ "device": "A phone, Android 16", "rows": [row] });
    fs::write(&file, shared.to_string()).unwrap();
    let file_text = file.to_string_lossy();
    let table = run(&["bench", "--table", &file_text]);
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(
        table.stdout.starts_with("A phone, Android 16:"),
        "{table:?}"
    );
    assert!(table.stdout.contains("| small | 64 | 300 |"), "{table:?}");

    fs::write(&file, "{\"device\": 1}").unwrap();
    run(&["bench", "--table", &file_text]).refused(2, &["no table of steps"]);
    let few = "bench --arch mobilenet_v3_large --image-size 224 --memory-mb 60";
    run(&few.split(' ').collect::<Vec<_>>()).refused(2, &["60 MB are not enough", "at least"]);
    run(&["bench", "--arch", "resnet7", "--memory-mb", "300"]).refused(2, &["resnet7"]);
}

#[test]
fn a_preset_is_printed_copied_and_changed() {
    let all = run(&["presets"]);
    assert_eq!(all.code, Some(0), "{all:?}");
    assert_eq!(all.stdout.lines().count(), 6, "{all:?}");
    let printed = run(&["presets", "improved"]);
    let folder = tempfile::tempdir().unwrap();
    let (photos, file) = (
        folder.path().join("photos"),
        folder.path().join("mine.toml"),
    );
    fs::write(&file, &printed.stdout).unwrap();
    album(&photos, 8);
    // The copy says what the preset says, and --set wins over both.
    let resolved = |flag: &str, value: &str, out: &str| {
        let out = folder.path().join(out);
        let small = [
            "batch_size=4",
            "bn_group=4",
            "queue_size=16",
            "image_size=32",
            "temperature=0.3",
        ];
        let mut words = vec![
            "pretrain",
            photos.to_str().unwrap(),
            "--arch",
            "mobilenet_v3_small",
            "--steps",
            "1",
        ];
        words.extend([flag, value, "--out", out.to_str().unwrap(), "--quiet"]);
        for setting in &small {
            words.extend(["--set", setting]);
        }
        let ran = run(&words);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        fs::read_to_string(out.join("config.toml")).unwrap()
    };
    let by_name = resolved("--preset", "improved", "a");
    assert_eq!(by_name, resolved("--config", file.to_str().unwrap(), "b"));
    for line in [
        "temperature = 0.3",
        "head = \"wide\"",
        "views = \"aug+\"",
        "lr = 0.06",
    ] {
        assert!(by_name.contains(line), "{line} in {by_name}");
    }
    run(&["presets", "improve"]).refused(2, &["unknown preset", "improved"]);
}
