//! What a run writes down as it goes on, and what it looks out for.

use crate::measure::Measured;
use seedling_core::Result;
use seedling_core::eval::collapse_warning;
use seedling_core::report::records::{self, MetricsWriter};
use seedling_core::report::{EventWriter, MeasureRecord, Record, StepRecord, When};
use seedling_core::session::Progress;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The run's log in both its forms.
pub struct Log<'a> {
    folder: &'a Path,
    metrics: MetricsWriter,
    events: EventWriter,
}

impl<'a> Log<'a> {
    /// Begins the log of a run, or takes it up again after `step`.
    pub fn open(folder: &'a Path, step: u64, resumed: bool) -> Result<Log<'a>> {
        Ok(match resumed {
            false => Log {
                folder,
                metrics: MetricsWriter::create(folder)?,
                events: EventWriter::create(folder, wall_time())?,
            },
            true => Log {
                folder,
                metrics: MetricsWriter::resume(folder, step)?,
                events: EventWriter::resume(folder, wall_time(), step)?,
            },
        })
    }

    /// Whether the measurement before training is in the log already.
    pub fn measured_before(&self) -> Result<bool> {
        let records = records::read(&self.folder.join(records::FILE_NAME))?;
        Ok(records
            .iter()
            .any(|record| matches!(record, Record::Measure(m) if m.when == When::Before)))
    }

    /// Adds a line to both forms.
    pub fn append(&mut self, record: Record) -> Result<()> {
        self.metrics.append(&record)?;
        self.events.record(wall_time(), &record)
    }

    /// Adds a step that ran at `rate` photos per second.
    pub fn step(&mut self, progress: &Progress, rate: f64) -> Result<()> {
        self.append(Record::Step(StepRecord {
            step: progress.step,
            epoch: progress.epoch,
            loss: f64::from(progress.stats.loss),
            lr: progress.lr,
            images_per_second: Some(rate),
            accuracy: Some(100.0 * f64::from(progress.stats.agreement.accuracy)),
            peak_memory_mb: None,
        }))
    }

    /// Adds a measurement taken after `step` steps.
    pub fn measurement(&mut self, step: u64, when: When, measured: &Measured) -> Result<()> {
        self.append(measure_record(step, when, measured))
    }

    /// Waits until everything is on the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.metrics.sync()
    }
}

/// A measurement taken after `step` steps, as the log has it.
pub fn measure_record(step: u64, when: When, measured: &Measured) -> Record {
    let mut record = MeasureRecord::new(step, when, &measured.figures);
    record.collapse = collapse_warning(&measured.features);
    Record::Measure(Box::new(record))
}

/// Looks out for embeddings that become all alike.
#[derive(Default)]
pub struct Watch {
    warned: bool,
    alike: u32,
    losses: (f64, u32),
}

/// Below this share of an even spread the embeddings of a batch are all but one point.
const ALIKE: f32 = 0.1;
/// A random start looks alike too, for a while.
const PATIENCE: u32 = 100;

impl Watch {
    /// Takes in a step; a warning, once, where one is due.
    pub fn look(&mut self, progress: &Progress) -> Option<String> {
        self.losses.0 += f64::from(progress.stats.loss);
        self.losses.1 += 1;
        self.alike = if progress.stats.spread < ALIKE {
            self.alike + 1
        } else {
            0
        };
        if self.warned || self.alike < PATIENCE {
            return None;
        }
        self.warned = true;
        Some(format!(
            "the embeddings of different photos are nearly the same (spread {:.1} % of an even \
             one) since {PATIENCE} steps: a lower lr, a larger queue or other initial weights may help",
            100.0 * progress.stats.spread
        ))
    }

    /// The line that sums up an epoch.
    pub fn epoch(&mut self, progress: &Progress) -> String {
        let (sum, n) = std::mem::take(&mut self.losses);
        format!(
            "epoch {}: step {} of {}, mean loss {:.4}",
            progress.epoch + 1,
            progress.step,
            progress.steps,
            sum / f64::from(n.max(1))
        )
    }
}

fn wall_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |time| time.as_secs_f64())
}
