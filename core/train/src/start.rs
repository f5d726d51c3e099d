//! What a run starts from, besides settings and photos.

use crate::Result;
use crate::config::Config;
use crate::weights::WeightFile;
use seedling_base::cancel::CancelToken;
use seedling_data::Normalize;
use seedling_nn::encoder::FeatureNet;
use std::sync::Arc;

/// Initial weights and teacher.
#[derive(Default)]
pub struct Start<'a> {
    /// Initial weights; `None` draws random ones.
    pub init: Option<&'a WeightFile>,
    /// The teacher of a distillation; `None` trains by contrast.
    pub teacher: Option<TeacherSource<'a>>,
    /// What will stop the session, and its making.
    pub cancel: CancelToken,
}

/// Who teaches.
#[derive(Clone, Copy, Debug)]
pub enum TeacherSource<'a> {
    /// A network of the registry.
    Weights(&'a WeightFile),
    /// Any other.
    Foreign(&'a Foreign),
}

/// An image encoder of someone else's.
pub struct Foreign {
    pub net: Arc<dyn FeatureNet>,
    /// How pixels become its inputs.
    pub normalize: Normalize,
    /// SHA-256 of the file it came from.
    pub digest: String,
}

impl std::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Foreign")
            .field("digest", &self.digest)
            .finish()
    }
}

impl TeacherSource<'_> {
    /// How pixels become the teacher's inputs.
    pub fn normalize(&self) -> &Normalize {
        match self {
            TeacherSource::Weights(file) => &file.metadata.normalize,
            TeacherSource::Foreign(foreign) => &foreign.normalize,
        }
    }

    /// SHA-256 of its file.
    ///
    /// # Errors
    /// It can't be read any more.
    pub fn digest(&self) -> Result<String> {
        match self {
            TeacherSource::Weights(file) => file.digest(),
            TeacherSource::Foreign(foreign) => Ok(foreign.digest.clone()),
        }
    }
}

/// The most that a weight file can ask for as `measure_size`.
const MEASURE_SIZE_LIMIT: usize = 1024;

/// Width and height at which a run from `init` evaluates whole photos. A random crop shows things
/// larger than the whole photo does: weights see best at somewhat more pixels than their views had
/// (Touvron et al. 2019), and their file says at how many.
pub(crate) fn measure_size(config: &Config, init: Option<&WeightFile>) -> usize {
    match config.measure_size {
        0 => {
            let asked = init.map_or(0, |file| file.metadata.image_size);
            config.image_size.max(asked.min(MEASURE_SIZE_LIMIT))
        }
        size => size,
    }
}
