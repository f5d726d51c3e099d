//! The command on a card.

use seedling_tests::card::card;
use seedling_tests::fused::assert_close;
use seedling_tests::program::{adapt, album, run};

/// Begun on a card, ended on the processor; and features are the same on both.
#[test]
fn a_run_moves_from_a_card_to_the_processor() {
    if card().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (photos, out) = (folder.path().join("photos"), folder.path().join("run"));
    album(&photos, 12);
    let small = ["--set", "measure_size=32", "--set", "holdout=0", "--json"];
    let begun = adapt(
        &photos,
        &out,
        &[&small[..], &["--steps", "1", "--device", "gpu"]].concat(),
    );
    assert_eq!(begun.code, Some(0), "{begun:?}");
    let weights = out.join("weights.safetensors");
    let features = |device: &str| -> Vec<f32> {
        let file = folder.path().join(format!("{device}.csv"));
        let ran = run(&[
            "embed",
            &photos.to_string_lossy(),
            "--weights",
            &weights.to_string_lossy(),
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

    let more = ["--resume", "--steps", "2", "--device", "cpu", "--json"];
    let ended = run(&[
        &[
            "adapt",
            &*photos.to_string_lossy(),
            "--out",
            &*out.to_string_lossy(),
        ][..],
        &more[..],
    ]
    .concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["steps"], 2);
}
