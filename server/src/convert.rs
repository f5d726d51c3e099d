//! `seedling convert`: weights of other programs, read and written.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use seedling_convert::naming::Naming;
use seedling_convert::onnx;
use seedling_convert::recognize::{Hints, Recognized};
use seedling_convert::weights::{Facts, convert, write};
use seedling_core::backbones::Arch;
use seedling_core::data::Normalize;
use seedling_core::encoder::{Architecture, Encoder, LinearLayer};
use seedling_core::nn::window::Padding;
use seedling_core::nn::workspace::Workspace;
use seedling_core::weights::{HEAD_FILE, Precision, WeightFile, save_backbone, save_head};
use seedling_core::{Error, Result};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Turn weights of other programs into ours, and ours into torchvision's, timm's or ONNX
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling convert moco_v2_800ep_pretrain.pth.tar --out resnet50.safetensors
  seedling convert seed.pth --part teacher --out teacher.safetensors
  seedling convert seedling-run/weights.safetensors --to onnx --out features.onnx
  seedling convert seedling-run/weights.safetensors --to timm --out timm.safetensors
Read are .safetensors, .pth, .pth.tar and .ckpt of torchvision, timm, MoCo, SEED, MoCo v3, solo-learn,
lightly, ssl-small, d-li14 and lukemelas. Nothing in a pickle is ever run. --init, --teacher and --weights
of other commands take such files as they are.")]
pub struct ConvertArgs {
    /// The file to read
    pub weights: PathBuf,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Whose names the result has
    #[arg(long, value_enum, default_value = "seedling")]
    pub to: Target,
    /// The network, where the file could be of several
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::NAMES))]
    pub arch: Option<String>,
    /// Part of the names of the network wanted, where the file holds several (encoder_q, teacher)
    #[arg(long, value_name = "NAME")]
    pub part: Option<String>,
    /// Epsilon of its norms, which foreign files do not state [default: the program's own]
    #[arg(long, value_name = "EPS")]
    pub bn_eps: Option<f32>,
    /// Width and height of the images it is to be used on [default: 224, or what the file says]
    #[arg(long, value_name = "PX", value_parser = clap::value_parser!(u32).range(32..=1024))]
    pub image_size: Option<u32>,
    /// Mean of the pixels it expects, three numbers [default: ImageNet's]
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub mean: Vec<f32>,
    /// Their standard deviation
    #[arg(long, value_name = "R,G,B", value_delimiter = ',')]
    pub std: Vec<f32>,
    /// How its convolutions pad, which foreign files do not state [default: on all sides alike; as TensorFlow
    /// (same) where the name says tf_...]
    #[arg(long, value_enum, value_name = "HOW")]
    pub padding: Option<Pads>,
    #[command(flatten)]
    pub common: Common,
}

/// How convolutions pad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pads {
    /// On all sides alike, as PyTorch
    Symmetric,
    /// What the output's size needs, more at the end, as TensorFlow
    Same,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// A weight file of ours (torchvision's names, DeiT: timm's), its head beside it
    Seedling,
    /// The same names, nothing but the backbone (and the linear layer behind it, as its layer of classes)
    Torchvision,
    /// timm's names
    Timm,
    /// The features as a graph for any runtime (opset 17)
    Onnx,
}

/// Names of each kind that are shown.
const SHOWN: usize = 3;

/// Runs the command.
///
/// # Errors
/// The file is no network that is known, or cannot be written under such names.
pub fn run(args: &ConvertArgs, console: &Console) -> Result<Outcome> {
    let arch = args.arch.as_deref().map(str::parse).transpose()?;
    let (mut file, recognized) = open(args, arch, console)?;
    if let Some(side) = args.image_size {
        file.metadata.image_size = side as usize;
    }
    let metadata = file.metadata.clone();
    let head = file.head()?;
    // Others' files have no place for a head.
    let kept = head.filter(|_| args.to == Target::Seedling);
    let architecture = Architecture {
        head: kept,
        ..metadata.architecture
    };
    let mut encoder = Encoder::new(architecture, false, 0, &Workspace::default())?;
    file.load_backbone(&mut encoder.params)?;
    if let Some(head) = kept {
        file.load_head_of(&mut encoder.params, head)?;
    }
    let layer = file.linear_layer()?;
    let layer = layer.as_ref();
    let dim = encoder.feature_dim();
    let mut written = vec![args.out.clone()];
    match args.to {
        Target::Seedling => {
            let (params, full) = (&encoder.params, Precision::Full);
            save_backbone(&args.out, params, dim, &metadata, layer, full)?;
            if kept.is_some() {
                let beside = args.out.with_file_name(HEAD_FILE);
                save_head(&beside, &encoder.params, dim, &metadata)?;
                written.push(beside);
            }
        }
        Target::Torchvision => {
            write(&args.out, (&encoder, layer), &metadata, Naming::Torchvision)?;
        }
        Target::Timm => write(&args.out, (&encoder, layer), &metadata, Naming::Timm)?,
        Target::Onnx => onnx::write(&args.out, (&encoder, layer), &metadata)?,
    }
    if layer.is_some() {
        console.say("with the linear layer behind its features; what that gives is compared by its direction");
    }
    for path in &written {
        console.say(&format!("wrote {}", path.display()));
    }
    console.summary(&json!({
        "command": "convert",
        "arch": metadata.architecture.arch.name(),
        "program": recognized.as_ref().map_or("seedling", |found| found.program),
        "root": recognized.as_ref().map(|found| found.root.clone()),
        "head": head.map(|head| head.name()),
        "features": layer.map_or(dim, LinearLayer::outputs),
        "linear_layer": layer.is_some(),
        "taken": recognized.as_ref().map(|found| found.taken.len()),
        "left": recognized.as_ref().map(|found| &found.left),
        "written": written,
    }));
    Ok(Outcome::Done)
}

