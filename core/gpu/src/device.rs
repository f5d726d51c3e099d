//! Which GPUs are there, and opening one. Nothing here needs a driver to be installed: what is missing
//! is said.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::{Duration, Instant};

use cubecl::MemoryConfiguration;
use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::wgpu::{
    AutoGraphicsApi, GraphicsApi, RuntimeOptions, WgpuRuntime, WgpuSetup, init_device,
};
use wgpu::{
    Adapter, DeviceDescriptor, DeviceLostReason, DeviceType, Features, Instance,
    InstanceDescriptor, MemoryHints,
};

use super::Gpu;
use crate::{Error, Result};
use seedling_nn::backend::LaunchStats;

/// A GPU that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuInfo {
    /// What its maker calls it.
    pub name: String,
    /// By which driver it is reached.
    pub driver: String,
}

/// GPUs by Vulkan or Metal, the likely fastest first.
pub fn gpus() -> Vec<GpuInfo> {
    let adapters = adapters(&instance());
    let found = adapters.iter().map(|adapter| {
        let info = adapter.get_info();
        let driver = [info.driver, info.driver_info].join(" ");
        GpuInfo {
            name: info.name,
            driver: format!("{:?}, {}", info.backend, driver.trim()),
        }
    });
    found.collect()
}

/// What is looked for by [`gpus`], for those who find nothing.
pub fn missing() -> String {
    match AutoGraphicsApi::backend() {
        wgpu::Backend::Vulkan => {
            "no device by Vulkan: neither libvulkan.so nor a driver's file in \
                                  /usr/share/vulkan/icd.d (or VK_ICD_FILENAMES) gave one"
                .into()
        }
        other => format!("no device by {other:?}"),
    }
}

/// What is known of an open device, and what it has complained of, by whichever thread heard it first.
#[derive(Clone, Debug, Default)]
pub struct DeviceStatus {
    /// Bytes of its memory, where it says.
    pub bytes: Option<usize>,
    complaint: Arc<Mutex<Option<String>>>,
    launches: Arc<AtomicU64>,
    waits: Arc<AtomicU64>,
    waited_nanos: Arc<AtomicU64>,
}

impl DeviceStatus {
    pub fn launch_stats(&self) -> LaunchStats {
        LaunchStats {
            launches: self.launches.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited_nanos.load(Ordering::Relaxed)),
        }
    }

    pub fn launched(&self) {
        self.launches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the time of `wait` as waiting. A runtime that panics, since its device's thread has, has
    /// complained.
    pub fn waiting<T>(
        &self,
        wait: impl FnOnce() -> std::result::Result<T, String>,
    ) -> std::result::Result<T, String> {
        let begun = Instant::now();
        let out = catch_unwind(AssertUnwindSafe(wait));
        let nanos = begun.elapsed().as_nanos() as u64;
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
        out.unwrap_or_else(|_| Err("its runtime gave up".into()))
    }

    pub fn complaint(&self) -> Option<String> {
        self.first().clone()
    }

    fn complain(&self, text: String) {
        self.first().get_or_insert(text);
    }

    fn first(&self) -> MutexGuard<'_, Option<String>> {
        let first = self.complaint.lock();
        first.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `index`-th of [`gpus`].
///
/// # Errors
/// There is none, or its driver refuses.
pub fn gpu(index: usize) -> Result<Gpu<WgpuRuntime>> {
    let instance = instance();
    let mut adapters = adapters(&instance);
    if index >= adapters.len() {
        return Err(Error::Device(match adapters.len() {
            0 => format!("device = gpu: {}", missing()),
            n => format!("device = gpu:{index}: there are {n}, counted from 0 (seedling devices)"),
        }));
    }
    let adapter = adapters.swap_remove(index);
    let about = DeviceStatus::default();
    let wanted = DeviceDescriptor {
        required_features: adapter.features() & wanted_features(),
        required_limits: adapter.limits(),
        memory_hints: MemoryHints::MemoryUsage,
        ..DeviceDescriptor::default()
    };
    let (device, queue) = block_on(adapter.request_device(&wanted)).map_err(|error| {
        Error::Device(format!(
            "device = gpu:{index}: its driver refuses to open it ({error})"
        ))
    })?;
    let heard = about.clone();
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        heard.complain(error.to_string());
    }));
    let heard = about.clone();
    device.set_device_lost_callback(move |reason, text| {
        // Who closes a device is told the same way.
        if reason != DeviceLostReason::Destroyed {
            heard.complain(text);
        }
    });
    let setup = WgpuSetup {
        instance,
        adapter,
        device,
        queue,
        backend: AutoGraphicsApi::backend(),
    };
    // What is dropped is used again by us: a page for each buffer wastes nothing.
    let options = RuntimeOptions {
        memory_config: MemoryConfiguration::ExclusivePages,
        ..RuntimeOptions::default()
    };
    open(&format!("gpu:{index}"), about, move || {
        WgpuRuntime::client(&init_device(setup, options))
    })
}

/// What kernels may use where a device has it.
fn wanted_features() -> Features {
    Features::SHADER_F16 | Features::SUBGROUP | Features::TIMESTAMP_QUERY
}

/// Asks the runtime, which panics where a driver refuses.
fn open<R: Runtime>(
    name: &str,
    about: DeviceStatus,
    client: impl FnOnce() -> ComputeClient<R>,
) -> Result<Gpu<R>> {
    catch_unwind(AssertUnwindSafe(client))
        .map(|client| Gpu::from_client(client, about))
        .map_err(|_| Error::Device(format!("device = {name}: its driver refuses to open it")))
}

