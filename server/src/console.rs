//! What a person at the terminal sees. Results go to stdout, everything else to stderr.

use crate::flags::Common;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use seedling_core::data::{PhotoSource, Skipped};
use seedling_core::{Error, Result};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

/// How much to print.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    quiet: bool,
    verbose: bool,
    json: bool,
}

impl Console {
    /// As the flags say.
    pub fn new(common: &Common) -> Console {
        Console {
            quiet: common.quiet,
            verbose: common.verbose,
            json: common.json,
        }
    }

    /// A result, on stdout.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            print(text);
        }
    }

    /// The summary, on stdout, where `--json` asks for it. Call it last.
    pub fn summary(&self, summary: &serde_json::Value) {
        if self.json {
            print(&summary.to_string());
        }
    }

    /// What is happening, on stderr.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// What is happening in more detail, on stderr with `-v`.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            self.note(text);
        }
    }

    /// Photos that could not be read: how many, and which with `-v`.
    pub fn skipped(&self, photos: &[Skipped]) {
        for photo in photos {
            self.detail(&format!("skipped {}: {}", photo.id, photo.reason));
        }
        let how = if self.verbose { "" } else { " (-v lists them)" };
        match photos.len() {
            0 => {}
            1 => self.note(&format!("1 photo could not be read and was skipped{how}")),
            n => self.note(&format!(
                "{n} photos could not be read and were skipped{how}"
            )),
        }
    }

    /// What lies beside the photos and is none of them: how much, and which with `-v`.
    pub fn left_out(&self, source: &dyn PhotoSource) {
        let left_out = source.left_out();
        for entry in left_out {
            self.detail(&format!("left out {}: {}", entry.id, entry.reason));
        }
        let folders = left_out.iter().filter(|e| e.id.ends_with('/')).count();
        let count = |n: usize, what: &str| match n {
            0 => None,
            1 => Some(format!("1 {what}")),
            n => Some(format!("{n} {what}s")),
        };
        let parts = [
            count(folders, "folder"),
            count(left_out.len() - folders, "file"),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if let Some(first) = left_out.first() {
            let how = match self.verbose {
                true => String::new(),
                false => format!(" (first {}: {}; -v lists all)", first.id, first.reason),
            };
            self.note(&format!("left out: {}{how}", parts.join(" and ")));
        }
    }

    /// A progress bar on stderr; nothing where that is no terminal.
    pub fn bar(&self, length: u64, what: &str) -> ProgressBar {
        let target = match self.quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = "{prefix:>9} {bar:32} {pos}/{len}  {msg}  {elapsed} (left {eta})";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        bar
    }

    /// A bar for work of unknown length, of 1,000 parts: the message says how long it will take.
    pub fn work_bar(&self, what: &str) -> ProgressBar {
        let bar = self.bar(1000, what);
        if let Ok(style) =
            ProgressStyle::with_template("{prefix:>9} {bar:24} {elapsed}, {wide_msg}")
        {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar
    }

    /// A line above a running bar.
    pub fn above(&self, bar: &ProgressBar, text: &str) {
        match bar.is_hidden() {
            true => self.note(text),
            false => bar.println(text),
        }
    }
}

/// Why standard output could not be written, the first time.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

/// A line on stdout. What can't be written does not stop a run; it is said at the end ([`written`]).
fn print(text: &str) {
    tell_apart(writeln!(std::io::stdout(), "{text}"));
}

/// A reader that has gone away (`| head`) is no failure; a full disk is.
fn tell_apart(outcome: std::io::Result<()>) {
    if let Err(error) = outcome
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        let _ = UNWRITTEN.set(error);
    }
}

/// Whether everything that was to stand on stdout does.
///
/// # Errors
/// A line could not be written.
pub fn written() -> Result<()> {
    tell_apart(std::io::stdout().flush());
    match UNWRITTEN.get() {
        None => Ok(()),
        Some(error) => Err(Error::file(
            "standard output",
            format!("could not be written ({error})"),
        )),
    }
}

/// An error as the one line it should be, whatever an operating system or library put into it.
pub fn one_line(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines.join("; ")
}
