//! GPUs as a backend: one set of kernels for Vulkan, Metal and CUDA, written in Rust and compiled for
//! the device at hand when first used (cubecl).
//!
//! The same idea as on the CPU: normalization and activation are never stored, see `view`. A
//! kernel gets one stream's order for free; nothing waits for the GPU but what the host wants to know.
//!
//! `device` says what GPUs there are, `kernel_cache` where compiled kernels are kept, `memory` reuses buffers,
//! `forward`, `backward` and `optimizer` turn an operation into launches, and `launch` those into kernels. Kernels:
//! `view` how tensors are loaded, `activation`, `product` (1x1 and dense convolutions, linear layers) and
//! `tensor_product` (the same on tensor cores), `depthwise`, `sums` (two phases), `norm`, `elementwise`, `max_pool`,
//! `rows` (norms of rows), `attention`, `contrast` (the losses), `optim`, and `render` (views, with its host's side
//! in `views`).

mod activation;
mod attention;
mod backward;
mod contrast;
mod depthwise;
pub mod device;
mod elementwise;
mod forward;
#[cfg(any(feature = "cuda", test))]
mod kernel_cache;
mod launch;
mod max_pool;
mod memory;
mod norm;
mod optim;
mod optimizer;
mod product;
mod render;
mod rows;
mod sums;
mod tensor_product;
mod view;
mod views;

use std::fmt;
use std::sync::Arc;

use cubecl::bytes::Bytes;
use cubecl::future::block_on;
use cubecl::ir::{ElemType, FloatKind, StorageType};
use cubecl::prelude::*;
use cubecl::reader::read_sync;
use cubecl::stream_id::StreamId;

use self::device::DeviceStatus;
pub use self::launch::Logits;
use self::launch::Pieces;
pub use self::memory::DeviceBuffer;
use self::memory::Memory;
pub use cubecl::prelude::Runtime;
pub use seedling_base::{Error, Result};
use seedling_nn::activation::Act;
use seedling_nn::backend::{Backend, DeviceOps, Host, LaunchStats};

/// What gradients are multiplied by where they are kept in f16: numbers of five exponent bits would lose
/// the small ones (Micikevicius et al. 2018).
const LOSS_SCALE: f32 = 1024.0;

/// Kernels for a GPU, and its memory. Clones share it.
#[derive(Clone)]
pub struct Gpu<R: Runtime> {
    client: ComputeClient<R>,
    memory: Memory,
    /// What convolutions' outputs are stored in; all else is f32.
    dtype: FloatKind,
    /// Whether products of f32 may be taken of TF32, where a device has it.
    tf32: bool,
    /// What gradients are multiplied by on their way through activations ([`LOSS_SCALE`]).
    loss_scale: f32,
    /// Micro-batches that go through a network at once.
    at_once: usize,
    /// What the device is known to have, and to have complained of.
    status: DeviceStatus,
    /// Whether nothing is asked of the GPU: see [`DeviceOps::dry_run`].
    dry_run: bool,
}

impl<R: Runtime> fmt::Debug for Gpu<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", R::name(&self.client))
    }
}

/// A GPU by Vulkan or Metal.
pub type GpuDevice = Gpu<cubecl::wgpu::WgpuRuntime>;

/// A GPU by CUDA.
#[cfg(feature = "cuda")]
pub type CudaDevice = Gpu<cubecl::cuda::CudaRuntime>;

/// A batch norm of one forward.
#[derive(Debug)]
pub struct Norm {
    /// (micro-batches, 4, channels).
    numbers: DeviceBuffer,
    microbatches: usize,
    /// Rows of a micro-batch; 0 for running statistics.
    rows: usize,
}

/// Moments of a convolution's output.
pub struct Moments {
    /// (micro-batches, pieces, 3, channels): mean, squared deviations from it, rows.
    parts: DeviceBuffer,
    pieces: usize,
    /// Rows of a micro-batch.
    rows: usize,
}

/// Sums of a gradient.
pub struct GradSums {
    /// (micro-batches, pieces, 2, channels).
    parts: DeviceBuffer,
    pieces: usize,
}

