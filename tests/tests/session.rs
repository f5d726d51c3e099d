//! Sessions from inside: stopping and going on changes nothing, for both methods.

use seedling_core::checkpoint::{self, Network};
use seedling_core::config::{Choice, Config, DistillMethod, TeacherHead};
use seedling_core::data::{self, PhotoSource};
use seedling_core::encoder::{Architecture, Encoder, Head};
use seedling_core::eval::extract::{EvalView, Extractor};
use seedling_core::nn::workspace::Workspace;
use seedling_core::session::{Session, Start, TeacherSource};
use seedling_core::weights::WeightFile;
use seedling_tests::program::album;
use std::path::Path;
use std::sync::Arc;

fn config() -> Config {
    Config {
        init: "random".into(),
        image_size: 32,
        batch_size: 8,
        bn_group: 4,
        queue_size: 12,
        head: Head::Simple,
        lr: 0.05,
        epochs: 2,
        threads: 2,
        ..Config::adapt()
    }
}

fn photos(folder: &Path) -> Arc<dyn PhotoSource> {
    album(&folder.join("photos"), 24);
    data::open(&folder.join("photos")).unwrap()
}

fn values(session: &Session) -> Vec<f32> {
    trained(session).0
}

/// Parameters and running statistics of the network that is trained.
fn trained(session: &Session) -> (Vec<f32>, Vec<f32>) {
    let mut found = None;
    let see = session.with_training_state(&mut |numbers| {
        let Network { values, buffers } = numbers.trained;
        found = Some((values.into_owned(), buffers.into_owned()));
        Ok(())
    });
    see.unwrap();
    found.unwrap()
}

/// Six steps in one go, and again with a stop after each; the losses and the trained numbers of
/// both ways.
fn both_ways(folder: &Path, config: &Config, teacher: Option<&WeightFile>) {
    let source = photos(folder);
    let start = Start {
        teacher: teacher.map(TeacherSource::Weights),
        ..Start::default()
    };
    let mut whole = Session::new(config.clone(), source.clone(), &start).unwrap();
    let mut losses = Vec::new();
    while !whole.is_done() {
        losses.push(whole.step().unwrap().stats.loss);
    }
    assert_eq!(losses.len(), 6);
    assert!(losses.iter().all(|loss| loss.is_finite()));

    let run = folder.join("run");
    std::fs::create_dir_all(&run).unwrap();
    let mut parts = Session::new(config.clone(), source.clone(), &start).unwrap();
    let mut again = Vec::new();
    while !parts.is_done() {
        again.push(parts.step().unwrap().stats.loss);
        parts.checkpoint(&run).unwrap();
        let (state, notice) = checkpoint::load(&run).unwrap();
        assert!(notice.is_none());
        parts = Session::resume(parts.config().clone(), source.clone(), &start, state).unwrap();
    }
    assert_eq!(again, losses);
    assert!(values(&*parts) == values(&*whole));
}

#[test]
fn contrast_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    both_ways(folder.path(), &config(), None);
}

#[test]
fn initial_neighbors_are_kept_in_mind_over_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        neighbor_weight: 0.5,
        ..config()
    };
    both_ways(folder.path(), &config, None);
    let run = |neighbors| {
        let config = Config {
            neighbor_weight: neighbors,
            ..config.clone()
        };
        let source = data::open(&folder.path().join("photos")).unwrap();
        let mut session = Session::new(config, source, &Start::default()).unwrap();
        // The queue of the first step is random: nobody's neighbor.
        [(); 2].map(|()| session.step().unwrap().stats.loss)
    };
    let (without, with) = (run(0.0), run(0.5));
    assert!(without[0] == with[0] && without[1] != with[1]);
}

#[test]
fn distillation_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    // Any network can teach; this one's weights are random.
    let teacher = Config {
        seed: 5,
        ..config()
    };
    let session = Session::new(teacher, photos(folder.path()), &Start::default()).unwrap();
    let path = session
        .save_weights(folder.path(), "by a test", None)
        .unwrap();
    let teacher = WeightFile::open(&path, None).unwrap();
    let mut first = Vec::new();
    for &method in DistillMethod::ALL {
        let config = Config {
            mask_own_photo: false,
            method,
            // BINGO learns from features.
            teacher_head: match method {
                DistillMethod::Bingo => TeacherHead::Ignore,
                _ => TeacherHead::Auto,
            },
            ..config()
        };
        both_ways(folder.path(), &config, Some(&teacher));
        let start = Start {
            teacher: Some(TeacherSource::Weights(&teacher)),
            ..Start::default()
        };
        let source = data::open(&folder.path().join("photos")).unwrap();
        let mut session = Session::new(config, source, &start).unwrap();
        first.push(session.step().unwrap().stats.loss);
    }
    // No two of them are the same.
    first.sort_by(f32::total_cmp);
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
}

#[test]
fn frozen_stages_and_statistics_stay_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let config = Config {
        freeze: 5,
        ..config()
    };
    let architecture = Architecture::new(config.arch, None);
    let network = Encoder::new(architecture, false, config.freeze, &Workspace::default());
    let frozen = network.unwrap().frozen_parameters();
    let mut session = Session::new(config, source, &Start::default()).unwrap();
    let before = values(&*session);
    assert!(frozen > 0 && frozen < before.len());
    for _ in 0..2 {
        session.step().unwrap();
    }
    let after = values(&*session);
    assert!(before[..frozen] == after[..frozen]);
    assert!(before[frozen..] != after[frozen..]);
}

