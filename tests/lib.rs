//! Helpers shared by the black-box tests.

#[cfg(feature = "gpu")]
pub mod emulator;
pub mod formula;
pub mod fused;
pub mod golden;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod program;
#[cfg(feature = "gpu")]
pub mod recorder;
pub mod reference;
pub mod require;
#[cfg(feature = "gpu")]
pub mod runtime;
pub mod trajectory;
