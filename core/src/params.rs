//! Parameters and buffers of a network: two flat arrays and the names of their parts.
//!
//! Flat, so that momentum SGD, the key encoder's moving average and a checkpoint are each one
//! loop. Every tensor keeps PyTorch's name, shape and layout; the operations transpose the few
//! small ones they need otherwise.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rayon::prelude::*;

/// Numbers one thread takes at a time in a pass over the flat arrays: large enough to hide the
/// hand-over, small enough that a few arrays' worth stays in its cache.
pub(crate) const CHUNK: usize = 1 << 15;

/// What a tensor is to the network; decides initialisation, weight decay and where it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Convolution kernel (out, in / groups, k, k).
    ConvWeight,
    /// Fully connected weight (out, in).
    LinearWeight,
    /// Bias of a convolution or a linear layer.
    Bias,
    /// Batch norm's scale.
    NormWeight,
    /// Batch norm's shift.
    NormBias,
    /// Batch norm's running mean: a buffer, not trained.
    RunningMean,
    /// Batch norm's running variance: a buffer, not trained.
    RunningVar,
}

impl Role {
    /// Buffers are updated by forward passes, never by gradients.
    pub fn is_buffer(self) -> bool {
        matches!(self, Role::RunningMean | Role::RunningVar)
    }
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name in weight files (`features.0.0.weight`).
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub role: Role,
    /// Where it lies in the flat values (or, for buffers, in the flat buffers).
    pub range: Range<usize>,
}

/// The named tensors of a network, in the order of its definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    entries: Vec<Entry>,
    values: usize,
    buffers: usize,
}

impl Layout {
    /// Appends a tensor and says where it lies.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], role: Role) -> Range<usize> {
        let len = shape.iter().product::<usize>();
        let end = if role.is_buffer() {
            &mut self.buffers
        } else {
            &mut self.values
        };
        let range = *end..*end + len;
        *end += len;
        self.entries.push(Entry {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            range: range.clone(),
        });
        range
    }

    /// All tensors, parameters and buffers, in definition order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Numbers in all trainable tensors together.
    pub fn parameter_count(&self) -> usize {
        self.values
    }

    /// Numbers in all buffers together.
    pub fn buffer_count(&self) -> usize {
        self.buffers
    }
}

/// The numbers of one network. Locks are there because an operation holds its network across
/// candle's forward and backward; nothing contends for them.
#[derive(Debug)]
pub struct Params {
    /// Names and places.
    pub layout: Arc<Layout>,
    /// Trainable numbers.
    pub values: RwLock<Vec<f32>>,
    /// Running statistics.
    pub buffers: RwLock<Vec<f32>>,
    /// Gradients that backward passes add to; empty for a network that is never trained.
    pub grads: Mutex<Vec<f32>>,
}

impl Params {
    /// Zeros (running variances: ones), with room for gradients if `trained`.
    pub fn zeros(layout: Arc<Layout>, trained: bool) -> Params {
        let mut buffers = vec![0.0; layout.buffer_count()];
        for entry in layout.entries() {
            if entry.role == Role::RunningVar {
                buffers[entry.range.clone()].fill(1.0);
            }
        }
        Params {
            values: RwLock::new(vec![0.0; layout.parameter_count()]),
            buffers: RwLock::new(buffers),
            grads: Mutex::new(vec![
                0.0;
                if trained { layout.parameter_count() } else { 0 }
            ]),
            layout,
        }
    }
}

impl Params {
    /// Copies another network's parameters and buffers (same layout).
    pub fn copy_from(&self, other: &Params) {
        write(&self.values).copy_from_slice(&read(&other.values));
        write(&self.buffers).copy_from_slice(&read(&other.buffers));
    }

    /// self <- momentum * self + (1 - momentum) * other for the parameters from place `from` on
    /// (MoCo, equation 2); what lies below never changes in the other, and is left alone.
    pub fn follow(&self, other: &Params, momentum: f32, from: usize) {
        let (mut own, other) = (write(&self.values), read(&other.values));
        let (Some(own), Some(other)) = (own.get_mut(from..), other.get(from..)) else {
            return;
        };
        own.par_chunks_mut(CHUNK)
            .zip(other.par_chunks(CHUNK))
            .for_each(|(own, other)| {
                for (key, query) in own.iter_mut().zip(other) {
                    *key = momentum * *key + (1.0 - momentum) * query;
                }
            });
    }

    /// Clears the gradients.
    pub fn zero_grads(&self) {
        self.grads()
            .par_chunks_mut(CHUNK)
            .for_each(|chunk| chunk.fill(0.0));
    }

    /// Whether every gradient is a finite number.
    pub fn grads_are_finite(&self) -> bool {
        self.grads().par_chunks(CHUNK).all(all_finite)
    }

    fn grads(&self) -> std::sync::MutexGuard<'_, Vec<f32>> {
        self.grads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without stopping at the first that is not: so the loop vectorises.
fn all_finite(numbers: &[f32]) -> bool {
    numbers.iter().fold(true, |all, x| all & x.is_finite())
}

/// A read lock; a thread that panicked while it held one leaves plain numbers behind.
pub(crate) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// A write lock, likewise.
pub(crate) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
