//! What there is to know of a device, and to ask of it besides operations.

use std::time::Duration;

use super::Backend;
use crate::{Error, Result};

/// Memory, precision, and how much is done at once.
pub trait DeviceOps: Backend {
    /// The same backend with memory that is only counted, where memory is shared out beforehand: work
    /// takes no time, every number is zero, and [`DeviceOps::most_bytes`] says what it would have taken.
    fn dry_run(&self) -> Option<Self> {
        None
    }

    /// The most bytes that work has taken at a time.
    fn most_bytes(&self) -> usize {
        0
    }

    /// Bytes that the backend has for itself, where it says.
    fn memory_bytes(&self) -> Option<usize> {
        None
    }

    /// Waits until all that was asked for is done.
    fn wait(&self) -> Result<()> {
        Ok(())
    }

    /// What the host has asked of a GPU so far; nothing where the host computes.
    fn launch_stats(&self) -> Option<LaunchStats> {
        None
    }

    /// The same backend, which takes `microbatches` at once ([`DeviceOps::microbatches_at_once`]) if it can.
    #[must_use]
    fn taking(&self, microbatches: usize) -> Self {
        let _ = microbatches;
        self.clone()
    }

    /// The same backend, which stores convolutions' outputs in half the bytes: what is called bf16,
    /// though it is f16 where the backend knows no bf16.
    fn halved(&self) -> Result<Self> {
        Err(Error::Config(
            "precision = bf16 is for GPUs (--device); the CPU computes in f32".into(),
        ))
    }

    /// The same backend, which multiplies f32 as TF32 (10 bits of mantissa, sums in f32).
    fn with_tf32(&self) -> Result<Self> {
        Err(Error::Config(
            "precision = tf32 is for GPUs (--device); the CPU computes in f32".into(),
        ))
    }

    /// How many micro-batches of photos, each with statistics of its own, go through a network at once at
    /// most. Each takes memory of its own.
    fn microbatches_at_once(&self) -> usize {
        1
    }
}

/// What a host has asked of a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaunchStats {
    /// Kernels that were launched.
    pub launches: u64,
    /// How often the host did nothing but wait for numbers, and how long.
    pub waits: u64,
    pub waited: Duration,
}
