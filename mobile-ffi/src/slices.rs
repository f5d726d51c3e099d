//! A run in the slices of time that a system grants.

use crate::error::Result;
use crate::session::Outcome;
use seedling_core::slices::{self, LEAST_FREE, SliceEnd};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What became of a slice.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct SliceEntry {
    /// When it ended, in seconds since 1970.
    pub at: f64,
    /// `done`, `paused`, `failed`, `killed`, or the governor's reason to stop.
    pub ended: String,
    /// What there is to say about it.
    pub detail: String,
}

/// What is kept of a run between its slices, in a folder: over which photos it is, and what became of each
/// slice. Every call reads or writes a small file.
#[derive(uniffi::Object)]
pub struct Slices {
    inner: slices::Slices,
}

#[uniffi::export]
impl Slices {
    /// In `folder`, which is made where it is missing.
    #[uniffi::constructor]
    pub fn new(folder: String) -> Arc<Slices> {
        Arc::new(Slices {
            inner: slices::Slices::new(folder),
        })
    }

    /// The names of the photos that the run was begun with; none where it has not begun.
    pub fn names(&self) -> Result<Option<Vec<String>>> {
        Ok(self.inner.names()?)
    }

    /// Keeps these names for the slices to come.
    pub fn remember(&self, names: Vec<String>) -> Result<()> {
        Ok(self.inner.remember(&names)?)
    }

    /// Forgets them: the next run is over the photos there are then.
    pub fn forget(&self) -> Result<()> {
        Ok(self.inner.forget()?)
    }

    /// A slice begins, with so many bytes free, where that is known: refused where fewer than `least` are.
    pub fn start(&self, free: Option<i64>, least: i64) -> Result<()> {
        let free = free.map(|free| free.max(0) as u64);
        Ok(self.inner.start(now(), free, least.max(0) as u64)?)
    }

    /// The slice has ended by itself. Returns whether others have to follow.
    pub fn ended(&self, outcome: Outcome) -> bool {
        let end = match outcome {
            Outcome::Done => SliceEnd::Done,
            Outcome::Paused => SliceEnd::Paused,
            Outcome::Stopped { reason } => SliceEnd::Stopped(reason),
        };
        self.inner.ended(now(), &end, "")
    }

    /// The system has ended it, for a reason in words. Returns whether others have to follow.
    pub fn paused(&self, detail: String) -> bool {
        self.inner.ended(now(), &SliceEnd::Paused, &detail)
    }

    /// It has failed; `storage` where the disk refused. Returns whether others have to follow.
    pub fn failed(&self, detail: String, storage: bool) -> bool {
        let end = SliceEnd::Failed { storage };
        self.inner.ended(now(), &end, &detail)
    }

    /// What became of the slices, the oldest first: the latest few hundred.
    pub fn entries(&self) -> Vec<SliceEntry> {
        let entries = self.inner.entries().into_iter();
        let entry = |entry: slices::SliceEntry| SliceEntry {
            at: entry.at,
            ended: entry.ended,
            detail: entry.detail,
        };
        entries.map(entry).collect()
    }
}

/// Bytes below which nothing should be begun: two checkpoints and the weights.
#[uniffi::export]
pub fn least_free() -> i64 {
    LEAST_FREE as i64
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
