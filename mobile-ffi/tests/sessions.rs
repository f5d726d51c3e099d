//! What an app does, in Rust: the same calls that Kotlin and Swift make.

use seedling_core::governor::{Readings, Reason, Rules};
use seedling_core::weights::manifest::{Manifest, SecretKey};
use seedling_mobile::{
    Decision, Governor, Listener, ListenerError, Outcome, Photos, Progress, Search, SearchSettings,
    SeedlingError, Sensors, Session, Settings, Stage, Stop, Weights, benchmark, evaluate,
    usual_rules,
};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

fn shipped() -> String {
    format!(
        "{}/../models/mobilenet_v3_small.safetensors",
        env!("CARGO_MANIFEST_DIR")
    )
}

fn picture(i: u32) -> Vec<u8> {
    let photo = image::RgbImage::from_fn(48, 40, |x, y| {
        let wave = ((x * (i % 5 + 1) + y * (i / 5 + 2)) % 64) as u8 * 3;
        image::Rgb([60 + 35 * (i % 5) as u8, wave, 255 - wave])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    photo.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn photos() -> Arc<Photos> {
    let photos = Photos::new();
    for i in 0..40 {
        photos
            .add_encoded(format!("photo {i}"), picture(i))
            .unwrap();
    }
    photos
}

fn settings() -> Settings {
    Settings {
        memory_mb: 300,
        epochs: Some(6),
        image_size: 32,
        threads: 2,
        seed: 1,
        keep_always: false,
        use_gpu: false,
    }
}

fn settings_with(store: Option<&Path>) -> SearchSettings {
    SearchSettings {
        threads: 2,
        tta_views: 0,
        store: store.map(|path| path.to_string_lossy().into_owned()),
    }
}

fn session(folder: &Path) -> Arc<Session> {
    let weights = Weights::open_own(shipped()).unwrap();
    let folder = folder.to_string_lossy().into_owned();
    Session::open(folder, weights, photos(), settings()).unwrap()
}

/// The weights that a run leaves that nothing disturbs.
fn undisturbed() -> &'static [u8] {
    static WEIGHTS: OnceLock<Vec<u8>> = OnceLock::new();
    WEIGHTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let session = session(folder.path());
        let outcome = session
            .run(session.turn(), None, None, usual_rules())
            .unwrap();
        assert_eq!(outcome, Outcome::Done);
        fs::read(folder.path().join("weights.safetensors")).unwrap()
    })
}

/// Hears everything, pauses at one event, and throws at all of them if asked to.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Progress>>,
    pause: Mutex<Option<(Arc<Session>, Stage)>>,
    throws: bool,
}

impl Listener for Ear {
    fn progress(&self, progress: Progress) -> Result<(), ListenerError> {
        let stage = progress.stage;
        self.heard.lock().unwrap().push(progress);
        let mut pause = self.pause.lock().unwrap();
        if pause.as_ref().is_some_and(|(_, at)| *at == stage) {
            pause.take().unwrap().0.pause();
        }
        match self.throws {
            true => Err(ListenerError::Failed {
                reason: "the listener's".into(),
            }),
            false => Ok(()),
        }
    }

    fn warning(&self, _text: String) -> Result<(), ListenerError> {
        self.progress(Progress {
            stage: Stage::Training,
            done: 0,
            total: 0,
            loss: None,
            photos_per_second: None,
        })
    }
}

