//! The `seedling` command. Each command has a file of its own; this one reads the command line,
//! runs the command on its threads and turns the outcome into an exit code.
//!
//! `cli` are the commands, `flags` the options that they share, `settings` the layers of settings, and `usage`
//! mistakes in a command line, in one line each. The commands that train share `train`, from options to a
//! `TrainingRun`, and `terminal_observer`, which watches it: progress bars, TensorBoard's events, `thumbnails`,
//! and at the end report and table. `feature_models` is what `embed` and `search` extract features with,
//! `photos` where photos come from, `shipped` the weights that `build.rs` puts into the program, `table` what
//! `bench` prints, `console` what a person sees, `interrupt` Ctrl-C, and `memory` the peak.

mod adapt;
mod bench;
mod cli;
mod console;
mod convert;
mod devices;
mod distill;
mod embed;
mod eval;
mod feature_models;
mod flags;
mod interrupt;
mod keygen;
mod memory;
mod photos;
mod presets;
mod pretrain;
mod report;
mod search;
mod settings;
mod shipped;
mod sign;
mod study;
mod table;
mod terminal_observer;
mod thumbnails;
mod train;
mod usage;
mod verify;

use clap::Parser as _;
use cli::{Cli, Command};
use console::Console;
use seedling_core::Result;
use std::process::ExitCode;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is done.
    Done,
    /// Stopped by Ctrl-C, with everything saved.
    Interrupted,
}

/// The program: its exit code is 0, 130 where it was interrupted, or what the error says.
pub fn main() -> ExitCode {
    memory::keep_little();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error),
    };
    interrupt::watch();
    // What was asked for has to be there, too: on stdout.
    match run(&cli).and_then(|outcome| console::written().map(|()| outcome)) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {}", console::one_line(&error));
            ExitCode::from(settings::exit_code(&error))
        }
    }
}

fn run(cli: &Cli) -> Result<Outcome> {
    match &cli.command {
        Command::Adapt(args) => adapt::run(args, &Console::new(&args.common)),
        Command::Pretrain(args) => pretrain::run(args, &Console::new(&args.common)),
        Command::Presets(args) => presets::run(args, &Console::new(&args.common)),
        Command::Distill(args) => distill::run(args, &Console::new(&args.common)),
        Command::Eval(args) => eval::run(args, &Console::new(&args.common)),
        Command::Embed(args) => embed::run(args, &Console::new(&args.common)),
        Command::Search(args) => search::run(args, &Console::new(&args.common)),
        Command::Study(args) => study::run(args, &Console::new(&args.common)),
        Command::Report(args) => report::run(args, &Console::new(&args.common)),
        Command::Convert(args) => convert::run(args, &Console::new(&args.common)),
        Command::Bench(args) => bench::run(args, &Console::new(&args.common)),
        Command::Devices(args) => devices::run(args, &Console::new(&args.common)),
        Command::Keygen(args) => keygen::run(args, &Console::new(&args.common)),
        Command::Sign(args) => sign::run(args, &Console::new(&args.common)),
        Command::Verify(args) => verify::run(args, &Console::new(&args.common)),
    }
}