/// A batch norm's backward.
pub struct NormGrad {
    /// (micro-batches, 3, channels).
    numbers: DeviceBuffer,
    microbatches: usize,
    rows: usize,
}

/// A number for each image and channel.
#[derive(Debug)]
pub struct PerImage {
    numbers: Arc<DeviceBuffer>,
    image_rows: usize,
}

/// What squeeze-excite's forward leaves.
#[derive(Debug)]
pub struct Squeezed {
    pooled: DeviceBuffer,
    inner: DeviceBuffer,
    /// What [`PerImage`] reads, too.
    gate: Arc<DeviceBuffer>,
    /// Micro-batches of the norm before.
    microbatches: usize,
}

impl<R: Runtime> Gpu<R> {
    /// On a device that is there.
    pub fn new(client: ComputeClient<R>) -> Gpu<R> {
        Gpu::from_client(client, DeviceStatus::default())
    }

    fn from_client(mut client: ComputeClient<R>, status: DeviceStatus) -> Gpu<R> {
        // Memory is used again in the order of the work: all threads must share a stream.
        // SAFETY: a stream may be used from any thread.
        unsafe { client.set_stream(StreamId::current()) };
        Gpu {
            client,
            memory: Memory::default(),
            dtype: FloatKind::F32,
            tf32: false,
            loss_scale: 1.0,
            at_once: 1,
            status,
            dry_run: false,
        }
    }

    /// The same GPU, whose gradients are `scale` times as large on their way through activations.
    #[must_use]
    pub fn with_loss_scale(&self, scale: f32) -> Gpu<R> {
        Gpu {
            loss_scale: scale,
            ..self.clone()
        }
    }

    /// The same GPU, which stores convolutions' outputs in 16 bits of this dtype, if it knows it.
    #[must_use]
    pub fn storing(&self, dtype: FloatKind) -> Option<Gpu<R>> {
        let storage = StorageType::Scalar(ElemType::Float(dtype));
        let known = self.client.properties().supports_type(storage);
        known.then(|| Gpu {
            dtype,
            tf32: true,
            loss_scale: match dtype {
                FloatKind::F16 => LOSS_SCALE,
                _ => 1.0,
            },
            ..self.clone()
        })
    }

    /// Whether products of f32 may be taken of TF32.
    pub fn tf32(&self) -> bool {
        self.tf32
    }

    /// What convolutions' outputs are stored in.
    pub fn dtype(&self) -> FloatKind {
        self.dtype
    }

    /// What gradients are multiplied by on their way through activations.
    pub fn loss_scale(&self) -> f32 {
        self.loss_scale
    }

    /// The same GPU with memory of its own.
    pub fn apart(&self) -> Gpu<R> {
        Gpu {
            memory: Memory::default(),
            ..self.clone()
        }
    }

    /// Bytes that the runtime holds on the GPU: these and its own.
    ///
    /// # Errors
    /// The device is lost.
    pub fn reserved_bytes(&self) -> Result<usize> {
        let usage = self.client.memory_usage();
        let usage = usage.map_err(|error| self.lost(&error.to_string()))?;
        Ok(usage.bytes_reserved as usize)
    }

    /// Memory for `len` numbers.
    ///
    /// # Errors
    /// There is none.
    pub fn alloc(&self, len: usize) -> Result<DeviceBuffer> {
        self.alloc_as(len, FloatKind::F32)
    }

    fn alloc_as(&self, len: usize, dtype: FloatKind) -> Result<DeviceBuffer> {
        self.complaint()?;
        self.memory.alloc(&self.client, len, dtype)
    }

    /// The bytes of what is on the GPU, which is waited for once. Whoever waits hears of what went wrong before.
    fn read(&self, buffers: &[&DeviceBuffer]) -> Result<Vec<Bytes>> {
        let handles = buffers.iter().map(|buffer| buffer.handle()).collect();
        let read = || {
            let bytes = read_sync(self.client.read_async(handles));
            bytes.map_err(|error| error.to_string())
        };
        let bytes = self.status.waiting(read);
        let bytes = bytes.map_err(|error| self.lost(&error))?;
        self.complaint().map(|()| bytes)
    }

