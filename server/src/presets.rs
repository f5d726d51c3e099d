//! `seedling presets`: the published recipes, to be read, copied and changed.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use clap::Args;
use seedling_core::Result;
use seedling_core::config::{PRESETS, preset_text};
use serde_json::json;

/// List the published recipes, or print one as TOML
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling presets
  seedling presets improved > mine.toml
  seedling pretrain DATA --arch mobilenet_v3_small --config mine.toml --out run")]
pub struct PresetsArgs {
    /// The recipe to print
    pub name: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// No recipe has that name.
pub fn run(args: &PresetsArgs, console: &Console) -> Result<Outcome> {
    match &args.name {
        Some(name) => {
            let text = preset_text(name)?;
            console.say(text.trim_end());
            console.summary(&json!({ "command": "presets", "name": name, "toml": text }));
        }
        None => {
            for (name, text) in PRESETS {
                let what = text.lines().next().unwrap_or_default();
                console.say(&format!("{name:10} {}", what.trim_start_matches("# ")));
            }
            let names: Vec<&str> = PRESETS.iter().map(|(name, _)| *name).collect();
            console.summary(&json!({ "command": "presets", "presets": names }));
        }
    }
    Ok(Outcome::Done)
}
