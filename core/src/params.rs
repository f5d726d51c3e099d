//! A network's numbers, in the memory of its backend.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::Result;
use crate::layout::{Layout, Role};
use crate::nn::backend::Backend;
use crate::nn::cpu::Cpu;

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

    /// The gradients, for whoever adds to them or follows them.
    pub(crate) fn grads(&self) -> MutexGuard<'_, B::Flat> {
        self.grads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A read lock; a thread that panicked while it held one leaves plain numbers behind.
pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// A write lock, likewise.
pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
