//! `seedling adapt`: the main job.

use crate::Outcome;
use crate::console::Console;
use crate::flags::{Common, Training};
use crate::photos::{Photos, budget};
use crate::settings::{Settings, training_flags};
use crate::train::{self, Plan};
use clap::Args;
use seedling_core::Result;
use seedling_core::config::Config;
use std::path::PathBuf;

/// Adapt a model to a folder of photos, without labels
///
/// Fits a linear layer to the photos' features, trains with MoCo v2 if there are enough photos, and measures
/// before and after. Class subfolders are used for measuring only.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling adapt ~/Pictures                        the shipped model, into seedling-run/
  seedling adapt ~/Pictures --epochs 0             only the linear layer: seconds, nothing trained
  seedling adapt ~/Pictures --epochs 12            trained, however few photos there are
  seedling adapt --demo                            no photos at hand: rendered ones
  seedling adapt ~/Pictures --memory-mb 600        on a small machine
  seedling adapt ~/Pictures --set lr=0.01 --set views=aug+ --out run2
  seedling adapt ~/Pictures --out run2 --resume    resume after an interruption
Then: open seedling-run/report.html, or use seedling-run/weights.safetensors (torchvision names).")]
pub struct AdaptArgs {
    /// Folder of photos (searched recursively), CIFAR binaries or .tar shards
    #[arg(required_unless_present = "demo")]
    pub photos: Option<PathBuf>,
    /// Use rendered photos instead of a folder
    #[arg(long, conflicts_with = "photos")]
    pub demo: bool,
    /// Weights to start from: shipped, random or a file
    #[arg(long, value_name = "WEIGHTS")]
    pub init: Option<String>,
    /// Memory to stay within, in MB: picks how many photos are computed at a time (bn_group)
    #[arg(long, value_name = "M")]
    pub memory_mb: Option<u32>,
    /// Keep the trained weights unless training went wrong (judged without labels), or always
    #[arg(long, value_name = "WHEN", value_parser = ["better", "always"])]
    pub keep: Option<String>,
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
pub fn run(args: &AdaptArgs, console: &Console) -> Result<Outcome> {
    let mut flags = training_flags(&args.training);
    flags
        .set("init", args.init.clone())
        .set("keep", args.keep.clone());
    let mut settings = Settings::new(Config::adapt(), Vec::new(), &args.common, flags)?;
    settings.infer_from_requested();
    let photos = match &args.photos {
        Some(path) => Photos::At(path),
        None => Photos::Demo,
    };
    if let Some(path) = &args.contact_sheet {
        let source = photos.open(&settings.config, &budget(&settings.config), console)?;
        return train::contact_sheet(path, &*source, &settings.config, console);
    }
    let plan = Plan {
        command: "adapt",
        training: &args.training,
        memory_mb: args.memory_mb,
        settings,
        photos,
    };
    train::run(plan, console)
}
