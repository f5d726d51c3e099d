//! What a run leaves behind when it ends out of order.

use super::*;
use crate::checkpoint;
use crate::config::Config;
use crate::session::Start;
use crate::weights::WeightFile;
use seedling_data::Photo;
use seedling_data::demo::Demo;
use seedling_nn::encoder::Encoder;
use seedling_nn::workspace::Workspace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Photos of which only so many can be asked for.
struct Cursed(Demo, AtomicUsize);

impl PhotoSource for Cursed {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn id(&self, index: usize) -> &str {
        self.0.id(index)
    }
    fn load(&self, index: usize) -> Result<Photo> {
        let left = |n: usize| n.checked_sub(1);
        let left = self
            .1
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, left);
        assert!(left.is_ok(), "this test's own panic");
        self.0.load(index)
    }
    fn label(&self, index: usize) -> Option<usize> {
        self.0.label(index)
    }
    fn classes(&self) -> &[String] {
        self.0.classes()
    }
}

fn demo() -> Arc<Demo> {
    Arc::new(Demo::new(2, 0).unwrap())
}

fn config() -> Config {
    Config {
        init: "random".into(),
        image_size: 32,
        batch_size: 8,
        bn_group: 4,
        queue_size: 8,
        steps: 3,
        checkpoint_every: 2,
        head: seedling_nn::encoder::Head::Simple,
        threads: 1,
        interpolation: 0.5,
        ..Config::adapt()
    }
}

/// Whether an event is the one to cancel at.
type Moment = fn(&Event<'_>) -> bool;

/// Writes down what kinds of things happen, and cancels at one.
struct Watcher {
    cancel: Option<(CancelToken, Moment)>,
    kinds: Vec<&'static str>,
    clock: AtomicU64,
}

impl Watcher {
    fn new(cancel: Option<(CancelToken, Moment)>) -> Watcher {
        Watcher {
            cancel,
            kinds: Vec::new(),
            clock: AtomicU64::new(0),
        }
    }
}

impl Observer for Watcher {
    fn event(&mut self, event: Event<'_>) -> Result<()> {
        let kind = match event {
            Event::Measuring { .. } => "measuring",
            Event::Measured { .. } => "measured",
            Event::Step { .. } => "step",
            Event::Saved { .. } => "saved",
            Event::Finished { .. } => "finished",
            _ => "",
        };
        if !kind.is_empty() && self.kinds.last() != Some(&kind) {
            self.kinds.push(kind);
        }
        if let Some((cancel, when)) = &self.cancel
            && when(&event)
        {
            cancel.cancel();
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.clock.fetch_add(1, Ordering::Relaxed) as f64
    }
}

fn start(path: &Path, measured_on: Arc<dyn PhotoSource>) -> TrainingRun {
    let folder = RunFolder::open(path, false, &[]).unwrap();
    let session = Session::new(config(), demo(), &Start::default()).unwrap();
    TrainingRun::new(folder, session, measured_on, "adapt").unwrap()
}

fn resume(path: &Path) -> TrainingRun {
    let folder = RunFolder::open(path, true, &[]).unwrap();
    let (state, _) = checkpoint::load(path).unwrap();
    let session = Session::resume(config(), demo(), &Start::default(), state).unwrap();
    TrainingRun::new(folder, session, demo(), "adapt").unwrap()
}

fn weights(path: &Path) -> Vec<u8> {
    std::fs::read(path.join("weights.safetensors")).unwrap()
}

#[test]
fn a_panic_leaves_the_newest_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    // Enough for the measurement before, not for the one after; then for its first call alone, which reads
    // 32 of the 48 photos; then not even for that.
    for (name, photos, steps) in [
        ("late", 48, Some(3)),
        ("early", 32, Some(0)),
        ("at once", 5, None),
    ] {
        let path = root.path().join(name);
        let run = || {
            let cursed = Cursed(Demo::new(6, 0).unwrap(), AtomicUsize::new(photos));
            let mut run = start(&path, Arc::new(cursed));
            let mut watcher = Watcher::new(None);
            while run.advance(&mut watcher).unwrap() == Phase::Going {}
        };
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        let saved = checkpoint::load(&path).ok().map(|(state, _)| state.step);
        assert_eq!(saved, steps, "{name}");
        assert_eq!(path.exists(), steps.is_some(), "{name}");
    }
}

#[test]
fn canceled_anywhere_and_gone_on_with_it_ends_the_same() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    let mut run = start(&whole, demo());
    let mut watcher = Watcher::new(None);
    while run.advance(&mut watcher).unwrap() == Phase::Going {}
    // Before, then who is near whom.
    let first = [
        "measuring",
        "measured",
        "saved",
        "measuring",
        "saved",
        "step",
    ];
    assert_eq!(watcher.kinds[..6], first);
    assert_eq!(watcher.kinds.last(), Some(&"finished"));
    drop(run);

    let moments: [(&str, Moment); 3] = [
        ("before", |e| {
            matches!(
                e,
                Event::Measuring {
                    when: records::When::Before,
                    ..
                }
            )
        }),
        (
            "step",
            |e| matches!(e, Event::Step { progress, .. } if progress.step == 2),
        ),
        ("after", |e| {
            matches!(
                e,
                Event::Measuring {
                    when: records::When::After,
                    ..
                }
            )
        }),
    ];
    for (name, when) in moments {
        let path = root.path().join(name);
        let mut run = start(&path, demo());
        let mut watcher = Watcher::new(Some((run.cancel().clone(), when)));
        let mut phase = Phase::Going;
        while phase == Phase::Going {
            phase = run.advance(&mut watcher).unwrap();
        }
        assert_eq!(phase, Phase::Canceled, "{name}");
        assert!(run.is_saved(), "{name}");
        drop(run);
        let mut run = resume(&path);
        let mut watcher = Watcher::new(None);
        while run.advance(&mut watcher).unwrap() == Phase::Going {}
        assert!(weights(&path) == weights(&whole), "{name}");
        assert!(!path.join("features.chunks").exists(), "{name}");
    }
}

