//! Weight files of other programs: read under each program's names, computing what that program
//! computes (tests/golden/foreign.py); and files that lie.

use flate2::read::GzDecoder;
use seedling_convert::naming::Naming;
use seedling_convert::onnx::{self, OnnxNet};
use seedling_convert::recognize::Hints;
use seedling_convert::tensors::Tensors;
use seedling_convert::weights::{Converted, Facts, convert, converted, open, write};
use seedling_core::backbones::Arch;
use seedling_core::data::Normalize;
use seedling_core::encoder::{Architecture, Encoder, FeatureNet, Head, LinearLayer};
use seedling_core::nn::window::Padding;
use seedling_core::nn::workspace::Workspace;
use seedling_core::rng::{Purpose, Rng};
use seedling_core::tensor_file::{self, Data, TensorRef};
use seedling_core::weights::{ModelMetadata, WeightFile};
use seedling_tests::formula::numbers;
use seedling_tests::fused::assert_close;
use seedling_tests::golden::{Golden, root};
use seedling_tests::program::seedling;
use std::collections::BTreeMap;
use std::io::{Cursor, Read, Write};
use std::path::Path;

fn raw(name: &str) -> Vec<u8> {
    let path = root()
        .join("tests/golden/foreign")
        .join(format!("{name}.gz"));
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

fn read(name: &str, part: Option<&str>) -> Converted {
    let tensors = Tensors::parse(name, raw(name)).unwrap();
    let hints = Hints {
        arch: None,
        part: part.map(str::to_string),
    };
    converted(&tensors, None, &hints, &Facts::default()).unwrap()
}

/// The network with its numbers, and its head's where it has one.
fn network(found: &Converted) -> Encoder {
    let architecture = found.file.metadata.architecture;
    let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
    found.file.load_backbone(&mut encoder.params).unwrap();
    if let Some(head) = architecture.head {
        assert!(found.file.load_head_of(&mut encoder.params, head).unwrap());
    }
    encoder
}

fn image() -> Vec<f32> {
    numbers(4242, 64 * 64 * 3, 4.0)
}

fn features(encoder: &Encoder) -> Vec<f32> {
    let image = image();
    let images = encoder.images(1, (64, 64), |out| out.copy_from_slice(&image));
    encoder.features(&images.unwrap()).unwrap()
}

struct Case {
    file: &'static str,
    part: Option<&'static str>,
    arch: Arch,
    program: &'static str,
    head: Option<Head>,
    expected: &'static str,
}

const fn case(file: &'static str, arch: Arch, program: &'static str, head: Option<Head>) -> Case {
    Case {
        file,
        part: None,
        arch,
        program,
        head,
        expected: file,
    }
}

const SIMPLE: Option<Head> = Some(Head::Simple);
const WIDE: Option<Head> = Some(Head::Wide);

const CASES: [Case; 14] = [
    case(
        "torchvision_mobilenet_v3_small.pth",
        Arch::MOBILENET_V3_SMALL,
        "torchvision",
        None,
    ),
    case(
        "timm_mobilenet_v3_small.safetensors",
        Arch::MOBILENET_V3_SMALL,
        "timm",
        None,
    ),
    case(
        "timm_mobilenet_v3_large.pth",
        Arch::MOBILENET_V3_LARGE,
        "timm",
        None,
    ),
    case(
        "timm_efficientnet_b0.pth",
        Arch::EFFICIENTNET_B0,
        "timm",
        None,
    ),
    case("timm_mobilenet_v2.pth", Arch::MOBILENET_V2, "timm", None),
    case("timm_deit_tiny.pth", Arch::DEIT_TINY, "torchvision", None),
    case("moco_resnet18.pth.tar", Arch::RESNET18, "MoCo", SIMPLE),
    case("seed.pth", Arch::RESNET18, "SEED", SIMPLE),
    Case {
        part: Some("teacher"),
        expected: "seed.pth.teacher",
        ..case("seed.pth", Arch::MOBILENET_V3_SMALL, "SEED", None)
    },
    case(
        "moco_v3_deit_tiny.pth.tar",
        Arch::DEIT_TINY,
        "MoCo v3",
        None,
    ),
    case(
        "solo_learn_resnet18.ckpt",
        Arch::RESNET18,
        "solo-learn",
        WIDE,
    ),
    case("lightly_resnet18.ckpt", Arch::RESNET18, "lightly", SIMPLE),
    case(
        "ssl_small_mobilenet_v3_small.pth.tar",
        Arch::MOBILENET_V3_SMALL,
        "MoCo, as ssl-small has it",
        WIDE,
    ),
    case(
        "lukemelas_efficientnet_b0.pth",
        Arch::EFFICIENTNET_B0,
        "lukemelas' EfficientNet",
        None,
    ),
];

#[test]
fn each_program_s_file_computes_what_that_program_does() {
    let golden = Golden::open("foreign/expected");
    for case in &CASES {
        let found = read(case.file, case.part);
        let what = case.expected;
        let recognized = &found.recognized;
        assert_eq!(
            (recognized.arch, recognized.head),
            (case.arch, case.head),
            "{what}"
        );
        assert_eq!(recognized.program, case.program, "{what}");
        let encoder = network(&found);
        let got = features(&encoder);
        let expected = golden.floats(&format!("{what}.features"));
        assert_close(&got, expected, 2e-5, 0.0, what);
        if case.head.is_some() {
            // Unit embeddings against the program's, which are not normalized yet.
            let image = image();
            let images = encoder.images(1, (64, 64), |out| out.copy_from_slice(&image));
            let unit = encoder.embed(&images.unwrap()).unwrap().to_vec();
            let raw = golden.floats(&format!("{what}.embedding"));
            let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt();
            let expected: Vec<f32> = raw.iter().map(|x| x / norm).collect();
            assert_close(&unit, &expected, 2e-5, 0.0, what);
        }
    }
}

#[test]
fn what_is_left_is_said_with_its_reason() {
    let found = read("moco_resnet18.pth.tar", None).recognized;
    assert_eq!(found.root, "state_dict.module.encoder_q.");
    let left = |reason: &str| {
        let found = found.left.iter().find(|(known, _)| known.contains(reason));
        found.map_or(0, |(_, names)| names.len())
    };
    assert_eq!(left("queue"), 2);
    assert!(
        left("copy") > 100 && left("count of batches") == 40,
        "{:?}",
        found.left.keys()
    );
    let found = read("moco_v3_deit_tiny.pth.tar", None).recognized;
    assert!(
        found
            .left
            .keys()
            .any(|reason| reason.contains("batch norm")),
        "{:?}",
        found.left
    );
    assert!(found.notes[0].contains("six"));
    // The query of the two, and the key where it is asked for.
    let found = read("moco_resnet18.pth.tar", Some("encoder_k")).recognized;
    assert_eq!(found.root, "state_dict.module.encoder_k.");
}

#[test]
fn numbers_of_every_dtype_and_lie_are_read() {
    let golden = Golden::open("foreign/expected");
    let plain = golden.floats("dtypes");
    let tensors = Tensors::parse("dtypes", raw("dtypes.pth")).unwrap();
    for name in ["f64", "f32", "f16", "bf16", "parameter", "inner.deep.er"] {
        assert_eq!(tensors.f32(name).unwrap(), plain, "{name}");
        assert_eq!(tensors.shape(name).unwrap(), [4, 6]);
    }
    let whole: Vec<f32> = plain.iter().map(|x| x.trunc()).collect();
    assert_eq!(tensors.f32("i64").unwrap(), whole);
    assert_eq!(tensors.f32("u8").unwrap(), whole);
    let at = |places: Vec<(usize, usize)>| -> Vec<f32> {
        places
            .iter()
            .map(|(row, column)| plain[row * 6 + column])
            .collect()
    };
    let turned = (0..6).flat_map(|c| (0..4).map(move |r| (r, c))).collect();
    assert_eq!(tensors.f32("turned").unwrap(), at(turned));
    assert_eq!(tensors.shape("turned").unwrap(), [6, 4]);
    let part = (1..3).flat_map(|r| (2..5).map(move |c| (r, c))).collect();
    assert_eq!(tensors.f32("part").unwrap(), at(part));
    let steps = (0..4)
        .flat_map(|r| [0, 2, 4].map(move |c| (r, c)))
        .collect();
    assert_eq!(tensors.f32("steps").unwrap(), at(steps));
    assert_eq!(tensors.f32("scalar").unwrap(), [2.5]);
    assert!(tensors.shape("none").is_none());
    assert!(tensors.f32("nothing").is_err());
}

/// What PyTorch wrote before 1.6: the same tensors as in today's files, number for number.
#[test]
fn the_old_format_is_read() {
    for name in ["dtypes", "torchvision_mobilenet_v3_small"] {
        let new = Tensors::parse("new", raw(&format!("{name}.pth"))).unwrap();
        let bytes = raw(&format!("{name}.old.pth"));
        let old = Tensors::parse("old", bytes.clone()).unwrap();
        assert!(old.names().eq(new.names()));
        for tensor in new.names() {
            assert_eq!(old.shape(tensor), new.shape(tensor), "{tensor}");
            assert_eq!(
                old.f32(tensor).unwrap(),
                new.f32(tensor).unwrap(),
                "{tensor}"
            );
        }
        for cut in [20, bytes.len() / 3, bytes.len() - 1] {
            let text = match Tensors::parse("cut", bytes[..cut].to_vec()) {
                Err(error) => error.to_string(),
                Ok(_) => panic!("{name} cut at {cut}"),
            };
            assert!(
                text.contains("before 1.6") && !text.contains('\n'),
                "{text}"
            );
        }
    }
    let old = Tensors::parse("old", raw("torchvision_mobilenet_v3_small.old.pth")).unwrap();
    let found = converted(&old, None, &Hints::default(), &Facts::default()).unwrap();
    assert_eq!(found.recognized.arch, Arch::MOBILENET_V3_SMALL);
    // A pickle of anything else is none.
    let text = Tensors::parse("other", b"\x80\x02}q\x00.".to_vec()).unwrap_err();
    assert!(text.to_string().contains("not one of PyTorch's"), "{text}");
}

/// These tensors as a file of safetensors.
fn as_file(tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let refs: Vec<TensorRef> = tensors
        .iter()
        .map(|(name, shape, numbers)| TensorRef {
            name: name.clone(),
            shape: shape.clone(),
            data: Data::F32(numbers),
        })
        .collect();
    tensor_file::bytes(&refs, &BTreeMap::new()).unwrap()
}

/// A network that has all of ours and more is another one.
#[test]
fn layers_that_are_not_ours_are_a_refusal() {
    let cases = [
        (
            "moco_resnet18.pth.tar",
            "state_dict.module.encoder_q.",
            "layer1.0.se.fc1.weight",
        ),
        (
            "moco_resnet18.pth.tar",
            "state_dict.module.encoder_q.",
            "layer1.2.conv1.weight",
        ),
        ("timm_deit_tiny.pth", "", "blocks.0.ls1.gamma"),
        ("timm_deit_tiny.pth", "", "blocks.3.attn.q_norm.weight"),
        ("timm_deit_tiny.pth", "", "reg_token"),
        ("timm_deit_tiny.pth", "", "norm_pre.weight"),
        ("timm_efficientnet_b0.pth", "", "blocks.1.0.aa.filter"),
        (
            "torchvision_mobilenet_v3_small.pth",
            "",
            "features.4.block.4.weight",
        ),
    ];
    for (file, root, stranger) in cases {
        let tensors = Tensors::parse("usual", raw(file)).unwrap();
        let mut all: Vec<(String, Vec<usize>, Vec<f32>)> = tensors
            .names()
            .map(|name| {
                let shape = tensors.shape(name).unwrap().to_vec();
                (name.to_string(), shape, tensors.f32(name).unwrap())
            })
            .collect();
        let open = |all: &[(String, Vec<usize>, Vec<f32>)]| {
            let tensors = Tensors::parse("more", as_file(all)).unwrap();
            converted(&tensors, None, &Hints::default(), &Facts::default())
        };
        // Heads and counts are left, as ever.
        let head = format!("{root}projector.1.weight");
        all.push((head, vec![3], vec![0.5; 3]));
        open(&all).unwrap();
        all.push((format!("{root}{stranger}"), vec![3], vec![0.5; 3]));
        let text = open(&all).unwrap_err().to_string();
        assert!(
            text.contains(stranger) && text.contains("1 more inside"),
            "{text}"
        );
    }
}

/// Networks trained in TensorFlow have PyTorch's names and another padding.
#[test]
fn padding_is_recognized_said_or_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = raw("timm_efficientnet_b0.pth");
    let put = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        path
    };
    let read = |path: &Path, padding| {
        let facts = Facts {
            padding,
            ..Facts::default()
        };
        let found = convert(path, &Hints::default(), &facts).unwrap();
        let metadata = &found.file.metadata.architecture;
        (
            metadata.padding,
            metadata.norm_eps,
            found.recognized.notes.join(" "),
        )
    };
    let (padding, eps, note) = read(&put("model.pth"), None);
    assert_eq!((padding, eps), (Padding::Symmetric, 1e-5));
    assert!(note.contains("--padding same"), "{note}");
    for name in [
        "tf_efficientnet_b0_aa-827b6e33.pth",
        "tf_efficientnet_b0.in1k/model.pth",
    ] {
        let (padding, eps, note) = read(&put(name), None);
        assert_eq!((padding, eps), (Padding::Same, 1e-3), "{name}");
        assert!(note.contains("TensorFlow"), "{note}");
    }
    let beside = put("snapshot/model.pth");
    std::fs::write(
        beside.with_file_name("config.json"),
        r#"{"architecture": "tf_efficientnet_b0"}"#,
    )
    .unwrap();
    assert_eq!(read(&beside, None).0, Padding::Same);
    // Whoever asks is asked no more.
    let (padding, _, note) = read(&beside, Some(Padding::Symmetric));
    assert_eq!(padding, Padding::Symmetric);
    assert!(note.is_empty(), "{note}");
    assert_eq!(
        read(&put("model.pth"), Some(Padding::Same)).0,
        Padding::Same
    );
}

