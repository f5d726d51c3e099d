//! Where to compute, from outside: names, what is there, and what is said of what is not.

use seedling_tests::program::{Ran, run, seedling};

#[test]
fn an_unknown_device_is_a_mistake_in_the_command() {
    run(&["adapt", "--demo", "--device", "gpy"]).refused(2, &["gpy", "cpu", "gpu:N", "cuda:N"]);
    run(&["eval", ".", "--weights", "shipped", "--device", "gpu:one"]).refused(2, &["gpu:one"]);
}

/// Of what is not there, a line says what was looked for and where; nothing panics.
#[test]
fn a_device_that_is_not_there_is_said_to_be_missing() {
    for device in ["gpu", "cuda", "gpu:7"] {
        let output = seedling()
            .args(["bench", "--seconds", "0.1", "--device", device])
            .env("VK_ICD_FILENAMES", "/nowhere.json")
            .env("VK_DRIVER_FILES", "/nowhere.json")
            .output();
        let ran = Ran::from(output.unwrap());
        let kind = device.split(':').next().unwrap();
        ran.refused(1, &[&format!("device = {kind}")]);
        assert!(!ran.stderr.contains("panicked"), "{ran:?}");
    }
}

#[test]
fn what_is_there_is_listed_and_measured() {
    let output = seedling()
        .args(["devices", "--seconds", "0.01", "--json"])
        .env("VK_ICD_FILENAMES", "/nowhere.json")
        .env("VK_DRIVER_FILES", "/nowhere.json")
        .output();
    let ran = Ran::from(output.unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let summary = ran.json();
    let devices = summary["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 3, "{ran:?}");
    assert_eq!(devices[0]["device"], "cpu");
    assert!(devices[0]["images_per_second"].as_f64().unwrap() > 0.0);
    for (missing, name) in devices[1..].iter().zip(["gpu", "cuda"]) {
        assert_eq!(missing["device"], name);
        assert!(missing["missing"].as_str().unwrap().len() > 10, "{missing}");
    }
    assert!(ran.stdout.contains("gpu     not here: "), "{ran:?}");
}
