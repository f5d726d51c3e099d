//! Numbers on the GPU. What is dropped waits to be used again: a step takes what the step before gave
//! back, in the same order, so nothing is allocated after the first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cubecl::ir::{ElemType, FloatKind, StorageType};
use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::{Error, Result};

/// Bytes that every buffer is a multiple of.
const GRANULE: usize = 256;

/// Numbers that a tensor may have: places are 32 bits wide.
const MOST: usize = u32::MAX as usize;

/// Buffers in the GPU's memory.
#[derive(Debug)]
pub struct DeviceBuffer {
    handle: Option<Handle>,
    len: usize,
    dtype: FloatKind,
    /// Bytes behind the handle.
    room: usize,
    /// Whether they are used again.
    kept: bool,
    home: Arc<Mutex<Waiting>>,
}

/// Buffers that nobody uses, and how much there is of everything.
#[derive(Debug, Default)]
struct Waiting {
    free: Vec<(usize, Option<Handle>)>,
    lent: usize,
    most: usize,
}

/// Where numbers come from. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    waiting: Arc<Mutex<Waiting>>,
    /// Whether there is nothing behind it.
    counted: bool,
}

impl Memory {
    /// None: what is taken is counted.
    pub fn counted() -> Memory {
        Memory {
            counted: true,
            ..Memory::default()
        }
    }

    /// `len` numbers, whatever they were.
    ///
    /// # Errors
    /// More than the GPU takes in one piece.
    pub fn alloc<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        len: usize,
        dtype: FloatKind,
    ) -> Result<DeviceBuffer> {
        let room = (len.max(1) * bytes(dtype)).next_multiple_of(GRANULE);
        let fits = fits(client, len, room);
        match self.counted {
            // No amount of memory holds it: that is known by the count.
            true if fits.is_err() => lock(&self.waiting).most = usize::MAX,
            true => {}
            false => fits?,
        }
        let mut waiting = lock(&self.waiting);
        // The tightest that fits, unless half of it would lie idle.
        let tight = |(bytes, _): &(usize, Option<Handle>)| *bytes >= room && *bytes <= 2 * room;
        let found = waiting
            .free
            .iter()
            .enumerate()
            .filter(|(_, one)| tight(one));
        let best = found.min_by_key(|(_, (bytes, _))| *bytes).map(|(i, _)| i);
        let (room, handle) = match best {
            Some(i) => waiting.free.swap_remove(i),
            None if self.counted => (room, None),
            None => (room, Some(client.empty(room))),
        };
        waiting.lent += room;
        let held = waiting.lent + waiting.free.iter().map(|(bytes, _)| bytes).sum::<usize>();
        waiting.most = waiting.most.max(held);
        Ok(DeviceBuffer {
            handle,
            len,
            dtype,
            room,
            kept: true,
            home: self.waiting.clone(),
        })
    }

    /// `len` numbers of 4 bytes from the host, in memory that the runtime keeps for transfers.
    ///
    /// # Errors
    /// As [`Memory::alloc`].
    pub fn send<R: Runtime>(
        &self,
        client: &ComputeClient<R>,
        bytes: &[u8],
        len: usize,
    ) -> Result<DeviceBuffer> {
        if len == 0 {
            return self.alloc(client, 0, FloatKind::F32);
        }
        fits(client, len, bytes.len())?;
        let mut waiting = lock(&self.waiting);
        waiting.lent += bytes.len();
        Ok(DeviceBuffer {
            handle: (!self.counted).then(|| client.create_from_slice(bytes)),
            len,
            dtype: FloatKind::F32,
            room: bytes.len(),
            kept: false,
            home: self.waiting.clone(),
        })
    }

    /// Gives back what waits.
    pub fn release<R: Runtime>(&self, client: &ComputeClient<R>) {
        lock(&self.waiting).free.clear();
        client.memory_cleanup();
    }

    /// The most bytes there were at a time; all that can be, where a counted piece was too large.
    pub fn most_bytes(&self) -> usize {
        lock(&self.waiting).most
    }
}

impl DeviceBuffer {
    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their dtype; whole numbers pass for f32.
    pub fn dtype(&self) -> FloatKind {
        self.dtype
    }

    /// The same, as kernels are told.
    pub fn storage(&self) -> StorageType {
        StorageType::Scalar(ElemType::Float(self.dtype))
    }

    /// All of them for a kernel, however many it reads at a time.
    pub fn arg<R: Runtime>(&self) -> ArrayArg<R> {
        // SAFETY: the handle has room for at least `len` numbers.
        unsafe { ArrayArg::from_raw_parts(self.handle(), self.len.max(1)) }
    }

    /// What the GPU knows them by: exactly the numbers, without what lies behind them.
    pub fn handle(&self) -> Handle {
        let Some(handle) = &self.handle else {
            unreachable!("nothing is asked of a GPU with memory that is only counted");
        };
        // Bindings end at multiples of four bytes.
        let rest = self.room - (self.len.max(1) * bytes(self.dtype)).next_multiple_of(4);
        handle.clone().offset_end(rest as u64)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let mut waiting = lock(&self.home);
        waiting.lent -= self.room;
        if self.kept {
            waiting.free.push((self.room, self.handle.take()));
        }
    }
}

/// Whether the device takes `len` numbers of `room` bytes in one piece.
fn fits<R: Runtime>(client: &ComputeClient<R>, len: usize, room: usize) -> Result<()> {
    let limit = client.properties().memory.max_page_size as usize;
    let why = if len > MOST {
        format!(
            "a tensor of {len} numbers: kernels count to 2^32; smaller micro-batches (bn_group) or images would do"
        )
    } else if room > limit {
        format!(
            "a tensor of {} MB is more than this device takes in one piece ({} MB)",
            room >> 20,
            limit >> 20
        )
    } else {
        return Ok(());
    };
    Err(Error::Device(why))
}

/// Bytes of a number.
fn bytes(dtype: FloatKind) -> usize {
    match dtype {
        FloatKind::F16 | FloatKind::BF16 => 2,
        _ => 4,
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