#[test]
fn graphs_of_every_network_compute_its_features() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.onnx");
    for &arch in Arch::ALL {
        let architecture = Architecture::new(arch, None);
        let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
        seedling_tests::formula::fill(&mut encoder.params);
        let metadata = ModelMetadata {
            architecture,
            image_size: 64,
            normalize: Normalize::default(),
            made: String::new(),
        };
        onnx::write(&path, (&encoder, None), &metadata).unwrap();
        let net = OnnxNet::open(&path, "", 64, 2).unwrap();
        assert_eq!(net.feature_dim(), encoder.feature_dim(), "{arch}");
        // Another batch than the one it was made with.
        let images: Vec<Vec<f32>> = (0..3)
            .map(|i| numbers(4242 + i, 64 * 64 * 3, 4.0))
            .collect();
        let got = net.features_of(&images, (64, 64)).unwrap();
        let expected = encoder.features_of(&images, (64, 64)).unwrap();
        assert_close(&got, &expected, 1e-4, 0.0, arch.name());
        // With a linear layer behind them: of unit length.
        let dim = encoder.feature_dim();
        let weight = numbers(77, 9 * dim, 1.0);
        let layer = LinearLayer::new(dim, weight, numbers(78, 9, 1.0)).unwrap();
        onnx::write(&path, (&encoder, Some(&layer)), &metadata).unwrap();
        let net = OnnxNet::open(&path, "", 64, 2).unwrap();
        assert_eq!(net.feature_dim(), 9, "{arch}");
        let got = net.features_of(&images, (64, 64)).unwrap();
        assert_close(&got, &layer.apply(&expected), 1e-4, 0.0, arch.name());
        assert!(OnnxNet::open(&path, "", 96, 2).is_err(), "another size");
        assert!(
            OnnxNet::open(&path, "nothing", 64, 2).is_err(),
            "another output"
        );
    }
    std::fs::write(&path, b"no graph").unwrap();
    let text = OnnxNet::open(&path, "", 64, 2).err().unwrap().to_string();
    assert!(text.contains("no ONNX graph"), "{text}");
}

