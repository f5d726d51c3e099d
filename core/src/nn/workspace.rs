//! Reused buffers: after the first step of a shape nothing large is allocated again.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// A pool of float buffers. Cloning shares the pool.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    free: Arc<Mutex<Vec<Vec<f32>>>>,
}

/// A buffer on loan; it returns to its pool when dropped. Its first content is arbitrary.
#[derive(Debug)]
pub struct Buffer {
    values: Vec<f32>,
    home: Workspace,
}

impl Workspace {
    /// A buffer of `len` floats: the best fitting free one, or a new one where the best would
    /// waste more than it holds (a small tensor must not pin a large block).
    pub fn take(&self, len: usize) -> Buffer {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, v)| v.capacity() >= len && v.capacity() <= 2 * len + 4096)
            .min_by_key(|(_, v)| v.capacity())
            .map(|(i, _)| i);
        let mut values = best.map_or_else(Vec::new, |i| free.swap_remove(i));
        drop(free);
        if values.capacity() < len {
            values = Vec::with_capacity(len);
        }
        values.resize(len, 0.0);
        Buffer {
            values,
            home: self.clone(),
        }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// Gives all free buffers back to the system.
    pub fn release(&self) {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        if let Ok(mut free) = self.home.free.lock() {
            free.push(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_small_ones_do_not_pin_large_ones() {
        let pool = Workspace::default();
        let address = pool.take(100_000).as_ptr();
        assert_eq!(pool.take(90_000).as_ptr(), address);
        assert_ne!(pool.take(10).as_ptr(), address);
        assert!(pool.zeros(100_000).iter().all(|&x| x == 0.0));
    }
}
