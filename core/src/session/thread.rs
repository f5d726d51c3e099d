//! Threads for training.

use crate::{Error, Result};
use rayon::ThreadPool;

/// A pool of `count` threads (0: one per processor).
///
/// # Errors
/// The system grants none.
pub fn threads(count: usize) -> Result<ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|n| format!("seedling-{n}"))
        .build()
        .map_err(|error| Error::Config(format!("threads = {count}: {error}")))
}

/// Runs `work` on a pool of its own, and waits for it. Whatever `work` computes in parallel runs
/// on that pool.
///
/// # Errors
/// See [`threads`].
pub fn on_own_threads<T: Send>(count: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    Ok(threads(count)?.install(work))
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_has_its_threads() {
        let threads = super::on_own_threads(3, rayon::current_num_threads).unwrap();
        assert_eq!(threads, 3);
    }
}