#[test]
fn names_go_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.safetensors");
    for &arch in Arch::ALL {
        for naming in [Naming::Torchvision, Naming::Timm] {
            let architecture = Architecture::new(arch, None);
            let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
            seedling_tests::formula::fill(&mut encoder.params);
            let metadata = ModelMetadata {
                architecture,
                image_size: 64,
                normalize: Normalize::default(),
                made: String::new(),
            };
            let timm_has_own = arch.name().contains("net_v") || arch.name().contains("efficient");
            let dim = encoder.feature_dim();
            let layer = LinearLayer::new(dim, numbers(77, 9 * dim, 1.0), vec![0.5; 9]).unwrap();
            let written = write(&path, (&encoder, Some(&layer)), &metadata, naming);
            if naming == Naming::Timm && !timm_has_own {
                // timm's names are ours there; there is nothing to write under others.
                assert!(written.is_ok() || written.unwrap_err().to_string().contains("timm"));
                continue;
            }
            written.unwrap();
            let (file, _) = open(&path, None).unwrap();
            assert_eq!(file.metadata.architecture.arch, arch);
            let mut again = Encoder::new(architecture, false, 0, &Workspace::default()).unwrap();
            file.load_backbone(&mut again.params).unwrap();
            let values = |encoder: &Encoder| encoder.params.values.clone();
            assert!(values(&encoder) == values(&again), "{arch} {naming:?}");
            // Ours says what its class layer is; timm's has it under timm's name.
            let own = file.linear_layer().unwrap();
            assert_eq!(own.is_some(), naming == Naming::Torchvision, "{arch}");
            let tensors = Tensors::open(&path).unwrap();
            let name = format!("{}.weight", naming.class_layer(arch));
            assert_eq!(
                tensors.f32(&name).unwrap(),
                layer.weight(),
                "{arch} {naming:?}"
            );
        }
    }
}

