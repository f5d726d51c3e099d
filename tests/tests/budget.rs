//! The memory promise, kept for real: in a process that can't have more than its budget, on photos as
//! large as a phone's; and what was predicted beside what was measured.

use seedling_tests::program::{Ran, seedling};
use seedling_tests::require::skipped;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A hard limit for processes: a control group of their own. Where this machine lends none, what the
/// kernel says that they held at most is read instead.
struct Limit {
    megabytes: usize,
    group: Option<PathBuf>,
}

impl Limit {
    fn new(megabytes: usize) -> Limit {
        let name = format!("seedling-{}-{megabytes}", std::process::id());
        let bytes = (megabytes << 20).to_string();
        let groups = [
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ];
        let group = groups.iter().find_map(|(root, limit)| {
            let group = Path::new(root).join(&name);
            fs::create_dir(&group).ok()?;
            // The kernel puts its files into a group; into any other folder it puts none.
            let real = group.join(limit).exists();
            if !real || fs::write(group.join(limit), &bytes).is_err() {
                let _ = fs::remove_dir(&group);
                return None;
            }
            // Where there is swap, it would be a way out.
            let _ = fs::write(group.join("memory.swap.max"), "0");
            let _ = fs::write(group.join("memory.memsw.limit_in_bytes"), &bytes);
            Some(group)
        });
        match &group {
            Some(group) => println!("{megabytes} MB: a control group, {}", group.display()),
            None => println!("{megabytes} MB: no control group, the kernel's VmHWM"),
        }
        Limit { megabytes, group }
    }

    /// The program within the limit.
    fn seedling(&self) -> Command {
        let Some(group) = &self.group else {
            return seedling();
        };
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo $$ > "$0" && exec "$@""#]);
        command.arg(group.join("cgroup.procs"));
        command.arg(seedling().get_program());
        command
    }

    /// Where there is no group: the process must not have held more. A process that has ended says
    /// nothing here.
    fn watch(&self, process: u32) {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let held: Option<usize> =
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        if let (None, Some(kib)) = (&self.group, held) {
            self.check(kib as f64 / 1024.0);
        }
    }

    fn check(&self, megabytes: f64) {
        assert!(megabytes <= self.megabytes as f64, "held {megabytes} MB");
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // It is empty once its last process is gone, which may take a moment.
            for _ in 0..50 {
                if fs::remove_dir(group).is_ok() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Pictures of `width` x `height`, somewhat different ones.
fn photos(folder: &Path, count: usize, (width, height): (u32, u32)) -> PathBuf {
    let folder = folder.join(format!("{width}x{height}"));
    fs::create_dir_all(&folder).unwrap();
    for kind in 0..4 {
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            let (x, y) = (x * 1024 / width, y * 1024 / height);
            let wave = (x * (kind + 2) / 3 + y * (kind + 1)) % 256;
            image::Rgb([wave as u8, (x / 4) as u8, ((y + 64 * kind) / 4) as u8])
        });
        let first = folder.join(format!("{kind}.jpg"));
        picture.save(&first).unwrap();
        for copy in 1..count.div_ceil(4) {
            fs::copy(&first, folder.join(format!("{kind}-{copy}.jpg"))).unwrap();
        }
    }
    folder
}

/// `adapt` within a budget, at two steps.
fn adapt(mut command: Command, photos: &Path, out: &Path, mb: usize, more: &[&str]) -> Command {
    command.arg("adapt").arg(photos).arg("--out").arg(out);
    command.args(["--memory-mb", &mb.to_string(), "--threads", "2", "--json"]);
    command.args(["--set", "steps=2", "--set", "checkpoint_every=1"]);
    command.args(more.iter().flat_map(|setting| ["--set", setting]));
    command
}

fn finish(mut command: Command) -> Ran {
    command.output().expect("the program starts").into()
}

/// What it said it would take.
fn predicted(ran: &Ran) -> f64 {
    let said = ran.stderr.split("takes about ").nth(1);
    let said = said.unwrap_or_else(|| panic!("{ran:?}"));
    said.split(' ').next().unwrap().parse().unwrap()
}

const SMALL: &str = "arch=mobilenet_v3_small";
const LARGE: &str = "arch=mobilenet_v3_large";

#[test]
fn the_promise_is_kept_under_a_hard_limit() {
    let folder = tempfile::tempdir().unwrap();
    // Measured on smaller ones, which saves time, not memory.
    let measured_on = photos(folder.path(), 40, (800, 600));
    let photos = photos(folder.path(), 24, (4000, 3000));
    for (arch, mb) in [(SMALL, 256), (LARGE, 300)] {
        let limit = Limit::new(mb);
        let out = folder.path().join(arch);
        let more = &[arch, "image_size=224"];
        let mut first = adapt(limit.seedling(), &photos, &out, mb, more);
        first.arg("--measure-on").arg(&measured_on);
        // Killed once something is saved: going on must not take more either.
        let mut child = first
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let log = out.join("metrics.jsonl");
        let trained =
            || fs::read_to_string(&log).is_ok_and(|log| log.contains("\"kind\":\"step\""));
        while !trained() && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(240));
            limit.watch(child.id());
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().unwrap();
        let killed: Ran = child.wait_with_output().unwrap().into();
        assert!(trained(), "{arch} in {mb} MB: {killed:?}");
        let mut second = limit.seedling();
        second.arg("adapt").arg(&photos).arg("--out").arg(&out);
        second.arg("--measure-on").arg(&measured_on);
        second.args(["--resume", "--threads", "2", "--json"]);
        let ran = finish(second);
        assert_eq!(ran.code, Some(0), "{arch} in {mb} MB: {ran:?}");
        let peak = ran.json()["peak_memory_mb"].as_f64().unwrap_or(0.0);
        limit.check(peak);
        println!("{arch} at 224 px within {mb} MB: {peak} MB on resuming");
    }
}

