//! Reused buffers: after the first step of a shape no page of memory is asked for again, and hardly more
//! is held than some moment of the work has needed.

mod arena;

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arena::{Arena, Range};

/// Floats from which a buffer is a range of the arena. Smaller ones are the allocator's, which is made
/// for them.
const SMALL: usize = 1 << 14;

/// A pool of float buffers. Cloning shares the pool.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    arena: Arc<Mutex<Arena>>,
}

/// A buffer on loan; it returns to its pool when dropped. Its first content is arbitrary.
#[derive(Debug)]
pub struct Buffer {
    memory: Memory,
    home: Workspace,
}

/// Memory for floats.
#[derive(Debug)]
enum Memory {
    Heap(Vec<f32>),
    Arena(Range),
}

impl Workspace {
    /// A buffer of `len` floats.
    pub fn alloc(&self, len: usize) -> Buffer {
        let range = match len < SMALL {
            true => None,
            false => self.arena().lend(len),
        };
        let memory = match range {
            Some(range) => Memory::Arena(range),
            // Where the system grants no addresses, the heap may still have some, or ends the process
            // as it does for everybody.
            None => {
                self.arena().heap_grows(len);
                Memory::Heap(vec![0.0; len])
            }
        };
        Buffer {
            memory,
            home: self.clone(),
        }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.alloc(len);
        buffer.fill(0.0);
        buffer
    }

    /// The most bytes that were on loan at a time. It holds a thirtieth more at most.
    pub fn most_bytes(&self) -> usize {
        self.arena().most_bytes()
    }

    /// Gives all that is not on loan back to the system: before work of other shapes begins.
    pub fn release(&self) {
        self.arena().release();
    }

    fn arena(&self) -> MutexGuard<'_, Arena> {
        self.arena.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &self.memory {
            Memory::Heap(values) => values,
            Memory::Arena(range) => range.floats(),
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.memory {
            Memory::Heap(values) => values,
            Memory::Arena(range) => range.floats_mut(),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.memory, Memory::Heap(Vec::new())) {
            Memory::Heap(values) => self.home.arena().heap_shrinks(values.len()),
            Memory::Arena(range) => self.home.arena().take_back(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_whole_or_in_parts() {
        let pool = Workspace::default();
        let address = pool.alloc(100_000).as_ptr();
        assert_eq!(pool.alloc(90_000).as_ptr(), address);
        let parts = [pool.alloc(50_000), pool.alloc(40_000)];
        assert_eq!(parts[0].as_ptr(), address);
        assert!(parts[1].as_ptr() < address.wrapping_add(100_000));
        drop(parts);
        assert!(pool.zeros(100_000).iter().all(|&x| x == 0.0));
        assert_eq!((pool.alloc(0).len(), pool.alloc(3).len()), (0, 3));
    }

    #[test]
    fn buffers_do_not_meet() {
        let pool = Workspace::default();
        let lens = [20_000, 3, 70_001, 16_384, 33_000, 20_000];
        let mut held: Vec<(usize, Buffer)> = Vec::new();
        for n in 0..200 {
            let mut buffer = pool.alloc(lens[n % lens.len()]);
            buffer.fill(n as f32);
            held.push((n, buffer));
            if held.len() > 7 {
                held.swap_remove((n * 5) % 7);
            }
            for (n, buffer) in &held {
                assert_eq!(buffer.len(), lens[n % lens.len()]);
                assert!(buffer.iter().all(|&x| x == *n as f32));
            }
        }
    }

    #[test]
    fn threads_share_it() {
        let pool = Workspace::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for n in 0..50 {
                        let mut mine = pool.alloc(16_000 + 7_000 * ((n + thread) % 5));
                        mine.fill(thread as f32);
                        std::thread::yield_now();
                        assert!(mine.iter().all(|&x| x == thread as f32));
                    }
                });
            }
        });
        assert!(pool.most_bytes() <= 4 * 4 * 48_000);
    }
}
