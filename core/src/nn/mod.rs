//! Neural network operations on channels-last activations, written for training in little memory.

pub mod activation;
pub mod block;
pub mod gemm;
#[cfg(target_arch = "x86_64")]
mod gemm_avx512;
pub mod init;
pub mod ops;
pub mod parallel;
pub mod simd;
pub mod workspace;
