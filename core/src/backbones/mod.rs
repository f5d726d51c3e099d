//! Backbones: image to features. To add one, list it in [`Arch`] and build it here; the test
//! suite runs over [`Arch::ALL`].

mod mobilenet;

use std::fmt;
use std::str::FromStr;

pub use mobilenet::{Backbone, BackboneSaved};

use crate::error::{Error, Result};

/// The registry: every architecture by its name in commands, files and configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Howard et al. 2019; torchvision's `mobilenet_v3_large` up to `classifier.1`.
    MobilenetV3Large,
    /// torchvision's `mobilenet_v3_small` up to `classifier.1`.
    MobilenetV3Small,
    /// Sandler et al. 2018; torchvision's `mobilenet_v2` up to the global pooling. A teacher.
    MobilenetV2,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Arch; 3] = [
        Arch::MobilenetV3Large,
        Arch::MobilenetV3Small,
        Arch::MobilenetV2,
    ];

    /// The registry name.
    pub fn name(self) -> &'static str {
        match self {
            Arch::MobilenetV3Large => "mobilenet_v3_large",
            Arch::MobilenetV3Small => "mobilenet_v3_small",
            Arch::MobilenetV2 => "mobilenet_v2",
        }
    }

    /// Batch norm's epsilon in torchvision's definition; a weight file may say otherwise.
    pub fn default_norm_eps(self) -> f32 {
        match self {
            Arch::MobilenetV3Large | Arch::MobilenetV3Small => 1e-3,
            Arch::MobilenetV2 => 1e-5,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(name: &str) -> Result<Arch> {
        let known = Arch::ALL.map(Arch::name);
        Arch::ALL
            .into_iter()
            .find(|arch| arch.name() == name)
            .ok_or_else(|| {
                Error::Config(format!(
                    "unknown architecture '{name}' (known: {})",
                    known.join(", ")
                ))
            })
    }
}
