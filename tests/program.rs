//! The `seedling` program and photos to give it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program, built once (cargo does not build another package's program for a test).
pub fn seedling() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        // A test's program lies in TARGET/PROFILE/deps.
        let test = std::env::current_exe().expect("this test's path");
        let folder = test.ancestors().nth(2).expect("target folder");
        let release = folder.ends_with("release");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build
            // Of the whole workspace, as the tests are: by itself it would have other features, and
            // all its dependencies would be compiled once more.
            .args(["build", "--quiet", "--workspace", "--bin", "seedling"])
            .arg("--target-dir")
            .arg(folder.parent().expect("target folder"))
            .args(release.then_some("--release"))
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().expect("cargo runs").success());
        folder.join("seedling")
    });
    let mut command = Command::new(program);
    // Where it is missing, Mesa writes an error of its own between the program's.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    command
}

/// What a run printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The JSON object on the last line of stdout.
    pub fn json(&self) -> serde_json::Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it failed with `code` and one line on stderr that holds all `parts`; lines
    /// before it are notes.
    pub fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        assert_eq!(self.stderr.lines().last(), Some(errors[0]), "{self:?}");
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} in {:?}", errors[0]);
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs the program with these arguments.
pub fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ran {
    let output = seedling().args(arguments).output();
    output.expect("the program starts").into()
}

/// Runs this test program's other tests again with narrower vectors than the machine has, since
/// each instruction set has code of its own. To be called by a test named `narrower_...`.
pub fn again_with_narrower_vectors() {
    use seedling_core::simd::{Isa, LIMIT, isa};
    for (name, isa_limit) in [("avx2", Isa::Avx2), ("baseline", Isa::Baseline)] {
        if isa_limit >= isa() {
            println!("{name}: what the other tests ran with");
            continue;
        }
        let ran = Command::new(std::env::current_exe().expect("this test's path"))
            .args(["--skip", "narrower_"])
            .env(LIMIT, name)
            .output()
            .expect("this test's program starts");
        let ran = Ran::from(ran);
        assert_eq!(ran.code, Some(0), "{name}: {ran:?}");
        let passed = ran.stdout.lines().find(|l| l.starts_with("test result"));
        assert!(passed.is_some_and(|l| !l.contains(" 0 passed")), "{ran:?}");
    }
}

/// Writes `count` small rendered photos into two class folders below `folder`.
pub fn album(folder: &Path, count: u32) {
    for n in 0..count {
        let class = if n % 2 == 0 { "warm" } else { "cold" };
        let path = folder.join(class).join(format!("{n:03}.png"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        let photo = image::RgbImage::from_fn(56, 48, |x, y| {
            let wave = ((x * (n + 3) / 7 + y * (n % 5 + 1)) % 64) as u8 * 3;
            let (r, b) = if n % 2 == 0 { (200, 40) } else { (30, 190) };
            image::Rgb([r ^ (wave / 4), wave, b ^ (wave / 3)])
        });
        photo.save(path).expect("photo");
    }
}

/// Settings that make a run of the smallest network short: 32 px, batches of 8.
pub const SMALL: &[&str] = &[
    "--init",
    "random",
    "--threads",
    "2",
    "--set",
    "image_size=32",
    "--set",
    "batch_size=8",
    "--set",
    "bn_group=4",
    "--set",
    "queue_size=16",
    "--set",
    "head=simple",
];

/// `adapt PHOTOS --out RUN`, small and quick, with further arguments.
pub fn adapt(photos: &Path, out: &Path, more: &[&str]) -> Ran {
    let (photos, out) = (photos.to_string_lossy(), out.to_string_lossy());
    let mut arguments = vec!["adapt", &photos, "--out", &out];
    arguments.extend(SMALL);
    arguments.extend(more);
    run(&arguments)
}
