//! Asking long work to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{Error, Result};

/// A flag by which any thread stops work; clones share it. Training checks it after every micro-batch,
/// measuring after every batch.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    canceled: Arc<AtomicBool>,
    /// Checks until the flag sets itself; 0 is never.
    checks: Arc<AtomicUsize>,
}

impl CancelToken {
    /// Sets the flag.
    pub fn cancel(&self) {
        self.canceled.store(true, Ordering::Relaxed);
    }

    /// Sets the flag when work checks it for the `n`-th time from now on: at the same place on every machine.
    pub fn cancel_at_check(&self, n: usize) {
        self.checks.store(n, Ordering::Relaxed);
    }

    /// Clears the flag: work that was stopped can continue.
    pub fn reset(&self) {
        self.checks.store(0, Ordering::Relaxed);
        self.canceled.store(false, Ordering::Relaxed);
    }

    /// Whether the flag is set.
    pub fn is_canceled(&self) -> bool {
        self.canceled.load(Ordering::Relaxed)
    }

    /// For work to call where it can stop.
    ///
    /// # Errors
    /// [`Error::Canceled`] if the flag is set.
    pub fn check(&self) -> Result<()> {
        if self.checks.load(Ordering::Relaxed) > 0
            && self.checks.fetch_sub(1, Ordering::Relaxed) == 1
        {
            self.cancel();
        }
        match self.is_canceled() {
            true => Err(Error::Canceled),
            false => Ok(()),
        }
    }
}

/// Turns of work that may be paused, each by whoever requested it or by all who may pause: a pause is meant for
/// the turns that were requested by then, whether they have begun or not, and for none after.
#[derive(Debug, Default)]
pub struct Turns {
    cancel: CancelToken,
    requested: AtomicUsize,
    paused: AtomicUsize,
}

/// One of [`Turns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(pub usize);

impl Turns {
    /// Requests a turn: to be called where the work is wanted, before the thread that does it is there.
    pub fn request(&self) -> Turn {
        Turn(self.requested.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Pauses all that were requested.
    pub fn pause(&self) {
        // In this order: a turn that begins meanwhile sees one of both.
        self.paused
            .fetch_max(self.requested.load(Ordering::SeqCst), Ordering::SeqCst);
        self.cancel.cancel();
    }

    /// What work is to check, and is to be told with.
    pub fn token(&self) -> &CancelToken {
        &self.cancel
    }

    /// A turn begins. One turn is to be over before the next begins.
    ///
    /// # Errors
    /// [`Error::Canceled`] where it was paused before.
    pub fn start(&self, turn: Turn) -> Result<()> {
        self.cancel.reset();
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
    fn a_pause_is_for_the_turns_that_were_requested() {
        let turns = Turns::default();
        // Nothing was requested: it is meant for nothing.
        turns.pause();
        let first = turns.request();
        turns.start(first).unwrap();
        turns.token().check().unwrap();
        turns.pause();
        assert!(matches!(turns.token().check(), Err(Error::Canceled)));
        // One that comes late is not for the next, and one that comes early is not missed.
        let second = turns.request();
        turns.start(second).unwrap();
        turns.token().check().unwrap();
        let third = turns.request();
        turns.pause();
        assert!(matches!(turns.start(third), Err(Error::Canceled)));
    }
}
