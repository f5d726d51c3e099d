//! The closed form: a dataset's statistics become one linear layer behind the network's features. Nothing
//! is trained, no label is asked, and it helps by every figure of the panel (docs/results.md).
//!
//! 1. [`moments`] are count, mean and scatter of features, mergeable.
//! 2. [`within`] finds in which directions a photo's features differ from those of its mirror image and
//!    of its neighbors: differences that mean nothing. These directions are shortened.

pub mod moments;
pub mod within;

pub use moments::Moments;
pub use within::{LEAST_PHOTOS, MAX_PHOTOS, bytes, fit, numbers};
