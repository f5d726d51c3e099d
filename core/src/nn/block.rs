//! Blocks: a few operations with a hand-written backward that keeps one tensor per convolution.

mod conv_norm;
mod inverted_residual;
mod linear;
mod pass;
mod pooled_conv;
mod stem;

pub use inverted_residual::{BlockNames, BlockSaved, BlockShape, InvertedResidual};
pub use linear::Linear;
pub use pass::{Backward, Forward};
pub use pooled_conv::{PooledConv, PooledSaved};
pub use stem::{Stem, StemSaved};

/// Height and width of a tensor's images.
pub type Size = (usize, usize);