    /// What the device has complained of, if it has.
    fn complaint(&self) -> Result<()> {
        match self.status.complaint() {
            None => Ok(()),
            Some(complaint) => Err(refused(&complaint, self.memory.most_bytes())),
        }
    }

    fn lost(&self, error: &str) -> Error {
        let first = self.status.complaint();
        let complaint = first.unwrap_or_else(|| error.to_string());
        refused(&complaint, self.memory.most_bytes())
    }

    /// `x` as convolutions' outputs are stored.
    ///
    /// # Errors
    /// The GPU's memory is at its end.
    pub fn stored(&self, x: DeviceBuffer) -> Result<DeviceBuffer> {
        if x.dtype() == self.dtype {
            return Ok(x);
        }
        let out = self.alloc_as(x.len(), self.dtype)?;
        self.read_into(&launch::activated(&x, Act::Identity, 1), &out);
        Ok(out)
    }

    fn zeros(&self, len: usize) -> Result<DeviceBuffer> {
        let out = self.alloc(len)?;
        self.fill(&out, 0.0);
        Ok(out)
    }

    /// Numbers from the host.
    ///
    /// # Errors
    /// The device's.
    pub fn send(&self, numbers: &[f32]) -> Result<DeviceBuffer> {
        self.memory
            .send(&self.client, f32::as_bytes(numbers), numbers.len())
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<DeviceBuffer> {
        self.memory.send(&self.client, bytes, bytes.len() / 4)
    }

    /// Whole numbers from the host.
    ///
    /// # Errors
    /// The device's.
    pub fn send_whole(&self, numbers: &[u32]) -> Result<DeviceBuffer> {
        self.memory
            .send(&self.client, u32::as_bytes(numbers), numbers.len())
    }

    /// Numbers to the host, which waits for them.
    ///
    /// # Errors
    /// The device's.
    pub fn receive(&self, numbers: &DeviceBuffer) -> Result<Vec<f32>> {
        if numbers.is_empty() || self.dry_run {
            return Ok(vec![0.0; numbers.len()]);
        }
        self.complaint()?;
        if numbers.dtype() != FloatKind::F32 {
            let wide = self.alloc(numbers.len())?;
            self.read_into(&launch::activated(numbers, Act::Identity, 1), &wide);
            return self.receive(&wide);
        }
        let read = self.receive_all(&[numbers])?;
        Ok(read.into_iter().next().unwrap_or_default())
    }

    /// All of these, each of f32, to the host, which waits once.
    ///
    /// # Errors
    /// The device's.
    pub fn receive_all(&self, buffers: &[&DeviceBuffer]) -> Result<Vec<Vec<f32>>> {
        if self.dry_run {
            return Ok(buffers.iter().map(|one| vec![0.0; one.len()]).collect());
        }
        let read = self.read(buffers)?;
        Ok(read
            .iter()
            .map(|one| f32::from_bytes(one).to_vec())
            .collect())
    }

    /// The sums of each image put together: (images, sums, channels).
    fn whole(&self, parts: DeviceBuffer, pieces: &Pieces, len: usize) -> Result<DeviceBuffer> {
        if pieces.count == 1 {
            return Ok(parts);
        }
        let out = self.alloc(parts.len() / pieces.count)?;
        self.add_pieces(&parts, &out, len, pieces.count, 1.0);
        Ok(out)
    }
}

impl<R: Runtime> Backend for Gpu<R> {
    type Buf = DeviceBuffer;
    type Flat = DeviceBuffer;

    fn upload(&self, len: usize, fill: impl FnOnce(&mut [f32])) -> Result<DeviceBuffer> {
        let mut numbers = vec![0.0; len];
        // Nobody looks at the numbers of a dry run, which are never even written.
        if !self.dry_run {
            fill(&mut numbers);
        }
        self.send(&numbers)
    }

