//! The ways to train, as the settings have them.

use crate::config::{Config, DistillMethod, TeacherHead};
use crate::start::{Start, TeacherSource};
use crate::weights::{ModelMetadata, WeightFile};
use crate::{Error, Result};
use seedling_nn::backbones::Arch;
use seedling_nn::block::Dropping;
use seedling_nn::encoder::{Architecture, Encoder, Head, Mode};
use seedling_nn::params::Params;
use seedling_ssl::bingo::{Bags, Bingo};
use seedling_ssl::compress::Compress;
use seedling_ssl::loss::{Neighbors, Target, TeacherQueue};
use seedling_ssl::microbatch::MicroBatches;
use seedling_ssl::moco::{Moco, MocoConfig, key_orders};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::queue::Queue;
use seedling_ssl::seed::{Seed, SeedConfig};
use seedling_ssl::simdis::SimDis;
use seedling_ssl::step::{StepStats, Views};
use seedling_ssl::teacher::Teacher;
use std::borrow::Cow;

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

/// What is learned, and whose embeddings help.
pub(crate) struct Method<B: TrainingBackend> {
    objective: Objective<B>,
    teacher: Option<Teacher<B>>,
}

/// The ways to train.
enum Objective<B: TrainingBackend> {
    /// Contrast with one's own slowly moving copy; with a teacher (DisCo), near its embeddings by this weight.
    Moco(Moco<B>, f32),
    /// Learn from a larger network's view of the same images, in these ways; of BINGO's photos as many are a bag.
    Seed(Seed<B>),
    Compress(Compress<B>),
    Bingo(Bingo<B>, usize),
    SimDis(SimDis<B>),
}

/// The queue of a method, and a second one where it has two.
pub(crate) type Queues<K> = (Queue<K>, Option<Queue<K>>);

impl<B: TrainingBackend> Method<B> {
    pub(crate) fn new(
        encoder: Encoder<B>,
        (queue, second): Queues<B::Flat>,
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
        let dim = encoder.output_dim();
        let teacher = match start.teacher {
            None => None,
            Some(source) => Some(teacher(source, &backend, dim, setup)?),
        };
        let objective = match (teacher.is_some(), config.method) {
            (false, _) | (true, DistillMethod::Disco) => {
                let arch = metadata.architecture;
                let key = Encoder::with_backend(backend.clone(), arch, false, config.freeze)?;
                let target = target(config, &backend)?;
                let moco_config = MocoConfig {
                    m: config.key_momentum as f32,
                    tau: config.temperature as f32,
                    symmetric: config.symmetric,
                    mask_own_photo: config.mask_own_photo,
                    batches,
                };
                // The mean squared error is over the numbers of an embedding, too.
                let weight = config.regression_weight as f32 / dim as f32;
                let moco = Moco::new(encoder, key, queue, target, moco_config)?;
                Objective::Moco(moco, weight)
            }
            (true, DistillMethod::Seed) => {
                let seed_config = SeedConfig {
                    student_temperature: config.student_temperature as f32,
                    teacher_temperature: config.teacher_temperature as f32,
                    batches,
                };
                Objective::Seed(Seed::new(encoder, queue, seed_config)?)
            }
            (true, DistillMethod::Compress) => {
                let second = second
                    .ok_or_else(|| Error::Config("method = compress needs two queues".into()))?;
                let of_teacher = TeacherQueue {
                    queue: second,
                    temperature: config.teacher_temperature as f32,
                };
                let temperature = config.student_temperature as f32;
                let queues = (queue, of_teacher);
                Objective::Compress(Compress::new(encoder, queues, temperature, batches)?)
            }
            (true, DistillMethod::Bingo) => {
                // Bags are of features, whose embeddings are those of the queue.
                if teacher
                    .as_ref()
                    .is_some_and(|teacher| teacher.projection.is_none())
                {
                    return Err(Error::Config(
                        "method = bingo learns from a teacher's features, not from its head; teacher_head = ignore takes them"
                            .into(),
                    ));
                }
                let temperature = config.student_temperature as f32;
                let bingo = Bingo::new(encoder, queue, temperature, batches)?;
                Objective::Bingo(bingo, config.bag_size)
            }
            (true, DistillMethod::SimDis) => {
                Objective::SimDis(SimDis::new(encoder, queue, batches)?)
            }
        };
        Ok(Method { objective, teacher })
    }

