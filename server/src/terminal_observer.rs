//! Where a person sits and watches a run: bars and lines on the terminal, TensorBoard's events, the
//! thumbnails, and at the end the report and the table.

use crate::console::Console;
use crate::{memory, thumbnails};
use indicatif::ProgressBar;
use seedling_core::Result;
use seedling_core::data::Skipped;
use seedling_core::records::{self, RunRecord, When};
use seedling_core::session::{self, Progress};
use seedling_core::training_run::{Event, Observer, TrainingRun, Waits};
use seedling_report::summary::Run as Summary;
use seedling_report::{EventWriter, thumbnails as thumbnails_file};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Beginnings of the names of what is written here into the run's folder.
pub const GUESTS: [&str; 2] = [thumbnails_file::FILE_NAME, "events.out.tfevents."];

/// Watches one run.
pub struct TerminalObserver<'a> {
    command: &'static str,
    folder: PathBuf,
    seed: u64,
    threads: usize,
    console: &'a Console,
    events: EventWriter,
    bar: Option<(Bar, ProgressBar)>,
    /// Averaged over the last steps.
    waits: Option<Waits>,
    start: Instant,
}

/// From here on, a person should know that a CPU waits for photos.
const SLOW_PHOTOS: f64 = 0.1;

/// What a bar is about.
#[derive(PartialEq)]
enum Bar {
    Training,
    Selecting,
    Measuring(When),
}

impl<'a> TerminalObserver<'a> {
    /// Before `run` starts, or continues.
    ///
    /// # Errors
    /// The events cannot be written.
    pub fn open(
        run: &TrainingRun,
        command: &'static str,
        console: &'a Console,
    ) -> Result<TerminalObserver<'a>> {
        let (folder, session) = (run.folder(), run.session());
        Ok(TerminalObserver {
            command,
            folder: folder.into(),
            seed: session.config().seed,
            threads: session.config().threads,
            console,
            events: match run.resumed() {
                false => EventWriter::create(folder, wall_time())?,
                true => EventWriter::resume(folder, wall_time(), session.steps_done())?,
            },
            bar: None,
            waits: None,
            start: Instant::now(),
        })
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// The bar for `what`, in place of any other.
    fn bar(&mut self, what: Bar, length: u64, name: &str) -> &ProgressBar {
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != what) {
            self.clear();
        }
        let new = || (what, self.console.bar(length, name));
        &self.bar.get_or_insert_with(new).1
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some((_, bar)) => self.console.above(bar, text),
            None => self.console.note(text),
        }
    }

    fn compiling(&mut self, done: u64, steps: u64) {
        let bar = self.bar(Bar::Training, steps, "train");
        bar.set_position(done);
        bar.set_message("compiling the GPU's kernels, which may take a minute the first time");
    }

    fn step(&mut self, progress: &Progress, photos_per_second: f64, waits: Waits) {
        let first = self.waits.is_none();
        let waiting = self.waiting(waits);
        let fresh = first || !matches!(&self.bar, Some((Bar::Training, _)));
        let bar = self.bar(Bar::Training, progress.steps, "train");
        if fresh {
            // The time left is reckoned from here.
            bar.set_position(progress.step - 1);
            bar.reset_eta();
        }
        bar.set_position(progress.step);
        bar.set_message(format!(
            "loss {:.3}  lr {:.2e}  {photos_per_second:.0} img/s{waiting}",
            progress.stats.loss, progress.lr
        ));
    }

    /// Who waits for whom, over the last steps, where it matters.
    fn waiting(&mut self, now: Waits) -> String {
        let smooth = |old: f64, new: f64| 0.9 * old + 0.1 * new;
        let old = self.waits.unwrap_or(now);
        let gpu = now.gpu.map(|new| smooth(old.gpu.unwrap_or(new), new));
        let photos = smooth(old.photos, now.photos);
        self.waits = Some(Waits { photos, gpu });
        match gpu {
            Some(gpu) => format!(
                "  waits: {:.0}% photos, {:.0}% GPU",
                100.0 * photos,
                100.0 * gpu
            ),
            None if photos >= SLOW_PHOTOS => format!("  waits: {:.0}% photos", 100.0 * photos),
            None => String::new(),
        }
    }

    fn epoch(&self, progress: &Progress, mean_loss: f64) {
        if self.bar.as_ref().is_none_or(|(_, bar)| bar.is_hidden()) {
            self.console.detail(&format!(
                "epoch {}: step {} of {}, mean loss {mean_loss:.4}",
                progress.epoch + 1,
                progress.step,
                progress.steps,
            ));
        }
    }

    /// The report, the table before and after, where everything is, and the JSON summary.
    fn finished(&mut self, weights: &Path, facts: &RunRecord, skipped: &[Skipped]) -> Result<()> {
        self.clear();
        self.console.skipped(skipped);
        let page = seedling_report::render(&self.folder)?;
        let summary = Summary::new(records::read(&self.folder.join(records::FILE_NAME))?);
        self.console.say(&summary.verdict().1);
        let line = |name: &str, cells: Vec<String>, change: &str| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>13}")).collect();
            self.console.say(&format!("{name:<26}{cells}{change:>10}"));
        };
        let names = summary.columns();
        let names = names.iter().map(|(name, _)| name.to_lowercase()).collect();
        line("", names, "change");
        for row in summary.rows() {
            let change = row.change().map_or_else(String::new, |(text, _)| text);
            let cells = row.values.iter().map(|value| row.show(*value)).collect();
            line(row.name, cells, &change);
        }
        self.console.say(&format!("weights  {}", weights.display()));
        self.console.say(&format!("report   {}", page.display()));
        self.console.summary(&json!({
            "command": self.command,
            "run": self.folder,
            "weights": weights,
            "report": page,
            "steps": facts.step,
            "photos": facts.photos,
            "skipped": facts.skipped,
            "left_out": facts.left_out,
            "seconds": facts.seconds,
            "peak_memory_mb": facts.peak_memory_mb,
            "loss": summary.steps.last().map(|step| step.loss),
            "verdict": summary.judged,
            "before": summary.before(),
            "closed_form": summary.closed_form(),
            "trained": summary.leaves_trained(),
            "after": summary.after(),
        }));
        Ok(())
    }
}

