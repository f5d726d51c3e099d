//! Asking long work to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{Error, Result};

/// A wish to stop that any thread may voice; clones share it. Training looks after every
/// micro-batch, measuring after every batch.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    /// Checks until it asks by itself; 0 is never.
    checks: Arc<AtomicUsize>,
}

impl Cancel {
    /// Voices it.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Voices it when work checks for the `n`-th time from now on: at the same place on every machine.
    pub fn ask_at_check(&self, n: usize) {
        self.checks.store(n, Ordering::Relaxed);
    }

    /// Takes it back: what was stopped may be gone on with.
    pub fn forget(&self) {
        self.checks.store(0, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether someone has asked.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// For work to call where it can stop.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if someone has asked.
    pub fn check(&self) -> Result<()> {
        if self.checks.load(Ordering::Relaxed) > 0
            && self.checks.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.ask();
        }
        match self.asked() {
            true => Err(Error::Cancelled),
            false => Ok(()),
        }
    }
}
