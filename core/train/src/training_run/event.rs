//! What a run tells whoever watches it.

use std::path::Path;

use crate::Result;
use crate::records::{Record, RunRecord, When};
use crate::session::Progress;
use seedling_data::{PhotoSource, Skipped};
use seedling_ssl::eval::Measured;

/// Who waits for whom: parts of a step's time, by the observer's clock. What is left is the host's own work: on a
/// CPU the training, on a GPU packing and sending views and asking for kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// For photos to be read and decoded.
    pub photos: f64,
    /// For the GPU, where there is one.
    pub gpu: Option<f64>,
}

/// Something happened.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// What a person might want to know.
    Note(&'a str),
    /// What a person should know.
    Warning(&'a str),
    /// A measurement has processed so many photos out of how many.
    Measuring {
        when: When,
        done: usize,
        total: usize,
    },
    /// A measurement is done, and will be in the next checkpoint or the weights' log.
    Measured {
        when: When,
        measured: &'a Measured,
        /// The photos that were measured.
        source: &'a dyn PhotoSource,
    },
    /// So many photos are processed to select the interpolation weight, out of how many.
    Selecting { done: usize, total: usize },
    /// A GPU is about to take the first step of this process: it compiles the kernels that were not kept from an
    /// earlier start.
    Compiling { done: u64, steps: u64 },
    /// A step was taken, at so many photos a second.
    Step {
        progress: &'a Progress,
        photos_per_second: f64,
        waits: Waits,
    },
    /// An epoch ended with this step.
    Epoch {
        progress: &'a Progress,
        mean_loss: f64,
    },
    /// A line of the log.
    Record(&'a Record),
    /// The run can be resumed after this step.
    Saved { step: u64 },
    /// The weights are written and measured.
    Finished {
        weights: &'a Path,
        facts: &'a RunRecord,
        skipped: &'a [Skipped],
    },
}

/// Whoever watches a run, and has the clock.
pub trait Observer: Send {
    /// Takes note. An error stops the run as one of its own would.
    ///
    /// # Errors
    /// Whatever the observer could not do.
    fn event(&mut self, event: Event<'_>) -> Result<()>;

    /// Seconds, from any beginning: nothing here reads a clock of its own.
    fn seconds(&self) -> f64;

    /// Largest memory the process has held, in MiB, where the system tells.
    fn peak_memory_mb(&self) -> Option<f64> {
        None
    }
}
