//! A run that was killed and resumed ends with the same bits as one that was not, whatever
//! happened to it on the way.

use seedling_tests::program::{Ran, SMALL, album, seedling};
use seedling_tests::require::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STEPS: &str = "12";

/// The command of every run here; a checkpoint after every second step.
fn command(photos: &Path, out: &Path, resume: bool) -> Command {
    let mut command = seedling();
    command
        .arg("adapt")
        .arg(photos)
        .arg("--out")
        .arg(out)
        .args(SMALL);
    command.args(["--steps", STEPS, "--set", "checkpoint_every=2"]);
    command.args(["--set", "l2_sp=0.001", "--set", "symmetric=true"]);
    if resume {
        command.arg("--resume");
    }
    command
}

fn finish(mut command: Command) -> Ran {
    command.output().expect("the program starts").into()
}

/// Photos, and the weights of an undisturbed run on them.
struct Reference {
    folder: tempfile::TempDir,
    weights: Vec<u8>,
    seconds: f64,
}

impl Reference {
    fn new() -> Reference {
        let folder = tempfile::tempdir().unwrap();
        album(&folder.path().join("photos"), 24);
        // The first start builds the program, which must not be counted.
        seedling().arg("--version").output().unwrap();
        let started = Instant::now();
        let out = folder.path().join("undisturbed");
        let ran = finish(command(&folder.path().join("photos"), &out, false));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        Reference {
            weights: fs::read(out.join("weights.safetensors")).unwrap(),
            seconds: started.elapsed().as_secs_f64(),
            folder,
        }
    }

    fn photos(&self) -> PathBuf {
        self.folder.path().join("photos")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Resumes the run in `out` (or starts it where it never got to a checkpoint) to its end.
    fn complete(&self, out: &Path) -> Ran {
        let resume = out.join("checkpoint.safetensors").exists()
            || out.join("checkpoint.previous.safetensors").exists();
        let ran = finish(command(&self.photos(), out, resume));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(
            fs::read(out.join("weights.safetensors")).unwrap() == self.weights,
            "other weights than the undisturbed run's"
        );
        ran
    }
}

/// Steps that the run in `out` has logged.
fn steps_logged(out: &Path) -> usize {
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    log.matches("\"kind\":\"step\"").count()
}

/// Starts the run in `out` and kills it `delay` after it has logged `steps` steps; whether it was
/// still running then. By its own progress, since how fast a machine is changes from run to run.
fn killed(mut command: Command, out: &Path, steps: usize, delay: Duration) -> bool {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    while steps_logged(out) < steps && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(delay);
    let running = child.try_wait().expect("a child").is_none();
    // SIGKILL: nothing can be saved on the way out.
    child.kill().expect("a child");
    child.wait().expect("a child");
    running
}

#[test]
fn killed_at_any_moment_it_ends_with_the_same_bits() {
    let reference = Reference::new();
    let mut kills = 0;
    // A fixed scatter of moments over the run and over the work of a step, several kills in a row
    // per run.
    let mut state = 0x9E37_79B9_u64;
    let mut share = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let last: usize = STEPS.parse().unwrap();
    for attempt in 0..6 {
        let out = reference.out(&format!("killed-{attempt}"));
        for _ in 0..3 {
            let resume = out.join("checkpoint.safetensors").exists();
            let steps = (share() * last as f64) as usize;
            let delay = Duration::from_secs_f64(share() * reference.seconds / last as f64);
            if killed(
                command(&reference.photos(), &out, resume),
                &out,
                steps,
                delay,
            ) {
                kills += 1;
            }
            if out.join("weights.safetensors").exists() {
                break;
            }
        }
        reference.complete(&out);
        assert_eq!(steps_logged(&out), last, "every step is logged once");
    }
    assert!(kills >= 6, "only {kills} kills hit a running program");
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_previous_one_used() {
    let reference = Reference::new();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }),
        ("cut", |bytes| bytes.truncate(bytes.len() / 3)),
        ("empty", Vec::clear),
    ];
    for (name, damage) in damages {
        let out = reference.out(name);
        interrupted(&reference, &out);
        let path = out.join("checkpoint.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let ran = reference.complete(&out);
        assert!(
            ran.stderr.contains("warning: ") && ran.stderr.contains("previous checkpoint"),
            "{ran:?}"
        );
        // With both damaged there is nothing to continue from, and it says so.
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        fs::write(out.join("checkpoint.previous.safetensors"), &bytes).unwrap();
        let refused = finish(command(&reference.photos(), &out, true));
        refused.refused(1, &["no checkpoint is usable"]);
    }
}

