//! Neural network operations on channels-last activations, written for training in little memory.

pub mod activation;
pub mod backend;
pub mod block;
pub mod cpu;
pub mod gemm;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod layer;
pub mod parallel;
pub mod window;
pub mod workspace;
