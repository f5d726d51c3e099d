//! `seedling search`: photos of an album that are like others.

use crate::Outcome;
use crate::console::Console;
use crate::feature_models::{FeatureModels, open_index};
use crate::flags::Common;
use clap::Args;
use clap::builder::PossibleValuesParser;
use seedling_core::backbones::Arch;
use seedling_core::{Result, session};
use serde_json::json;
use std::path::PathBuf;

/// Find the photos of an album that are like the given ones
#[derive(Args, Debug)]
#[command(after_help = "Example:
  seedling embed ~/Pictures --weights seedling-run/weights.safetensors --index --out album.index
  seedling search album.index --weights seedling-run/weights.safetensors new-photo.jpg
Prints, for each photo, names as they are in the album and how far they are (0 is the same).")]
pub struct SearchArgs {
    /// What `seedling embed --index` has written
    pub index: PathBuf,
    /// The photos to look for, which need not be of the album
    #[arg(required = true)]
    pub photos: Vec<PathBuf>,
    /// The weights that made the index: a file, or shipped
    #[arg(long, value_name = "W")]
    pub weights: String,
    /// The second network, where the index was made with one
    #[arg(long, value_name = "W2")]
    pub and: Option<String>,
    /// Views of each photo that the index was made with
    #[arg(long, value_name = "N", default_value = "2", value_parser = PossibleValuesParser::new(["1", "2", "8"]))]
    pub tta_views: String,
    /// Photos to find for each
    #[arg(long, value_name = "K", default_value = "10")]
    pub count: usize,
    /// The network, for files that do not say it
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::NAMES))]
    pub arch: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// Index, weights or a photo cannot be used.
pub fn run(args: &SearchArgs, console: &Console) -> Result<Outcome> {
    let models = FeatureModels::open(
        &args.weights,
        args.and.as_deref(),
        args.arch.as_deref(),
        args.tta_views.parse().unwrap_or(2),
        &args.common,
        console,
    )?;
    session::on_own_threads(models.config().threads, || {
        let (index, ids) = open_index(&args.index, &models)?;
        let mut answers = Vec::new();
        for photo in &args.photos {
            let found = index.search(&models.extract_file(photo)?, args.count)?;
            let near = found.into_iter().flatten();
            let near: Vec<(&str, f64)> = near
                .map(|near| (ids[near.index].as_str(), near.squared.sqrt()))
                .collect();
            console.say(&format!("{}", photo.display()));
            for (id, distance) in &near {
                console.say(&format!("  {distance:.3}  {id}"));
            }
            let near: Vec<_> = near
                .iter()
                .map(|(id, distance)| json!({ "id": id, "distance": distance }))
                .collect();
            answers.push(json!({ "photo": photo, "found": near }));
        }
        console.summary(&json!({
            "command": "search",
            "photos": index.len(),
            "answers": answers,
        }));
        Ok(Outcome::Done)
    })?
}
