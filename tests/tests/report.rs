//! The report page and TensorBoard events of run folders, from a real album to an empty one.

use image::imageops::FilterType;
use seedling_core::eval::{Features, Metric, Subject, collapse, measure};
use seedling_core::records::{MeasureRecord, MetricsWriter, Record, RunRecord, StepRecord, When};
use seedling_report::thumbnails::{self, Thumbnails};
use seedling_report::{EventWriter, render};
use seedling_tests::require::{self, skipped};
use std::path::{Path, PathBuf};

fn photos() -> Option<PathBuf> {
    require::data("photos/train")
}

/// A stand-in for an encoder: the shrunken picture, in gray or in color.
fn features(photo: &image::DynamicImage, side: u32, gray: bool) -> Vec<f32> {
    let small = photo.resize_exact(side, side, FilterType::Triangle);
    let values: Vec<u8> = if gray {
        small.to_luma8().into_raw()
    } else {
        small.to_rgb8().into_raw()
    };
    values.iter().map(|&v| v as f32 / 255.0 - 0.45).collect()
}

fn matrix(rows: &[Vec<f32>]) -> Features {
    Features::new(rows.len(), rows[0].len(), rows.concat()).unwrap()
}

fn measured(step: u64, when: When, plain: &Features, labels: &[u32], noise: f32) -> Record {
    let shaken = |phase: f32| {
        let mut other = plain.clone();
        for (i, v) in other.values.iter_mut().enumerate() {
            *v += noise * (i as f32 * 12.9898 + phase).sin();
        }
        other
    };
    let (first, second) = (shaken(0.0), shaken(2.0));
    let subject = Subject {
        plain,
        views: Some((&first, &second)),
        labels: Some(labels),
    };
    let measurement = measure(&subject, Metric::Euclidean, 1).unwrap();
    let mut record = MeasureRecord::new(step, when, &measurement);
    record.collapse = collapse::collapse_warning(plain);
    Record::Measure(Box::new(record))
}

fn step(step: u64, of: u64) -> Record {
    let t = step as f64 / of as f64;
    let noise = ((step * 7919) % 97) as f64 / 97.0 - 0.5;
    Record::Step(StepRecord {
        step,
        epoch: step * 24 / (of + 1),
        loss: 1.9 + 3.1 * (-5.0 * t).exp() + (8.0 * t * (-9.0 * t).exp()) + 0.5 * noise,
        lr: 0.006 * 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
        images_per_second: Some(58.0 + 6.0 * noise),
        ..StepRecord::default()
    })
}

/// A run folder as `adapt` leaves it, from real photos; `None` where there are none.
fn build(run: &Path) -> Option<usize> {
    let root = photos()?;
    let mut files: Vec<PathBuf> = Vec::new();
    for class in std::fs::read_dir(&root).unwrap() {
        let of_class = std::fs::read_dir(class.unwrap().path()).unwrap();
        files.extend(of_class.map(|f| f.unwrap().path()));
    }
    files.sort();
    let kept = thumbnails::sample(files.len(), 1);
    let mut of = Thumbnails::default();
    let (mut before, mut after, mut between) = (vec![], vec![], vec![]);
    for &i in &kept {
        let id = files[i].strip_prefix(&root).unwrap();
        let class = id.parent().unwrap().to_string_lossy().into_owned();
        if of.classes.last() != Some(&class) {
            of.classes.push(class);
        }
        of.labels.push(of.classes.len() as u32 - 1);
        of.ids.push(id.to_string_lossy().into_owned());
        let photo = image::open(&files[i]).unwrap();
        of.thumbnails
            .push(thumbnails::thumbnail(&photo.to_rgb8()).unwrap());
        before.push(features(&photo, 2, true));
        between.push(features(&photo, 4, true));
        after.push(features(&photo, 6, false));
    }
    let (before, between, after) = (matrix(&before), matrix(&between), matrix(&after));
    let labels = of.labels.clone();
    of.before = Some(before.clone());
    of.after = Some(after.clone());
    of.write(run).unwrap();
    let mut log = MetricsWriter::create(run).unwrap();
    let mut events = EventWriter::create(run, 1.7e9).unwrap();
    let mut put = |record: Record| {
        log.append(&record).unwrap();
        events
            .record(1.7e9 + record.step() as f64, &record)
            .unwrap();
    };
    put(measured(0, When::Before, &before, &labels, 0.12));
    (1..=360).for_each(|i| put(step(i, 360)));
    put(measured(180, When::During, &between, &labels, 0.09));
    put(measured(360, When::After, &after, &labels, 0.08));
    put(Record::Run(RunRecord {
        trained_on: None,
        step: 360,
        method: "adapt".into(),
        photos: Some(files.len() as u64),
        skipped: Some(3),
        left_out: Some(2),
        seconds: Some(421.7),
        peak_memory_mb: Some(612.4),
    }));
    let config = "arch = \"mobilenet_v3_small\"\nimage_size = 128\nviews = \"standard\"\nbatch_size = 64\n\
                  bn_group = 32\nqueue_size = 512\ntemperature = 0.1\nkey_momentum = 0.99\nhead = \"wide\"\n\
                  symmetric = false\nlr = 0.006\nsgd_momentum = 0.9\nweight_decay = 0.0001\nwarmup_epochs = 0\n\
                  epochs = 24\ncheckpoint_every = 100\nthreads = 2\nseed = 1\ndevice = \"cpu\"\n";
    std::fs::write(run.join("config.toml"), config).unwrap();
    Some(kept.len())
}

