//! Networks: forward and backward on channels-last activations, written for training in little memory.
//!
//! Bottom up: [`layout`] names a network's numbers, [`layer`] says where those of a layer lie, [`backend`]
//! what operations there are, [`cpu`] does them on the CPU, [`block`] puts several together with one
//! backward, [`backbones`] puts blocks into networks, [`params`] are a network's numbers, and [`encoder`]
//! adds the projection head. Nothing here knows photos or losses.

pub mod activation;
pub mod backbones;
pub mod backend;
pub mod block;
pub mod cpu;
pub mod encoder;
pub mod gemm;
pub mod init;
pub mod layer;
pub mod layout;
pub mod parallel;
pub mod params;
pub mod window;
pub mod workspace;

pub use seedling_base::{Error, Result};