#[test]
fn too_small_a_budget_names_one_that_works() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photos(folder.path(), 32, (640, 480));
    let out = folder.path().join("run");
    let ran = finish(adapt(
        seedling(),
        &photos,
        &out,
        60,
        &[SMALL, "image_size=224"],
    ));
    ran.refused(2, &["60 MB are not enough", "at least"]);
    assert!(!out.exists());
    let named = ran.stderr.split("at least ").nth(1).unwrap();
    let mb: usize = named.split(' ').next().unwrap().parse().unwrap();
    assert!(mb > 60 && mb < 256, "{mb}");
    let limit = Limit::new(mb);
    let more = &[SMALL, "image_size=224"];
    let ran = finish(adapt(limit.seedling(), &photos, &out, mb, more));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    limit.check(ran.json()["peak_memory_mb"].as_f64().unwrap_or(0.0));
    // What was asked for has stayed.
    let settings = fs::read_to_string(out.join("config.toml")).unwrap();
    assert!(settings.contains("\nimage_size = 224\n"), "{settings}");
}

#[test]
fn what_is_predicted_is_what_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let large = photos(folder.path(), 32, (2400, 1800));
    let small = photos(folder.path(), 64, (640, 480));
    let cases: [(&Path, usize, &[&str]); 6] = [
        (&large, 256, &[SMALL, "image_size=224", "cache_mb=0"]),
        (&large, 330, &[LARGE, "image_size=128"]),
        (&small, 200, &[SMALL]),
        (&small, 300, &[SMALL, "image_size=224"]),
        (&small, 400, &[LARGE, "image_size=160"]),
        (&small, 180, &[SMALL, "image_size=224", "freeze=6"]),
    ];
    let mut wrong = Vec::new();
    println!("photos     budget  predicted  measured");
    for (n, (photos, mb, more)) in cases.into_iter().enumerate() {
        let out = folder.path().join(n.to_string());
        let ran = finish(adapt(seedling(), photos, &out, mb, more));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let Some(measured) = ran.json()["peak_memory_mb"].as_f64() else {
            skipped("peak", "this system does not tell the peak of memory");
            return;
        };
        let predicted = predicted(&ran);
        let shown = photos.file_name().unwrap_or_default().to_string_lossy();
        println!("{shown:9}  {mb:6}  {predicted:9.0}  {measured:8.1}  {more:?}");
        let fits = measured <= predicted && predicted <= 1.15 * measured;
        if !fits || predicted > mb as f64 {
            let note = ran.stderr.lines().find(|line| line.contains("takes about"));
            wrong.push(format!("{measured}, {}", note.unwrap_or_default()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
