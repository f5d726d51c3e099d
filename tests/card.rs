//! The card that tests run on.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(not(feature = "cuda"))]
pub use seedling_core::nn::gpu::Card;
#[cfg(feature = "cuda")]
pub use seedling_core::nn::gpu::CudaCard as Card;
use seedling_core::nn::gpu::device;

/// The first card there is (often a program that passes for one); tests are skipped where there is
/// none, and say so. It is opened twice, so that two tests can work at a time.
pub fn card() -> Option<Card> {
    static CARDS: [OnceLock<Option<Card>>; 2] = [const { OnceLock::new() }; 2];
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % CARDS.len();
    }
    CARDS[MINE.with(|mine| *mine)].get_or_init(another).clone()
}

/// The same, opened once more: what others take of its memory is not seen.
pub fn another() -> Option<Card> {
    #[cfg(not(feature = "cuda"))]
    let opened = device::gpu(0);
    #[cfg(feature = "cuda")]
    let opened = device::cuda(0);
    match opened {
        Ok(card) => Some(card),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}
