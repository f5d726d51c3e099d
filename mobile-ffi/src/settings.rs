//! How to train.

use crate::error::{Result, SeedlingError};
use crate::weights::Weights;
use seedling_core::config::{Config, Device, Keep};

/// How to train. What is not named here is `seedling adapt`'s.
#[derive(Clone, Debug, uniffi::Record)]
pub struct Settings {
    /// Megabytes that training may take. It is refused where they are not enough.
    #[uniffi(default = 300)]
    pub memory_mb: i32,
    /// Passes over the photos. Without it an album that is large enough is trained on as `seedling adapt`
    /// does, and a smaller one is fitted in closed form alone; 0 is that for any album.
    #[uniffi(default = None)]
    pub epochs: Option<i32>,
    /// Width and height of the views it trains on; 0 is 128, or less where memory asks for it.
    #[uniffi(default = 0)]
    pub image_size: i32,
    /// Threads; 0 is one per CPU.
    #[uniffi(default = 0)]
    pub threads: i32,
    /// Where all randomness starts: the same seed and photos give the same weights.
    #[uniffi(default = 0)]
    pub seed: i64,
    /// Ends with what was trained whatever it is. Otherwise the initial weights stay where something went
    /// wrong, judged without labels. The linear layer is kept either way.
    #[uniffi(default = false)]
    pub keep_always: bool,
    /// Computes on the phone's GPU: refused by a library that was built without it.
    #[uniffi(default = false)]
    pub use_gpu: bool,
}

impl Settings {
    /// All settings of a run from `weights`, before memory is planned.
    pub(crate) fn config(&self, weights: &Weights) -> Result<Config> {
        let usual = Config::adapt();
        let size = self.image_size;
        if !(size == 0 || (32..=1024).contains(&size))
            || self.epochs.is_some_and(|epochs| epochs < 0)
            || self.threads < 0
            || self.memory_mb < 0
        {
            return Err(SeedlingError::Settings {
                reason: "expected an image_size from 32 to 1024 (or 0), and no negative numbers"
                    .into(),
            });
        }
        let mut config = Config {
            arch: weights.file.metadata.architecture.arch,
            init: weights.path.clone(),
            image_size: match size {
                0 => usual.image_size,
                asked => asked as usize,
            },
            epochs: self.epochs.map_or(usual.epochs, |epochs| epochs as usize),
            threads: self.threads as usize,
            seed: self.seed as u64,
            device: match self.use_gpu {
                true => Device::Gpu(0),
                false => usual.device,
            },
            keep: match self.keep_always {
                true => Keep::Always,
                false => usual.keep,
            },
            ..usual
        };
        config.infer_from_requested(|key| key == "epochs" && self.epochs.is_some());
        Ok(config)
    }
}