fn instance() -> Instance {
    Instance::new(InstanceDescriptor {
        backends: AutoGraphicsApi::backend().into(),
        ..InstanceDescriptor::new_without_display_handle()
    })
}

fn adapters(instance: &Instance) -> Vec<Adapter> {
    let backend = AutoGraphicsApi::backend();
    let mut found = block_on(instance.enumerate_adapters(backend.into()));
    found.sort_by_key(|adapter| match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    found
}

#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::OnceLock;
    use std::{env, panic, thread};

    use cubecl::config::cache::CacheConfig;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    use cubecl::cuda::install::cuda_path;
    use cubecl::cuda::{CudaDevice, CudaRuntime};
    use cudarc::driver::{result, sys};

    use super::*;
    use crate::kernel_cache::folder;

    /// GPUs by CUDA, or why there is none.
    ///
    /// # Errors
    /// No driver, or one without a GPU.
    pub fn cudas() -> Result<Vec<GpuInfo>> {
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
            Ok(0) => Err(refused("the driver knows no GPU")),
            Err(error) => Err(refused(&format!("the driver says {error}"))),
            Ok(count) => (0..count).map(found).collect(),
        }
    }

    fn found(index: usize) -> Result<GpuInfo> {
        let ask = || -> std::result::Result<(String, usize), result::DriverError> {
            let device = result::device::get(index as i32)?;
            Ok((result::device::get_name(device)?, total_bytes(device)?))
        };
        let (name, bytes) =
            ask().map_err(|error| Error::Device(format!("device = cuda:{index}: {error}")))?;
        Ok(GpuInfo {
            name,
            driver: format!("CUDA, {} GB", bytes >> 30),
        })
    }

    fn total_bytes(device: sys::CUdevice) -> std::result::Result<usize, result::DriverError> {
        // SAFETY: whoever has a device has found it.
        unsafe { result::device::total_mem(device) }
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
        // Kernels are compiled at first use, by NVIDIA's compiler and against its headers.
        // SAFETY: it only tries to load the library.
        if !unsafe { cudarc::nvrtc::sys::is_culib_present() } {
            return Err(Error::Device(format!(
                "device = cuda:{index}: libnvrtc.so, which compiles kernels when they are first used, is not \
                 on this machine"
            )));
        }
        if cuda_path().is_none() {
            return Err(Error::Device(format!(
                "device = cuda:{index}: CUDA's headers are not on this machine (looked in CUDA_PATH, \
                 /usr/local/cuda and /opt/cuda); kernels are compiled with them when first used"
            )));
        }
        let found = result::device::get(index as i32);
        let about = DeviceStatus {
            bytes: found.and_then(total_bytes).ok(),
            ..DeviceStatus::default()
        };
        keep_kernels(&kind(index));
        listen(about.clone());
        open(&format!("cuda:{index}"), about, || {
            CudaRuntime::client(&CudaDevice::new(index))
        })
    }

    /// Keeps kernels for `device` from now on ([`crate::kernel_cache`]). A `cubecl.toml` that says where has its way.
    fn keep_kernels(device: &str) {
        let Some(folder) = folder(device, |name| env::var_os(name)) else {
            return;
        };
        let mut config = CubeClRuntimeConfig::clone(&CubeClRuntimeConfig::get());
        if config.compilation.cache.is_none() {
            config.compilation.cache = Some(CacheConfig::File(folder));
            *CubeClRuntimeConfig::storage().lock() = Some(Arc::new(config));
        }
    }

    /// What compiled kernels fit: the architecture, and the compiler.
    fn kind(index: usize) -> String {
        use sys::CUdevice_attribute_enum as About;
        let part = |which| {
            let device = result::device::get(index as i32).ok()?;
            // SAFETY: it is a device.
            unsafe { result::device::get_attribute(device, which) }.ok()
        };
        let major = part(About::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
        let minor = part(About::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
        let (mut first, mut second) = (0, 0);
        // SAFETY: it writes two numbers; that the library is there has been seen.
        unsafe { cudarc::nvrtc::sys::nvrtcVersion(&raw mut first, &raw mut second) };
        format!(
            "sm_{}{}-nvrtc-{first}.{second}",
            major.unwrap_or_default(),
            minor.unwrap_or_default()
        )
    }

    /// What threads of devices are called.
    const DEVICE_THREADS: &str = "DSD-";

    /// The runtime says on its own thread, by a panic, that the driver has refused it something (memory, above
    /// all), and goes on: it becomes a complaint, which whoever asks next hears as an error.
    fn listen(status: DeviceStatus) {
        static LISTENING: OnceLock<Mutex<Vec<DeviceStatus>>> = OnceLock::new();
        let mut first = false;
        let all = LISTENING.get_or_init(|| {
            first = true;
            Mutex::default()
        });
        let lock = || all.lock().unwrap_or_else(PoisonError::into_inner);
        lock().push(status);
        if !first {
            return;
        }
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            let device = thread
                .name()
                .is_some_and(|name| name.starts_with(DEVICE_THREADS));
            let says = info.payload();
            let text = says.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| says.downcast_ref::<&str>().copied());
            match text.filter(|_| device) {
                Some(text) => lock().iter().for_each(|one| one.complain(text.into())),
                None => others(info),
            }
        }));
    }
}

#[cfg(feature = "cuda")]
pub use cuda::{cuda, cudas};