/// Leaves a run in `out` that was stopped with at least two checkpoints.
fn interrupted(reference: &Reference, out: &Path) {
    let mut child = command(&reference.photos(), out, false)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let previous = out.join("checkpoint.previous.safetensors");
    while !(previous.exists() && out.join("checkpoint.safetensors").exists()) {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "ended too early"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
}

/// A limit on the size of any file makes every checkpoint fail half written, as a full disk does.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_checkpoint_whole() {
    let reference = Reference::new();
    let out = reference.out("full");
    interrupted(&reference, &out);
    let path = out.join("checkpoint.safetensors");
    let before = fs::read(&path).unwrap();
    let full = command(&reference.photos(), &out, true);
    // 4096 blocks of 1 KiB (512 bytes in some shells): less than a checkpoint, more than the log.
    // The signal that would kill the program is ignored, so that it sees EFBIG.
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
        .arg(full.get_program())
        .args(full.get_args());
    let ran = finish(limited);
    ran.refused(1, &["checkpoint", "large"]);
    assert!(
        fs::read(&path).unwrap() == before,
        "the old checkpoint was touched"
    );
    let partial = fs::read_dir(&out).unwrap().flatten();
    let partial = partial.filter(|e| e.file_name().to_string_lossy().contains("partial"));
    assert_eq!(partial.count(), 0);
    reference.complete(&out);
}

/// A disk that is really full: a small one in memory, in a mount namespace of the test's own.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_space_leaves_the_old_checkpoint_whole() {
    let allowed = Command::new("unshare")
        .args(["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none"])
        .arg(std::env::temp_dir())
        .output();
    if !allowed.is_ok_and(|ran| ran.status.success()) {
        skipped("mount", "this machine does not let a test mount a disk");
        return;
    }
    let reference = Reference::new();
    let (out, disk) = (reference.out("before"), reference.out("disk"));
    interrupted(&reference, &out);
    fs::create_dir(&disk).unwrap();
    let checkpoint = fs::read(out.join("checkpoint.safetensors")).unwrap();
    let files = fs::read_dir(&out).unwrap().flatten();
    let used: u64 = files.map(|e| e.metadata().unwrap().len()).sum();
    let size = used + checkpoint.len() as u64 / 2;
    let full = command(&reference.photos(), &disk, true);
    let after = reference.out("after");
    let script = format!(
        "mount -t tmpfs -o size={size} none {disk} && cp -r {out}/. {disk} || exit 99\n\
         \"$0\" \"$@\"; code=$?\n\
         cp -r {disk}/. {after} && exit $code",
        out = out.display(),
        disk = disk.display(),
        after = after.display(),
    );
    fs::create_dir(&after).unwrap();
    let mut limited = Command::new("unshare");
    limited
        .args(["--map-root-user", "--mount", "sh", "-c", &script])
        .arg(full.get_program())
        .args(full.get_args());
    let ran = finish(limited);
    ran.refused(1, &["checkpoint", "No space left"]);
    assert!(fs::read(after.join("checkpoint.safetensors")).unwrap() == checkpoint);
    let left = fs::read_dir(&after).unwrap().flatten();
    let left = left.filter(|e| e.file_name().to_string_lossy().contains("partial"));
    assert_eq!(left.count(), 0);
    // With space again, it continues to the same end.
    reference.complete(&after);
}

/// Ctrl-C saves after the step it falls into and says how to continue.
#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_and_goes_on() {
    let reference = Reference::new();
    let out = reference.out("interrupted");
    let child = command(&reference.photos(), &out, false)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    while !out.join("checkpoint.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
    let ran = Ran::from(child.wait_with_output().expect("a child"));
    assert_eq!(ran.code, Some(130), "{ran:?}");
    assert!(ran.stderr.contains("--resume"), "{ran:?}");
    reference.complete(&out);
}
