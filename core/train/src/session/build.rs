//! Putting a session together, at the beginning of a run or in its middle.

use super::Session;
use super::open::open;
use super::state::RunState;
use crate::checkpoint::State;
use crate::config::Config;
use crate::start::{Start, measure_size};
use crate::threads::threads;
use crate::weights::ModelMetadata;
use crate::{Error, Result};
use seedling_data::{Normalize, PhotoSource};
use seedling_nn::encoder::Architecture;
use seedling_ssl::eval::extract::{EvalView, Extractor};
use std::sync::Arc;

/// Photos whose features make the teacher's mean.
const CENTER_PHOTOS: usize = 1024;

/// Lowers `batch_size` and `queue_size` to what `photos` photos can fill, and says in a line each
/// what was changed.
///
/// # Errors
/// The settings contradict each other, or there are fewer photos than one micro-batch.
pub fn fit(config: &mut Config, photos: usize) -> Result<Vec<String>> {
    config.validate()?;
    if !config.trains() {
        return Ok(Vec::new());
    }
    let microbatch = config.bn_group;
    if photos < microbatch {
        return Err(Error::NoPhotos(format!(
            "{photos} photos are fewer than one micro-batch of bn_group = {microbatch}; \
             add photos or lower it (--set bn_group={} --set batch_size={0})",
            photos.max(2)
        )));
    }
    let mut notes = Vec::new();
    if photos < config.batch_size {
        let batch = photos / microbatch * microbatch;
        notes.push(format!(
            "batch_size lowered from {} to {batch}: there are {photos} photos",
            config.batch_size
        ));
        config.batch_size = batch;
    }
    if photos < config.queue_size {
        notes.push(format!(
            "queue_size lowered from {} to {photos}, the number of photos: a larger queue would only repeat keys",
            config.queue_size
        ));
        config.queue_size = photos;
    }
    Ok(notes)
}

impl Session {
    /// Begins a run, on `config.threads` threads of its own. `config` is fitted to the photos first
    /// (see [`fit`]).
    ///
    /// # Errors
    /// Settings, weights or photos do not go together; one line says how.
    pub fn new(
        mut config: Config,
        source: Arc<dyn PhotoSource>,
        start: &Start<'_>,
    ) -> Result<Box<Session>> {
        let pool = Arc::new(threads(config.threads)?);
        fit(&mut config, source.len())?;
        let (architecture, normalize) = match start.init {
            None => (
                Architecture::new(config.arch, Some(config.head)),
                Normalize::default(),
            ),
            Some(file) => {
                let metadata = &file.metadata;
                if metadata.architecture.arch != config.arch {
                    return Err(Error::Config(format!(
                        "the initial weights are of {}, but arch = {}",
                        metadata.architecture.arch, config.arch
                    )));
                }
                let architecture = Architecture {
                    head: Some(config.head),
                    ..metadata.architecture
                };
                (architecture, metadata.normalize)
            }
        };
        config.measure_size = measure_size(&config, start.init);
        let metadata = ModelMetadata {
            architecture,
            image_size: config.measure_size,
            normalize,
            made: String::new(),
        };
        pool.clone().install(|| {
            let state = RunState::new(config, metadata, source, start, pool)?;
            let mut session = open(state, start, None)?;
            if let Some(teacher) = start.teacher {
                session.measure_teacher_center(teacher.normalize())?;
            }
            Ok(session)
        })
    }

    /// Continues from a checkpoint, on `config.threads` threads of its own. `config` holds the settings
    /// now wanted; those that would change the run must be what they were. `start.init` is not
    /// looked at.
    ///
    /// # Errors
    /// Settings or photos are not those of the checkpoint; one line names the first that differs.
    pub fn resume(
        mut config: Config,
        source: Arc<dyn PhotoSource>,
        start: &Start<'_>,
        saved: State<'_>,
    ) -> Result<Box<Session>> {
        let pool = Arc::new(threads(config.threads)?);
        if config.measure_size == 0 {
            config.measure_size = saved.config.measure_size;
        }
        if let Some((key, was, now)) = saved.config.differences(&config).first() {
            return Err(Error::Config(format!(
                "this run was started with {key} = {was} and cannot continue with {key} = {now}"
            )));
        }
        pool.clone().install(|| {
            let mut state = RunState::new(config, saved.metadata, source, start, pool)?;
            if saved.dataset != state.dataset {
                return Err(Error::NoPhotos(format!(
                    "the photos are not those the run was started with ({} then, {} now, \
                     or other names); start a new run with them",
                    saved.dataset.photos, state.dataset.photos
                )));
            }
            if saved.teacher != state.teacher {
                return Err(Error::Config(format!(
                    "the teacher {} is not the file the run was started with",
                    state.config.teacher
                )));
            }
            (state.step, state.before) = (saved.step, saved.before);
            open(state, start, Some(saved.training))
        })
    }

    /// Measures the mean that is taken from a teacher's features, over a sample of the photos.
    fn measure_teacher_center(&mut self, normalize: &Normalize) -> Result<()> {
        let run = self.state();
        let Some(encoder) = self.teacher().filter(|_| run.config.teacher_center) else {
            return Ok(());
        };
        let extractor = Extractor {
            encoder,
            source: &*run.source,
            image_size: match run.config.teacher_size {
                0 => run.config.image_size,
                side => side,
            },
            normalize,
        };
        let photos = run.source.len();
        // Spread evenly: a dataset sorted by class must not give one class's mean.
        let sample: Vec<usize> = (0..photos.min(CENTER_PHOTOS))
            .map(|i| i * photos / photos.min(CENTER_PHOTOS))
            .collect();
        let found = extractor.features(&sample, &EvalView::Plain, |_| run.cancel.check())?;
        let center = found.features.mean();
        self.center_teacher(center.into_iter().map(|x| x as f32).collect());
        Ok(())
    }
}
