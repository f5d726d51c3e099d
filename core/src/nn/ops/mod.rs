//! The operations, each forward and backward on channels-last slices.
//!
//! One idea carries them all: **normalisation and activation are never stored**. A convolution
//! stores its raw output z; whoever reads it computes act(z * scale + shift) on the way
//! ([`source::Source`]). Backward likewise: what is stored is dy, the gradient behind the
//! activation, and batch norm's backward a * dy + b * z + c is computed where dz is read
//! ([`source::GradSource`]); the two sums it needs come from the kernel that wrote dy.
//! So a layer costs one tensor, and each tensor crosses memory a minimal number of times.

pub mod channelwise;
pub mod conv;
pub mod depthwise;
pub mod linear;
pub mod norm;
pub mod normalize;
pub mod pointwise;
pub mod pool;
pub mod sink;
pub mod source;
pub mod squeeze_excite;
mod sums;
pub mod window;