impl Observer for TerminalObserver<'_> {
    fn event(&mut self, event: Event<'_>) -> Result<()> {
        match event {
            Event::Note(text) => self.line(text),
            Event::Warning(text) => self.line(&format!("warning: {text}")),
            Event::Measuring { when, done, total } => {
                let name = match when {
                    When::Before | When::ClosedForm => "before",
                    When::During => "measure",
                    When::After => "after",
                };
                let bar = self.bar(Bar::Measuring(when), total as u64, name);
                bar.set_position(done as u64);
            }
            Event::Selecting { done, total } => {
                let bar = self.bar(Bar::Selecting, total as u64, "judge");
                bar.set_position(done as u64);
            }
            Event::Measured {
                when,
                measured,
                source,
            } => {
                self.clear();
                match when {
                    When::Before => session::on_own_threads(self.threads, || {
                        thumbnails::create(&self.folder, source, measured, self.seed)
                    })??,
                    When::During => {}
                    When::ClosedForm | When::After => {
                        thumbnails::add(&self.folder, source, when, measured)?;
                    }
                }
            }
            Event::Compiling { done, steps } => self.compiling(done, steps),
            Event::Step {
                progress,
                photos_per_second,
                waits,
            } => self.step(progress, photos_per_second, waits),
            Event::Epoch {
                progress,
                mean_loss,
            } => self.epoch(progress, mean_loss),
            Event::Record(record) => self.events.record(wall_time(), record)?,
            Event::Finished {
                weights,
                facts,
                skipped,
            } => self.finished(weights, facts, skipped)?,
            _ => {}
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn peak_memory_mb(&self) -> Option<f64> {
        memory::peak_mb()
    }
}

fn wall_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}
