//! From a device's name to its backend. The only place that names backends: all else is generic over a
//! [`TrainingBackend`].

use std::sync::Arc;

pub use crate::config::{DEVICES, Device};
use crate::weights::WeightFile;
use crate::{Error, Result};
#[cfg(feature = "gpu")]
use seedling_gpu::device as gpu;
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::{Architecture, Encoder, FeatureNet, WithLayer};
use seedling_nn::workspace::Workspace;
use seedling_ssl::ops::TrainingBackend;

/// Work that any backend can do.
pub trait Work {
    /// What comes of it.
    type Output;

    /// Does it on `backend`.
    ///
    /// # Errors
    /// The backend's, or the work's own.
    fn run<B: TrainingBackend>(self, backend: B) -> Result<Self::Output>;
}

impl Device {
    /// Opens the device and does `work` on it.
    ///
    /// # Errors
    /// The device is not there (one line says what was looked for and where), or what the work says.
    pub fn run<W: Work>(self, work: W) -> Result<W::Output> {
        match self {
            // One workspace: no two networks of a run work at the same time.
            Device::Cpu => work.run(Cpu::new(&Workspace::default())),
            #[cfg(feature = "gpu")]
            Device::Gpu(index) => work.run(gpu::gpu(index)?),
            #[cfg(feature = "cuda")]
            Device::Cuda(index) => work.run(gpu::cuda(index)?),
            #[cfg(not(all(feature = "gpu", feature = "cuda")))]
            other => Err(Error::Device(format!(
                "device = {other}: this program was built without it (cargo build --features gpu)"
            ))),
        }
    }

    /// The network of `file` on this device, for features, with the linear layer that the file has.
    ///
    /// # Errors
    /// As [`Device::run`], or the file's.
    pub fn load(
        self,
        architecture: Architecture,
        file: &WeightFile,
    ) -> Result<Arc<dyn FeatureNet>> {
        struct Load<'a>(Architecture, &'a WeightFile);
        impl Work for Load<'_> {
            type Output = Arc<dyn FeatureNet>;

            fn run<B: TrainingBackend>(self, backend: B) -> Result<Arc<dyn FeatureNet>> {
                let mut encoder = Encoder::with_backend(backend, self.0, false, 0)?;
                self.1.load_backbone(&mut encoder.params)?;
                Ok(Arc::new(encoder))
            }
        }
        WithLayer::wrap(self.run(Load(architecture, file))?, file.linear_layer()?)
    }
}

/// A kind of device, and what there is of it.
pub struct BackendDevices {
    /// How `--device` names it.
    pub name: &'static str,
    /// Its devices, or why there are none.
    pub found: Result<Vec<DeviceInfo>>,
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// How to ask for it.
    pub device: Device,
    /// What its maker calls it.
    pub name: String,
    /// By what it is reached.
    pub driver: String,
}

/// Every kind of device, whether this program can use it or not.
pub fn list() -> Vec<BackendDevices> {
    let processor = DeviceInfo {
        device: Device::Cpu,
        name: format!("{} CPU", std::env::consts::ARCH),
        driver: format!("{} threads", rayon::current_num_threads()),
    };
    vec![
        BackendDevices {
            name: "cpu",
            found: Ok(vec![processor]),
        },
        BackendDevices {
            name: "gpu",
            found: gpus(),
        },
        BackendDevices {
            name: "cuda",
            found: cudas(),
        },
    ]
}

#[cfg(feature = "gpu")]
fn gpus() -> Result<Vec<DeviceInfo>> {
    match gpu::gpus() {
        found if found.is_empty() => Err(Error::Device(gpu::missing())),
        found => Ok(infos(found, Device::Gpu)),
    }
}

#[cfg(feature = "cuda")]
fn cudas() -> Result<Vec<DeviceInfo>> {
    Ok(infos(gpu::cudas()?, Device::Cuda))
}

#[cfg(feature = "gpu")]
fn infos(found: Vec<gpu::GpuInfo>, device: fn(usize) -> Device) -> Vec<DeviceInfo> {
    let info = |(i, found): (usize, gpu::GpuInfo)| DeviceInfo {
        device: device(i),
        name: found.name,
        driver: found.driver,
    };
    found.into_iter().enumerate().map(info).collect()
}

#[cfg(not(feature = "gpu"))]
fn gpus() -> Result<Vec<DeviceInfo>> {
    Err(Error::Device(
        "built without it (cargo build --features gpu)".into(),
    ))
}

#[cfg(not(feature = "cuda"))]
fn cudas() -> Result<Vec<DeviceInfo>> {
    Err(Error::Device(
        "built without it (cargo build --features gpu)".into(),
    ))
}
