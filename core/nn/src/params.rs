//! A network's numbers, in the memory of its backend.

use crate::Result;
use crate::backend::{Backend, Host, OptimizerOps};
use crate::cpu::Cpu;
use crate::layout::{Layout, Role};

/// The numbers of one network.
#[derive(Debug)]
pub struct Params<B: Backend = Cpu> {
    /// Names and places.
    pub layout: Layout,
    /// Trainable numbers.
    pub values: B::Flat,
    /// Running statistics.
    pub buffers: B::Flat,
    /// Gradients that backward passes add to; empty for a network that is never trained.
    pub grads: B::Flat,
    backend: B,
}

impl<B: Backend> Params<B> {
    /// Zeros (running variances: ones), with room for gradients if `trained`.
    ///
    /// # Errors
    /// The backend's.
    pub fn zeros(layout: Layout, trained: bool, backend: B) -> Result<Params<B>> {
        let mut buffers = vec![0.0; layout.buffer_count()];
        for entry in layout.entries() {
            if entry.role == Role::RunningVar {
                buffers[entry.range.clone()].fill(1.0);
            }
        }
        let count = layout.parameter_count();
        Ok(Params {
            values: backend.flat(vec![0.0; count])?,
            buffers: backend.flat(buffers)?,
            grads: backend.flat(vec![0.0; if trained { count } else { 0 }])?,
            layout,
            backend,
        })
    }

    /// The backend in whose memory they lie.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Values and buffers on the host, borrowed where they lie there anyway: a copy of a network could be
    /// a run's peak of memory.
    ///
    /// # Errors
    /// The backend's.
    pub fn host(&self) -> Result<(Host<'_>, Host<'_>)> {
        Ok((
            self.backend.host(&self.values)?,
            self.backend.host(&self.buffers)?,
        ))
    }

    /// Changes values and buffers from the host.
    ///
    /// # Errors
    /// The backend's.
    pub fn edit(&mut self, change: impl FnOnce(&mut [f32], &mut [f32])) -> Result<()> {
        let Params {
            values,
            buffers,
            backend,
            ..
        } = self;
        let mut inner = Ok(());
        backend.edit(values, |values| {
            inner = backend.edit(buffers, |buffers| change(values, buffers));
        })?;
        inner
    }
}

impl<B: OptimizerOps> Params<B> {
    /// Copies another network's parameters and buffers (same layout).
    ///
    /// # Errors
    /// The backend's.
    pub fn copy_from(&mut self, other: &Params<B>) -> Result<()> {
        self.backend.copy(&mut self.values, &other.values)?;
        self.backend.copy(&mut self.buffers, &other.buffers)
    }

    /// Momentum update: self <- m * self + (1 - m) * other for the parameters from place `from` on (MoCo,
    /// equation 2); what lies below never changes in the other, and is left alone.
    ///
    /// # Errors
    /// The backend's.
    pub fn momentum_update(&mut self, other: &Params<B>, m: f32, from: usize) -> Result<()> {
        self.backend
            .momentum_update(&mut self.values, &other.values, m, from)
    }

    /// Clears the gradients.
    ///
    /// # Errors
    /// The backend's.
    pub fn zero_grads(&mut self) -> Result<()> {
        self.backend.clear(&mut self.grads)
    }
}