#[test]
fn a_queue_out_of_bounds_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let session = Session::new(config(), source.clone(), &Start::default()).unwrap();
    session.checkpoint(folder.path()).unwrap();
    for (next, allowed) in [(11, true), (12, false), (u64::MAX, false)] {
        let (mut state, _) = checkpoint::load(folder.path()).unwrap();
        state.training.queue_next = next;
        let resumed = Session::resume(
            session.config().clone(),
            source.clone(),
            &Start::default(),
            state,
        );
        let refused = resumed.err().map(|error| error.to_string());
        assert_eq!(refused.is_none(), allowed, "{next}: {refused:?}");
        assert!(refused.is_none_or(|text| text.contains("queue")));
    }
}

#[test]
fn any_number_of_threads_trains_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let train = |threads: usize| {
        let config = Config {
            threads,
            ..config()
        };
        let mut session = Session::new(config, source.clone(), &Start::default()).unwrap();
        for _ in 0..4 {
            session.step().unwrap();
        }
        session.reestimate_statistics().unwrap();
        trained(&*session)
    };
    let one = train(1);
    for threads in [2, 3, 7] {
        assert!(train(threads) == one, "{threads} threads");
    }
}

#[test]
fn statistics_are_estimated_from_the_photos() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let mut session = Session::new(config(), source, &Start::default()).unwrap();
    let buffers = |session: &Session| trained(session).1;
    let before = buffers(&*session);
    session.reestimate_statistics().unwrap();
    let once = buffers(&*session);
    assert!(once != before && once.iter().all(|x| x.is_finite()));
    session.reestimate_statistics().unwrap();
    assert!(
        buffers(&*session) == once,
        "an average over the photos, whatever was before"
    );
}

#[test]
fn half_weights_are_smaller_and_see_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let saved = |half_weights: bool| {
        let config = Config {
            half_weights,
            ..config()
        };
        let session = Session::new(config, source.clone(), &Start::default()).unwrap();
        let run = folder.path().join(half_weights.to_string());
        std::fs::create_dir_all(&run).unwrap();
        let path = session.save_weights(&run, "by a test", None).unwrap();
        let file = WeightFile::open(&path, None).unwrap();
        let architecture = Architecture {
            head: None,
            ..file.metadata.architecture
        };
        let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
        file.load_backbone(&mut encoder.params).unwrap();
        let extractor = Extractor {
            encoder: &encoder,
            source: &*source,
            image_size: 32,
            normalize: &file.metadata.normalize,
        };
        let all: Vec<usize> = (0..24).collect();
        let found = extractor
            .features(&all, &EvalView::Plain, |_| Ok(()))
            .unwrap();
        (
            std::fs::metadata(path).unwrap().len(),
            found.features.values,
        )
    };
    let ((full_size, full), (half_size, half)) = (saved(false), saved(true));
    assert!((half_size as f64) < 0.53 * full_size as f64);
    let largest = full.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0 && full != half);
    for (a, b) in full.iter().zip(&half) {
        assert!((a - b).abs() <= 1e-3 * largest, "{a} {b}");
    }
}

#[test]
fn a_run_does_not_go_on_with_other_settings_or_photos() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let session = Session::new(config(), source.clone(), &Start::default()).unwrap();
    session.checkpoint(folder.path()).unwrap();
    let resume = |config: Config, source: &Arc<dyn PhotoSource>| {
        let (state, _) = checkpoint::load(folder.path()).unwrap();
        Session::resume(config, source.clone(), &Start::default(), state).map(drop)
    };
    let other = Config {
        temperature: 0.3,
        ..session.config().clone()
    };
    let text = resume(other, &source).unwrap_err().to_string();
    assert!(
        text.contains("temperature = 0.1") && text.contains("temperature = 0.3"),
        "{text}"
    );
    album(&folder.path().join("photos"), 25);
    let more = data::open(&folder.path().join("photos")).unwrap();
    let text = resume(session.config().clone(), &more)
        .unwrap_err()
        .to_string();
    assert!(text.contains("24 then, 25 now"), "{text}");
    let freer = Config {
        threads: 1,
        checkpoint_every: 3,
        ..session.config().clone()
    };
    resume(freer, &source).unwrap();
}

#[test]
fn whole_photos_have_the_size_that_the_initial_weights_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let source = photos(folder.path());
    let sized = |measure_size: usize, init: Option<&WeightFile>| {
        let config = Config {
            measure_size,
            ..config()
        };
        let start = Start {
            init,
            ..Start::default()
        };
        Session::new(config, source.clone(), &start).unwrap()
    };
    let random = sized(0, None);
    assert_eq!(random.metadata().image_size, 32);
    let asking = sized(48, None);
    let path = asking
        .save_weights(folder.path(), "by a test", None)
        .unwrap();
    let file = WeightFile::open(&path, None).unwrap();
    assert_eq!(file.metadata.image_size, 48);
    let asked = sized(0, Some(&file));
    assert_eq!(asked.metadata().image_size, 48);
    assert_eq!(asked.config().measure_size, 48);
    assert_eq!(sized(40, Some(&file)).metadata().image_size, 40);
}
