//! Neural network operations on channels-last activations, written for training in little memory.

pub mod activation;
pub mod block;
pub mod gemm;
pub mod init;
pub mod ops;
pub mod parallel;
pub mod workspace;
