//! Runs that can't begin, can't continue, or are told to stop: one clear line, and nothing left that
//! stands in the way.

use seedling_tests::program::{Ran, SMALL, adapt, album, run, seedling};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn broken_photos_are_fatal_only_below_a_microbatch() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 8);
    let broken = |name: &str| fs::write(photos.join(name), b"no photo").unwrap();
    broken("warm/002.png");
    let ran = adapt(&photos, &out, &["--steps", "3", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["skipped"], 1);
    assert!(ran.stderr.contains("4 at a time"), "{ran:?}");

    for name in [
        "warm/000.png",
        "cold/001.png",
        "cold/003.png",
        "cold/005.png",
    ] {
        broken(name);
    }
    let out = folder.path().join("second");
    adapt(&photos, &out, &["--steps", "3"]).refused(1, &["only 3 of 8", "micro-batch of 4"]);
    assert!(!out.exists());
    // What was in the folder before stays, and it can be used.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine.txt"), b"mine").unwrap();
    adapt(&photos, &out, &["--steps", "3"]).refused(1, &["only 3 of 8"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    album(&photos, 8);
    let ran = adapt(&photos, &out, &["--steps", "1"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[test]
fn a_resumed_run_keeps_its_seed_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let demo = |out: &str, threads_wanted: u32, more: &[&str]| {
        let out = folder.path().join(out);
        let mut arguments = vec!["adapt".to_string(), "--demo".into(), "--out".into()];
        arguments.push(out.to_string_lossy().into_owned());
        arguments.extend(SMALL.iter().map(|s| s.to_string()));
        let few = ["--steps", "4", "--set", "measure_photos=16"];
        let plain = ["--set", "reestimate_bn=false"];
        arguments.extend(few.iter().chain(&plain).chain(more).map(|s| s.to_string()));
        let threads = arguments.iter().position(|a| a == "--threads").unwrap() + 1;
        arguments[threads] = threads_wanted.to_string();
        let ran = run(&arguments);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        (ran, out.join("weights.safetensors"))
    };
    let (_, whole) = demo("whole", 2, &["--seed", "3", "--set", "checkpoint_every=2"]);
    // As if it had been killed after step 2.
    let stopped = folder.path().join("stopped");
    fs::create_dir(&stopped).unwrap();
    for (from, to) in [
        ("metrics.jsonl", "metrics.jsonl"),
        ("checkpoint.previous.safetensors", "checkpoint.safetensors"),
    ] {
        fs::copy(folder.path().join("whole").join(from), stopped.join(to)).unwrap();
    }
    let (ran, weights) = demo("stopped", 2, &["--resume", "--memory-mb", "900"]);
    assert!(ran.stderr.contains("after step 2"), "{ran:?}");
    assert!(ran.stderr.contains("--memory-mb has no effect"), "{ran:?}");
    assert!(fs::read(weights).unwrap() == fs::read(&whole).unwrap());
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    for name in ["metrics.jsonl", "checkpoint.previous.safetensors"] {
        let to = other.join(name.replace(".previous", ""));
        fs::copy(folder.path().join("whole").join(name), to).unwrap();
    }
    // Fewer threads: the same bits.
    let (_, weights) = demo("other", 1, &["--resume"]);
    assert!(fs::read(weights).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn refusals_advise_what_the_command_has() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 8);
    let ran = adapt(&photos, &out, &["--steps", "1"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let weights = out.join("weights.safetensors");
    let weights = weights.to_string_lossy();
    let wrong = ["--init", &weights, "--set", "arch=mobilenet_v3_large"];
    let (photos_text, out_text) = (photos.to_string_lossy(), folder.path().join("other"));
    let out_text = out_text.to_string_lossy();
    let mut arguments = vec!["adapt", &photos_text, "--out", &out_text];
    arguments.extend(wrong);
    run(&arguments).refused(
        1,
        &[
            "holds weights of mobilenet_v3_small",
            "mobilenet_v3_large was asked for",
            "--set arch=mobilenet_v3_small",
        ],
    );

    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    adapt(&photos, &file, &[]).refused(1, &["is a file", "--out"]);
    run(&["adapt"]).refused(2, &["not provided: <PHOTOS>", "see --help"]);
    run(&["eval", "x", "--weights", "y", "--protocol", "z"])
        .refused(2, &["'z'", "--protocol", "geometry, knn", "see --help"]);
    run(&["unknown"]).refused(2, &["unknown", "see --help"]);
}

#[cfg(unix)]
#[test]
fn without_a_run_there_is_nothing_to_save() {
    let mut bench = seedling();
    bench.args(["bench", "--image-size", "64", "--seconds", "60"]);
    let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    let id = child.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-INT", &id])
        .status();
    assert!(kill.unwrap().success());
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(!ran.stderr.contains("saving"), "{ran:?}");
}

/// What was asked for and could not be written is a failure; a reader that has gone away is none.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    use std::process::Stdio;
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for args in [
        &["presets"][..],
        &["presets", "moco-v2", "--json"],
        &["--help"],
        &["--version"],
    ] {
        let ran = seedling().args(args).stdout(full()).output().unwrap();
        let text = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{args:?}: {text}");
        assert!(
            text.contains("standard output") && text.lines().count() == 1,
            "{text}"
        );
        let mut gone = seedling()
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        drop(gone.stdout.take());
        assert!(gone.wait().unwrap().success(), "{args:?}");
    }
}

#[test]
fn more_threads_than_help_are_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (
        folder.path().join("photos"),
        folder.path().join("features.csv"),
    );
    album(&photos, 2);
    let ran = seedling()
        .arg("embed")
        .args([&photos, Path::new("--out"), &out])
        .args(["--weights", "shipped", "--threads", "1000"])
        .output()
        .unwrap();
    let text = String::from_utf8(ran.stderr).unwrap();
    assert!(
        ran.status.success() && text.contains("instead of 1000"),
        "{text}"
    );
}

/// Whoever finds another process at work is not told to remove what it writes.
#[test]
fn a_folder_in_use_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 8);
    fs::create_dir(&out).unwrap();
    fs::write(out.join("weights.safetensors"), b"being written").unwrap();
    let lock = fs::File::create(out.join(".lock")).unwrap();
    lock.try_lock().unwrap();
    let ran = adapt(&photos, &out, &["--steps", "1"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(
        ran.stderr.contains("another seedling") && !ran.stderr.contains("rm -r"),
        "{ran:?}"
    );
    drop(lock);
    let ran = adapt(&photos, &out, &["--steps", "1"]);
    assert!(ran.stderr.contains("rm -r"), "{ran:?}");
    assert!(out.join("weights.safetensors").exists());
}
