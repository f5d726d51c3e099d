//! `seedling distill`: how initial weights are made, by SEED or another recipe.

use crate::Outcome;
use crate::console::Console;
use crate::flags::{Common, Training};
use crate::photos::Photos;
use crate::settings::{Settings, training_flags};
use crate::train::{self, Plan};
use clap::Args;
use clap::builder::PossibleValuesParser;
use seedling_core::backbones::Arch;
use seedling_core::config::{Choice, Config, DistillMethod, Layer};
use seedling_core::{Error, Result};
use std::path::PathBuf;

/// Distill a larger model into a small one, by SEED, CompRess, DisCo, BINGO or SimDis
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling distill DATA --arch mobilenet_v3_small --teacher mobilenet_v2_imagenet.safetensors --out run
  seedling distill DATA --arch resnet18 --teacher moco_v2_800ep_pretrain.pth.tar --out run
  seedling distill DATA --arch deit_tiny --teacher dino.onnx --set teacher_size=224 --out run
  seedling distill DATA --method simdis --teacher mobilenet_v2_imagenet.safetensors --out run
--method: seed places images among a queue of the teacher's embeddings as the teacher does; compress does so with two
queues, each of one side's embeddings (temperatures 0.04); disco is MoCo near the teacher's embeddings of both views
(temperature 0.2, head hidden2048); bingo contrasts with the teacher's embeddings of a photo and of one from its bag, the
photos nearest by these (--set bag_size=5); simdis regresses to the teacher's embeddings of both views (head deep).
An ONNX graph needs a program built with --features onnx. It takes a batch of RGB images, normalized by
--set teacher_mean=R,G,B and teacher_std=R,G,B (ImageNet's unless said), and puts out features, tokens or maps
(--set teacher_output=NAME, else its first).
--init of adapt and pretrain takes the result, backbone and head; the queue stays behind.")]
pub struct DistillArgs {
    /// Folder of images (searched recursively), CIFAR binaries or .tar shards
    pub data: PathBuf,
    /// The student
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::TRAINED))]
    pub arch: Option<String>,
    /// How the student learns [default: seed]
    #[arg(long, value_parser = PossibleValuesParser::new(DistillMethod::NAMES))]
    pub method: Option<String>,
    /// The teacher's weights: ours, another program's (see seedling convert), or an .onnx graph
    #[arg(long, value_name = "WEIGHTS")]
    pub teacher: Option<String>,
    /// The teacher's network, where its file could be of several
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::NAMES))]
    pub teacher_arch: Option<String>,
    /// Weights the student starts from: random, shipped or a file
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<String>,
    #[command(flatten)]
    pub training: Training,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// No teacher is named; otherwise see [`train::run`].
pub fn run(args: &DistillArgs, console: &Console) -> Result<Outcome> {
    let mut flags = training_flags(&args.training);
    flags
        .set("arch", args.arch.clone())
        .set("init", args.init.clone())
        .set("teacher", args.teacher.clone())
        .set("teacher_arch", args.teacher_arch.clone());
    let method = args.method.as_deref().map(str::parse).transpose()?;
    let recipe = method.map(recipe).into_iter().collect();
    let settings = Settings::new(Config::distill(), recipe, &args.common, flags)?;
    if settings.config.teacher.is_empty() && !args.training.resume {
        return Err(Error::Config(
            "name the teacher's weight file with --teacher".into(),
        ));
    }
    let plan = Plan {
        command: "distill",
        training: &args.training,
        memory_mb: None,
        settings,
        photos: Photos::At(&args.data),
    };
    train::run(plan, console)
}

/// A method, and what it has otherwise than SEED.
fn recipe(method: DistillMethod) -> Layer {
    let mut layer = Layer::new(format!("--method {method}"));
    layer.set("method", Some(method.name()));
    match method {
        DistillMethod::Seed => {}
        DistillMethod::Bingo => {
            layer.set("teacher_head", Some("ignore"));
        }
        DistillMethod::Compress => {
            layer
                .set("teacher_temperature", Some(0.04))
                .set("student_temperature", Some(0.04));
        }
        DistillMethod::Disco => {
            layer
                .set("temperature", Some(0.2))
                .set("key_momentum", Some(0.999))
                .set("head", Some("hidden2048"));
        }
        DistillMethod::SimDis => {
            layer.set("head", Some("deep"));
        }
    }
    layer
}
