//! What a backend must be able to do, in parts: [`Backend`] has memory, [`ForwardOps`] are what a forward
//! pass needs, [`BackwardOps`] what learning adds, [`OptimizerOps`] what follows a gradient, and
//! [`DeviceOps`] what there is to know of the device. Losses and views are the business of those who have
//! them.
//!
//! A network is shapes in an order, written once ([`crate::block`], [`crate::backbones`]); a backend is
//! kernels. Every operation makes its own output in the backend's memory, and nothing of a step comes back
//! to the host but the loss, a few figures, and the batch's embeddings for one of them.
//!
//! **Normalized when read** is part of the contract: [`FusedInput`] and [`FusedGrad`] say how a tensor is read, and
//! each backend fuses that into its loads in its own way.
//!
//! Operations fail where the backend's memory is at its end or the device is lost, and for no other reason.

mod backward;
mod device;
mod forward;
mod optimizer;

pub use backward::{BackwardOps, FusedGrad, InputGrad, Sink, WeightMut};
pub use device::{DeviceOps, LaunchStats};
pub use forward::{Conv, ForwardOps, FusedInput, Output, Param, Read, Rows, Statistics};
pub use optimizer::{AdamUpdate, OptimizerOps, Update};

use std::borrow::Cow;
use std::fmt::Debug;

use crate::Result;

/// Memory of a device, or of the host. Cloning shares it.
pub trait Backend: Clone + Debug + Send + Sync + 'static {
    /// Activations or gradients, rows of channels; also images, (n, height, width, 3).
    type Buf: Debug + Send + Sync + 'static;

    /// All parameters of a network, or all its gradients, or all its running statistics.
    type Flat: Debug + Send + Sync;

    /// `len` numbers that `fill` writes on the host.
    fn upload(&self, len: usize, fill: impl FnOnce(&mut [f32])) -> Result<Self::Buf>;

    /// The numbers of `buf` on the host.
    fn download(&self, buf: &Self::Buf) -> Result<Vec<f32>>;

    /// These numbers in the backend's memory.
    fn flat(&self, numbers: Vec<f32>) -> Result<Self::Flat>;

    /// Its numbers on the host, borrowed where they lie there anyway.
    fn host<'a>(&self, flat: &'a Self::Flat) -> Result<Host<'a>>;

    /// Changes its numbers from the host.
    fn edit(&self, flat: &mut Self::Flat, change: impl FnOnce(&mut [f32])) -> Result<()>;

    /// Gives memory that waits to be used again back to the system: before work of other shapes.
    fn release(&self);

    /// The same backend, which stores everything in f32.
    #[must_use]
    fn in_f32(&self) -> Self {
        self.clone()
    }
}

/// Numbers on the host.
pub type Host<'a> = Cow<'a, [f32]>;
