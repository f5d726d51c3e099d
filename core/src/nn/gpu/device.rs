//! Which cards are there, and opening one. Nothing here needs a driver to be installed: what is missing
//! is said.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::wgpu::{AutoGraphicsApi, GraphicsApi, WgpuDevice, WgpuRuntime};
use wgpu::{Adapter, DeviceType, Instance, InstanceDescriptor};

use super::Gpu;
use crate::{Error, Result};

/// A card that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What its maker calls it.
    pub card: String,
    /// By which driver it is reached.
    pub driver: String,
}

/// Cards by Vulkan or Metal, the likely fastest first.
pub fn gpus() -> Vec<Found> {
    let adapters = adapters();
    let found = adapters.iter().map(|(adapter, _)| {
        let info = adapter.get_info();
        let driver = [info.driver, info.driver_info].join(" ");
        Found {
            card: info.name,
            driver: format!("{:?}, {}", info.backend, driver.trim()),
        }
    });
    found.collect()
}

/// What is looked for by [`gpus`], for those who find nothing.
pub fn looked_for() -> String {
    match AutoGraphicsApi::backend() {
        wgpu::Backend::Vulkan => {
            "no device by Vulkan: neither libvulkan.so nor a driver's file in \
                                  /usr/share/vulkan/icd.d (or VK_ICD_FILENAMES) gave one"
                .into()
        }
        other => format!("no device by {other:?}"),
    }
}

/// The `index`-th of [`gpus`].
///
/// # Errors
/// There is none, or its driver refuses.
pub fn gpu(index: usize) -> Result<Gpu<WgpuRuntime>> {
    let adapters = adapters();
    let Some((_, device)) = adapters.get(index) else {
        return Err(Error::Device(match adapters.len() {
            0 => format!("device = gpu: {}", looked_for()),
            n => format!("device = gpu:{index}: there are {n}, counted from 0 (seedling devices)"),
        }));
    };
    open(&format!("gpu:{index}"), || WgpuRuntime::client(device))
}

/// Asks the runtime, which panics where a driver refuses.
fn open<R: Runtime>(name: &str, client: impl FnOnce() -> ComputeClient<R>) -> Result<Gpu<R>> {
    catch_unwind(AssertUnwindSafe(client))
        .map(Gpu::new)
        .map_err(|_| Error::Device(format!("device = {name}: its driver refuses to open it")))
}

fn adapters() -> Vec<(Adapter, WgpuDevice)> {
    let backend = AutoGraphicsApi::backend();
    let instance = Instance::new(InstanceDescriptor {
        backends: backend.into(),
        ..InstanceDescriptor::new_without_display_handle()
    });
    let adapters = block_on(instance.enumerate_adapters(backend.into()));
    // The runtime counts each kind by itself.
    let mut counts = [0; 3];
    let mut next = |kind: usize| {
        counts[kind] += 1;
        counts[kind] - 1
    };
    let mut found: Vec<(usize, Adapter, WgpuDevice)> = Vec::new();
    for adapter in adapters {
        let (rank, device) = match adapter.get_info().device_type {
            DeviceType::DiscreteGpu => (0, WgpuDevice::DiscreteGpu(next(0))),
            DeviceType::IntegratedGpu => (1, WgpuDevice::IntegratedGpu(next(1))),
            DeviceType::VirtualGpu => (2, WgpuDevice::VirtualGpu(next(2))),
            DeviceType::Cpu => (4, WgpuDevice::Cpu),
            DeviceType::Other => (3, WgpuDevice::DefaultDevice),
        };
        found.push((rank, adapter, device));
    }
    found.sort_by_key(|(rank, ..)| *rank);
    found
        .into_iter()
        .map(|(_, adapter, device)| (adapter, device))
        .collect()
}

#[cfg(feature = "cuda")]
mod cuda {
    use cubecl::cuda::{CudaDevice, CudaRuntime};
    use cudarc::driver::{result, sys};

    use super::*;

    /// Cards by CUDA, or why there is none.
    ///
    /// # Errors
    /// No driver, or one without a card.
    pub fn cudas() -> Result<Vec<Found>> {
        let refused = |why: &str| Error::Device(format!("device = cuda: {why}"));
        // SAFETY: it only tries to load the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(refused(
                "libcuda.so, NVIDIA's driver, is not on this machine",
            ));
        }
        let count = || -> std::result::Result<usize, result::DriverError> {
            result::init()?;
            Ok(result::device::get_count()?.max(0) as usize)
        };
        match count() {
            Ok(0) => Err(refused("the driver knows no card")),
            Err(error) => Err(refused(&format!("the driver says {error}"))),
            Ok(count) => (0..count).map(found).collect(),
        }
    }

    fn found(index: usize) -> Result<Found> {
        let ask = || -> std::result::Result<(String, usize), result::DriverError> {
            let device = result::device::get(index as i32)?;
            // SAFETY: the device was found a line ago.
            let bytes = unsafe { result::device::total_mem(device)? };
            Ok((result::device::get_name(device)?, bytes))
        };
        let (card, bytes) =
            ask().map_err(|error| Error::Device(format!("device = cuda:{index}: {error}")))?;
        Ok(Found {
            card,
            driver: format!("CUDA, {} GB", bytes >> 30),
        })
    }

    /// The `index`-th of [`cudas`].
    ///
    /// # Errors
    /// There is none, or the driver refuses.
    pub fn cuda(index: usize) -> Result<Gpu<CudaRuntime>> {
        let count = cudas()?.len();
        if index >= count {
            return Err(Error::Device(format!(
                "device = cuda:{index}: there are {count}, counted from 0 (seedling devices)"
            )));
        }
        open(&format!("cuda:{index}"), || {
            CudaRuntime::client(&CudaDevice::new(index))
        })
    }
}

#[cfg(feature = "cuda")]
pub use cuda::{cuda, cudas};
