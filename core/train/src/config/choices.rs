//! Settings that are one of a few words.

use crate::schedule::Decay;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// A type whose values have names in settings.
pub trait Choice: Copy + PartialEq + Sized + 'static {
    /// All values, in the order of [`Choice::NAMES`].
    const ALL: &'static [Self];
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Its name.
    fn name(self) -> &'static str {
        let place = Self::ALL.iter().position(|one| *one == self);
        place.map_or("", |place| Self::NAMES[place])
    }

    /// The value of that name.
    ///
    /// # Errors
    /// None has it; the message says which there are.
    fn named(name: &str) -> Result<Self> {
        let place = Self::NAMES.iter().position(|known| *known == name);
        place.map(|place| Self::ALL[place]).ok_or_else(|| {
            Error::Config(format!(
                "`{name}`: expected one of {}",
                Self::NAMES.join(", ")
            ))
        })
    }
}

/// Writes an enum and its names from one list.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ $choice:ident { $($(#[doc = $word:literal])+ $value:ident = $name:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $choice {
            $($(#[doc = $word])+ $value,)+
        }
        names!($choice { $($value = $name,)+ });
    };
}

/// The names of an enum's values.
macro_rules! names {
    ($choice:ident { $($value:ident = $name:literal,)+ }) => {
        impl Choice for $choice {
            const ALL: &'static [$choice] = &[$($choice::$value),+];
            const NAMES: &'static [&'static str] = &[$($name),+];
        }

        impl fmt::Display for $choice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $choice {
            type Err = Error;

            fn from_str(name: &str) -> Result<$choice> {
                $choice::named(name)
            }
        }
    };
}

choice! {
    /// Which optimizer.
    OptimizerKind {
        /// Momentum SGD.
        Sgd = "sgd",
        /// AdamW, for transformers.
        AdamW = "adamw",
    }
}

choice! {
    /// What a GPU stores activations in, and multiplies.
    ActivationDtype {
        /// Single precision.
        F32 = "f32",
        /// Stored in f32; products are of TF32.
        Tf32 = "tf32",
        /// bf16, or f16 where there is no bf16.
        Bf16 = "bf16",
    }
}

choice! {
    /// Which weights a run ends with.
    Keep {
        /// The trained ones, unless something went wrong.
        Better = "better",
        /// The trained ones.
        Always = "always",
    }
}

choice! {
    /// How a student learns from a teacher.
    DistillMethod {
        /// To place images among a queue as the teacher does.
        Seed = "seed",
        /// The same among two queues, each side's own.
        Compress = "compress",
        /// By contrast of its own, near the teacher's embeddings.
        Disco = "disco",
        /// By contrast with the teacher's embeddings of a photo and of photos near it.
        Bingo = "bingo",
        /// By regression to the teacher's embeddings.
        SimDis = "simdis",
    }
}

impl DistillMethod {
    /// Views of a photo that student and teacher see.
    pub fn views(self) -> usize {
        match self {
            DistillMethod::Seed | DistillMethod::Compress => 1,
            DistillMethod::Disco | DistillMethod::Bingo | DistillMethod::SimDis => 2,
        }
    }
}

choice! {
    /// Whether a teacher's head is learned from.
    TeacherHead {
        /// Where its file has one of ours.
        Auto = "auto",
        /// It has to be.
        Use = "use",
        /// Its features are.
        Ignore = "ignore",
    }
}

names!(Decay {
    CosineByStep = "step",
    CosineByEpoch = "epoch",
    Constant = "constant",
});
