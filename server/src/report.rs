//! `seedling report`: a run's page, made again from its log.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use clap::Args;
use seedling_core::Result;
use serde_json::json;
use std::path::PathBuf;

/// Make report.html of a run folder again, also of a run in progress
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  seedling report seedling-run")]
pub struct ReportArgs {
    /// The run folder
    pub run: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The folder cannot be read or written.
pub fn run(args: &ReportArgs, console: &Console) -> Result<Outcome> {
    let page = seedling_report::render(&args.run)?;
    console.say(&format!("report   {}", page.display()));
    console.summary(&json!({ "command": "report", "report": page }));
    Ok(Outcome::Done)
}
