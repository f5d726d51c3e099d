//! Putting a session together, at the beginning of a run or in its middle.

use super::{Method, Session, threads};
use crate::backbones::Arch;
use crate::cancel::Cancel;
use crate::checkpoint::{Album, Network, State};
use crate::config::Config;
use crate::data::{Loader, LoaderConfig, Normalise, PhotoSource, Position, Recipe};
use crate::distill::{Distill, DistillConfig, Teacher};
use crate::encoder::{Architecture, EMBEDDING_DIM, Encoder, Head, Mode};
use crate::eval::extract::{Extractor, Look};
use crate::init::initialise;
use crate::moco::{Moco, MocoConfig};
use crate::nn::workspace::Workspace;
use crate::optim::{Sgd, SgdConfig};
use crate::params::Params;
use crate::queue::Queue;
use crate::schedule::{Decay, Schedule};
use crate::weights::{About, WeightFile};
use crate::{Error, Result};
use rayon::ThreadPool;
use std::sync::{Arc, PoisonError};

/// How far running statistics move with every batch in training. Files say 0.01 (torchvision) or
/// 0.1; the slower one would leave them stale after a short run.
const NORM_MOMENTUM: f32 = 0.1;

/// Photos whose features make the teacher's mean.
const CENTRE_PHOTOS: usize = 1024;

/// What a run starts from, besides settings and photos.
#[derive(Default)]
pub struct Start<'a> {
    /// Initial weights; `None` draws random ones.
    pub init: Option<&'a WeightFile>,
    /// The teacher of a distillation; `None` trains by contrast.
    pub teacher: Option<&'a WeightFile>,
    /// What will stop the session, and its making.
    pub cancel: Cancel,
}

/// Lowers `batch_size` and `queue_size` to what `photos` photos can fill, and says in a line each
/// what was changed.
///
/// # Errors
/// The settings contradict each other, or there are fewer photos than one group.
pub fn fit(config: &mut Config, photos: usize) -> Result<Vec<String>> {
    config.validate()?;
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
        let about = About {
            architecture,
            image_size: config.image_size,
            normalise,
            made: String::new(),
        };
        let workspace = Workspace::default();
        let encoder = Encoder::new(architecture, true, config.freeze, &workspace)?;
        initialise(&encoder.params, config.seed);
        if let Some(file) = start.init {
            file.load_backbone(&encoder.params)?;
            if let Some(beside) = file.head_beside()?
                && beside.about.architecture.head == Some(head)
            {
                beside.load_head(&encoder.params)?;
            }
        }
        let queue = Queue::random(config.queue_size, EMBEDDING_DIM, config.seed);
        let method = method(&config, &about, encoder, queue, start.teacher, &workspace)?;
        let mut session = Session::assemble(config, about, source, (method, 0), pool)?;
        session.obey(start.cancel.clone());
        session.teacher = start.teacher.map(WeightFile::digest);
        if let Some(file) = start.teacher {
            session.centre_teacher(&file.about.normalise)?;
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
        let session =
            pool.install(|| Session::go_on(config, source, start.teacher, state, pool.clone()));
        session.map(|mut session| {
            session.obey(start.cancel.clone());
            session
        })
    }

    /// Listens to `cancel` from here on.
    fn obey(&mut self, cancel: Cancel) {
        match &mut self.method {
            Method::Moco(moco) => moco.cancel = cancel.clone(),
            Method::Distill { distill, .. } => distill.cancel = cancel.clone(),
        }
        self.cancel = cancel;
    }

    fn go_on(
        config: Config,
        source: Arc<dyn PhotoSource>,
        teacher: Option<&WeightFile>,
        state: State<'_>,
        pool: Arc<ThreadPool>,
    ) -> Result<Session> {
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
        let digest = teacher.map(WeightFile::digest);
        // A checkpoint of an older version does not say it.
        if state.teacher.is_some() && state.teacher != digest {
            return Err(Error::Config(format!(
                "the teacher {} is not the file the run was started with",
                config.teacher
            )));
        }
        let workspace = Workspace::default();
        let about = state.about.clone();
        let encoder = Encoder::new(about.architecture, true, config.freeze, &workspace)?;
        restore(&encoder.params, &state.trained)?;
        let mut queue = Queue::random(state.queue_photos.len(), EMBEDDING_DIM, config.seed);
        copy(&mut queue.keys, &state.queue_keys)?;
        copy(&mut queue.photos, &state.queue_photos)?;
        queue.next = state.queue_next as usize;
        if queue.next >= queue.size() {
            return Err(Error::Shape {
                tensor: "the queue's next row in the checkpoint".into(),
                expected: vec![queue.size()],
                got: vec![state.queue_next as usize],
            });
        }
        let mut method = method(&config, &about, encoder, queue, teacher, &workspace)?;
        match &mut method {
            Method::Moco(moco) => restore(&moco.key.params, &state.key_encoder)?,
            Method::Distill { teacher, .. } => copy(&mut teacher.centre, &state.teacher_centre)?,
        }
        let mut session = Session::assemble(config, about, source, (method, state.step), pool)?;
        copy(&mut session.sgd.velocity, &state.velocity)?;
        copy(&mut session.sgd.base, &state.base)?;
        session.before = state.before;
        session.teacher = digest;
        Ok(session)
    }

    fn assemble(
        mut config: Config,
        about: About,
        source: Arc<dyn PhotoSource>,
        (method, step): (Method, u64),
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
        loading.views = method.views();
        loading.threads = threads;
        loading.ahead = config.prefetch;
        loading.cache_mb = config.cache_mb;
        loading.normalise = about.normalise;
        let epoch = (source.len() / config.batch_size.max(1)).max(1);
        let position = Position {
            epoch: step / epoch as u64,
            step: step % epoch as u64,
        };
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
        let encoder = method.encoder();
        let sgd = {
            let values = encoder.params.values.read();
            let values = values.unwrap_or_else(PoisonError::into_inner);
            let sgd = SgdConfig {
                momentum: config.sgd_momentum as f32,
                weight_decay: config.weight_decay as f32,
                decay_norm_and_bias: config.weight_decay_norm,
                anchor: config.anchor as f32,
                train_from: encoder.frozen_parameters(),
            };
            Sgd::new(&encoder.params.layout, sgd, &values)
        };
        Ok(Session {
            loader: Loader::new(source.clone(), loading, position)?,
            album: Album::of(&*source),
            before: None,
            teacher: None,
            config,
            about,
            source,
            method,
            sgd,
            schedule,
            step,
            pending: None,
            cancel: Cancel::default(),
            pool,
        })
    }

    /// Measures the mean that is taken from a teacher's features, over a sample of the photos.
    fn centre_teacher(&mut self, normalise: &Normalise) -> Result<()> {
        let Method::Distill { teacher, .. } = &mut self.method else {
            return Ok(());
        };
        if !self.config.teacher_centre {
            return Ok(());
        }
        let extractor = Extractor {
            encoder: &teacher.encoder,
            source: &*self.source,
            image_size: self.config.image_size,
            normalise,
        };
        let photos = self.source.len();
        // Spread evenly: a data set sorted by class must not give one class's mean.
        let sample: Vec<usize> = (0..photos.min(CENTRE_PHOTOS))
            .map(|i| i * photos / photos.min(CENTRE_PHOTOS))
            .collect();
        let found = extractor.features(&sample, &Look::Plain, |_| self.cancel.check())?;
        teacher.centre = found
            .features
            .mean()
            .into_iter()
            .map(|x| x as f32)
            .collect();
        Ok(())
    }
}

