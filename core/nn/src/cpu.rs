//! The processor as a backend: fused kernels on channels-last slices, in buffers of a [`Workspace`].
//!
//! One idea carries them all: **normalization and activation are never stored**. A convolution
//! stores its raw output z; whoever reads it computes act(z * scale + shift) on the way
//! ([`source::Source`]). Backward likewise: what is stored is dy, the gradient behind the
//! activation, and batch norm's backward a * dy + b * z + c is computed where dz is read
//! ([`source::GradSource`]); the two sums it needs come from the kernel that wrote dy.
//! So a layer costs one tensor, and each tensor crosses memory a minimal number of times.

pub mod adamw;
pub mod attention;
mod backward;
pub mod channelwise;
pub mod conv;
pub mod depthwise;
mod forward;
pub mod l2_normalize;
pub mod layer_norm;
pub mod linear;
pub mod materialize;
pub mod max_pool;
pub mod norm;
mod optimizer;
pub mod pointwise;
pub mod pool;
pub mod rows_linear;
pub mod sgd;
pub mod sink;
pub mod source;
pub mod squeeze_excite;
mod sums;
pub mod tokens;
mod winograd;

use super::backend::{Backend, DeviceOps, Host};
use super::workspace::{Buffer, Workspace};
use crate::Result;

/// Kernels for the processor, in memory of its workspace.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    workspace: Workspace,
}

impl Cpu {
    /// On a workspace that others may share, if they do not run at the same time.
    pub fn new(workspace: &Workspace) -> Cpu {
        Cpu {
            workspace: workspace.clone(),
        }
    }

    fn alloc(&self, len: usize) -> Buffer {
        self.workspace.alloc(len)
    }
}

impl Backend for Cpu {
    type Buf = Buffer;
    type Flat = Vec<f32>;

    fn upload(&self, len: usize, fill: impl FnOnce(&mut [f32])) -> Result<Buffer> {
        let mut buf = self.alloc(len);
        fill(&mut buf);
        Ok(buf)
    }

    fn download(&self, buf: &Buffer) -> Result<Vec<f32>> {
        Ok(buf.to_vec())
    }

    fn flat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        Ok(numbers)
    }

    fn host<'a>(&self, flat: &'a Vec<f32>) -> Result<Host<'a>> {
        Ok(Host::Borrowed(flat))
    }

    fn edit(&self, flat: &mut Vec<f32>, change: impl FnOnce(&mut [f32])) -> Result<()> {
        change(flat);
        Ok(())
    }

    fn release(&self) {
        self.workspace.release();
    }
}

impl DeviceOps for Cpu {}
