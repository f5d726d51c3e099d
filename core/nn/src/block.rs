//! Blocks: a few operations with a hand-written backward that keeps one tensor per convolution.
//! Shapes and order only; the arithmetic is the backend's.

mod class_token;
mod conv_norm;
mod dense;
mod inverted_residual;
mod pass;
mod patches;
mod pool;
mod pooled_conv;
mod residual;
mod stage;
mod stem;
mod transformer;

pub use class_token::ClassToken;
pub use conv_norm::Names;
pub use dense::Dense;
pub use inverted_residual::{BlockNames, BlockShape, InvertedResidual, Squeeze};
pub use pass::{Backward, Buffers, Dropping, Forward};
pub use patches::{Patches, Tokens};
pub use pool::Pool;
pub use pooled_conv::PooledConv;
pub use residual::{Kernels, Residual, ResidualShape};
pub use stage::{Block, Stage, StageCache};
pub use stem::{PooledStem, Stem};
pub use transformer::{Transformer, TransformerShape};

/// Height and width of a tensor's images.
pub type Size = (usize, usize);
