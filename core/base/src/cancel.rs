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
    /// [`Error::Canceled`] if someone has asked.
    pub fn check(&self) -> Result<()> {
        if self.checks.load(Ordering::Relaxed) > 0
            && self.checks.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.ask();
        }
        match self.asked() {
            true => Err(Error::Canceled),
            false => Ok(()),
        }
    }
}

/// Turns of work that may be paused, each by whoever asked for it or by all who may pause: a pause is meant for
/// the turns that were asked for by then, whether they have begun or not, and for none after.
#[derive(Debug, Default)]
pub struct Turns {
    cancel: Cancel,
    asked: AtomicUsize,
    paused: AtomicUsize,
}

/// One of [`Turns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(pub usize);

impl Turns {
    /// Asks for a turn: to be called where the work is wanted, before the thread that does it is there.
    pub fn ask(&self) -> Turn {
        Turn(self.asked.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Pauses all that were asked for.
    pub fn pause(&self) {
        // In this order: a turn that begins meanwhile sees one of both.
        self.paused
            .fetch_max(self.asked.load(Ordering::SeqCst), Ordering::SeqCst);
        self.cancel.ask();
    }

    /// What work is to check, and is to be told with.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// A turn begins. One turn is to be over before the next begins.
    ///
    /// # Errors
    /// [`Error::Canceled`] where it was paused before.
    pub fn start(&self, turn: Turn) -> Result<()> {
        self.cancel.forget();
        match turn.0 <= self.paused.load(Ordering::SeqCst) {
            true => Err(Error::Canceled),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_for_the_turns_that_were_asked_for() {
        let turns = Turns::default();
        // Nobody has asked: it is meant for nothing.
        turns.pause();
        let first = turns.ask();
        turns.start(first).unwrap();
        turns.cancel().check().unwrap();
        turns.pause();
        assert!(matches!(turns.cancel().check(), Err(Error::Canceled)));
        // One that comes late is not for the next, and one that comes early is not missed.
        let second = turns.ask();
        turns.start(second).unwrap();
        turns.cancel().check().unwrap();
        let third = turns.ask();
        turns.pause();
        assert!(matches!(turns.start(third), Err(Error::Canceled)));
    }
}