    /// Loss and gradient of step number `step` of a run with this random seed.
    pub(crate) fn step(&mut self, views: &Views, random_seed: u64, step: u64) -> Result<StepStats> {
        let batches = match &mut self.objective {
            Objective::Moco(moco, _) => &mut moco.config.batches,
            Objective::Seed(seed) => &mut seed.config.batches,
            Objective::Compress(compress) => &mut compress.batches,
            Objective::Bingo(bingo, _) => &mut bingo.batches,
            Objective::SimDis(simdis) => &mut simdis.batches,
        };
        batches.mode = batches.mode.at_step(step);
        let (bn_group, cancel) = (batches.bn_group, batches.cancel.clone());
        let teacher = self.teacher.as_ref();
        let embed = |view: usize| match teacher {
            Some(teacher) => teacher.embed_views(views, view, bn_group, &cancel),
            None => Err(Error::Config("a distillation needs a teacher".into())),
        };
        match &mut self.objective {
            Objective::Moco(moco, weight) => {
                let order = key_orders(random_seed, step, views.photos.len());
                let embeddings = match teacher {
                    Some(_) => Some([embed(0)?, embed(1)?]),
                    None => None,
                };
                let near = embeddings.as_ref().map(|both| (both, *weight));
                moco.step_beside(views, &order, near)
            }
            Objective::Seed(seed) => seed.step(views, &embed(0)?),
            Objective::Compress(compress) => compress.step(views, &embed(0)?),
            Objective::Bingo(bingo, _) => bingo.step(views, &embed(1)?, (random_seed, step)),
            Objective::SimDis(simdis) => simdis.step(views, &[embed(0)?, embed(1)?]),
        }
    }

    /// The network that is trained.
    pub(crate) fn encoder(&self) -> &Encoder<B> {
        match &self.objective {
            Objective::Moco(moco, _) => &moco.query_encoder,
            Objective::Seed(seed) => &seed.student,
            Objective::Compress(compress) => &compress.student,
            Objective::Bingo(bingo, _) => &bingo.student,
            Objective::SimDis(simdis) => &simdis.student,
        }
    }

    pub(crate) fn encoder_mut(&mut self) -> &mut Encoder<B> {
        match &mut self.objective {
            Objective::Moco(moco, _) => &mut moco.query_encoder,
            Objective::Seed(seed) => &mut seed.student,
            Objective::Compress(compress) => &mut compress.student,
            Objective::Bingo(bingo, _) => &mut bingo.student,
            Objective::SimDis(simdis) => &mut simdis.student,
        }
    }

    /// Its queue, and the second where there are two.
    pub(crate) fn queues(&self) -> (&Queue<B::Flat>, Option<&Queue<B::Flat>>) {
        match &self.objective {
            Objective::Moco(moco, _) => (&moco.queue, None),
            Objective::Seed(seed) => (&seed.queue, None),
            Objective::Compress(compress) => (&compress.queue, Some(compress.teacher_queue())),
            Objective::Bingo(bingo, _) => (&bingo.queue, None),
            Objective::SimDis(simdis) => (&simdis.queue, None),
        }
    }

    /// Where it is MoCo: query encoder, key encoder and what follows them.
    pub(crate) fn moco(&self) -> Option<&Moco<B>> {
        match &self.objective {
            Objective::Moco(moco, _) => Some(moco),
            _ => None,
        }
    }

    pub(crate) fn moco_mut(&mut self) -> Option<&mut Moco<B>> {
        match &mut self.objective {
            Objective::Moco(moco, _) => Some(moco),
            _ => None,
        }
    }

