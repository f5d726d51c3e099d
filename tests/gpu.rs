//! The GPU that tests run on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::require::skipped;
#[cfg(feature = "cuda")]
pub use seedling_core::nn::gpu::CudaDevice as GpuDevice;
#[cfg(not(feature = "cuda"))]
pub use seedling_core::nn::gpu::GpuDevice;
use seedling_core::nn::gpu::device;

/// The first GPU there is (often a program that passes for one); tests are skipped where there is none, and say
/// so, or fail where one is required ([`crate::require`]). It is opened twice, so that two tests can work at a
/// time.
pub fn gpu() -> Option<GpuDevice> {
    static GPUS: [OnceLock<Option<GpuDevice>>; 2] = [const { OnceLock::new() }; 2];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % GPUS.len();
    }
    GPUS[MINE.with(|mine| *mine)].get_or_init(another).clone()
}

/// The same, opened once more: what others take of its memory is not seen.
pub fn another() -> Option<GpuDevice> {
    #[cfg(not(feature = "cuda"))]
    let opened = device::gpu(0);
    #[cfg(feature = "cuda")]
    let opened = device::cuda(0);
    match opened {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            skipped("gpu", error);
            None
        }
    }
}