/// A run of the closed form alone, killed (dropped without a word) after every number of calls.
#[test]
fn the_closed_form_goes_on_after_a_kill_with_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let closed = |threads| Config {
        steps: 0,
        epochs: 0,
        threads,
        ..config()
    };
    let photos = || Arc::new(Demo::new(20, 0).unwrap());
    let open = |path: &Path, threads: usize| {
        let resume = checkpoint::exists(path);
        let folder = RunFolder::open(path, resume, &[]).unwrap();
        let (config, start) = (closed(threads), Start::default());
        let session = match resume {
            false => Session::new(config, photos(), &start),
            true => {
                let (state, _) = checkpoint::load(path).unwrap();
                Session::resume(config, photos(), &start, state)
            }
        };
        TrainingRun::new(folder, session.unwrap(), photos(), "adapt").unwrap()
    };
    let whole = root.path().join("whole");
    let (mut run, mut calls) = (open(&whole, 1), 0);
    while run.advance(&mut Watcher::new(None)).unwrap() == Phase::Going {
        calls += 1;
    }
    drop(run);
    // Of 160 photos at most 32 a call.
    assert!(calls >= 4, "{calls}");
    // What only training needs is not there.
    let numbers = checkpoint::load(&whole).unwrap().0.training;
    assert!(numbers.velocity.is_empty() && numbers.queue_keys.is_empty());
    assert!(numbers.key_encoder.values.is_empty() && numbers.initial.values.is_empty());
    let file = WeightFile::open(&whole.join("weights.safetensors"), None).unwrap();
    assert_eq!(file.linear_layer().unwrap().unwrap().outputs(), 128);
    let records = |path: &Path| {
        let log = records::read(&path.join(records::FILE_NAME)).unwrap();
        let measured = log.into_iter().filter_map(|record| match record {
            Record::Measure(found) => Some(found),
            _ => None,
        });
        measured.collect::<Vec<_>>()
    };
    let path = root.path().join("killed");
    for life in 0.. {
        let mut run = open(&path, 1 + life % 3);
        let mut phase = Phase::Going;
        for _ in 0..1 + life % 2 {
            phase = run.advance(&mut Watcher::new(None)).unwrap();
        }
        if phase == Phase::Done {
            break;
        }
        // Nothing is told: as if the process had died.
        drop(run);
        assert!(life < 3 * calls, "it comes to no end");
    }
    assert!(weights(&path) == weights(&whole));
    assert_eq!(records(&path), records(&whole));
}

#[test]
fn the_result_lies_between_the_initial_weights_and_the_trained_ones() {
    let root = tempfile::tempdir().unwrap();
    let run = |name: &str, interpolation: f64| {
        let path = root.path().join(name);
        let folder = RunFolder::open(&path, false, &[]).unwrap();
        let config = Config {
            interpolation,
            ..config()
        };
        let session = Session::new(config, demo(), &Start::default()).unwrap();
        let mut run = TrainingRun::new(folder, session, demo(), "adapt").unwrap();
        while run.advance(&mut Watcher::new(None)).unwrap() == Phase::Going {}
        path
    };
    let backbone = |path: &Path| {
        let file = WeightFile::open(path, None).unwrap();
        let architecture = file.metadata.architecture;
        let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
        file.load_backbone(&mut encoder.params).unwrap();
        let numbers = encoder.params.values.clone();
        [numbers, encoder.params.buffers.clone()].concat()
    };
    let (half, whole) = (run("half", 0.5), run("whole", 1.0));
    let initial = backbone(&run("initial", 0.0).join("weights.safetensors"));
    let [half, whole] = [half, whole].map(|path| backbone(&path.join("weights.safetensors")));
    let mut moved = 0.0;
    for ((&half, &whole), &initial) in half.iter().zip(&whole).zip(&initial) {
        let between = initial + 0.5 * (whole - initial);
        assert!((half - between).abs() <= 1e-6 * between.abs().max(1e-3));
        moved += (whole - initial).abs();
    }
    assert!(moved > 0.0);
}

#[test]
fn a_step_canceled_in_its_middle_leaves_nothing_and_is_taken_again() {
    let session = || Session::new(config(), demo(), &Start::default()).unwrap();
    let state = |session: &Session| {
        let mut state = Vec::new();
        let see = session.with_training_state(&mut |numbers| {
            state.push(numbers.trained.values.to_vec());
            state.push(numbers.trained.buffers.to_vec());
            Ok(())
        });
        see.map(|()| state).unwrap()
    };
    let mut whole = session();
    for _ in 0..3 {
        whole.step().unwrap();
    }

    let mut parts = session();
    parts.step().unwrap();
    let before = state(&*parts);
    let mut stopped = 0;
    // Before the first micro-batch of keys, before the second, and so on.
    loop {
        parts.cancel().cancel_at_check(stopped + 1);
        match parts.step() {
            Err(Error::Canceled) => assert!(state(&*parts) == before, "{stopped}"),
            other => {
                other.unwrap();
                break;
            }
        }
        parts.cancel().reset();
        stopped += 1;
    }
    // Micro-batches of keys, micro-batches of queries.
    assert_eq!(stopped, 4);
    parts.cancel().reset();
    parts.step().unwrap();
    assert!(parts.is_done() && state(&*parts) == state(&*whole));
}
