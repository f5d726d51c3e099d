//! The CPU as a backend: fused kernels on channels-last slices, in buffers of a [`Workspace`].
//!
//! **Normalization and activation are never stored.** A convolution stores its raw output z. Whoever reads it
//! computes, on the way into its own tile ([`source::Source`]),
//!
//! ```text
//! y = act(z * scale + shift) * gate        scale = w / sqrt(var + eps),  shift = b - mean * scale
//! ```
//!
//! (the gate is squeeze-excite's, where there is one). Mean and variance come from moments that the kernel
//! which wrote z took while z was in the cache: count, mean and sum of squared deviations, which merge (Chan,
//! Golub and LeVeque 1979) and do not cancel however far from zero the mean lies.
//!
//! Backward, what is stored is dy, the gradient behind the activation: dy = act'(u) * (what flows in), with
//! u = z * scale + shift. With m rows in the batch, batch norm's backward is
//!
//! ```text
//! db = sum(dy)        dw = inv_std * sum(dy * (z - mean))
//!
//! dz = a * dy + b * z + c
//! a = scale
//! b = -scale * inv_std^2 * sum(dy * (z - mean)) / m
//! c = -scale * sum(dy) / m - b * mean
//! ```
//!
//! (with running statistics b = c = 0). So dz needs three numbers a channel and is never stored either: it is
//! computed where it is read, once for the weight's gradient and the input's together
//! ([`source::GradSource`]). The two sums come from the kernel that wrote dy. Behind a squeeze-excite gate
//! dy = (g * gate + pool) * act'(u), and the gate's gradient is not known until the whole image is done: the
//! kernel therefore takes five sums per image and channel, from which the gate's gradient and batch norm's two
//! sums follow without another pass.
//!
//! The gradient of a convolution's input goes to a [`sink::Sink`], which follows from how the input was read:
//! `Plain`, `Activated` or `Gated`, each with sums of its own.
//!
//! So a convolution with its norm, activation and gate costs one stored tensor. What is materialized is each
//! block's output (with its shortcut), which is the next block's input.

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

/// Kernels for the CPU, in memory of its workspace.
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
