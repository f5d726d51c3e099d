//! Blocks: a few operations with a hand-written backward that keeps one tensor per convolution.
//! Shapes and order only; the arithmetic is the backend's.

mod conv_norm;
mod inverted_residual;
mod pass;
mod pooled_conv;
mod stem;

pub use inverted_residual::{BlockNames, BlockSaved, BlockShape, InvertedResidual};
pub use pass::{Backward, Forward};
pub use pooled_conv::{PooledConv, PooledSaved};
pub use stem::{Stem, StemSaved};

/// Height and width of a tensor's images.
pub type Size = (usize, usize);
