//! Learning without labels.
//!
//! [`loss`] and [`queue`] compare embeddings; [`moco`] and, with a [`teacher`], [`seed`], [`compress`], [`bingo`] and [`simdis`] are
//! the methods (DisCo is MoCo beside a teacher), [`microbatch`] the loop that all share, [`step`] what goes into and comes
//! out of each, and [`ops`] what they need of a backend. [`eval`] extracts and measures features, [`whitening`] makes a linear
//! layer of a dataset's, and [`verdict`] says from features which weights to keep.

pub mod bingo;
pub mod compress;
mod eigen;
pub mod eval;
#[cfg(feature = "gpu")]
mod gpu;
mod logits;
pub mod loss;
pub mod microbatch;
pub mod moco;
pub mod ops;
pub mod queue;
pub mod seed;
pub mod simdis;
pub mod step;
mod target;
pub mod teacher;
pub mod verdict;
pub mod whitening;

pub use seedling_base::{Error, Result};