#[test]
fn a_session_trains_judges_and_exports() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(&folder.path().join("run"));
    assert!(session.verdict().unwrap().is_none());
    let out = folder.path().join("out.safetensors");
    let export = || session.export(out.to_string_lossy().into_owned());
    assert!(matches!(export(), Err(SeedlingError::Weights { .. })));
    let resources = session.resources().unwrap();
    assert!(resources.predicted_memory_mb <= 300.0 && resources.micro_batch >= 2);

    let ear = Arc::new(Ear::default());
    let outcome = session.run(session.turn(), Some(ear.clone()), None, usual_rules());
    assert_eq!(outcome.unwrap(), Outcome::Done);
    let heard = ear.heard.lock().unwrap();
    for stage in [Stage::Measuring, Stage::Training, Stage::Selecting] {
        assert!(heard.iter().any(|p| p.stage == stage), "{stage:?}");
    }
    let last = heard.iter().rfind(|p| p.stage == Stage::Training).unwrap();
    assert_eq!(last.done, last.total);
    assert!(last.loss.unwrap().is_finite());

    let verdict = session.verdict().unwrap().unwrap();
    assert_eq!(verdict.accepted, verdict.interpolation > 0.0);
    assert!(verdict.sentence.contains("40 photos"), "{verdict:?}");
    export().unwrap();
    assert_eq!(fs::read(&out).unwrap(), undisturbed());
    assert!(session.resources().unwrap().stored_bytes > 1_000_000);
    // Asked again, it is still done, and does nothing.
    assert_eq!(
        session
            .run(session.turn(), None, None, usual_rules())
            .unwrap(),
        Outcome::Done
    );

    let weights = Weights::open_own(out.to_string_lossy().into_owned()).unwrap();
    let search = Search::new(weights, photos(), settings_with(None), None, None, None).unwrap();
    let like = search.like("photo 3".into(), 5);
    assert_eq!(like.len(), 5);
    assert!(
        like.windows(2)
            .all(|pair| pair[0].distance <= pair[1].distance)
    );
    assert!(like.iter().all(|found| found.name != "photo 3"));
    let same = search.like_encoded(picture(3), 1).unwrap();
    assert_eq!(same[0].name, "photo 3");
    assert!(same[0].distance < 1e-3);
    assert!(search.like("nobody".into(), 5).is_empty());
    assert!(search.like_encoded(b"no picture".to_vec(), 1).is_err());
    // Fitted to 40 photos: as many numbers as features.
    assert_eq!(search.embeddings()[7].values.len(), 1024);
    assert!(verdict.closed_form);

    session.discard().unwrap();
    assert!(session.verdict().unwrap().is_none());
    assert_eq!(session.resources().unwrap().stored_bytes, 0);
}

#[test]
fn pauses_and_new_processes_change_nothing() {
    for stage in [Stage::Measuring, Stage::Training, Stage::Selecting] {
        let folder = tempfile::tempdir().unwrap();
        let first = session(folder.path());
        let ear = Arc::new(Ear::default());
        *ear.pause.lock().unwrap() = Some((first.clone(), stage));
        let outcome = first
            .run(first.turn(), Some(ear), None, usual_rules())
            .unwrap();
        assert_eq!(outcome, Outcome::Paused, "{stage:?}");
        // As another process would: what this one holds is gone.
        drop(first);
        let second = session(folder.path());
        assert_eq!(
            second
                .run(second.turn(), None, None, usual_rules())
                .unwrap(),
            Outcome::Done
        );
        let weights = fs::read(folder.path().join("weights.safetensors")).unwrap();
        assert!(weights == undisturbed(), "{stage:?}");
    }
}

