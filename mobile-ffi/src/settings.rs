//! How to train.

use crate::error::{Result, SeedlingError};
use crate::weights::Weights;
use seedling_core::config::Config;

/// How to train. What is not named here is `seedling adapt`'s.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Settings {
    /// Megabytes that training may take. It is refused where they are not enough.
    #[uniffi(default = 300)]
    pub memory_mb: i32,
    /// Passes over the photos.
    #[uniffi(default = 12)]
    pub epochs: i32,
    /// Width and height of the views it trains on; 0 is 128, or less where memory asks for it.
    #[uniffi(default = 0)]
    pub image_size: i32,
    /// Threads; 0 is one per processor.
    #[uniffi(default = 0)]
    pub threads: i32,
    /// Where all randomness starts: the same seed and photos give the same weights.
    #[uniffi(default = 0)]
    pub seed: i64,
    /// Ends with the adapted weights whatever they are. Otherwise the initial ones stay unless others are
    /// clearly better, asked without labels.
    #[uniffi(default = false)]
    pub keep_always: bool,
    /// Computes on the phone's graphics processor: refused by a library that was built without it.
    #[uniffi(default = false)]
    pub on_card: bool,
}

impl Settings {
    /// All settings of a run from `weights`, before memory is looked at.
    pub(crate) fn config(&self, weights: &Weights) -> Result<Config> {
        let usual = Config::adapt();
        let size = self.image_size;
        if !(size == 0 || (32..=1024).contains(&size))
            || self.epochs < 1
            || self.threads < 0
            || self.memory_mb < 0
        {
            return Err(SeedlingError::Settings {
                reason:
                    "expected an image_size from 32 to 1024 (or 0), at least one epoch, and no \
                         negative numbers"
                        .into(),
            });
        }
        Ok(Config {
            arch: weights.arch(),
            init: weights.path.clone(),
            image_size: match size {
                0 => usual.image_size,
                asked => asked as usize,
            },
            epochs: self.epochs as usize,
            threads: self.threads as usize,
            seed: self.seed as u64,
            device: match self.on_card {
                true => "gpu".into(),
                false => usual.device.clone(),
            },
            keep: match self.keep_always {
                true => "always".into(),
                false => usual.keep.clone(),
            },
            ..usual
        })
    }
}
