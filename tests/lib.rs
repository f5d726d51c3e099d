//! Helpers shared by the black-box tests.

#[cfg(feature = "gpu")]
pub mod card;
pub mod formula;
pub mod fused;
pub mod golden;
pub mod program;
#[cfg(feature = "gpu")]
pub mod recorder;
pub mod reference;
pub mod trajectory;
