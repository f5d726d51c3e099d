//! Weight files: what goes in comes out, and what does not belong is refused by name.

use seedling_core::backbones::Arch;
use seedling_core::data::Normalise;
use seedling_core::encoder::{Architecture, Encoder, Head};
use seedling_core::nn::workspace::Workspace;
use seedling_core::tensor_file::{self, Data, TensorFile, TensorRef};
use seedling_core::weights::{About, HEAD_FILE, Precision, WeightFile, save_backbone, save_head};
use seedling_tests::formula;
use std::collections::BTreeMap;
use std::path::Path;

const ARCH: Arch = Arch::MOBILENET_V3_SMALL;

fn encoder(arch: Arch) -> Encoder {
    let architecture = Architecture::new(arch, Some(Head::Simple));
    Encoder::new(architecture, false, 0, &Workspace::default()).unwrap()
}

fn filled() -> Encoder {
    let encoder = encoder(ARCH);
    formula::fill(&encoder.params);
    encoder
}

fn about(encoder: &Encoder) -> About {
    About {
        architecture: encoder.architecture,
        image_size: 96,
        normalise: Normalise {
            mean: [0.5, 0.25, 0.125],
            std: [0.5; 3],
        },
        made: "by a \"test\"".into(),
    }
}

fn save(path: &Path, encoder: &Encoder, precision: Precision) {
    let (params, dim) = (&encoder.params, encoder.feature_dim());
    save_backbone(path, params, dim, &about(encoder), None, precision).unwrap();
}

fn values(encoder: &Encoder) -> Vec<f32> {
    encoder.params.values.read().unwrap().clone()
}

#[test]
fn full_precision_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (saved, read) = (filled(), encoder(ARCH));
    save(&path, &saved, Precision::Full);
    let dim = saved.feature_dim();
    save_head(
        &path.with_file_name(HEAD_FILE),
        &saved.params,
        dim,
        &about(&saved),
    )
    .unwrap();

    let file = WeightFile::open(&path, None).unwrap();
    assert_eq!(file.about, about(&saved));
    file.load_backbone(&read.params).unwrap();
    assert_ne!(
        values(&read),
        values(&saved),
        "the head is not in this file"
    );
    let head = file.head_beside().unwrap().unwrap();
    head.load_head(&read.params).unwrap();
    assert_eq!(values(&read), values(&saved));
    assert_eq!(
        *read.params.buffers.read().unwrap(),
        *saved.params.buffers.read().unwrap()
    );
    // Saved again, it is the same file, byte for byte.
    let again = folder.path().join("again.safetensors");
    save(&again, &read, Precision::Full);
    assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());
}

#[test]
fn the_file_has_exactly_pytorchs_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    save(&path, &filled(), Precision::Full);
    let file = TensorFile::read(&path).unwrap();
    let names: Vec<&str> = file.names().collect();
    assert!(names.contains(&"features.0.0.weight"));
    assert!(names.contains(&"classifier.0.bias"));
    assert!(!names.iter().any(|name| name.starts_with("projection_head")));
    let tracked = names.iter().filter(|n| n.ends_with("num_batches_tracked"));
    let variances = names.iter().filter(|n| n.ends_with("running_var"));
    assert_eq!(tracked.count(), variances.count());
    assert_eq!(
        file.shape("features.0.1.num_batches_tracked"),
        Some(&[][..])
    );
    assert_eq!(file.metadata()["feature_dim"], "1024");
    assert_eq!(file.metadata()["bn_eps"], "0.001");
}

#[test]
fn half_precision_is_half_the_file_and_nearly_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name| folder.path().join(name);
    let (saved, read) = (filled(), encoder(ARCH));
    save(&path("full"), &saved, Precision::Full);
    save(&path("half"), &saved, Precision::Half);
    let size = |name| std::fs::metadata(path(name)).unwrap().len() as f64;
    assert!(size("half") < 0.53 * size("full"));
    WeightFile::open(&path("half"), Some(ARCH))
        .unwrap()
        .load_backbone(&read.params)
        .unwrap();
    let backbone = read.params.layout.entries();
    let backbone = backbone
        .iter()
        .filter(|e| !e.name.starts_with("projection_head") && !e.role.is_buffer());
    let end = backbone.map(|e| e.range.end).max().unwrap();
    for (a, b) in values(&saved)[..end].iter().zip(&values(&read)) {
        assert!((a - b).abs() <= a.abs() * 5e-4 + 1e-7, "{a} {b}");
    }
}