#[test]
fn a_file_of_no_known_network_says_what_comes_nearest() {
    let mut tensors = Tensors::parse("dtypes", raw("dtypes.pth")).unwrap();
    let none = converted(&tensors, None, &Hints::default(), &Facts::default()).unwrap_err();
    assert!(
        none.to_string().contains("not the weights of a network"),
        "{none}"
    );
    tensors = Tensors::parse("moco", raw("moco_resnet18.pth.tar")).unwrap();
    let hints = Hints {
        arch: Some(Arch::RESNET50),
        part: None,
    };
    let near = converted(&tensors, None, &hints, &Facts::default())
        .unwrap_err()
        .to_string();
    assert!(
        near.contains("nearest to resnet50") && near.contains("missing"),
        "{near}"
    );
    let hints = Hints {
        arch: None,
        part: Some("nobody".into()),
    };
    let none = converted(&tensors, None, &hints, &Facts::default())
        .unwrap_err()
        .to_string();
    assert!(none.contains("\"nobody\""), "{none}");
}

/// A zip archive as PyTorch writes it around `pickle`.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [
        ("a/data.pkl", pickle),
        ("a/data/0", &[0u8; 64]),
        ("a/version", b"3\n"),
    ] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// What reading the archive around `pickle`, and all it claims to hold, says.