    /// Who teaches, where somebody does.
    pub(crate) fn teacher(&self) -> Option<&Teacher<B>> {
        self.teacher.as_ref()
    }

    pub(crate) fn teacher_mut(&mut self) -> Option<&mut Teacher<B>> {
        self.teacher.as_mut()
    }

    pub(crate) fn wants_initial_embeddings(&self) -> bool {
        match &self.objective {
            Objective::Moco(moco, _) => matches!(moco.target, Target::Neighbors(_)),
            Objective::Bingo(..) => true,
            _ => false,
        }
    }

    /// Every photo's embedding, as far as it is kept.
    pub(crate) fn initial_embeddings(&self) -> Result<Cow<'_, [f32]>> {
        match &self.objective {
            Objective::Moco(moco, _) => match &moco.target {
                Target::Neighbors(neighbors) => self.encoder().backend().host(&neighbors.initial),
                _ => Ok(Cow::default()),
            },
            Objective::Bingo(bingo, _) => Ok(Cow::Borrowed(&bingo.bags.embeddings)),
            _ => Ok(Cow::default()),
        }
    }

    /// Keeps every photo's embedding, (photos, dim), where that is asked for.
    ///
    /// # Errors
    /// A number is not finite, or the backend's.
    pub(crate) fn set_initial_embeddings(&mut self, embeddings: Vec<f32>) -> Result<()> {
        let backend = self.encoder().backend().clone();
        match &mut self.objective {
            Objective::Moco(moco, _) => {
                if let Target::Neighbors(neighbors) = &mut moco.target {
                    neighbors.initial = backend.flat(embeddings)?;
                }
            }
            Objective::Bingo(bingo, size) => {
                let dim = bingo.student.output_dim();
                bingo.bags = Bags::new(embeddings, dim, *size)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The networks whose running statistics move.
    pub(crate) fn moving(&self) -> Vec<&Params<B>> {
        let keys = self.moco().map(|moco| &moco.key_encoder.params);
        std::iter::once(&self.encoder().params)
            .chain(keys)
            .collect()
    }

    pub(crate) fn moving_mut(&mut self) -> Vec<&mut Params<B>> {
        match &mut self.objective {
            Objective::Moco(moco, _) => {
                vec![&mut moco.query_encoder.params, &mut moco.key_encoder.params]
            }
            Objective::Seed(seed) => vec![&mut seed.student.params],
            Objective::Compress(compress) => vec![&mut compress.student.params],
            Objective::Bingo(bingo, _) => vec![&mut bingo.student.params],
            Objective::SimDis(simdis) => vec![&mut simdis.student.params],
        }
    }
}

/// The teacher whose embeddings have `dim` numbers, as the student's do.
fn teacher<B: TrainingBackend>(
    source: TeacherSource<'_>,
    backend: &B,
    dim: usize,
    setup: Setup<'_>,
) -> Result<Teacher<B>> {
    let config = setup.config;
    let (ours, theirs) = (&setup.metadata.normalize, source.normalize());
    let rescale = std::array::from_fn(|c| {
        (
            ours.std[c] / theirs.std[c],
            (ours.mean[c] - theirs.mean[c]) / theirs.std[c],
        )
    });
    let mut teacher = match source {
        TeacherSource::Foreign(teacher) => {
            let net = teacher.net.clone();
            Teacher::foreign(net, backend.clone(), rescale, dim, config.seed)?
        }
        TeacherSource::Weights(file) => {
            let architecture = Architecture {
                head: teacher_head(file, config)?,
                ..file.metadata.architecture
            };
            let mut network = Encoder::with_backend(backend.clone(), architecture, false, 0)?;
            file.load_backbone(&mut network.params)?;
            if let Some(head) = architecture.head {
                file.load_head_of(&mut network.params, head)?;
            }
            Teacher::new(network, rescale, dim, config.seed)?
        }
    };
    teacher.side = (config.teacher_size > 0).then_some(config.teacher_size);
    Ok(teacher)
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
