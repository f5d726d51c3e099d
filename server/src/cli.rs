//! The command line: its commands.

use crate::{
    adapt, bench, convert, devices, distill, embed, eval, keygen, presets, pretrain, report,
    search, sign, study, verify,
};
use clap::{Parser, Subcommand};

/// Adapts small vision models to private photos, on the machine that holds them.
///
/// A first run: `seedling adapt PHOTOS` adapts the shipped model to a folder of photos, without
/// labels, and leaves the adapted weights and a report in `seedling-run/`. No photos at hand?
/// `seedling adapt --demo`.
#[derive(Debug, Parser)]
#[command(
    name = "seedling",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Adapt(adapt::AdaptArgs),
    Pretrain(pretrain::PretrainArgs),
    Presets(presets::PresetsArgs),
    Distill(distill::DistillArgs),
    Eval(eval::EvalArgs),
    Embed(embed::EmbedArgs),
    Search(search::SearchArgs),
    Study(study::StudyArgs),
    Report(report::ReportArgs),
    Convert(convert::ConvertArgs),
    Bench(bench::BenchArgs),
    Devices(devices::DevicesArgs),
    Keygen(keygen::KeygenArgs),
    Sign(sign::SignArgs),
    Verify(verify::VerifyArgs),
}
