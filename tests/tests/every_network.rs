//! What every network of the registry must do, whichever it is: be written and read, learn by either
//! method, keep frozen stages as they are, and continue after a stop to the same bits.

use seedling_core::backbones::Arch;
use seedling_core::checkpoint::{self, Network};
use seedling_core::config::{Config, OptimizerKind};
use seedling_core::data::{self, Normalize, PhotoSource};
use seedling_core::encoder::{Architecture, Encoder, Head};
use seedling_core::nn::workspace::Workspace;
use seedling_core::session::{Session, Start, TeacherSource};
use seedling_core::tensor_file::{self, Data, TensorFile, TensorRef};
use seedling_core::weights::{ModelMetadata, Precision, WeightFile, save_backbone};
use seedling_tests::formula;
use seedling_tests::program::album;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn config(arch: Arch) -> Config {
    let transformer = arch == Arch::DEIT_TINY;
    Config {
        arch,
        init: "random".into(),
        image_size: 32,
        batch_size: 8,
        bn_group: 4,
        queue_size: 12,
        head: Head::Dropout,
        dropout: true,
        neighbor_weight: 0.0,
        label_smoothing: 0.3,
        label_smoothing_keys: 3,
        optimizer: match transformer {
            true => OptimizerKind::AdamW,
            false => OptimizerKind::Sgd,
        },
        lr: if transformer { 1e-3 } else { 0.05 },
        steps: 2,
        freeze: 2,
        threads: 2,
        ..Config::adapt()
    }
}

/// Those that runs train.
fn trained() -> impl Iterator<Item = Arch> {
    Arch::ALL.iter().copied().filter(|arch| arch.spec().trained)
}

fn photos(folder: &Path) -> Arc<dyn PhotoSource> {
    album(&folder.join("photos"), 16);
    data::open(&folder.join("photos")).unwrap()
}

fn filled(arch: Arch) -> Encoder {
    let architecture = Architecture::new(arch, None);
    let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
    formula::fill(&mut encoder.params);
    encoder
}

fn numbers(encoder: &Encoder) -> (Vec<f32>, Vec<f32>) {
    let (values, buffers) = (&encoder.params.values, &encoder.params.buffers);
    (values.clone(), buffers.clone())
}

/// Parameters, running statistics and the optimizer's averages.
fn state(session: &Session) -> [Vec<f32>; 4] {
    let mut found = None;
    let see = session.with_training_state(&mut |numbers| {
        let Network { values, buffers } = numbers.trained;
        found =
            Some([values, buffers, numbers.velocity, numbers.squares].map(|all| all.into_owned()));
        Ok(())
    });
    see.unwrap();
    found.unwrap()
}

fn save(path: &Path, encoder: &Encoder) {
    let metadata = ModelMetadata {
        architecture: encoder.architecture,
        image_size: 96,
        normalize: Normalize::default(),
        made: "by a test".into(),
    };
    let (params, dim) = (&encoder.params, encoder.feature_dim());
    save_backbone(path, params, dim, &metadata, None, Precision::Full).unwrap();
}

#[test]
fn weights_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for &arch in Arch::ALL {
        let saved = filled(arch);
        save(&path, &saved);
        let file = WeightFile::open(&path, None).unwrap();
        assert_eq!(file.metadata.architecture.arch, arch);
        let architecture = Architecture::new(arch, None);
        let mut read = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
        file.load_backbone(&mut read.params).unwrap();
        assert!(numbers(&read) == numbers(&saved), "{arch}");
    }
}

#[test]
fn a_file_without_a_header_is_known_by_its_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let (path, bare) = (folder.path().join("a"), folder.path().join("b"));
    for &arch in Arch::ALL {
        save(&path, &filled(arch));
        let file = TensorFile::read(&path).unwrap();
        let numbers: Vec<(&str, Vec<f32>)> = file
            .names()
            .filter(|name| !name.ends_with("num_batches_tracked"))
            .map(|name| (name, file.f32(name).unwrap()))
            .collect();
        let mut tensors: Vec<TensorRef> = numbers
            .iter()
            .map(|(name, numbers)| TensorRef {
                name: (*name).into(),
                shape: file.shape(name).unwrap().to_vec(),
                data: Data::F32(numbers),
            })
            .collect();
        let classes = format!("{}weight", arch.spec().class_layer);
        tensors.push(TensorRef {
            name: classes,
            shape: vec![1, 2],
            data: Data::F32(&[0.0; 2]),
        });
        tensor_file::write(&bare, &tensors, &BTreeMap::new()).unwrap();
        assert!(WeightFile::open(&bare, Some(arch)).is_ok(), "{arch}");
        for &other in Arch::ALL.iter().filter(|other| **other != arch) {
            let text = WeightFile::open(&bare, Some(other))
                .unwrap_err()
                .to_string();
            assert!(
                text.contains(arch.name()) && text.contains(other.name()),
                "{text}"
            );
        }
    }
}

/// Two steps in one go, and with a stop between them: finite losses, the same bits, and frozen stages
/// as they were.
fn learns(folder: &Path, config: Config, start: &Start<'_>) {
    let arch = config.arch;
    let source = photos(folder);
    let mut whole = Session::new(config.clone(), source.clone(), start).unwrap();
    let before = state(&*whole);
    let losses = [(); 2].map(|()| whole.step().unwrap().stats.loss);
    assert!(
        losses.iter().all(|loss| loss.is_finite()),
        "{arch}: {losses:?}"
    );

    let after = state(&*whole);
    let architecture = Architecture::new(arch, Some(Head::Dropout));
    let network = Encoder::new(architecture, false, config.freeze, &Workspace::default()).unwrap();
    let frozen = network.frozen_parameters();
    assert!(
        frozen > 0 && before[0][..frozen] == after[0][..frozen],
        "{arch}"
    );
    let moved = before[0].iter().zip(&after[0]).skip(frozen);
    let moved = moved.filter(|(before, after)| before != after).count();
    assert!(
        moved * 4 > (before[0].len() - frozen) * 3,
        "{arch}: {moved} have moved"
    );

    let run = folder.join("run");
    std::fs::create_dir_all(&run).unwrap();
    let mut first = Session::new(config.clone(), source.clone(), start).unwrap();
    assert_eq!(first.step().unwrap().stats.loss, losses[0], "{arch}");
    first.checkpoint(&run).unwrap();
    drop(first);
    let (saved, _) = checkpoint::load(&run).unwrap();
    let mut second = Session::resume(config, source, start, saved).unwrap();
    assert_eq!(second.step().unwrap().stats.loss, losses[1], "{arch}");
    assert!(state(&*second) == after, "{arch}");
}

#[test]
fn contrast_trains_each_and_goes_on_after_a_stop() {
    for arch in trained() {
        let folder = tempfile::tempdir().unwrap();
        learns(folder.path(), config(arch), &Start::default());
    }
}

#[test]
fn each_learns_from_another_and_teaches() {
    let folder = tempfile::tempdir().unwrap();
    // Each from the one before it, the teacher that is never trained among them.
    let teachers = Arch::ALL.iter().rev().copied();
    for (arch, teacher) in trained().zip(teachers) {
        let path = folder.path().join("teacher.safetensors");
        save(&path, &filled(teacher));
        let file = WeightFile::open(&path, None).unwrap();
        let start = Start {
            teacher: Some(TeacherSource::Weights(&file)),
            ..Start::default()
        };
        let own = tempfile::tempdir().unwrap();
        let config = Config {
            label_smoothing: 0.0,
            ..config(arch)
        };
        learns(own.path(), config, &start);
    }
}