fn method(
    config: &Config,
    about: &About,
    encoder: Encoder,
    queue: Queue,
    teacher: Option<&WeightFile>,
    workspace: &Workspace,
) -> Result<Method> {
    let mode = Mode::Train {
        norm_momentum: NORM_MOMENTUM,
    };
    let Some(file) = teacher else {
        // One workspace: the two encoders never run at the same time.
        let key = Encoder::new(about.architecture, false, config.freeze, workspace)?;
        let moco = MocoConfig {
            temperature: config.temperature as f32,
            key_momentum: config.key_momentum as f32,
            symmetric: config.symmetric,
            bn_group: config.bn_group,
            mode,
            mask_own_photo: config.mask_own_photo,
        };
        return Ok(Method::Moco(Box::new(Moco::new(
            encoder, key, queue, moco,
        )?)));
    };
    let architecture = Architecture {
        head: None,
        ..file.about.architecture
    };
    let network = Encoder::new(architecture, false, 0, workspace)?;
    file.load_backbone(&network.params)?;
    let (ours, theirs) = (&about.normalise, &file.about.normalise);
    let rescale = std::array::from_fn(|c| {
        (
            ours.std[c] / theirs.std[c],
            (ours.mean[c] - theirs.mean[c]) / theirs.std[c],
        )
    });
    let distill = DistillConfig {
        student_temperature: config.student_temperature as f32,
        teacher_temperature: config.teacher_temperature as f32,
        bn_group: config.bn_group,
        mode,
    };
    Ok(Method::Distill {
        distill: Box::new(Distill::new(encoder, queue, distill)?),
        teacher: Box::new(Teacher::new(network, rescale, config.seed)),
    })
}

fn restore(params: &Params, saved: &Network<'_>) -> Result<()> {
    let mut values = crate::params::write(&params.values);
    let mut buffers = crate::params::write(&params.buffers);
    copy(&mut values, &saved.values)?;
    copy(&mut buffers, &saved.buffers)
}

fn copy<T: Copy>(to: &mut [T], from: &[T]) -> Result<()> {
    if to.len() != from.len() {
        return Err(Error::Shape {
            tensor: "part of the checkpoint".into(),
            expected: vec![to.len()],
            got: vec![from.len()],
        });
    }
    to.copy_from_slice(from);
    Ok(())
}