/// Weights of ours as they are, or others' with what they were recognized as.
fn open(
    args: &ConvertArgs,
    arch: Option<Arch>,
    console: &Console,
) -> Result<(WeightFile, Option<Recognized>)> {
    let facts = Facts {
        norm_eps: args.bn_eps,
        image_size: args.image_size.map(|side| side as usize),
        normalize: normalize(args)?,
        padding: args.padding.map(|pads| match pads {
            Pads::Symmetric => Padding::Symmetric,
            Pads::Same => Padding::Same,
        }),
    };
    let ours = WeightFile::open(&args.weights, arch);
    if let Ok(file) = ours
        && file.says_arch()
        && args.part.is_none()
    {
        if facts.norm_eps.is_some() || facts.normalize.is_some() || facts.padding.is_some() {
            return Err(Error::Config(
                "the file says its own --bn-eps, --mean, --std and --padding".into(),
            ));
        }
        console.say(&format!(
            "{}: weights of ours, {}",
            args.weights.display(),
            file.metadata.architecture.arch.spec().title
        ));
        return Ok((file, None));
    }
    let hints = Hints {
        arch,
        part: args.part.clone(),
    };
    let found = convert(&args.weights, &hints, &facts)?;
    tell(
        &args.weights,
        &found.recognized,
        &found.file.metadata.architecture,
        console,
    );
    Ok((found.file, Some(found.recognized)))
}

fn normalize(args: &ConvertArgs) -> Result<Option<Normalize>> {
    let triple = |name: &str, given: &[f32], default: [f32; 3]| match given {
        [] => Ok(default),
        [r, g, b] => Ok([*r, *g, *b]),
        _ => Err(Error::Config(format!("--{name}: expected three numbers"))),
    };
    if args.mean.is_empty() && args.std.is_empty() {
        return Ok(None);
    }
    let usual = Normalize::default();
    let found = Normalize {
        mean: triple("mean", &args.mean, usual.mean)?,
        std: triple("std", &args.std, usual.std)?,
    };
    match found.std.iter().all(|std| *std > 0.0) && found.mean.iter().all(|mean| mean.is_finite()) {
        true => Ok(Some(found)),
        false => Err(Error::Config("--std must be above 0".into())),
    }
}

/// What was recognized, taken and left, and why.
fn tell(path: &Path, found: &Recognized, architecture: &Architecture, console: &Console) {
    console.say(&format!(
        "{}: {} of {}, under {}'s names{}",
        path.display(),
        found.arch.spec().title,
        found.program,
        found.naming.title(),
        match found.root.as_str() {
            "" => String::new(),
            root => format!(" behind {root}"),
        }
    ));
    let renamed: Vec<String> = found
        .taken
        .iter()
        .filter(|(entry, theirs)| entry.name != *theirs)
        .map(|(entry, theirs)| format!("{theirs} -> {}", entry.name))
        .collect();
    console.say(&format!(
        "taken: {} tensors{}",
        found.taken.len(),
        some_of(", renamed", &renamed)
    ));
    match found.head {
        Some(head) => console.say(&format!("head: {}", head.name())),
        None => console.say("head: none of ours"),
    }
    console.say(&format!(
        "assumed, for no file says it: norms' epsilon {} (--bn-eps), padding {} (--padding), images normalized \
         as ImageNet's unless --mean and --std say otherwise",
        architecture.norm_eps,
        match architecture.padding {
            Padding::Symmetric => "symmetric",
            Padding::Same => "same",
        }
    ));
    for (reason, names) in &found.left {
        console.say(&format!("left: {}{}", reason, some_of("", names)));
    }
    for note in &found.notes {
        console.say(&format!("note: {note}"));
    }
}

fn some_of(what: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{what}: {} ({}{more})", names.len(), shown.join(", "))
}
