//! What there is to know of an architecture, and its name.

use std::fmt;
use std::str::FromStr;

use super::chain::Backbone;
use crate::layer::SqueezeOrder;
use crate::layout::Layout;
use crate::window::Padding;
use seedling_base::error::{Error, Result};

/// One architecture.
#[derive(Debug)]
pub struct Spec {
    /// Its name in commands, files and configurations.
    pub name: &'static str,
    /// Its name in prose.
    pub title: &'static str,
    /// Whose definition it is and whose names its tensors have, and up to where it goes.
    pub twin: &'static str,
    /// Whether runs train it. The others are measured, embedded with, and teach.
    pub trained: bool,
    /// Epsilon of its norms in its twin's definition; a weight file may say otherwise.
    pub norm_eps: f32,
    /// Beginning of the names of the layer that its twin puts behind the features.
    pub class_layer: &'static str,
    /// Drop probability of the features before the head, with the setting `dropout`.
    pub dropout: f32,
    /// Drop probability of the last block's branch (stochastic depth), likewise.
    pub drop_connect: f32,
    /// Whether it is made of tokens and attention, not of convolutions.
    pub tokens: bool,
    /// Declares its parameters and lists its stages.
    pub build: fn(&mut Layout, Shape) -> Backbone,
}

/// What distinguishes networks of one architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub norm_eps: f32,
    pub padding: Padding,
    pub squeeze_order: SqueezeOrder,
}

/// An architecture of the registry.
#[derive(Clone, Copy)]
pub struct Arch(pub(super) &'static Spec);

/// The registry: a line a network.
macro_rules! networks {
    ($($constant:ident = $spec:path;)+) => {
        impl $crate::backbones::Arch {
            $(
                #[allow(missing_docs)]
                pub const $constant: $crate::backbones::Arch = $crate::backbones::Arch(&$spec);
            )+

            /// Every architecture.
            pub const ALL: &[$crate::backbones::Arch] = &[$(Self::$constant),+];
        }
    };
}
pub(super) use networks;

impl Arch {
    /// The names of all, for settings that name one.
    pub const NAMES: &[&str] = &names::<{ Arch::ALL.len() }>(false);

    /// The names of those that are trained.
    pub const TRAINED: &[&str] = &names::<{ count_trained() }>(true);

    /// Everything about it.
    pub const fn spec(self) -> &'static Spec {
        self.0
    }

    /// The registry name.
    pub const fn name(self) -> &'static str {
        self.0.name
    }
}

const fn count_trained() -> usize {
    let (mut found, mut i) = (0, 0);
    while i < Arch::ALL.len() {
        found += Arch::ALL[i].0.trained as usize;
        i += 1;
    }
    found
}

const fn names<const N: usize>(trained_only: bool) -> [&'static str; N] {
    let (mut names, mut found, mut i) = ([""; N], 0, 0);
    while i < Arch::ALL.len() {
        let spec = Arch::ALL[i].0;
        if spec.trained || !trained_only {
            names[found] = spec.name;
            found += 1;
        }
        i += 1;
    }
    names
}

impl PartialEq for Arch {
    fn eq(&self, other: &Arch) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Arch {}

impl fmt::Debug for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
        Arch::ALL
            .iter()
            .copied()
            .find(|arch| arch.name() == name)
            .ok_or_else(|| {
                Error::Config(format!(
                    "unknown architecture '{name}' (known: {})",
                    Arch::NAMES.join(", ")
                ))
            })
    }
}
