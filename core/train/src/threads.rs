//! Threads for training.

use crate::{Error, Result};
use rayon::ThreadPool;

/// Threads that help: more than CPUs there are only wait for each other, and every one of them takes
/// memory. So many are always granted, that the same command may be tried anywhere.
const ALWAYS: usize = 64;

/// As many of `count` threads as help.
pub fn helpful(count: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    count.min(processors.max(ALWAYS))
}

/// A pool of `count` threads (0: one per CPU), or as many as are [`helpful`].
///
/// # Errors
/// The system grants none.
pub fn threads(count: usize) -> Result<ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(helpful(count))
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
        assert!((64..1000).contains(&super::helpful(1000)));
    }
}
