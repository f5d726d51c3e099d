//! The photos of a run.

use seedling_core::Result;
use seedling_core::config::Config;
use seedling_core::data::demo::Demo;
use seedling_core::data::{self, DecodeBudget, PhotoSource};
use std::path::Path;
use std::sync::Arc;

/// Rendered photos of each class in a demonstration.
const DEMO_PER_CLASS: usize = 40;

/// Where they come from.
#[derive(Clone, Copy, Debug)]
pub enum Photos<'a> {
    /// Whatever lies at this path.
    At(&'a Path),
    /// Rendered by the program, through an odd camera.
    Demo,
}

/// The memory that these settings leave for decoding.
pub fn budget(config: &Config) -> Arc<DecodeBudget> {
    Arc::new(DecodeBudget::megabytes(config.decode_mb))
}

impl Photos<'_> {
    /// Lists them. `config` is the run's: a resumed demonstration renders its own photos again,
    /// whatever seed the command line names.
    ///
    /// # Errors
    /// There is nothing, or nothing that could be a photo.
    pub fn open(self, config: &Config, budget: &Arc<DecodeBudget>) -> Result<Arc<dyn PhotoSource>> {
        match self {
            Photos::At(path) => data::open_within(path, budget.clone()),
            Photos::Demo => Ok(Arc::new(Demo::odd(DEMO_PER_CLASS, config.seed)?)),
        }
    }
}