fn refusal(pickle: &[u8]) -> String {
    match Tensors::parse("hostile", archive(pickle)) {
        Err(error) => error.to_string(),
        Ok(tensors) => {
            let names: Vec<String> = tensors.names().map(str::to_string).collect();
            let errors = names.iter().filter_map(|name| tensors.f32(name).err());
            errors.map(|error| error.to_string()).collect()
        }
    }
}

/// A dictionary of one tensor "w" with such a shape, stride and offset, of float storage 0.
fn tensor(shape: &[i64], stride: &[i64], offset: i64) -> Vec<u8> {
    let mut p = b"\x80\x02}q\x00X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    p.extend(b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ");
    let int = |n: i64, p: &mut Vec<u8>| {
        p.push(0x8a);
        p.push(8);
        p.extend(n.to_le_bytes());
    };
    int(offset, &mut p);
    for numbers in [shape, stride] {
        p.push(b'(');
        numbers.iter().for_each(|n| int(*n, &mut p));
        p.push(b't');
    }
    p.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    p
}

#[test]
fn hostile_files_are_refused_and_nothing_of_them_is_run() {
    let honest = Tensors::parse("honest", archive(&tensor(&[4, 4], &[4, 1], 0))).unwrap();
    assert_eq!(honest.f32("w").unwrap(), [0.0; 16]);

    // What Python would run on opening them.
    let marker = std::env::temp_dir().join("seedling-was-here");
    let shell = format!(
        "cposix\nsystem\n(X\x20\x00\x00\x00touch {}tR.",
        marker.display()
    );
    for (pickle, name) in [
        (shell.as_bytes(), "posix.system"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
        (
            b"c__builtin__\nexec\n(X\x01\x00\x00\x001tR.",
            "__builtin__.exec",
        ),
        (b"csubprocess\nPopen\n)R.", "subprocess.Popen"),
        (b"ctorch.hub\nload\n)R.", "torch.hub.load"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.", "os.system"),
        (b"(X\x01\x00\x00\x001ios\nsystem\n.", "os.system"),
    ] {
        let text = refusal(pickle);
        assert!(
            text.contains(name) && text.contains("nothing was run"),
            "{text}"
        );
    }
    assert!(!marker.exists());

    // Sizes that are not there.
    let huge = i64::MAX;
    for (shape, stride, offset) in [
        (vec![17], vec![1], 0),
        (vec![4, 4], vec![4, 1], 1),
        (vec![huge, huge], vec![1, 1], 0),
        (vec![huge], vec![1], 0),
        (vec![2], vec![huge], 0),
        (vec![1], vec![1], huge),
        (vec![1 << 40], vec![0], 0),
        (vec![1 << 20, 1 << 20], vec![0, 0], 0),
    ] {
        let text = refusal(&tensor(&shape, &stride, offset));
        assert!(
            text.contains("numbers") || text.contains("size"),
            "{shape:?}: {text}"
        );
    }
    for (shape, stride) in [
        (vec![-1], vec![1]),
        (vec![2], vec![-1]),
        (vec![2, 2], vec![1]),
    ] {
        assert!(refusal(&tensor(&shape, &stride, 0)).contains("no tensors"));
    }

    // Programs that build without end, or refer to what is not there.
    let mut deep = vec![b')'; 1];
    deep.extend(std::iter::repeat_n(0x85, 1_000_000));
    deep.push(b'.');
    assert!(refusal(&deep).contains("no tensors"));
    let mut itself = b"}q\x00X\x01\x00\x00\x00ah\x00s".to_vec();
    itself.push(b'.');
    assert!(refusal(&itself).contains("no tensors"));
    let mut bomb = b"]q\x00".to_vec();
    for _ in 0..40 {
        bomb.extend(b"(h\x00h\x00h\x00h\x00h\x00h\x00h\x00h\x00e");
    }
    bomb.push(b'.');
    assert!(refusal(&bomb).contains("no tensors"));
    for (pickle, what) in [
        (&b"h\x07."[..], "not built"),
        (b"t.", "mark"),
        (b"0.", "stack is empty"),
        (b"X\xff\xff\xff\xffabc.", "too early"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "too early"),
        (b"(K\x01d.", "no value"),
        (b"\x82\x01.", "operation"),
        (b"", "too early"),
    ] {
        let text = refusal(pickle);
        assert!(
            text.contains(what) && !text.contains('\n'),
            "{pickle:?}: {text}"
        );
    }

    // A zip archive that is none, and one of something else.
    for bytes in [
        &b"PK\x03\x04"[..],
        b"PK\x03\x04\xff\xff\xff\xff\xff\xff",
        b"",
    ] {
        assert!(Tensors::parse("zip", bytes.to_vec()).is_err());
    }
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("hello", options).unwrap();
    let other = zip.finish().unwrap().into_inner();
    let text = Tensors::parse("zip", other).unwrap_err().to_string();
    assert!(text.contains("data.pkl"), "{text}");
}

/// Changes of `bytes`: bits turned, numbers overwritten, stretches doubled, cut and moved.
fn mutated(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + rng.below(6) {
        let at = rng.below(bytes.len());
        let len = rng.below(32).min(bytes.len() - at);
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.next_u64() as u8,
            2 => bytes[at..at + len].fill(0xff),
            3 => bytes[at..at + len].fill(0),
            4 => {
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            5 => drop(bytes.drain(at..at + len)),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            return bytes;
        }
    }
    bytes
}

/// A small safetensors file.
fn small_safetensors() -> Vec<u8> {
    let tensors = [seedling_core::tensor_file::TensorRef {
        name: "w".into(),
        shape: vec![2, 3],
        data: seedling_core::tensor_file::Data::F32(&[1.0; 6]),
    }];
    seedling_core::tensor_file::bytes(&tensors, &Default::default()).unwrap()
}

#[test]
fn ten_thousand_mutated_files_end_in_an_error_or_in_numbers() {
    let pickle = tensor(&[4, 4], &[4, 1], 0);
    let seeds = [
        archive(&pickle),
        raw("dtypes.pth"),
        small_safetensors(),
        raw("dtypes.old.pth"),
    ];
    let (mut refused, mut read) = (0, 0);
    for i in 0..10_000u64 {
        let mut rng = Rng::new(16, Purpose::Measure, 0, i);
        // Every fifth is a pickle that is whole outside, so that its inside is reached.
        let bytes = match i % 5 {
            4 => archive(&mutated(&pickle, &mut rng)),
            kind => mutated(&seeds[kind as usize], &mut rng),
        };
        let largest = bytes.len();
        match Tensors::parse("mutated", bytes) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok(tensors) => {
                let names: Vec<String> = tensors.names().map(str::to_string).collect();
                for name in &names {
                    if let Ok(numbers) = tensors.f32(name) {
                        assert!(numbers.len() <= 2 * largest, "{} numbers", numbers.len());
                        read += 1;
                    }
                }
                let hints = Hints::default();
                assert!(converted(&tensors, None, &hints, &Facts::default()).is_err());
            }
        }
    }
    assert!(
        refused > 1000 && read > 1000,
        "{refused} refused, {read} read"
    );
}

fn run(args: &[&str]) -> (i32, String) {
    let output = seedling().args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[test]
fn the_command_converts_and_others_take_files_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (foreign, ours) = (path("moco.pth.tar"), path("resnet18.safetensors"));
    std::fs::write(&foreign, raw("moco_resnet18.pth.tar")).unwrap();
    let (code, text) = run(&["convert", &foreign, "--out", &ours]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "ResNet-18",
        "MoCo",
        "encoder_q",
        "head: simple",
        "left: a queue",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let file = WeightFile::open(Path::new(&ours), None).unwrap();
    assert_eq!(file.metadata.architecture.arch, Arch::RESNET18);
    assert_eq!(file.head().unwrap(), Some(Head::Simple));
    assert!(file.metadata.made.contains("moco.pth.tar (MoCo)"));

    let (code, text) = run(&["convert", &ours, "--to", "onnx", "--out", &path("f.onnx")]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = run(&["convert", &path("nothing.pth"), "--out", &ours]);
    assert!(code == 1 && text.contains("nothing.pth"), "{code} {text}");

    let photos = path("photos");
    seedling_tests::program::album(Path::new(&photos), 16);
    let small = [
        "--steps",
        "1",
        "--set",
        "image_size=32",
        "--set",
        "batch_size=4",
        "--set",
        "bn_group=2",
    ];
    let small = [&small[..], &["--set", "measure_photos=4"]].concat();
    let (out, again) = (path("run"), path("again"));
    let start = [
        "pretrain", &photos, "--arch", "resnet18", "--init", &foreign, "--out", &out,
    ];
    let (code, text) = run(&[&start[..], &small].concat());
    assert_eq!(code, 0, "{text}");

    // A teacher of another program; and another file in its place on the way.
    let teacher = path("teacher.pth");
    std::fs::write(&teacher, raw("torchvision_mobilenet_v3_small.pth")).unwrap();
    let distill = [
        "distill",
        &photos,
        "--arch",
        "resnet18",
        "--teacher",
        &teacher,
        "--out",
        &again,
    ];
    let (code, text) = run(&[&distill[..], &small].concat());
    assert_eq!(code, 0, "{text}");
    std::fs::write(&teacher, raw("timm_mobilenet_v3_small.safetensors")).unwrap();
    let resumed = [
        "distill",
        &photos,
        "--teacher",
        &teacher,
        "--out",
        &again,
        "--resume",
    ];
    let (code, text) = run(&resumed);
    assert!(code == 2 && text.contains("not the file"), "{code} {text}");

    // A teacher as a graph that looks at larger images than its student, and one with its own head.
    let graph = path("teacher.onnx");
    let (code, text) = run(&[
        "convert",
        &ours,
        "--to",
        "onnx",
        "--out",
        &graph,
        "--image-size",
        "48",
    ]);
    assert_eq!(code, 0, "{text}");
    let refused = [
        "distill",
        &photos,
        "--arch",
        "mobilenet_v3_small",
        "--teacher",
        &graph,
        "--out",
    ];
    let (code, text) = run(&[&refused[..], &[&path("none")], &small].concat());
    assert!(
        code == 1 && text.contains("teacher_size=48"),
        "{code} {text}"
    );
    for (teacher, more, out) in [
        (&graph, "teacher_size=48", "by-graph"),
        (&ours, "teacher_head=use", "by-head"),
    ] {
        let out = path(out);
        let start = [
            "distill",
            &photos,
            "--arch",
            "mobilenet_v3_small",
            "--teacher",
            teacher,
            "--set",
            more,
            "--out",
            &out,
        ];
        let (code, text) = run(&[&start[..], &small].concat());
        assert_eq!(code, 0, "{text}");
        let (code, text) = run(&["distill", &photos, "--out", &out, "--resume"]);
        assert_eq!(code, 0, "{text}");
    }
    // Its result is where the next run begins: backbone and head.
    let taught = path("by-head/weights.safetensors");
    let next = [
        "pretrain",
        &photos,
        "--arch",
        "mobilenet_v3_small",
        "--init",
        &taught,
        "--out",
    ];
    let (code, text) = run(&[&next[..], &[&path("next")], &small].concat());
    assert_eq!(code, 0, "{text}");
}
