//! The registry of architectures: names and facts. How each is built stands in
//! [`crate::backbones`].

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Howard et al. 2019; torchvision's `mobilenet_v3_large` up to `classifier.1`.
    MobilenetV3Large,
    /// torchvision's `mobilenet_v3_small` up to `classifier.1`.
    MobilenetV3Small,
    /// Sandler et al. 2018; torchvision's `mobilenet_v2` up to the global pooling. A teacher.
    MobilenetV2,
}

/// What there is to know of an architecture besides how it is built.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Its name in commands, files and configurations.
    pub name: &'static str,
    /// Its name in prose.
    pub title: &'static str,
    /// Whether runs train it. The others are measured, embedded with, and teach.
    pub trained: bool,
    /// Batch norm's epsilon in torchvision's definition; a weight file may say otherwise.
    pub norm_eps: f32,
    /// A tensor that of all architectures only this one's files have: torchvision's say no name.
    pub mark: &'static str,
    /// Beginning of the names of the layer that torchvision puts behind the features.
    pub class_layer: &'static str,
}

impl Arch {
    /// Every architecture.
    pub const ALL: [Arch; 3] = [
        Arch::MobilenetV3Small,
        Arch::MobilenetV3Large,
        Arch::MobilenetV2,
    ];

    /// The names of all, for settings that name one.
    pub const NAMES: [&str; 3] = names(false);

    /// The names of those that are trained.
    pub const TRAINED: [&str; 2] = names(true);

    /// Everything about it.
    pub const fn facts(self) -> Facts {
        match self {
            Arch::MobilenetV3Large => Facts {
                name: "mobilenet_v3_large",
                title: "MobileNetV3-Large",
                trained: true,
                norm_eps: 1e-3,
                mark: "features.16.0.weight",
                class_layer: "classifier.3.",
            },
            Arch::MobilenetV3Small => Facts {
                name: "mobilenet_v3_small",
                title: "MobileNetV3-Small",
                trained: true,
                norm_eps: 1e-3,
                mark: "features.12.0.weight",
                class_layer: "classifier.3.",
            },
            Arch::MobilenetV2 => Facts {
                name: "mobilenet_v2",
                title: "MobileNetV2",
                trained: false,
                norm_eps: 1e-5,
                mark: "features.18.0.weight",
                class_layer: "classifier.1.",
            },
        }
    }

    /// The registry name.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }
}

const fn names<const N: usize>(trained_only: bool) -> [&'static str; N] {
    let (mut names, mut found, mut i) = ([""; N], 0, 0);
    while i < Arch::ALL.len() {
        let facts = Arch::ALL[i].facts();
        if facts.trained || !trained_only {
            names[found] = facts.name;
            found += 1;
        }
        i += 1;
    }
    assert!(found == N);
    names
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(name: &str) -> Result<Arch> {
        Arch::ALL
            .into_iter()
            .find(|arch| arch.name() == name)
            .ok_or_else(|| {
                Error::Config(format!(
                    "unknown architecture '{name}' (known: {})",
                    Arch::NAMES.join(", ")
                ))
            })
    }
}
