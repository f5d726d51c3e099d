//! Where to compute, by name.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A device, as `--device` names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU by Vulkan or Metal, counted from 0.
    Gpu(usize),
    /// A GPU by CUDA, counted from 0.
    Cuda(usize),
}

/// What a device may be called.
pub const DEVICES: &str = "cpu, gpu, gpu:N, cuda, cuda:N";

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Device> {
        let unknown = || Error::Config(format!("unknown device '{name}' (known: {DEVICES})"));
        let (kind, index) = match name.split_once(':') {
            Some((kind, index)) => (kind, index.parse().map_err(|_| unknown())?),
            None => (name, 0),
        };
        match kind {
            "cpu" if !name.contains(':') => Ok(Device::Cpu),
            "gpu" => Ok(Device::Gpu(index)),
            "cuda" => Ok(Device::Cuda(index)),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Gpu(index) => write!(f, "gpu:{index}"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name, device) in [
            ("cpu", Device::Cpu),
            ("gpu", Device::Gpu(0)),
            ("gpu:0", Device::Gpu(0)),
            ("gpu:3", Device::Gpu(3)),
            ("cuda", Device::Cuda(0)),
            ("cuda:11", Device::Cuda(11)),
        ] {
            assert_eq!(name.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string().parse::<Device>().unwrap(), device);
        }
        for name in [
            "", "abacus", "gpu:", "gpu:-1", "gpu:x", "cpu:0", "cuda:1:2", "GPU",
        ] {
            let refused = name.parse::<Device>().unwrap_err();
            assert!(refused.to_string().contains(DEVICES), "{name}");
        }
    }
}
