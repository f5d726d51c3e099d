//! `seedling pretrain`: MoCo v2 from random weights.

use crate::Outcome;
use crate::console::Console;
use crate::flags::{Common, Training};
use crate::photos::{Photos, budget};
use crate::settings::{Settings, training_flags};
use crate::train::{self, Plan};
use clap::Args;
use clap::builder::PossibleValuesParser;
use seedling_core::Result;
use seedling_core::backbones::Arch;
use seedling_core::config::{Config, preset};
use std::path::PathBuf;

/// Train a model from random weights on many photos, without labels
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling pretrain DATA --arch mobilenet_v3_large --out run
  seedling pretrain DATA --arch mobilenet_v3_small --preset improved --set image_size=128 --out run
Presets are the published recipes: moco-v2 (official), baseline, study and improved (the paper's),
cifar (the authors' for 32-pixel pictures) and smoothed (light-moco's). See seedling presets.")]
pub struct PretrainArgs {
    /// Folder of images (searched recursively), CIFAR binaries or .tar shards
    pub data: PathBuf,
    /// The network
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::TRAINED))]
    pub arch: Option<String>,
    /// Weights to start from: random or a file
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<String>,
    /// A published recipe: moco-v2, baseline, study, improved, cifar or smoothed
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Write a picture of photos and their two views, and stop
    #[arg(long, value_name = "FILE.png")]
    pub contact_sheet: Option<PathBuf>,
    #[command(flatten)]
    pub training: Training,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// See [`train::run`].
pub fn run(args: &PretrainArgs, console: &Console) -> Result<Outcome> {
    let mut flags = training_flags(&args.training);
    flags
        .set("arch", args.arch.clone())
        .set("init", args.init.clone());
    let recipe = args.preset.as_deref().map(preset).transpose()?;
    let first = recipe.into_iter().collect();
    let settings = Settings::new(Config::pretrain(), first, &args.common, flags)?;
    let photos = Photos::At(&args.data);
    if let Some(path) = &args.contact_sheet {
        let source = photos.open(&settings.config, &budget(&settings.config), console)?;
        return train::contact_sheet(path, &*source, &settings.config, console);
    }
    let plan = Plan {
        command: "pretrain",
        training: &args.training,
        memory_mb: None,
        settings,
        photos,
    };
    train::run(plan, console)
}