/// The tensors of a file with some of them changed.
fn altered(path: &Path, change: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) {
    let file = TensorFile::read(path).unwrap();
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = file
        .names()
        .filter(|name| !name.ends_with("num_batches_tracked"))
        .map(|name| {
            (
                name.to_string(),
                (file.shape(name).unwrap().to_vec(), file.f32(name).unwrap()),
            )
        })
        .collect();
    change(&mut tensors);
    let tensors: Vec<TensorRef> = tensors
        .iter()
        .map(|(name, (shape, values))| TensorRef {
            name: name.clone(),
            shape: shape.clone(),
            data: Data::F32(values),
        })
        .collect();
    tensor_file::write(path, &tensors, file.metadata()).unwrap();
}

fn refusal(change: impl Fn(&mut BTreeMap<String, (Vec<usize>, Vec<f32>)>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    save(&path, &filled(), Precision::Full);
    altered(&path, change);
    let target = encoder(ARCH);
    let before = values(&target);
    let error = WeightFile::open(&path, None)
        .unwrap()
        .load_backbone(&target.params)
        .unwrap_err();
    assert_eq!(values(&target), before, "a refused file changes nothing");
    error.to_string()
}

#[test]
fn what_does_not_fit_is_named() {
    let text = refusal(|tensors| {
        tensors.remove("features.3.block.0.0.weight");
        tensors.insert("extra.weight".into(), (vec![1], vec![0.0]));
    });
    assert!(
        text.contains("missing features.3.block.0.0.weight"),
        "{text}"
    );
    assert!(text.contains("unexpected extra.weight"), "{text}");
    let text = refusal(|tensors| {
        let bias = tensors.get_mut("classifier.0.bias").unwrap();
        bias.0 = vec![1, 1024];
    });
    assert!(
        text.contains("classifier.0.bias: expected shape [1024], got [1, 1024]"),
        "{text}"
    );
    let text = refusal(|tensors| tensors.get_mut("features.0.0.weight").unwrap().1[5] = f32::NAN);
    assert!(
        text.contains("features.0.0.weight") && text.contains("not finite"),
        "{text}"
    );
    let text = refusal(|tensors| tensors.retain(|name, _| name.starts_with("features.0")));
    assert!(text.contains("...") && text.len() < 400, "{text}");
}

#[test]
fn another_architecture_is_refused_and_torchvisions_classifier_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    save(&path, &filled(), Precision::Full);
    let text = WeightFile::open(&path, Some(Arch::MOBILENET_V3_LARGE))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("mobilenet_v3_small") && text.contains("mobilenet_v3_large"),
        "{text}"
    );

    // A file as torchvision's users have it: no header, and the layer after the features.
    altered(&path, |tensors| {
        tensors.insert("classifier.3.weight".into(), (vec![2, 1], vec![0.0; 2]));
    });
    let bytes = std::fs::read(&path).unwrap();
    let bare = TensorFile::parse("w", bytes).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = bare
        .names()
        .map(|n| {
            (
                n.to_string(),
                bare.shape(n).unwrap().to_vec(),
                bare.f32(n).unwrap(),
            )
        })
        .collect();
    let tensors: Vec<TensorRef> = tensors
        .iter()
        .map(|(name, shape, values)| TensorRef {
            name: name.clone(),
            shape: shape.clone(),
            data: Data::F32(values),
        })
        .collect();
    tensor_file::write(&path, &tensors, &BTreeMap::new()).unwrap();
    let text = WeightFile::open(&path, None).unwrap_err().to_string();
    assert!(text.contains("does not say which architecture"), "{text}");
    let read = encoder(ARCH);
    let file = WeightFile::open(&path, Some(ARCH)).unwrap();
    file.load_backbone(&read.params).unwrap();
    assert_eq!(file.about.image_size, 224);
}

#[test]
fn numbers_that_a_file_cannot_hold_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let encoder = filled();
    encoder.params.values.write().unwrap()[3] = 1e6;
    let about = about(&encoder);
    let save = |precision| save_backbone(&path, &encoder.params, 1024, &about, None, precision);
    assert!(
        save(Precision::Half)
            .unwrap_err()
            .to_string()
            .contains("features.0.0.weight")
    );
    save(Precision::Full).unwrap();
    encoder.params.values.write().unwrap()[3] = f32::INFINITY;
    assert!(save(Precision::Full).is_err());
    assert!(
        WeightFile::open(&path, None).is_ok(),
        "the old file is still there"
    );
}
