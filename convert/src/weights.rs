//! From what was recognized to weights of ours, and from ours to files of other programs.

use crate::naming::Naming;
use crate::recognize::{Hints, Recognized, recognize};
use crate::tensors::Tensors;
use seedling_core::backbones::Arch;
use seedling_core::data::Normalize;
use seedling_core::encoder::{Architecture, Encoder, LinearLayer};
use seedling_core::nn::window::Padding;
use seedling_core::tensor_file::{self, Data, TensorRef};
use seedling_core::weights::{
    HEAD_PREFIX, LINEAR_LAYER, ModelMetadata, Precision, SqueezeOrder, WeightFile, save_as,
};
use seedling_core::{Error, Result};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

/// What no foreign file says, and the user may know.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    pub norm_eps: Option<f32>,
    pub image_size: Option<usize>,
    pub normalize: Option<Normalize>,
    /// How convolutions pad: TensorFlow's networks and PyTorch's have the same names.
    pub padding: Option<Padding>,
}

/// Weights that were not ours.
#[derive(Debug)]
pub struct Converted {
    pub recognized: Recognized,
    /// With its head, where there is one.
    pub file: WeightFile,
}

/// Makes a weight file of ours, in memory, of the foreign one at `path`.
///
/// # Errors
/// It is damaged, or holds no network that is known.
pub fn convert(path: &Path, hints: &Hints, facts: &Facts) -> Result<Converted> {
    let tensors = Tensors::open(path)?;
    let digest = tensor_file::digest(path)?;
    converted(&tensors, Some(digest), hints, facts)
}

/// The same of tensors that are open.
///
/// # Errors
/// As [`convert`].
pub fn converted(
    tensors: &Tensors,
    digest: Option<String>,
    hints: &Hints,
    facts: &Facts,
) -> Result<Converted> {
    let mut recognized = recognize(tensors, hints)?;
    let arch = recognized.arch;
    let of_tensorflow = recognized.naming == Naming::Timm && is_tensorflows(tensors.path());
    let padding = match (facts.padding, of_tensorflow) {
        (Some(padding), _) => padding,
        (None, true) => Padding::Same,
        (None, false) => recognized.naming.padding(),
    };
    if recognized.naming == Naming::Timm && facts.padding.is_none() {
        recognized.notes.push(match of_tensorflow {
            true => TENSORFLOWS.into(),
            false => SYMMETRIC.into(),
        });
    }
    let name = tensors
        .path()
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let gate_first = recognized.naming == Naming::DLi14 && arch.name().starts_with("mobilenet_v3");
    let metadata = ModelMetadata {
        architecture: Architecture {
            norm_eps: facts.norm_eps.unwrap_or_else(|| match of_tensorflow {
                true => TENSORFLOW_EPS,
                false => recognized.naming.norm_eps(arch),
            }),
            squeeze_order: match gate_first {
                true => SqueezeOrder::GateFirst,
                false => SqueezeOrder::ActivationFirst,
            },
            padding,
            ..Architecture::new(arch, recognized.head)
        },
        image_size: facts.image_size.unwrap_or(224),
        normalize: facts.normalize.unwrap_or_default(),
        made: format!("converted from {name} ({})", recognized.program),
    };
    let part = |head: bool| -> Result<Vec<u8>> {
        let mut numbers = Vec::new();
        for (entry, theirs) in &recognized.taken {
            if entry.name.starts_with(HEAD_PREFIX) == head {
                numbers.push((entry, tensors.f32(theirs)?));
            }
        }
        let refs: Vec<TensorRef> = numbers
            .iter()
            .map(|(entry, numbers)| TensorRef {
                name: entry.name.clone(),
                shape: entry.shape.clone(),
                data: Data::F32(numbers),
            })
            .collect();
        tensor_file::bytes(&refs, &metadata.to_header())
    };
    let path = tensors.path().to_string_lossy();
    let mut file = WeightFile::parse(&path, part(false)?, Some(arch))?;
    if recognized.head.is_some() {
        file = file.with_head(WeightFile::parse(&path, part(true)?, Some(arch))?);
    }
    if let Some(digest) = digest {
        file = file.with_digest(digest);
    }
    Ok(Converted { recognized, file })
}

/// Epsilon of the norms of TensorFlow's networks in timm.
const TENSORFLOW_EPS: f32 = 1e-3;

const TENSORFLOWS: &str =
    "its name says that it was trained in TensorFlow: convolutions pad as there (SAME)";

const SYMMETRIC: &str = "convolutions are taken to pad on all sides alike; networks trained in TensorFlow (timm's tf_...) \
                         have the same names and pad otherwise: convert --padding same";

/// Whether a file of timm's is of a network that was trained in TensorFlow: its name says so, its folder's, or
/// the `config.json` that timm puts beside it.
fn is_tensorflows(path: &Path) -> bool {
    let named = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split(['.', '-', ' '])
            .any(|part| part.starts_with("tf_"))
    };
    let config = std::fs::File::open(path.with_file_name("config.json")).ok();
    let config = config.and_then(|file| {
        let mut text = String::new();
        // timm's has some two kilobytes.
        file.take(1 << 16).read_to_string(&mut text).ok()?;
        serde_json::from_str::<serde_json::Value>(&text).ok()
    });
    let architecture = config
        .as_ref()
        .and_then(|config| config.get("architecture")?.as_str());
    named(path)
        || path.parent().is_some_and(named)
        || architecture.is_some_and(|name| name.starts_with("tf_"))
}

/// Opens weights of ours or of anyone else's; those with what they were recognized as.
///
/// # Errors
/// They are neither.
pub fn open(path: &Path, arch: Option<Arch>) -> Result<(WeightFile, Option<Recognized>)> {
    match WeightFile::open(path, arch) {
        Ok(file) if file.is_ours() => return Ok((file, None)),
        Err(error @ (Error::OtherArch { .. } | Error::Io { .. })) => return Err(error),
        _ => {}
    }
    let hints = Hints { arch, part: None };
    let found = convert(path, &hints, &Facts::default())?;
    Ok((found.file, Some(found.recognized)))
}

/// Writes the features of `encoder` as `naming` calls their tensors, and the linear layer behind them as its
/// layer of classes.
///
/// # Errors
/// That program has no such network; the disk refuses.
pub fn write(
    path: &Path,
    (encoder, layer): (&Encoder, Option<&LinearLayer>),
    metadata: &ModelMetadata,
    naming: Naming,
) -> Result<()> {
    let arch = encoder.architecture.arch;
    let entries = encoder.params.layout.entries();
    if entries
        .iter()
        .any(|entry| naming.name(arch, entry).is_none())
    {
        return Err(Error::Config(format!("{} has no {arch}", naming.title())));
    }
    let class_layer = naming.class_layer(arch);
    let metadata: BTreeMap<String, String> = match naming {
        // Ours, and readable as such.
        Naming::Torchvision => {
            let mut metadata = metadata.to_header();
            if layer.is_some() {
                metadata.insert(LINEAR_LAYER.into(), class_layer.into());
            }
            metadata
        }
        _ => BTreeMap::from([("format".to_string(), "pt".to_string())]),
    };
    let layer = layer.map(|layer| (class_layer, layer));
    let (params, full) = (&encoder.params, Precision::Full);
    save_as(path, params, &metadata, layer, full, |entry| {
        let name = naming.name(arch, entry)?;
        let mut shape = entry.shape.clone();
        // timm's layer of features is a 1x1 convolution.
        if naming == Naming::Timm && name == "conv_head.weight" {
            shape.resize(4, 1);
        }
        Some((name, shape))
    })
}