    fn download(&self, buf: &DeviceBuffer) -> Result<Vec<f32>> {
        self.receive(buf)
    }

    fn flat(&self, numbers: Vec<f32>) -> Result<DeviceBuffer> {
        self.send(&numbers)
    }

    fn host<'a>(&self, flat: &'a DeviceBuffer) -> Result<Host<'a>> {
        Ok(Host::Owned(self.receive(flat)?))
    }

    fn edit(&self, flat: &mut DeviceBuffer, change: impl FnOnce(&mut [f32])) -> Result<()> {
        let mut numbers = self.receive(flat)?;
        change(&mut numbers);
        *flat = self.send(&numbers)?;
        Ok(())
    }

    fn release(&self) {
        self.memory.release(&self.client);
    }

    fn in_f32(&self) -> Self {
        Gpu {
            dtype: FloatKind::F32,
            loss_scale: 1.0,
            ..self.clone()
        }
    }
}

impl<R: Runtime> DeviceOps for Gpu<R> {
    fn dry_run(&self) -> Option<Self> {
        Some(Gpu {
            memory: Memory::counted(),
            dry_run: true,
            ..self.clone()
        })
    }

    fn most_bytes(&self) -> usize {
        self.memory.most_bytes()
    }

    fn memory_bytes(&self) -> Option<usize> {
        self.status.bytes
    }

    fn wait(&self) -> Result<()> {
        let sync = || block_on(self.client.sync()).map_err(|error| error.to_string());
        let done = self.status.waiting(sync);
        done.map_err(|error| self.lost(&error))?;
        self.complaint()
    }

    fn launch_stats(&self) -> Option<LaunchStats> {
        Some(self.status.launch_stats())
    }

    fn taking(&self, microbatches: usize) -> Self {
        Gpu {
            at_once: microbatches.max(1),
            ..self.clone()
        }
    }

    fn halved(&self) -> Result<Self> {
        let mut known = [FloatKind::BF16, FloatKind::F16].into_iter();
        known.find_map(|dtype| self.storing(dtype)).ok_or_else(|| {
            Error::Device("precision = bf16: this device has neither bf16 nor f16".into())
        })
    }

    fn with_tf32(&self) -> Result<Self> {
        if !self.multiplies(FloatKind::TF32) {
            return Err(Error::Device(
                "precision = tf32: this device has no tensor cores for TF32 (CUDA since Ampere has)".into(),
            ));
        }
        Ok(Gpu {
            tf32: true,
            ..self.clone()
        })
    }

    fn microbatches_at_once(&self) -> usize {
        self.at_once
    }
}

/// How drivers and the runtime say that memory is at its end.
const AT_ITS_END: [&str; 5] = [
    "out of memory",
    "out_of_memory",
    "out-of-memory",
    "can't allocate",
    "buffertoobig",
];

/// What the device says of itself where it can't continue: memory at its end, with `held` bytes taken, or
/// worse.
fn refused(complaint: &str, held: usize) -> Error {
    let lower = complaint.to_lowercase();
    if AT_ITS_END.iter().any(|words| lower.contains(words)) {
        return Error::DeviceMemory { held };
    }
    let mut lines = complaint.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty());
    Error::Device(format!(
        "the device is lost: {}",
        line.unwrap_or("it says no more")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_at_its_end_is_told_from_a_lost_device() {
        for complaint in [
            "Out of Memory",
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "An out-of-memory error happened during launch\nCaused by:\n  page",
            "can't allocate buffer of size: 8000000",
            "called `Result::unwrap()` on an `Err` value: BufferTooBig { size: 8, backtrace: }",
        ] {
            let held = match refused(complaint, 7) {
                Error::DeviceMemory { held } => held,
                other => panic!("{other}"),
            };
            assert_eq!(held, 7);
        }
        let lost = refused("\n  Parent device is lost\nBacktrace:\n  0: main", 7);
        assert_eq!(
            lost.to_string(),
            "the device is lost: Parent device is lost"
        );
    }
}
