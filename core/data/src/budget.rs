//! Memory for decoding, shared by all threads that decode.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// How much memory photos that are being decoded may take together. A thread that wants more
/// than is free waits until others are done; a photo that wants more than there is at all is
/// refused, by what its header claims, before anything is allocated for it.
#[derive(Debug)]
pub struct DecodeBudget {
    limit: AtomicU64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// What a photo takes of the budget while it is decoded and looked at; given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation<'a> {
    budget: &'a DecodeBudget,
    bytes: u64,
}

impl DecodeBudget {
    /// Enough for a photo of 200 megapixels, the most that phones make.
    pub const DEFAULT_MB: usize = 640;

    /// A budget of so many megabytes.
    pub fn megabytes(megabytes: usize) -> DecodeBudget {
        DecodeBudget {
            limit: AtomicU64::new((megabytes as u64).saturating_mul(1 << 20)),
            used: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Sets how much there is; to be called while nobody decodes.
    pub fn set_megabytes(&self, megabytes: usize) {
        let limit = (megabytes as u64).saturating_mul(1 << 20);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// All there is, in bytes.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` are free and takes them. Whoever holds a reservation must not ask for
    /// another: it would wait for itself.
    ///
    /// # Errors
    /// There are not as many at all; the text says what would do.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation<'_>, String> {
        let limit = self.limit();
        if bytes > limit {
            let mb = |bytes: u64| bytes.div_ceil(1 << 20);
            return Err(format!(
                "decoding it takes {} MB and decode_mb allows {}",
                mb(bytes),
                mb(limit)
            ));
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while *used + bytes > limit {
            used = self
                .freed
                .wait(used)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *used += bytes;
        Ok(Reservation {
            budget: self,
            bytes,
        })
    }
}

impl Default for DecodeBudget {
    fn default() -> Self {
        DecodeBudget::megabytes(Self::DEFAULT_MB)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let used = self.budget.used.lock();
        *used.unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn threads_together_stay_within_it() {
        let budget = DecodeBudget::megabytes(10);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (budget, now, most) = (&budget, &now, &most);
                scope.spawn(move || {
                    for round in 0..50 {
                        let bytes = (1 + (thread + round) % 9) << 20;
                        let reservation = budget.reserve(bytes).unwrap();
                        let total = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(total, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(bytes, Ordering::SeqCst);
                        drop(reservation);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10 << 20);
        assert_eq!(*budget.used.lock().unwrap(), 0);
        let refused = budget.reserve(11 << 20).unwrap_err();
        assert!(
            refused.contains("11 MB") && refused.contains("10"),
            "{refused}"
        );
    }
}
