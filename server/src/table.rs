//! `seedling bench --table`: milliseconds and memory of a step, by network, size and budget.

use crate::console::Console;
use crate::{Outcome, memory};
use seedling_core::bench::{self, Row, Table};
use seedling_core::{Error, Result, session};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Prints the table that an app has shared as `file`.
///
/// # Errors
/// It cannot be read.
pub fn shared(file: &Path, console: &Console) -> Result<Outcome> {
    let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
    console.say(Table::from_json(&text)?.to_string().trim_end());
    Ok(Outcome::Done)
}

/// Fills the table here. Each line is a process of its own: the peak of one is not the next one's.
///
/// # Errors
/// The program cannot be started again.
pub fn fill(seconds: f64, threads: usize, console: &Console) -> Result<Outcome> {
    let mut rows = Vec::new();
    for arch in bench::ARCHS {
        for size in bench::IMAGE_SIZES {
            for budget in bench::BUDGETS_MB {
                console.note(&format!("{arch}, {size} px, {budget} MB"));
                let program = std::env::current_exe().map_err(Error::io("this program"))?;
                let words = [
                    ("--arch", arch.into()),
                    ("--image-size", size.to_string()),
                    ("--memory-mb", budget.to_string()),
                    ("--seconds", seconds.to_string()),
                    ("--threads", threads.to_string()),
                ];
                let mut command = Command::new(program);
                command.args(["bench", "--json", "--quiet"]);
                for (flag, value) in words {
                    command.args([flag, &value]);
                }
                let output = command.output().map_err(Error::io("this program"))?;
                if !output.status.success() {
                    let why = String::from_utf8_lossy(&output.stderr);
                    console.note(why.trim().trim_start_matches("error: "));
                    continue;
                }
                let row: Row = serde_json::from_slice(&output.stdout)
                    .map_err(|e| Error::Config(format!("a line of the table: {e}")))?;
                rows.push(row);
            }
        }
    }
    let device = format!("{} on {}", std::env::consts::ARCH, std::env::consts::OS);
    let table = Table { device, rows };
    console.say(table.to_string().trim_end());
    console.summary(&serde_json::json!(table));
    Ok(Outcome::Done)
}

/// What one line of it is about.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    pub arch: &'a str,
    /// Of the views, in pixels.
    pub side: usize,
    /// In megabytes.
    pub budget: usize,
}

/// Measures one line of it.
///
/// # Errors
/// The budget is too small.
pub fn line(line: Line<'_>, seconds: f64, threads: usize, console: &Console) -> Result<Outcome> {
    let Line { arch, side, budget } = line;
    session::on_own_threads(threads, || {
        let settings = bench::settings(arch, side, budget, threads)?;
        memory::reset_peak();
        let start = Instant::now();
        let now = || start.elapsed().as_secs_f64();
        let taken = bench::times(&settings.0, seconds, now, || Ok(()))?;
        let threads = rayon::current_num_threads();
        let row = Row::new(&settings, budget, threads, &taken, memory::peak_mb());
        let table = Table {
            device: "here".into(),
            rows: vec![row],
        };
        console.say(table.to_string().trim_end());
        console.summary(&serde_json::json!(table.rows[0]));
        Ok(Outcome::Done)
    })?
}
