//! How fast this device takes a step, for the table that all devices fill alike.

use crate::error::Result;
use crate::listener::Stop;
use seedling_core::bench::{self, Row, Table};
use seedling_core::memory;
use seedling_core::session::on_own_threads;
use std::sync::Arc;
use std::time::Instant;

/// Measures a MoCo step of every network, size of views and budget of memory, `seconds` each: with 5 seconds
/// some minutes. Returns JSON to be shared, which `seedling bench --table FILE` prints as a table;
/// `device` is its title. What a budget does not suffice for is left out. The peak is that of the process
/// so far. Call it from a background thread. `stop` ends it early.
#[uniffi::export]
pub fn benchmark(
    device: String,
    seconds: f64,
    threads: i32,
    stop: Option<Arc<Stop>>,
) -> Result<String> {
    let asked = || stop.as_ref().map_or(Ok(()), |stop| stop.cancel.check());
    let mut rows = Vec::new();
    for budget in bench::BUDGETS_MB {
        for arch in bench::ARCHS {
            for size in bench::IMAGE_SIZES {
                asked()?;
                let threads = threads.max(0) as usize;
                let Ok(settings) = bench::settings(arch, size, budget, threads) else {
                    continue;
                };
                let start = Instant::now();
                let now = || start.elapsed().as_secs_f64();
                let taken =
                    on_own_threads(threads, || bench::times(&settings.0, seconds, now, asked))??;
                let threads = match threads {
                    0 => std::thread::available_parallelism().map_or(1, usize::from),
                    asked => asked,
                };
                rows.push(Row::new(
                    &settings,
                    budget,
                    threads,
                    &taken,
                    memory::peak_mb(),
                ));
            }
        }
    }
    Ok(Table { device, rows }.to_json()?)
}
