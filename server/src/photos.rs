//! The photos of a run.

use crate::console::Console;
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

/// Lists the photos at `path`, and says what lies beside them and is left out.
///
/// # Errors
/// There is nothing, or nothing that could be a photo.
pub fn open(
    path: &Path,
    budget: &Arc<DecodeBudget>,
    console: &Console,
) -> Result<Arc<dyn PhotoSource>> {
    let source = data::open_within(path, budget.clone())?;
    console.left_out(&*source);
    Ok(source)
}

impl Photos<'_> {
    /// Lists them. `config` is the run's: a resumed demonstration renders its own photos again,
    /// whatever seed the command line names.
    ///
    /// # Errors
    /// There is nothing, or nothing that could be a photo.
    pub fn open(
        self,
        config: &Config,
        budget: &Arc<DecodeBudget>,
        console: &Console,
    ) -> Result<Arc<dyn PhotoSource>> {
        match self {
            Photos::At(path) => open(path, budget, console),
            Photos::Demo => Ok(Arc::new(Demo::odd(DEMO_PER_CLASS, config.seed)?)),
        }
    }
}
