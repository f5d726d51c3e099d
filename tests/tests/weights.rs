//! Weight files: what goes in comes out, and what does not belong is refused by name.

use seedling_core::backbones::Arch;
use seedling_core::data::Normalize;
use seedling_core::device::Device;
use seedling_core::encoder::{Architecture, Encoder, FeatureNet, Head, LinearLayer};
use seedling_core::nn::workspace::Workspace;
use seedling_core::tensor_file::{self, Data, TensorFile, TensorRef};
use seedling_core::weights::{
    HEAD_FILE, ModelMetadata, Precision, WeightFile, save_backbone, save_head,
};
use seedling_tests::formula;
use std::collections::BTreeMap;
use std::path::Path;

const ARCH: Arch = Arch::MOBILENET_V3_SMALL;

fn encoder(arch: Arch) -> Encoder {
    let architecture = Architecture::new(arch, Some(Head::Simple));
    Encoder::new(architecture, false, 0, &Workspace::default()).unwrap()
}

fn filled() -> Encoder {
    let mut encoder = encoder(ARCH);
    formula::fill(&mut encoder.params);
    encoder
}

fn metadata(encoder: &Encoder) -> ModelMetadata {
    ModelMetadata {
        architecture: encoder.architecture,
        image_size: 96,
        normalize: Normalize {
            mean: [0.5, 0.25, 0.125],
            std: [0.5; 3],
        },
        made: "by a \"test\"".into(),
    }
}

fn save(path: &Path, encoder: &Encoder, precision: Precision) {
    let (params, dim) = (&encoder.params, encoder.feature_dim());
    save_backbone(path, params, dim, &metadata(encoder), None, precision).unwrap();
}

/// Tensors of f32 as they are written.
fn refs(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<TensorRef<'_>> {
    let refs = tensors.iter().map(|(name, shape, values)| TensorRef {
        name: name.clone(),
        shape: shape.clone(),
        data: Data::F32(values),
    });
    refs.collect()
}

fn values(encoder: &Encoder) -> Vec<f32> {
    encoder.params.values.clone()
}

#[test]
fn full_precision_comes_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let (saved, mut read) = (filled(), encoder(ARCH));
    save(&path, &saved, Precision::Full);
    let dim = saved.feature_dim();
    save_head(
        &path.with_file_name(HEAD_FILE),
        &saved.params,
        dim,
        &metadata(&saved),
    )
    .unwrap();

    let file = WeightFile::open(&path, None).unwrap();
    assert_eq!(file.metadata, metadata(&saved));
    file.load_backbone(&mut read.params).unwrap();
    assert_ne!(
        values(&read),
        values(&saved),
        "the head is not in this file"
    );
    let head = file.head_beside().unwrap().unwrap();
    head.load_head(&mut read.params).unwrap();
    assert_eq!(values(&read), values(&saved));
    assert_eq!(*read.params.buffers, *saved.params.buffers);
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
    let (saved, mut read) = (filled(), encoder(ARCH));
    save(&path("full"), &saved, Precision::Full);
    save(&path("half"), &saved, Precision::Half);
    let size = |name| std::fs::metadata(path(name)).unwrap().len() as f64;
    assert!(size("half") < 0.53 * size("full"));
    WeightFile::open(&path("half"), Some(ARCH))
        .unwrap()
        .load_backbone(&mut read.params)
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
    let mut target = encoder(ARCH);
    let before = values(&target);
    let error = WeightFile::open(&path, None)
        .unwrap()
        .load_backbone(&mut target.params)
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
    tensor_file::write(&path, &refs(&tensors), &BTreeMap::new()).unwrap();
    let text = WeightFile::open(&path, None).unwrap_err().to_string();
    assert!(text.contains("does not say which architecture"), "{text}");
    let mut read = encoder(ARCH);
    let file = WeightFile::open(&path, Some(ARCH)).unwrap();
    file.load_backbone(&mut read.params).unwrap();
    assert_eq!(file.metadata.image_size, 224);
}

#[test]
fn numbers_that_a_file_cannot_hold_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut encoder = filled();
    encoder.params.values[3] = 1e6;
    let metadata = metadata(&encoder);
    let save = |encoder: &Encoder, precision| {
        save_backbone(&path, &encoder.params, 1024, &metadata, None, precision)
    };
    assert!(
        save(&encoder, Precision::Half)
            .unwrap_err()
            .to_string()
            .contains("features.0.0.weight")
    );
    save(&encoder, Precision::Full).unwrap();
    encoder.params.values[3] = f32::INFINITY;
    assert!(save(&encoder, Precision::Full).is_err());
    assert!(
        WeightFile::open(&path, None).is_ok(),
        "the old file is still there"
    );
}

/// A layer with numbers by formula, for features of `inputs` numbers.
fn layer(inputs: usize, outputs: usize) -> LinearLayer {
    let weight = formula::numbers(77, inputs * outputs, 1.0);
    LinearLayer::new(inputs, weight, formula::numbers(78, outputs, 3.0)).unwrap()
}

