//! Putting a session together, at the beginning of a run or in its middle.

use super::trainer::{self, Trainer};
use super::{Session, threads};
use crate::checkpoint::{Album, State};
use crate::config::Config;
use crate::optim::{AdamW, AdamWConfig, Optimizer, Sgd, SgdConfig, WeightDecay};
use crate::schedule::{Decay, Schedule};
use crate::weights::{About, WeightFile};
use crate::{Error, Result};
use rayon::ThreadPool;
use seedling_base::cancel::Cancel;
use seedling_data::{LoaderConfig, Normalise, PhotoSource, Recipe};
use seedling_nn::backbones::Arch;
use seedling_nn::block::Dropping;
use seedling_nn::encoder::{Architecture, Encoder, FeatureNet, Head, Mode};
use seedling_ssl::eval::extract::{Extractor, Look};
use seedling_ssl::moco::MocoConfig;
use seedling_ssl::ops::TrainingBackend;
use std::sync::Arc;

/// Photos whose features make the teacher's mean.
const CENTRE_PHOTOS: usize = 1024;

/// The most that a weight file can ask for as `measure_size`.
const MEASURE_SIZE_LIMIT: usize = 1024;

/// What a run starts from, besides settings and photos.
#[derive(Default)]
pub struct Start<'a> {
    /// Initial weights; `None` draws random ones.
    pub init: Option<&'a WeightFile>,
    /// The teacher of a distillation; `None` trains by contrast.
    pub teacher: Option<Guide<'a>>,
    /// What will stop the session, and its making.
    pub cancel: Cancel,
}

