//! Learning without labels.
//!
//! [`loss`] and [`queue`] compare embeddings; [`moco`] and [`distill`] are the two methods, [`step`] what
//! goes into and comes out of either. [`eval`] extracts and measures features, [`whitening`] makes a linear
//! layer of an album's, and [`verdict`] says from features which weights to keep.

pub mod distill;
mod eigen;
pub mod eval;
#[cfg(feature = "gpu")]
mod gpu;
pub mod loss;
mod microbatch;
pub mod moco;
pub mod ops;
pub mod queue;
pub mod step;
pub mod verdict;
pub mod whitening;

pub use seedling_base::{Error, Result};