#[test]
fn a_listener_that_throws_and_sensors_that_throw_end_nothing() {
    struct Broken;
    impl Sensors for Broken {
        fn read(&self) -> Result<Readings, ListenerError> {
            Err(ListenerError::Failed {
                reason: "no sensor".into(),
            })
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let ear = Arc::new(Ear {
        throws: true,
        ..Ear::default()
    });
    let anywhere = Rules {
        charging_only: false,
        ..usual_rules()
    };
    let outcome = session.run(session.turn(), Some(ear), Some(Arc::new(Broken)), anywhere);
    assert_eq!(outcome.unwrap(), Outcome::Done);
    assert!(fs::read(folder.path().join("weights.safetensors")).unwrap() == undisturbed());
}

#[test]
fn the_governor_stops_and_lets_go_on() {
    /// Charged for so many readings.
    struct Cable(AtomicUsize);
    impl Sensors for Cable {
        fn read(&self) -> Result<Readings, ListenerError> {
            let left = self.0.load(Ordering::Relaxed);
            self.0.store(left.saturating_sub(1), Ordering::Relaxed);
            Ok(Readings {
                charging: Some(left > 0),
                ..Readings::default()
            })
        }
    }
    let impatient = Rules {
        patience_seconds: 0.0,
        ..usual_rules()
    };
    let folder = tempfile::tempdir().unwrap();
    let session = session(folder.path());
    let slice = |readings| {
        let cable = Arc::new(Cable(AtomicUsize::new(readings)));
        session
            .run(session.turn(), None, Some(cable), impatient)
            .unwrap()
    };
    let stopped = Outcome::Stopped {
        reason: Reason::NotCharging,
    };
    assert_eq!(slice(0), stopped);
    assert!(!folder.path().join("checkpoint.safetensors").exists());
    // Five to look at photos in, then steps.
    assert_eq!(slice(7), stopped);
    let done = session.steps().unwrap();
    assert!(done[0] >= 1 && done[0] < done[1], "{done:?}");
    assert_eq!(slice(1000), Outcome::Done);
    assert!(fs::read(folder.path().join("weights.safetensors")).unwrap() == undisturbed());
}

#[test]
fn two_at_once_and_use_after_close() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    std::thread::scope(|scope| {
        for path in [&one, &two] {
            scope.spawn(move || {
                let session = session(path);
                assert_eq!(
                    session
                        .run(session.turn(), None, None, usual_rules())
                        .unwrap(),
                    Outcome::Done
                );
                session.shut().unwrap();
                let again = session.run(session.turn(), None, None, usual_rules());
                assert!(matches!(again, Err(SeedlingError::Closed { .. })));
                session.shut().unwrap();
            });
        }
    });
    for path in [one, two] {
        assert!(fs::read(path.join("weights.safetensors")).unwrap() == undisturbed());
    }
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().to_string_lossy().into_owned();
    let weights = Weights::open_own(shipped()).unwrap();
    let open = |settings, photos| Session::open(text.clone(), weights.clone(), photos, settings);
    let tiny = Settings {
        memory_mb: 20,
        ..settings()
    };
    match open(tiny, photos()).map(drop) {
        Err(SeedlingError::Settings { reason }) => assert!(reason.contains("at least"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let few = open(settings(), Photos::new()).unwrap();
    let refused = few.run(few.turn(), None, None, usual_rules());
    assert!(matches!(
        refused,
        Err(SeedlingError::Photos { .. } | SeedlingError::Settings { .. })
    ));
    // Bad ones among good ones are skipped.
    let some = photos();
    some.add_encoded("garbage".into(), b"garbage".to_vec())
        .unwrap();
    some.add_file("gone".into(), "/nowhere/x.jpg".into())
        .unwrap();
    assert!(some.add_encoded("gone".into(), Vec::new()).is_err());
    assert!(some.add_pixels("p".into(), 3, 3, &[0; 35]).is_err());
    some.add_pixels("p".into(), 3, 3, &[200; 36]).unwrap();
    assert_eq!(some.count(), 43);
    let session = open(settings(), some.clone()).unwrap();
    assert_eq!(
        session
            .run(session.turn(), None, None, usual_rules())
            .unwrap(),
        Outcome::Done
    );
    assert_eq!(
        Search::new(weights.clone(), some, settings_with(None), None, None, None)
            .unwrap()
            .unreadable(),
        2
    );
    // Whoever continues with other photos is told so.
    session.discard().unwrap();
    // A pause that comes before the work is not missed; one that was there before is not meant for it.
    session.pause();
    let turn = session.turn();
    session.pause();
    assert_eq!(
        session.run(turn, None, None, usual_rules()).unwrap(),
        Outcome::Paused
    );
}

#[test]
fn photos_are_evaluated_with_and_without_classes() {
    let weights = Weights::open_own(shipped()).unwrap();
    let photos = photos();
    let ear = Arc::new(Ear::default());
    let without = evaluate(weights.clone(), photos.clone(), 2, Some(ear.clone()), None).unwrap();
    assert_eq!((without.photos, without.unreadable), (40, 0));
    assert!(without.best_nn.is_none() && without.collapse.is_none());
    let heard = ear.heard.lock().unwrap();
    assert!(heard.iter().all(|p| p.stage == Stage::Measuring));
    assert_eq!(heard.last().map(|p| (p.done, p.total)), Some((40, 40)));

    for i in 0..40 {
        photos
            .label(format!("photo {i}"), format!("class {}", i % 5))
            .unwrap();
    }
    assert!(photos.label("none".into(), "kind".into()).is_err());
    let with = evaluate(weights.clone(), photos.clone(), 2, None, None).unwrap();
    // Their base color tells these kinds apart.
    assert!(with.best_nn.unwrap() > 50.0, "{with:?}");
    for figure in [
        with.precision_at_10,
        with.mean_average_precision,
        with.one_shot,
        with.five_shot,
        with.purity,
    ] {
        assert!(figure.is_some_and(|f| f > 20.0 && f <= 100.0), "{with:?}");
    }
    assert!(without.purity.is_none());
    assert_eq!(with.uniformity, without.uniformity);

    let stop = Stop::new();
    stop.cancel();
    let ended = evaluate(weights.clone(), photos.clone(), 2, None, Some(stop.clone()));
    assert!(matches!(ended, Err(SeedlingError::Stopped { .. })));
    let ended = Search::new(weights, photos, settings_with(None), None, None, Some(stop)).map(drop);
    assert!(matches!(ended, Err(SeedlingError::Stopped { .. })));
}

#[test]
fn an_app_can_have_its_own_loop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let first = session(&path);
    // The measurement before training, who is near whom, some photos a call; and two steps of which none has been
    // saved by itself.
    let mut calls = 0;
    while first.steps().unwrap()[0] < 2 {
        assert!(first.step(first.turn(), None).unwrap());
        calls += 1;
    }
    assert!((4..12).contains(&calls), "{calls}");
    first.shut().unwrap();
    let second = session(&path);
    let turn = second.turn();
    second.pause();
    assert!(second.step(turn, None).unwrap(), "a pause is not the end");
    assert!(second.step(second.turn(), None).unwrap());
    assert!(second.steps().unwrap()[0] >= 2);
    while second.step(second.turn(), None).unwrap() {}
    assert!(!second.step(second.turn(), None).unwrap());
    assert!(fs::read(path.join("weights.safetensors")).unwrap() == undisturbed());
    let resources = second.resources().unwrap();
    assert!(resources.seconds > 0.0 && resources.stored_bytes > 1_000_000);
    // What is not the session's stays.
    let other = path.join("of-the-app.txt");
    fs::write(&other, "stays").unwrap();
    second.discard().unwrap();
    let left: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(left, [other]);
}

#[test]
fn weights_that_are_kept_always_are_exported_without_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Weights::open_own(shipped()).unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let settings = Settings {
        epochs: Some(1),
        keep_always: true,
        ..settings()
    };
    let session = Session::open(at("run"), weights, photos(), settings).unwrap();
    let outcome = session
        .run(session.turn(), None, None, usual_rules())
        .unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert!(session.verdict().unwrap().is_none());
    session.export(at("out.safetensors")).unwrap();
    Weights::open_own(at("out.safetensors")).unwrap();
}

#[test]
fn only_signed_weights_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    fs::copy(shipped(), &path).unwrap();
    let secret = SecretKey::from_random([3; 32]);
    let sign = |version, not_before| {
        let manifest = Manifest::describe(&path, version, not_before, secret.public()).unwrap();
        let text = manifest.sign(&secret).unwrap();
        fs::write(folder.path().join("w.safetensors.manifest"), text).unwrap();
    };
    let open = |key: &SecretKey| {
        let storage = folder.path().to_string_lossy().into_owned();
        let text = path.to_string_lossy().into_owned();
        Weights::open(text, vec![key.public().to_string()], storage)
    };
    assert!(open(&secret).is_err());
    sign(2, 2);
    let weights = open(&secret).unwrap();
    assert_eq!(
        (weights.arch().as_str(), weights.version()),
        ("mobilenet_v3_small", 2)
    );
    let refused = |found: Result<Arc<Weights>, SeedlingError>| match found {
        Err(SeedlingError::Untrusted { reason }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    let stranger = SecretKey::from_random([4; 32]);
    assert!(refused(open(&stranger)).contains("not trusted"));
    // Taken back by what was seen before.
    sign(1, 0);
    assert!(refused(open(&secret)).contains("older than 2"));
}

#[test]
fn an_apps_own_loop_has_a_governor() {
    let charging = Readings {
        charging: Some(true),
        ..Readings::default()
    };
    let governor = Governor::new(usual_rules());
    assert_eq!(governor.decide(charging), Decision::Run);
    let warm = Readings {
        heat: Some(0.9),
        ..charging
    };
    assert!(matches!(governor.decide(warm), Decision::Slow { rest } if rest > 0.0));
    let hot = Readings {
        heat: Some(0.96),
        ..charging
    };
    let stop = Decision::Stop {
        reason: Reason::Heat,
    };
    assert_eq!(governor.decide(hot), stop);
    // It stands, however cool it gets.
    assert_eq!(governor.decide(charging), stop);
}

#[test]
fn a_benchmark_is_ended_by_whoever_asks() {
    let stop = Stop::new();
    stop.cancel();
    let ended = benchmark("a phone".into(), 1.0, 1, Some(stop));
    assert!(
        matches!(ended, Err(SeedlingError::Stopped { .. })),
        "{ended:?}"
    );
}

/// The closed form alone, stopped at every moment by a pause and by the death of the process; the search
/// over its weights, likewise; and photos that come and go.
#[test]
fn the_closed_form_and_its_index_are_made_in_slices() {
    let folder = tempfile::tempdir().unwrap();
    let closed = |folder: &Path, threads| {
        let weights = Weights::open_own(shipped()).unwrap();
        let settings = Settings {
            epochs: Some(0),
            threads,
            ..settings()
        };
        let folder = folder.to_string_lossy().into_owned();
        Session::open(folder, weights, photos(), settings).unwrap()
    };
    let whole = closed(&folder.path().join("whole"), 2);
    assert_eq!(
        whole.run(whole.turn(), None, None, usual_rules()).unwrap(),
        Outcome::Done
    );
    let verdict = whole.verdict().unwrap().unwrap();
    assert!(verdict.closed_form && !verdict.accepted);
    assert!(verdict.sentence.contains("linear layer"), "{verdict:?}");
    let export = |session: &Session, name: &str| {
        let path = folder.path().join(name);
        session.export(path.to_string_lossy().into_owned()).unwrap();
        path
    };
    let expected = export(&whole, "whole.safetensors");
    // One part of the work a life, on another number of threads each.
    let path = folder.path().join("parts");
    let mut lives = 0;
    let part = |lives| {
        let session = closed(&path, 1 + lives % 3);
        session.step(session.turn(), None).unwrap()
    };
    while part(lives) {
        lives += 1;
        assert!(lives < 50);
    }
    assert!(lives > 0);
    let found = export(&closed(&path, 1), "parts.safetensors");
    assert!(fs::read(&found).unwrap() == fs::read(&expected).unwrap());

    // A search that is stopped, and continues with what is stored.
    let weights = || Weights::open_own(expected.to_string_lossy().into_owned()).unwrap();
    let store = folder.path().join("index");
    let ear = Arc::new(Ear::default());
    let over = |photos, stop| {
        let settings = settings_with(Some(&store));
        Search::new(weights(), photos, settings, None, Some(ear.clone()), stop)
    };
    let stop = Stop::new();
    stop.cancel();
    assert!(matches!(
        over(photos(), Some(stop)),
        Err(SeedlingError::Stopped { .. })
    ));
    let search = over(photos(), None).unwrap();
    let all = search.embeddings();
    assert_eq!(all.len(), 40);
    let plain = Search::new(weights(), photos(), settings_with(None), None, None, None).unwrap();
    assert_eq!(plain.embeddings(), all);
    // Again: nothing is processed.
    ear.heard.lock().unwrap().clear();
    assert_eq!(over(photos(), None).unwrap().embeddings(), all);
    assert!(ear.heard.lock().unwrap().is_empty());
    // One goes, one comes.
    let others = Photos::new();
    for i in 1..41 {
        others
            .add_encoded(format!("photo {i}"), picture(i))
            .unwrap();
    }
    search
        .refresh(others.clone(), Some(ear.clone()), None)
        .unwrap();
    let last = ear.heard.lock().unwrap().last().map(|p| (p.done, p.total));
    assert_eq!(last, Some((1, 1)));
    assert!(search.like("photo 0".into(), 3).is_empty());
    assert_eq!(search.like("photo 40".into(), 3).len(), 3);
    let anew = Search::new(weights(), others, settings_with(None), None, None, None).unwrap();
    // Photos are computed a few at a time: in other company the last digits may differ.
    for (a, b) in search.embeddings().iter().zip(anew.embeddings()) {
        assert_eq!(a.name, b.name);
        let pairs = a.values.iter().zip(&b.values);
        assert!(
            pairs.clone().all(|(x, y)| (x - y).abs() < 1e-4),
            "{}",
            a.name
        );
    }
    // Several views, and two networks side by side.
    let eight = SearchSettings {
        tta_views: 8,
        ..settings_with(None)
    };
    let both = Search::new(weights(), photos(), eight, Some(weights()), None, None).unwrap();
    assert_eq!(both.embeddings()[0].values.len(), 2048);
    let three = SearchSettings {
        tta_views: 3,
        ..settings_with(None)
    };
    let refused = Search::new(weights(), photos(), three, None, None, None);
    assert!(matches!(refused, Err(SeedlingError::Settings { .. })));
}