/// Who teaches.
#[derive(Clone, Copy, Debug)]
pub enum Guide<'a> {
    /// A network of the registry.
    Weights(&'a WeightFile),
    /// Any other.
    Foreign(&'a Foreign),
}

/// An image encoder of someone else's.
pub struct Foreign {
    pub net: Arc<dyn FeatureNet>,
    /// How pixels become its inputs.
    pub normalise: Normalise,
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

impl Guide<'_> {
    pub(super) fn normalise(&self) -> &Normalise {
        match self {
            Guide::Weights(file) => &file.about.normalise,
            Guide::Foreign(foreign) => &foreign.normalise,
        }
    }

    fn digest(&self) -> Result<String> {
        match self {
            Guide::Weights(file) => file.digest(),
            Guide::Foreign(foreign) => Ok(foreign.digest.clone()),
        }
    }
}

/// Width and height at which a run from `init` looks at whole photos. A random crop shows things
/// larger than the whole photo does: weights see best at somewhat more pixels than their views had
/// (Touvron et al. 2019), and their file says at how many.
pub(super) fn measure_size(config: &Config, init: Option<&WeightFile>) -> usize {
    match config.measure_size {
        0 => {
            let asked = init.map_or(0, |file| file.about.image_size);
            config.image_size.max(asked.min(MEASURE_SIZE_LIMIT))
        }
        size => size,
    }
}

/// How far running statistics move with every batch in training. Files say 0.01 (torchvision) or
/// 0.1; the slower one would leave them stale after a short run.
const NORM_MOMENTUM: f32 = 0.1;

/// How a network of `arch` is passed through in training.
pub(crate) fn training_mode(config: &Config, arch: Arch) -> Mode {
    let asked = |share: f32| if config.dropout { share } else { 0.0 };
    Mode::Train {
        norm_momentum: NORM_MOMENTUM,
        groups: 1,
        // A head may leave out some of its own, asked or not.
        dropping: Some(Dropping {
            features: asked(arch.spec().dropout),
            paths: asked(arch.spec().drop_connect),
            seed: config.seed,
            ..Dropping::default()
        }),
    }
}

/// The numbers of MoCo that `config` asks for.
pub(crate) fn moco_config(config: &Config, mode: Mode) -> MocoConfig {
    MocoConfig {
        temperature: config.temperature as f32,
        key_momentum: config.key_momentum as f32,
        symmetric: config.symmetric,
        bn_group: config.bn_group,
        mode,
        mask_own_photo: config.mask_own_photo,
        neighbours: config.neighbours as f32,
        neighbour_temperature: config.neighbour_temperature as f32,
        smoothing: config.smoothing as f32,
        smoothing_keys: config.smoothing_keys,
    }
}

/// The optimizer that `config` asks for, at rest.
///
/// # Errors
/// The backend's.
pub(crate) fn optimizer<B: TrainingBackend>(
    config: &Config,
    network: &Encoder<B>,
) -> Result<Optimizer<B>> {
    let decay = WeightDecay {
        weight_decay: config.weight_decay as f32,
        norm_and_bias: config.weight_decay_norm,
        train_from: network.frozen_parameters(),
    };
    Ok(match config.optimizer.as_str() {
        "adamw" => Optimizer::AdamW(AdamW::new(&network.params, AdamWConfig::new(decay))?),
        _ => {
            let how = SgdConfig {
                momentum: config.sgd_momentum as f32,
                decay,
                anchor: config.anchor as f32,
            };
            Optimizer::Sgd(Sgd::new(&network.params, how)?)
        }
    })
}

/// Lowers `batch_size` and `queue_size` to what `photos` photos can fill, and says in a line each
/// what was changed.
///
/// # Errors
/// The settings contradict each other, or there are fewer photos than one group.
pub fn fit(config: &mut Config, photos: usize) -> Result<Vec<String>> {
    config.validate()?;
    if !config.trains() {
        return Ok(Vec::new());
    }
    let group = config.bn_group;
    if photos < group {
        return Err(Error::NoPhotos(format!(
            "{photos} photos are fewer than one group of bn_group = {group}; \
             add photos or lower it (--set bn_group={} --set batch_size={0})",
            photos.max(2)
        )));
    }
    let mut notes = Vec::new();
    if photos < config.batch_size {
        let batch = photos / group * group;
        notes.push(format!(
            "batch_size lowered from {} to {batch}: there are {photos} photos",
            config.batch_size
        ));
        config.batch_size = batch;
    }
    if photos < config.queue_size {
        notes.push(format!(
            "queue_size lowered from {} to {photos}: more keys than photos only repeat them",
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
    pub fn new(config: Config, source: Arc<dyn PhotoSource>, start: &Start<'_>) -> Result<Session> {
        let pool = Arc::new(threads(config.threads)?);
        pool.install(|| Session::begin(config, source, start, pool.clone()))
    }

    fn begin(
        mut config: Config,
        source: Arc<dyn PhotoSource>,
        start: &Start<'_>,
        pool: Arc<ThreadPool>,
    ) -> Result<Session> {
        fit(&mut config, source.len())?;
        let head: Head = config.head.parse()?;
        let arch: Arch = config.arch.parse()?;
        let (architecture, normalise) = match start.init {
            None => (Architecture::new(arch, Some(head)), Normalise::default()),
            Some(file) => {
                let about = &file.about;
                if about.architecture.arch != arch {
                    return Err(Error::Config(format!(
                        "the initial weights are of {}, but arch = {arch}",
                        about.architecture.arch
                    )));
                }
                let architecture = Architecture {
                    head: Some(head),
                    ..about.architecture
                };
                (architecture, about.normalise)
            }
        };
        config.measure_size = measure_size(&config, start.init);
        let about = About {
            architecture,
            image_size: config.measure_size,
            normalise,
            made: String::new(),
        };
        let trainer = trainer::open(&config, &about, start, None)?;
        let mut session = Session::assemble(config, about, source, (trainer, 0), start, pool)?;
        if let Some(teacher) = start.teacher {
            session.centre_teacher(teacher.normalise())?;
        }
        Ok(session)
    }

    /// Goes on from a checkpoint, on `config.threads` threads of its own. `config` holds the settings
    /// now wanted; those that would change the run must be what they were. `start.init` is not
    /// looked at.
    ///
    /// # Errors
    /// Settings or photos are not those of the checkpoint; one line names the first that differs.
    pub fn resume(
        config: Config,
        source: Arc<dyn PhotoSource>,
        start: &Start<'_>,
        state: State<'_>,
    ) -> Result<Session> {
        let pool = Arc::new(threads(config.threads)?);
        pool.install(|| Session::go_on(config, source, start, state, pool.clone()))
    }

    fn go_on(
        mut config: Config,
        source: Arc<dyn PhotoSource>,
        start: &Start<'_>,
        state: State<'_>,
        pool: Arc<ThreadPool>,
    ) -> Result<Session> {
        if config.measure_size == 0 {
            config.measure_size = state.config.measure_size;
        }
        if let Some((key, was, now)) = state.config.differences(&config).first() {
            return Err(Error::Config(format!(
                "this run was started with {key} = {was} and cannot go on with {key} = {now}"
            )));
        }
        if state.album != Album::of(&*source) {
            return Err(Error::NoPhotos(format!(
                "the photos are not those the run was started with ({} then, {} now, \
                 or other names); start a new run with them",
                state.album.photos,
                source.len()
            )));
        }
        let digest = start.teacher.as_ref().map(Guide::digest).transpose()?;
        // A checkpoint of an older version does not say it.
        if state.teacher.is_some() && state.teacher != digest {
            return Err(Error::Config(format!(
                "the teacher {} is not the file the run was started with",
                config.teacher
            )));
        }
        let trainer = trainer::open(&config, &state.about, start, Some(state.numbers))?;
        let place = (trainer, state.step);
        let mut session = Session::assemble(config, state.about, source, place, start, pool)?;
        session.before = state.before;
        Ok(session)
    }

    fn assemble(
        mut config: Config,
        about: About,
        source: Arc<dyn PhotoSource>,
        (trainer, step): (Box<dyn Trainer>, u64),
        start: &Start<'_>,
        pool: Arc<ThreadPool>,
    ) -> Result<Session> {
        let threads = pool.current_num_threads();
        config.threads = threads;
        let mut loading = LoaderConfig::new(
            Recipe::by_name(&config.views)?,
            config.image_size,
            config.batch_size,
            config.seed,
        );
        loading.group = config.bn_group;
        loading.views = trainer.views();
        loading.threads = threads;
        loading.ahead = config.prefetch;
        loading.cache_mb = config.cache_mb;
        loading.normalise = about.normalise;
        loading.undrawn = trainer.makes_views();
        let epoch = (source.len() / config.batch_size.max(1)).max(1);
        let steps = match config.steps {
            0 => config.epochs.saturating_mul(epoch),
            steps => steps,
        };
        let schedule = Schedule {
            peak: config.lr,
            decay: Decay::parse(&config.schedule)?,
            warmup_steps: config.warmup_steps
                + (config.warmup_epochs * epoch as f64).round() as usize,
            steps,
            steps_per_epoch: epoch,
        };
        Ok(Session {
            loading,
            loader: None,
            album: Album::of(&*source),
            before: None,
            teacher: start.teacher.as_ref().map(Guide::digest).transpose()?,
            config,
            about,
            source,
            trainer,
            schedule,
            step,
            pending: None,
            cancel: start.cancel.clone(),
            pool,
        })
    }

    /// Measures the mean that is taken from a teacher's features, over a sample of the photos.
    fn centre_teacher(&mut self, normalise: &Normalise) -> Result<()> {
        let Some(encoder) = self
            .trainer
            .teacher()
            .filter(|_| self.config.teacher_centre)
        else {
            return Ok(());
        };
        let extractor = Extractor {
            encoder,
            source: &*self.source,
            image_size: match self.config.teacher_size {
                0 => self.config.image_size,
                side => side,
            },
            normalise,
        };
        let photos = self.source.len();
        // Spread evenly: a data set sorted by class must not give one class's mean.
        let sample: Vec<usize> = (0..photos.min(CENTRE_PHOTOS))
            .map(|i| i * photos / photos.min(CENTRE_PHOTOS))
            .collect();
        let found = extractor.features(&sample, &Look::Plain, |_| self.cancel.check())?;
        let centre = found.features.mean();
        self.trainer
            .centre_teacher(centre.into_iter().map(|x| x as f32).collect());
        Ok(())
    }
}
