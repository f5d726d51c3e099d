//! The command on a GPU.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use seedling_tests::fused::assert_close;
use seedling_tests::gpu::gpu;
use seedling_tests::program::{self, adapt, album, run, seedling};

const SMALL: [&str; 6] = [
    "--set",
    "measure_size=32",
    "--set",
    "holdout=0",
    "--steps",
    "3",
];

/// Begun on a GPU and killed, ended on the CPU; and features are the same on both.
#[test]
fn a_run_moves_from_a_gpu_to_the_cpu() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 12);
    // The network's own features are compared: behind the closed form of so few photos, which is made of their
    // differences, rounding is larger.
    let own = [
        "--device",
        "gpu",
        "--set",
        "checkpoint_every=1",
        "--set",
        "whitening=false",
    ];
    let begin = [&SMALL[..], &own].concat();
    killed_after_a_step(&photos, &out, &begin);
    let more = [&SMALL[..], &["--resume", "--device", "cpu", "--json"]].concat();
    let ended = adapt(&photos, &out, &more);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["steps"], 3);

    let features = |device: &str| -> Vec<f32> {
        let file = folder.path().join(format!("{device}.csv"));
        let ran = run(&[
            "embed",
            &photos.to_string_lossy(),
            "--weights",
            &out.join("weights.safetensors").to_string_lossy(),
            "--device",
            device,
            "--out",
            &file.to_string_lossy(),
            "-q",
        ]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let text = std::fs::read_to_string(file).unwrap();
        let rows = text
            .lines()
            .skip(1)
            .flat_map(|line| line.split(',').skip(1));
        rows.filter_map(|number| number.parse().ok()).collect()
    };
    let (cpu, gpu) = (features("cpu"), features("gpu"));
    assert!(cpu.len() >= 12 * 1024);
    assert_close(&gpu, &cpu, 1e-4, 0.0, "features");
}

/// Kills `adapt` when it has saved something.
fn killed_after_a_step(photos: &Path, out: &Path, more: &[&str]) {
    let mut command = seedling();
    command.arg("adapt").arg(photos).arg("--out").arg(out);
    command.args(program::SMALL).args(more);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(240);
    while !out.join("checkpoint.safetensors").exists() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{ended:?} without a checkpoint");
        assert!(Instant::now() < until, "no checkpoint in four minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What does not fit is said before the first step, with what would.
#[test]
fn too_little_memory_names_the_microbatch_that_fits() {
    if gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 16);
    let big = [
        "--epochs",
        "1",
        "--set",
        "measure_size=32",
        "--set",
        "bn_group=16",
        "--set",
        "batch_size=16",
        "--set",
        "image_size=96",
        "--device",
        "gpu",
        "--memory-mb",
    ];
    let within = |mb: &'static str| adapt(&photos, &out, &[&big[..], &[mb]].concat());
    let said = [
        "bn_group = 16 takes",
        "70 MB may be taken",
        "--set bn_group=8 takes",
    ];
    within("70").refused(1, &said);
    within("20").refused(1, &["no smaller bn_group would fit"]);
}
