//! The card that tests run on.

use std::sync::OnceLock;

use seedling_core::nn::gpu::{Card, device};

/// The first card there is (often a program that passes for one); tests are skipped where there is
/// none, and say so.
pub fn card() -> Option<Card> {
    static CARD: OnceLock<Option<Card>> = OnceLock::new();
    let open = || match device::gpu(0) {
        Ok(card) => Some(card),
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    };
    CARD.get_or_init(open).clone()
}
