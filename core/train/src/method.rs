//! The two ways to train, as the settings have them.

use crate::config::{Config, TeacherHead};
use crate::start::{Start, TeacherSource};
use crate::weights::{ModelMetadata, WeightFile};
use crate::{Error, Result};
use seedling_nn::backbones::Arch;
use seedling_nn::block::Dropping;
use seedling_nn::encoder::{Architecture, Encoder, Head, Mode};
use seedling_nn::params::Params;
use seedling_ssl::loss::{Neighbors, Target};
use seedling_ssl::microbatch::MicroBatches;
use seedling_ssl::moco::{Moco, MocoConfig, key_orders};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::queue::Queue;
use seedling_ssl::seed::{Seed, SeedConfig};
use seedling_ssl::step::{StepStats, Views};
use seedling_ssl::teacher::Teacher;

/// How far running statistics move with every batch in training. Files say 0.01 (torchvision) or
/// 0.1; the slower one would leave them stale after a short run.
const NORM_MOMENTUM: f32 = 0.1;

/// What a learner is made by.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    pub(crate) config: &'a Config,
    /// What is trained.
    pub(crate) metadata: &'a ModelMetadata,
    pub(crate) start: &'a Start<'a>,
}

/// The two ways to train.
pub(crate) enum Method<B: TrainingBackend> {
    /// Contrast with one's own slowly moving copy.
    Moco(Moco<B>),
    /// Learn from a larger network's view of the same images.
    Seed { seed: Seed<B>, teacher: Teacher<B> },
}

impl<B: TrainingBackend> Method<B> {
    pub(crate) fn new(
        encoder: Encoder<B>,
        queue: Queue<B::Flat>,
        setup: Setup<'_>,
    ) -> Result<Method<B>> {
        let Setup {
            config,
            metadata,
            start,
        } = setup;
        let backend = encoder.backend().clone();
        let batches = MicroBatches {
            bn_group: config.bn_group,
            mode: training_mode(config, metadata.architecture.arch),
            cancel: start.cancel.clone(),
        };
        let Some(teacher) = start.teacher else {
            let key = Encoder::with_backend(
                backend.clone(),
                metadata.architecture,
                false,
                config.freeze,
            )?;
            let target = target(config, &backend)?;
            let config = MocoConfig {
                m: config.key_momentum as f32,
                tau: config.temperature as f32,
                symmetric: config.symmetric,
                mask_own_photo: config.mask_own_photo,
                batches,
            };
            return Ok(Method::Moco(Moco::new(
                encoder, key, queue, target, config,
            )?));
        };
        let (ours, theirs) = (&metadata.normalize, teacher.normalize());
        let rescale = std::array::from_fn(|c| {
            (
                ours.std[c] / theirs.std[c],
                (ours.mean[c] - theirs.mean[c]) / theirs.std[c],
            )
        });
        let dim = encoder.output_dim();
        let seed_config = SeedConfig {
            student_temperature: config.student_temperature as f32,
            teacher_temperature: config.teacher_temperature as f32,
            batches,
        };
        let mut teacher = match teacher {
            TeacherSource::Foreign(teacher) => {
                Teacher::foreign(teacher.net.clone(), backend, rescale, dim, config.seed)?
            }
            TeacherSource::Weights(file) => {
                let architecture = Architecture {
                    head: teacher_head(file, config)?,
                    ..file.metadata.architecture
                };
                let mut network = Encoder::with_backend(backend, architecture, false, 0)?;
                file.load_backbone(&mut network.params)?;
                if let Some(head) = architecture.head {
                    file.load_head_of(&mut network.params, head)?;
                }
                Teacher::new(network, rescale, dim, config.seed)?
            }
        };
        teacher.side = (config.teacher_size > 0).then_some(config.teacher_size);
        let seed = Seed::new(encoder, queue, seed_config)?;
        Ok(Method::Seed { seed, teacher })
    }

    /// Loss and gradient of step number `step` of a run with this random seed.
    pub(crate) fn step(&mut self, views: &Views, random_seed: u64, step: u64) -> Result<StepStats> {
        match self {
            Method::Moco(moco) => {
                let batches = &mut moco.config.batches;
                batches.mode = batches.mode.at_step(step);
                moco.step(views, &key_orders(random_seed, step, views.photos.len()))
            }
            Method::Seed { seed, teacher } => {
                let batches = &mut seed.config.batches;
                batches.mode = batches.mode.at_step(step);
                let t = teacher.embed_views(views, batches.bn_group, &batches.cancel)?;
                seed.step(views, &t)
            }
        }
    }

    /// The network that is trained.
    pub(crate) fn encoder(&self) -> &Encoder<B> {
        match self {
            Method::Moco(moco) => &moco.query_encoder,
            Method::Seed { seed, .. } => &seed.student,
        }
    }

    pub(crate) fn encoder_mut(&mut self) -> &mut Encoder<B> {
        match self {
            Method::Moco(moco) => &mut moco.query_encoder,
            Method::Seed { seed, .. } => &mut seed.student,
        }
    }

    pub(crate) fn wants_initial_embeddings(&self) -> bool {
        matches!(self, Method::Moco(moco) if matches!(moco.target, Target::Neighbors(_)))
    }

    /// The networks whose running statistics move.
    pub(crate) fn moving(&self) -> Vec<&Params<B>> {
        match self {
            Method::Moco(moco) => vec![&moco.query_encoder.params, &moco.key_encoder.params],
            Method::Seed { seed, .. } => vec![&seed.student.params],
        }
    }

    pub(crate) fn moving_mut(&mut self) -> Vec<&mut Params<B>> {
        match self {
            Method::Moco(moco) => {
                vec![&mut moco.query_encoder.params, &mut moco.key_encoder.params]
            }
            Method::Seed { seed, .. } => vec![&mut seed.student.params],
        }
    }
}

/// What MoCo's queries are pulled towards.
fn target<B: TrainingBackend>(config: &Config, backend: &B) -> Result<Target<B::Flat>> {
    Ok(if config.neighbor_weight > 0.0 {
        Target::Neighbors(Neighbors {
            initial: backend.flat(Vec::new())?,
            weight: config.neighbor_weight as f32,
            temperature: config.neighbor_temperature as f32,
        })
    } else if config.label_smoothing > 0.0 {
        Target::Nearest {
            weight: config.label_smoothing as f32,
            count: config.label_smoothing_keys,
        }
    } else {
        Target::Positive
    })
}

/// How a network of `arch` is passed through in training.
fn training_mode(config: &Config, arch: Arch) -> Mode {
    let asked = |probability: f32| if config.dropout { probability } else { 0.0 };
    Mode::Train {
        norm_momentum: NORM_MOMENTUM,
        microbatches: 1,
        // A head may leave out some of its own, asked or not.
        dropping: Some(Dropping {
            features: asked(arch.spec().dropout),
            paths: asked(arch.spec().drop_connect),
            seed: config.seed,
            ..Dropping::default()
        }),
    }
}

/// Whether a teacher's embeddings or its features are learned.
///
/// # Errors
/// Its head is to be used, but it has none.
fn teacher_head(file: &WeightFile, config: &Config) -> Result<Option<Head>> {
    match (config.teacher_head, file.head()?) {
        (TeacherHead::Ignore, _) => Ok(None),
        (TeacherHead::Use, None) => Err(Error::Config(
            "teacher_head = use: the teacher's file comes with no head of ours".into(),
        )),
        (_, head) => Ok(head),
    }
}
