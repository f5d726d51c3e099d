//! What a test may lack: it says so and passes, or fails where that is required.
//!
//! `SEEDLING_REQUIRE=gpu,nvrtc,c++,data` names what has to be there. `.ci/run` sets it to all that it has installed.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// What `SEEDLING_REQUIRE` may name.
const KNOWN: [&str; 8] = [
    "gpu",
    "tf32",
    "nvrtc",
    "c++",
    "data",
    "tensorboard",
    "mount",
    "peak",
];

/// To be called by a test that cannot run without `what`, before it returns.
///
/// # Panics
/// `SEEDLING_REQUIRE` names it, or something that there is not.
#[track_caller]
pub fn skipped(what: &str, why: impl Display) {
    assert!(KNOWN.contains(&what), "{what} is none of {KNOWN:?}");
    let required = std::env::var("SEEDLING_REQUIRE").unwrap_or_default();
    let mut required = required.split(',').map(str::trim).filter(|r| !r.is_empty());
    assert!(
        required.clone().all(|name| KNOWN.contains(&name)),
        "SEEDLING_REQUIRE names something else than {KNOWN:?}"
    );
    assert!(
        required.all(|name| name != what),
        "SEEDLING_REQUIRE names {what}, and it is missing: {why}"
    );
    println!("SKIPPED, no {what}: {why}");
}

/// The folder or file `path` of the real photos and reported files, where it is there.
#[track_caller]
pub fn data(path: &str) -> Option<PathBuf> {
    shared("data", "SEEDLING_DATA", path)
}

/// The file `path` of other programs' weights, likewise.
#[track_caller]
pub fn weights(path: &str) -> Option<PathBuf> {
    shared("weights", "SEEDLING_WEIGHTS", path)
}

#[track_caller]
fn shared(folder: &str, variable: &str, path: &str) -> Option<PathBuf> {
    let usual = || {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../shared")
            .join(folder)
    };
    let path = std::env::var_os(variable)
        .map_or_else(usual, PathBuf::from)
        .join(path);
    if path.exists() {
        return Some(path);
    }
    let why = format!("{} does not exist (set {variable})", path.display());
    skipped("data", why);
    None
}

#[cfg(test)]
mod tests {
    /// In a process of its own, since what is required is a variable of the process.
    #[test]
    fn what_is_required_fails_and_the_rest_is_said() {
        let run = |required: &str| {
            let test = std::env::current_exe().unwrap();
            std::process::Command::new(test)
                .args([
                    "require::tests::skips",
                    "--exact",
                    "--ignored",
                    "--nocapture",
                ])
                .env("SEEDLING_REQUIRE", required)
                .output()
                .unwrap()
        };
        let said = |ran: &std::process::Output| [&ran.stdout[..], &ran.stderr].concat();
        for (required, passes) in [
            ("", true),
            ("gpu, data", true),
            ("nvrtc", false),
            ("gup", false),
        ] {
            let ran = run(required);
            assert_eq!(ran.status.success(), passes, "{required}");
            let text = String::from_utf8(said(&ran)).unwrap();
            assert!(
                text.contains("SKIPPED, no nvrtc: a test") == passes,
                "{text}"
            );
        }
    }

    #[test]
    #[ignore = "run by the test above"]
    fn skips() {
        super::skipped("nvrtc", "a test");
    }
}
