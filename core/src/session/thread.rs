//! Threads for training.

use crate::{Error, Result};

/// candle's backward pass recurses over the graph, which the usual 2 MiB do not always hold.
const STACK_BYTES: usize = 16 << 20;

/// Runs `work` on a rayon pool of its own with `threads` threads (0: one per processor) and large
/// stacks, and waits for it. Whatever `work` computes in parallel runs on that pool.
///
/// # Errors
/// The system grants no threads.
pub fn on_own_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .thread_name(|n| format!("seedling-{n}"))
        .build()
        .map_err(|error| Error::Config(format!("threads = {threads}: {error}")))?;
    Ok(pool.install(work))
}

#[cfg(test)]
mod tests {
    #[test]
    fn work_has_its_threads_and_a_large_stack() {
        fn deep(n: usize) -> usize {
            let block = std::hint::black_box([n as u8; 1024]);
            if n == 0 { 0 } else { deep(n - 1) + block.len() }
        }
        let work = || (rayon::current_num_threads(), deep(8_000));
        let (threads, bytes) = super::on_own_threads(3, work).unwrap();
        assert_eq!((threads, bytes), (3, 8_000 * 1024));
    }
}
