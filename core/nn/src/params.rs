//! A network's numbers, in the memory of its backend.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::Result;
use crate::backend::{Backend, Host, OptimizerOps};
use crate::cpu::Cpu;
use crate::layout::{Layout, Role};

/// The numbers of one network. Locks are there because clones of an encoder share them; nothing
/// contends for them.
#[derive(Debug)]
pub struct Params<B: Backend = Cpu> {
    /// Names and places.
    pub layout: Arc<Layout>,
    /// Trainable numbers.
    pub values: RwLock<B::Flat>,
    /// Running statistics.
    pub buffers: RwLock<B::Flat>,
    /// Gradients that backward passes add to; empty for a network that is never trained.
    pub grads: Mutex<B::Flat>,
    backend: B,
}

impl<B: Backend> Params<B> {
    /// Zeros (running variances: ones), with room for gradients if `trained`.
    ///
    /// # Errors
    /// The backend's.
    pub fn zeros(layout: Arc<Layout>, trained: bool, backend: B) -> Result<Params<B>> {
        let mut buffers = vec![0.0; layout.buffer_count()];
        for entry in layout.entries() {
            if entry.role == Role::RunningVar {
                buffers[entry.range.clone()].fill(1.0);
            }
        }
        let count = layout.parameter_count();
        Ok(Params {
            values: RwLock::new(backend.flat(vec![0.0; count])?),
            buffers: RwLock::new(backend.flat(buffers)?),
            grads: Mutex::new(backend.flat(vec![0.0; if trained { count } else { 0 }])?),
            layout,
            backend,
        })
    }

    /// The engine in whose memory they lie.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// All of it, locked for reading.
    pub fn lock(&self) -> Locked<'_, B> {
        Locked {
            values: read(&self.values),
            buffers: read(&self.buffers),
            backend: &self.backend,
        }
    }

    /// Changes values and buffers from the host.
    ///
    /// # Errors
    /// The backend's.
    pub fn edit(&self, change: impl FnOnce(&mut [f32], &mut [f32])) -> Result<()> {
        let (mut values, mut buffers) = (write(&self.values), write(&self.buffers));
        let mut inner = Ok(());
        self.backend.edit(&mut values, |values| {
            inner = self
                .backend
                .edit(&mut buffers, |buffers| change(values, buffers));
        })?;
        inner
    }

    /// The gradients, for whoever adds to them or follows them.
    pub fn grads(&self) -> MutexGuard<'_, B::Flat> {
        self.grads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: OptimizerOps> Params<B> {
    /// Copies another network's parameters and buffers (same layout).
    ///
    /// # Errors
    /// The backend's.
    pub fn copy_from(&self, other: &Params<B>) -> Result<()> {
        let copy = |to: &RwLock<B::Flat>, from: &RwLock<B::Flat>| {
            self.backend.copy(&mut write(to), &read(from))
        };
        copy(&self.values, &other.values)?;
        copy(&self.buffers, &other.buffers)
    }

    /// self <- momentum * self + (1 - momentum) * other for the parameters from place `from` on
    /// (MoCo, equation 2); what lies below never changes in the other, and is left alone.
    ///
    /// # Errors
    /// The backend's.
    pub fn follow(&self, other: &Params<B>, momentum: f32, from: usize) -> Result<()> {
        let (mut own, other) = (write(&self.values), read(&other.values));
        self.backend.follow(&mut own, &other, momentum, from)
    }

    /// Clears the gradients.
    ///
    /// # Errors
    /// The backend's.
    pub fn zero_grads(&self) -> Result<()> {
        self.backend.clear(&mut self.grads())
    }

    /// Whether every gradient is a finite number.
    ///
    /// # Errors
    /// The backend's.
    pub fn grads_are_finite(&self) -> Result<bool> {
        self.backend.all_finite(&self.grads())
    }
}

/// A network's numbers, locked for reading.
pub struct Locked<'a, B: Backend> {
    values: RwLockReadGuard<'a, B::Flat>,
    buffers: RwLockReadGuard<'a, B::Flat>,
    backend: &'a B,
}

impl<B: Backend> Locked<'_, B> {
    /// Values and buffers on the host, borrowed where they lie there anyway: a copy of a network
    /// could be a run's peak of memory.
    ///
    /// # Errors
    /// The backend's.
    pub fn host(&self) -> Result<(Host<'_>, Host<'_>)> {
        Ok((
            self.backend.host(&self.values)?,
            self.backend.host(&self.buffers)?,
        ))
    }
}

/// A read lock; a thread that panicked while it held one leaves plain numbers behind.
pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// A write lock, likewise.
pub fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