fn html(run: &Path) -> String {
    let path = render(run).unwrap();
    assert_eq!(path, run.join("report.html"));
    let html = std::fs::read_to_string(path).unwrap();
    assert_self_contained(&html);
    html
}

/// Nothing in the page may reach for the network, and every place of the template is filled.
fn assert_self_contained(html: &str) {
    for reach in [
        "http:", "https:", "//fonts", "@import", "url(", "<link", "{{",
    ] {
        assert!(!html.contains(reach), "found {reach}");
    }
    for piece in html.split("src=\"").skip(1) {
        assert!(piece.starts_with("data:image/jpeg;base64,"));
    }
}

#[test]
fn a_full_run_shows_all_its_parts() {
    // SEEDLING_REPORT_DIR keeps the folder, to look at the page in a browser.
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("SEEDLING_REPORT_DIR").map(PathBuf::from);
    let run = kept.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(run).unwrap();
    let Some(count) = build(run) else { return };
    let page = html(run);
    for part in [
        "id=\"change\"",
        "id=\"curves\"",
        "id=\"photos\"",
        "id=\"neighbors\"",
        "id=\"settings\"",
        "MobileNetV3-Small, adapted to 800 photos",
        "Best-NN",
        "Instance discrimination",
        "7 min 2 s",
        "612 MiB",
        "key_momentum",
        "prefers-color-scheme",
        "class=\"same\"",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    assert_eq!(page.matches("class=\"query\"").count(), 6);
    assert_eq!(page.matches("<li ").count(), 6 * 2 * 6);
    assert_eq!(page.matches("class=\"chart\"").count(), 6);
    assert!(
        page.len() < 4 << 20,
        "{} bytes for {count} photos",
        page.len()
    );
    // The page is the same for the same folder.
    assert_eq!(page, html(run));
}

fn tiny_album(ids: [&str; 4], classes: &[&str]) -> Thumbnails {
    let f = |shift: f32| {
        let values = (0..12).map(|i| ((i * i) as f32 + shift) % 5.0).collect();
        Features::new(4, 3, values).unwrap()
    };
    Thumbnails {
        ids: ids.map(String::from).to_vec(),
        classes: classes.iter().map(|c| c.to_string()).collect(),
        labels: (0..4)
            .filter(|_| !classes.is_empty())
            .map(|i| i % classes.len() as u32)
            .collect(),
        before: Some(f(0.0)),
        closed_form: None,
        after: Some(f(1.5)),
        thumbnails: vec![b"\xff\xd8".to_vec(), vec![], vec![], vec![]],
    }
}

#[test]
fn hostile_names_stay_text() {
    let parent = tempfile::tempdir().unwrap();
    let run = parent.path().join("<img src=x onerror=1>&{{data}}");
    std::fs::create_dir(&run).unwrap();
    let evil = "\"><script>alert(1)</script>";
    let album = tiny_album(
        [
            evil,
            "</script><script>alert(2)",
            "'onload='x",
            "{{program}}",
        ],
        &["<b>class", evil],
    );
    album.write(&run).unwrap();
    std::fs::write(
        run.join("config.toml"),
        "views = \"<script>alert(3)</script>\"\n",
    )
    .unwrap();
    let page = std::fs::read_to_string(render(&run).unwrap()).unwrap();
    assert!(!page.contains("<script>alert"));
    assert!(!page.contains("<img src=x"));
    assert!(!page.contains("<b>class"));
    // In the map's data a quote is only a quote; in attributes it would end them.
    assert!(
        page.contains("alt=\"&#39;onload=&#39;x") || page.contains("label=\"&#39;onload=&#39;x")
    );
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(page.contains("&lt;script&gt;alert(3)"));
}

#[test]
fn missing_parts_are_left_out() {
    let run = tempfile::tempdir().unwrap();
    // Nothing at all.
    let page = html(run.path());
    assert!(page.contains("nothing to show yet"));
    assert!(render(&run.path().join("nowhere")).is_err());

    // A distill run: only a loss, with a torn last line.
    let mut log = MetricsWriter::create(run.path()).unwrap();
    (1..=50).for_each(|i| log.append(&step(i, 50)).unwrap());
    let info = RunRecord {
        method: "distill".into(),
        ..RunRecord::default()
    };
    log.append(&Record::Run(info)).unwrap();
    let path = run.path().join("metrics.jsonl");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend(b"{\"kind\":\"step\",\"st");
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(run.path().join("config.toml"), "not = = toml <\n").unwrap();
    let page = html(run.path());
    assert!(page.contains("Distilled for 50 steps"));
    assert!(page.contains("The loss fell from"));
    assert_eq!(page.matches("class=\"chart\"").count(), 2);
    assert!(!page.contains("id=\"change\"") && !page.contains("id=\"photos\""));
    assert!(page.contains("not = = toml &lt;"));

    // An album without classes, interrupted before the second features.
    let album = Thumbnails {
        after: None,
        ..tiny_album(["a", "b", "c", "d"], &[])
    };
    album.write(run.path()).unwrap();
    let page = html(run.path());
    assert!(page.contains("id=\"photos\"") && page.contains("id=\"neighbors\""));
    assert!(!page.contains("<h4>After") && !page.contains("class=\"same\""));

    // No photos in the album; a damaged album is an error that names it.
    Thumbnails::default().write(run.path()).unwrap();
    assert!(!html(run.path()).contains("id=\"photos\""));
    std::fs::write(run.path().join("thumbnails.safetensors"), b"rubbish").unwrap();
    let error = render(run.path()).unwrap_err().to_string();
    assert!(error.contains("thumbnails.safetensors"), "{error}");
}

#[test]
fn tensorboard_reads_the_events() {
    let python = std::env::var("SEEDLING_PYTHON").unwrap_or_else(|_| "python3".into());
    let known = std::process::Command::new(&python)
        .args(["-c", "import tensorboard"])
        .output();
    if !known.is_ok_and(|out| out.status.success()) {
        skipped("tensorboard", "no Python has it (set SEEDLING_PYTHON)");
        return;
    }
    let run = tempfile::tempdir().unwrap();
    let mut events = EventWriter::create(run.path(), 100.0).unwrap();
    for i in 1..=9 {
        events.record(100.0 + i as f64, &step(i, 20)).unwrap();
    }
    drop(events);
    // Resumed after step 5 within the same second: steps 6 to 9 are taken again.
    let mut events = EventWriter::resume(run.path(), 100.0, 5).unwrap();
    for i in 6..=300 {
        events
            .scalars(120.0, i, &[("train/loss", i as f64)])
            .unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/tensorboard_reads.py");
    let out = std::process::Command::new(&python)
        .arg(script)
        .arg(run.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let read: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let loss = read["train/loss"].as_array().unwrap();
    let steps: Vec<u64> = loss.iter().map(|e| e[0].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=300).collect::<Vec<_>>());
    assert_eq!(loss[5][1], 6.0);
    assert_eq!(read["train/lr"].as_array().unwrap().len(), 5);
}
