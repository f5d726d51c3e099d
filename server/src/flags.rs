//! The flags that commands share.

use clap::Args;
use std::path::PathBuf;

/// Flags of every command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Where to compute: cpu, gpu, gpu:N, cuda or cuda:N; `seedling devices` lists what is there
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Threads to use; 0 is one per CPU
    #[arg(long, value_name = "N")]
    pub threads: Option<u32>,
    /// Where all randomness starts: the same seed gives the same result
    #[arg(long, value_name = "S")]
    pub seed: Option<u32>,
    /// A TOML file of settings (a run's config.toml lists them all with their meaning)
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// One setting, such as --set lr=0.01; repeatable, wins over --config
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the summary as one JSON object, the last line of stdout
    #[arg(long)]
    pub json: bool,
    /// Print nothing but errors (and the JSON summary)
    #[arg(short, long)]
    pub quiet: bool,
    /// Print more
    #[arg(short, long)]
    pub verbose: bool,
}

/// Flags of the commands that train.
#[derive(Args, Clone, Debug)]
pub struct Training {
    /// Folder for weights, report, log and checkpoints
    #[arg(long, value_name = "RUN", default_value = "seedling-run")]
    pub out: PathBuf,
    /// Resume the run in RUN from its last checkpoint; its settings are kept
    #[arg(long)]
    pub resume: bool,
    /// Passes over the photos
    #[arg(long, value_name = "N", conflicts_with = "steps")]
    pub epochs: Option<u32>,
    /// Optimizer steps, instead of epochs
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Measure on these photos (held out, with class subfolders) instead of the trained ones
    #[arg(long, value_name = "PHOTOS")]
    pub measure_on: Option<PathBuf>,
}
