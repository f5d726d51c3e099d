//! What every crate of Seedling stands on, and what knows nothing of photos or networks.

pub mod atomic;
pub mod cancel;
pub mod chunk_log;
pub mod error;
pub mod rng;
pub mod simd;
pub mod tensor_file;

pub use error::{Error, Result};