#[test]
fn a_linear_layer_lies_where_the_classes_would_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    for &arch in Arch::ALL {
        let mut saved = encoder(arch);
        formula::fill(&mut saved.params);
        let dim = saved.feature_dim();
        let (metadata, layer) = (metadata(&saved), layer(dim, 12));
        save_backbone(
            &path,
            &saved.params,
            dim,
            &metadata,
            Some(&layer),
            Precision::Half,
        )
        .unwrap();
        let file = TensorFile::open(&path).unwrap();
        let name = arch.spec().class_layer.trim_end_matches('.');
        assert_eq!(file.metadata()["linear_layer"], name);
        assert_eq!(file.metadata()["feature_dim"], "12");
        assert_eq!(file.shape(&format!("{name}.weight")).unwrap(), [12, dim]);
        assert_eq!(file.shape(&format!("{name}.bias")).unwrap(), [12]);

        let file = WeightFile::open(&path, None).unwrap();
        assert_eq!(file.linear_layer().unwrap(), Some(layer.clone()));
        // The backbone is what it is without.
        let mut read = encoder(arch);
        file.load_backbone(&mut read.params).unwrap();
        // Whoever looks with the file sees through the layer, at unit length.
        let architecture = Architecture {
            head: None,
            ..metadata.architecture
        };
        let net = Device::Cpu.load(architecture, &file).unwrap();
        let images = vec![formula::numbers(4242, 64 * 64 * 3, 4.0)];
        let seen = net.features_of(&images, (64, 64)).unwrap();
        assert_eq!((seen.len(), net.feature_dim()), (12, 12));
        let plain = FeatureNet::features_of(&read, &images, (64, 64)).unwrap();
        assert!(seen == layer.apply(&plain), "{arch}");
        assert!((formula::norm(&seen) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn layers_that_are_none_and_layers_that_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let saved = filled();
    let (dim, metadata) = (saved.feature_dim(), metadata(&saved));
    let (params, full) = (&saved.params, Precision::Full);
    save_backbone(&path, params, dim, &metadata, Some(&layer(dim, 7)), full).unwrap();
    let file = TensorFile::read(&path).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = file
        .names()
        .filter(|name| !name.ends_with("num_batches_tracked"))
        .map(|name| {
            let shape = file.shape(name).unwrap().to_vec();
            (name.to_string(), shape, file.f32(name).unwrap())
        })
        .collect();
    type Change = dyn Fn(&mut String, &mut Vec<usize>, &mut Vec<f32>);
    let open = |change: &Change, says: Option<&str>| {
        let mut metadata = file.metadata().clone();
        match says {
            None => metadata.remove("linear_layer"),
            Some(says) => metadata.insert("linear_layer".into(), says.into()),
        };
        let mut changed = tensors.clone();
        changed.iter_mut().for_each(|(n, s, v)| change(n, s, v));
        tensor_file::write(&path, &refs(&changed), &metadata).unwrap();
        WeightFile::open(&path, None).unwrap()
    };
    let same = |_: &mut String, _: &mut Vec<usize>, _: &mut Vec<f32>| {};
    // A classifier of someone else's: left, as ever.
    let classes = open(&same, None);
    assert_eq!(classes.linear_layer().unwrap(), None);
    classes.load_backbone(&mut encoder(ARCH).params).unwrap();

    let refused = |file: WeightFile, part: &str| {
        let text = file.linear_layer().unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    };
    let named = Some("classifier.3");
    refused(open(&same, Some("features.0")), "expected classifier.3");
    refused(
        open(
            &|name, _, _| *name = name.replace("classifier.3.bias", "classifier.3.off"),
            named,
        ),
        "classifier.3",
    );
    let short = |name: &mut String, shape: &mut Vec<usize>, values: &mut Vec<f32>| {
        if name == "classifier.3.bias" {
            (*shape, *values) = (vec![6], vec![0.0; 6]);
        }
    };
    refused(open(&short, named), "linear layer");
    let broken = |name: &mut String, _: &mut Vec<usize>, values: &mut Vec<f32>| {
        if name == "classifier.3.weight" {
            values[3] = f32::NAN;
        }
    };
    refused(open(&broken, named), "not finite");
    // A layer of other features than the network's is found when it is put behind them.
    let narrow = |name: &mut String, shape: &mut Vec<usize>, values: &mut Vec<f32>| {
        if name == "classifier.3.weight" {
            (*shape, *values) = (vec![7, 5], vec![1.0; 35]);
        }
    };
    let file = open(&narrow, named);
    let architecture = Architecture {
        head: None,
        ..metadata.architecture
    };
    assert!(Device::Cpu.load(architecture, &file).is_err());
    // And none is written that is not finite.
    let bad = LinearLayer::new(dim, vec![f32::INFINITY; dim], vec![0.0]).unwrap();
    assert!(save_backbone(&path, params, dim, &metadata, Some(&bad), full).is_err());
}
