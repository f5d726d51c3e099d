//! Reused buffers: after the first step of a shape little is allocated again, and never more is held
//! than some moment of the work has needed.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memmap2::MmapMut;

/// Floats from which a buffer is pages of its own: those go back to the system the moment they are
/// given up, and leave no holes in the heap.
const OWN_PAGES: usize = 1 << 14;

/// A pool of float buffers. Cloning shares the pool.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    pool: Arc<Mutex<Pool>>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Buffers that wait, those that came back first in front.
    free: Vec<Block>,
    /// Floats in them.
    waiting: usize,
    /// Floats on loan.
    lent: usize,
    /// The most that were on loan at a time.
    most: usize,
}

/// A buffer on loan; it returns to its pool when dropped. Its first content is arbitrary.
#[derive(Debug)]
pub struct Buffer {
    block: Block,
    len: usize,
    home: Workspace,
}

/// Memory for floats.
enum Block {
    Heap(Vec<f32>),
    Pages(MmapMut),
}

impl Workspace {
    /// A buffer of `len` floats: the best fitting free one, or a new one where the best would
    /// waste more than it holds (a small tensor must not pin a large block).
    pub fn take(&self, len: usize) -> Buffer {
        Buffer {
            block: self.pool().lend(len),
            len,
            home: self.clone(),
        }
    }

    /// A buffer of `len` zeros.
    pub fn zeros(&self, len: usize) -> Buffer {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// The most bytes that were on loan at a time: what it holds at most.
    pub fn most_bytes(&self) -> usize {
        self.pool().most * size_of::<f32>()
    }

    /// Gives all free buffers back to the system: before work of other shapes begins.
    pub fn release(&self) {
        let mut pool = self.pool();
        pool.free = Vec::new();
        pool.waiting = 0;
        pool.most = pool.lent;
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// A free buffer that fits, or a new one: then those that have waited longest are given up,
    /// until all together are no more than ever were on loan.
    fn lend(&mut self, len: usize) -> Block {
        let best = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, v)| v.capacity() >= len && v.capacity() <= len + len / 4 + 4096)
            .min_by_key(|(_, v)| v.capacity())
            .map(|(i, _)| i);
        if let Some(best) = best {
            let block = self.free.remove(best);
            self.waiting -= block.capacity();
            self.lent += block.capacity();
            self.most = self.most.max(self.lent);
            return block;
        }
        self.most = self.most.max(self.lent + len);
        while self.lent + len + self.waiting > self.most {
            // A pass comes back to what it has given back first: the last one is missed latest.
            let Some(block) = self.free.pop() else { break };
            self.waiting -= block.capacity();
        }
        let block = Block::new(len);
        self.lent += block.capacity();
        block
    }

    fn take_back(&mut self, block: Block) {
        self.lent -= block.capacity();
        self.waiting += block.capacity();
        self.free.push(block);
    }
}

impl Block {
    /// Zeros.
    fn new(len: usize) -> Block {
        let pages = (len >= OWN_PAGES).then(|| MmapMut::map_anon(len * size_of::<f32>()));
        match pages {
            Some(Ok(pages)) => Block::Pages(pages),
            // Where the system grants no pages, the heap may still have some, or ends the process as
            // it does for everybody.
            _ => Block::Heap(vec![0.0; len]),
        }
    }

    fn capacity(&self) -> usize {
        self.floats().len()
    }

    fn floats(&self) -> &[f32] {
        match self {
            Block::Heap(values) => values,
            Block::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        match self {
            Block::Heap(values) => values,
            Block::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} floats", self.capacity())
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.block.floats()[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.block.floats_mut()[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let block = std::mem::replace(&mut self.block, Block::Heap(Vec::new()));
        self.home.pool().take_back(block);
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

    #[test]
    fn what_waits_makes_room_for_what_is_needed() {
        let workspace = Workspace::default();
        let held = |workspace: &Workspace| {
            let pool = workspace.pool();
            assert_eq!(
                pool.waiting,
                pool.free.iter().map(Block::capacity).sum::<usize>()
            );
            pool.lent + pool.waiting
        };
        drop([workspace.take(100_000), workspace.take(100_000)]);
        assert_eq!(held(&workspace), 200_000);
        // Half as much again fits none of them.
        let large = workspace.take(150_000);
        assert_eq!(held(&workspace), 150_000);
        drop(large);
        let small = workspace.take(10_000);
        assert_eq!(held(&workspace), 160_000);
        workspace.release();
        assert_eq!(held(&workspace), 10_000);
        drop(small);
    }
}
