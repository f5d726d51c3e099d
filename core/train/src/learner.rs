//! What learns, on a backend: method, networks, queue and optimizer.

use crate::checkpoint::{Network, TrainingState};
use crate::config::{Config, DistillMethod, OptimizerKind};
use crate::method::{Method, Queues, Setup};
use crate::optim::{AdamW, AdamWConfig, Optimizer, Sgd, SgdConfig, WeightDecay};
use crate::start::Start;
use crate::weights::HEAD_PREFIX;
use crate::{Error, Result};
use seedling_nn::backend::Backend;
use seedling_nn::encoder::{Encoder, FeatureNet};
use seedling_nn::init::initialize;
use seedling_nn::layout::Entry;
use seedling_nn::params::Params;
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::queue::Queue;
use seedling_ssl::step::{StepStats, Views};
use std::borrow::Cow;
use std::mem::take;

/// A method and its optimizer on backend `B`.
pub(crate) struct Learner<B: TrainingBackend> {
    method: Method<B>,
    optimizer: Optimizer<B>,
    seed: u64,
    /// The peak of the learning rate, for messages.
    lr: f64,
    /// What the run began with, where its result is to be interpolated with it.
    initial: Option<Backbone>,
    /// Whether the target asks for embeddings that are not there yet.
    wants_initial: bool,
    /// The running statistics that were kept.
    kept: Vec<B::Flat>,
}

/// A backbone's numbers at some time, on the host.
pub struct Backbone {
    values: Vec<f32>,
    buffers: Vec<f32>,
}

impl<B: TrainingBackend> Learner<B> {
    /// At a run's beginning, or where `saved` left it.
    ///
    /// # Errors
    /// Weights do not fit, `saved` is not of such a run, or the backend's.
    pub(crate) fn new(
        backend: B,
        setup: Setup<'_>,
        mut saved: Option<TrainingState<'_>>,
    ) -> Result<Learner<B>> {
        let Setup {
            config,
            metadata,
            start,
        } = setup;
        let mut encoder =
            Encoder::with_backend(backend.clone(), metadata.architecture, true, config.freeze)?;
        match &mut saved {
            None => init_params(&mut encoder, config, start)?,
            Some(saved) => restore(&mut encoder.params, take(&mut saved.trained))?,
        }
        let initial = match (config.keeps_initial(), &mut saved) {
            (false, _) => None,
            (true, None) => Some(backbone(&encoder.params)?),
            (true, Some(saved)) => {
                let size = backbone_size(&encoder.params);
                let statistics = encoder.params.layout.buffer_count();
                let saved = take(&mut saved.initial);
                Some(Backbone {
                    values: fitting(size, saved.values)?,
                    buffers: fitting(statistics, saved.buffers)?,
                })
            }
        };
        let dim = encoder.output_dim();
        let (first, second) = queues(setup, dim, saved.as_mut())?;
        let on_device = |queue: Queue| queue.with_keys(|keys| backend.flat(keys));
        let queues = (on_device(first)?, second.map(on_device).transpose()?);
        let mut method = Method::new(encoder, queues, setup)?;
        let mut optimizer = optimizer(config, method.encoder())?;
        let mut wants_initial = method.wants_initial_embeddings();
        if let Some(saved) = saved {
            match &mut optimizer {
                Optimizer::Sgd(sgd) => {
                    refill(&backend, &mut sgd.velocity, saved.velocity)?;
                    refill(&backend, &mut sgd.base, saved.base)?;
                }
                Optimizer::AdamW(adamw) => {
                    refill(&backend, &mut adamw.first, saved.velocity)?;
                    refill(&backend, &mut adamw.second, saved.squares)?;
                    adamw.steps = saved.updates;
                }
            }
            if let Some(moco) = method.moco_mut() {
                restore(&mut moco.key_encoder.params, saved.key_encoder)?;
            }
            if wants_initial && !saved.initial_embeddings.is_empty() {
                method.set_initial_embeddings(saved.initial_embeddings.into_owned())?;
                wants_initial = false;
            }
            let teacher = method.teacher_mut();
            if let Some(projection) = teacher.and_then(|teacher| teacher.projection.as_mut()) {
                let size = projection.center.len();
                projection.center = fitting(size, saved.teacher_center)?;
            }
        }
        let kept = method
            .moving()
            .into_iter()
            .map(|params| backend.flat(vec![0.0; params.layout.buffer_count()]))
            .collect::<Result<_>>()?;
        Ok(Learner {
            method,
            optimizer,
            seed: config.seed,
            lr: config.lr,
            initial,
            wants_initial,
            kept,
        })
    }

    /// The network that is trained.
    pub(crate) fn encoder(&self) -> &Encoder<B> {
        self.method.encoder()
    }

    /// The same, for measurements that change its running statistics.
    pub(crate) fn encoder_mut(&mut self) -> &mut Encoder<B> {
        self.method.encoder_mut()
    }

    /// The training step number `step`: loss and gradient by the method, the optimizer's update with rate
    /// `lr`, and the key encoder's. One that fails, or is canceled, before the update leaves nothing.
    ///
    /// # Errors
    /// Someone has canceled; loss or gradient is not finite ([`Error::Training`]): parameters are then as
    /// they were; or the backend's.
    pub(crate) fn step(&mut self, views: &Views, step: u64, lr: f32) -> Result<StepStats> {
        self.keep_statistics()?;
        let stats = self.method.step(views, self.seed, step);
        if stats.is_err() {
            // Where the device is lost, the first error says why.
            let _ = self.recall_statistics();
        }
        let stats = stats?;
        if !stats.finite {
            return Err(Error::Training(format!(
                "training diverged at step {} (loss {}); a lower lr than {} may help",
                step + 1,
                stats.loss,
                self.lr
            )));
        }
        let params = &mut self.method.encoder_mut().params;
        self.optimizer.step(params, lr)?;
        if let Some(moco) = self.method.moco_mut() {
            moco.momentum_update()?;
        }
        Ok(stats)
    }

    /// Keeps the running statistics for [`Learner::recall_statistics`].
    ///
    /// # Errors
    /// The backend's.
    pub(crate) fn keep_statistics(&mut self) -> Result<()> {
        for (params, kept) in self.method.moving().into_iter().zip(&mut self.kept) {
            params.backend().copy(kept, &params.buffers)?;
        }
        Ok(())
    }

    /// Sets the running statistics to what was kept.
    ///
    /// # Errors
    /// The backend's.
    pub(crate) fn recall_statistics(&mut self) -> Result<()> {
        for (params, kept) in self.method.moving_mut().into_iter().zip(&self.kept) {
            let backend = params.backend().clone();
            backend.copy(&mut params.buffers, kept)?;
        }
        Ok(())
    }

    /// The teacher, where features of it are learned.
    pub(crate) fn teacher(&self) -> Option<&dyn FeatureNet> {
        // One with a head says embeddings, from which nothing is taken.
        let teacher = self.method.teacher()?;
        teacher.projection.as_ref().map(|_| teacher.net())
    }

    /// Whoever knows which photos are near each other: the network that is trained, by the weights that it begins with, or
    /// the teacher, with the channels' (factor, offset) from the student's pixels to the teacher's.
    pub(crate) fn knows_neighbors(&self) -> (&dyn FeatureNet, Option<[(f32, f32); 3]>) {
        match self.method.teacher() {
            Some(teacher) => (teacher.net(), Some(teacher.rescale)),
            None => (self.encoder(), None),
        }
    }

    /// Sets what is taken from the teacher's features.
    pub(crate) fn center_teacher(&mut self, center: Vec<f32>) {
        let teacher = self.method.teacher_mut();
        if let Some(projection) = teacher.and_then(|teacher| teacher.projection.as_mut()) {
            projection.center = center;
        }
    }

    /// Whether the target asks for the initial weights' embeddings of the dataset, and does not have them.
    pub(crate) fn wants_initial_embeddings(&self) -> bool {
        self.wants_initial
    }

    /// Sets them, (photos, dim).
    ///
    /// # Errors
    /// The backend's.
    pub(crate) fn set_initial_embeddings(&mut self, embeddings: Vec<f32>) -> Result<()> {
        self.method.set_initial_embeddings(embeddings)?;
        self.wants_initial = false;
        Ok(())
    }

    /// Shows `see` all numbers that training changes.
    ///
    /// # Errors
    /// The backend's, or what `see` says.
    pub(crate) fn with_training_state(
        &self,
        see: &mut dyn FnMut(TrainingState<'_>) -> Result<()>,
    ) -> Result<()> {
        let backend = self.encoder().backend();
        let mut training = TrainingState::default();
        if let Some(moco) = self.method.moco() {
            training.key_encoder = network(&moco.key_encoder.params)?;
        }
        training.initial_embeddings = self.method.initial_embeddings()?;
        let teacher = self.method.teacher();
        if let Some(projection) = teacher.and_then(|teacher| teacher.projection.as_ref()) {
            training.teacher_center = Cow::Borrowed(&projection.center);
        }
        let (queue, second) = self.method.queues();
        let mut queue_keys = backend.host(&queue.keys)?;
        if let Some(second) = second {
            queue_keys
                .to_mut()
                .extend_from_slice(&backend.host(&second.keys)?);
        }
        match &self.optimizer {
            Optimizer::Sgd(sgd) => {
                training.velocity = backend.host(&sgd.velocity)?;
                training.base = backend.host(&sgd.base)?;
            }
            Optimizer::AdamW(adamw) => {
                training.velocity = backend.host(&adamw.first)?;
                training.squares = backend.host(&adamw.second)?;
                training.updates = adamw.steps;
            }
        }
        if let Some(initial) = &self.initial {
            training.initial = Network {
                values: Cow::Borrowed(&initial.values),
                buffers: Cow::Borrowed(&initial.buffers),
            };
        }
        see(TrainingState {
            trained: network(&self.encoder().params)?,
            queue_keys,
            queue_photos: Cow::Borrowed(&queue.photos),
            queue_next: queue.next as u64,
            ..training
        })
    }

    /// See [`Trainer::interpolate`](crate::session::Trainer::interpolate).
    pub(crate) fn interpolate(&mut self, weight: f32) -> Result<Option<Backbone>> {
        let Some(initial) = &self.initial else {
            return Ok(None);
        };
        let params = &mut self.method.encoder_mut().params;
        let trained = backbone(params)?;
        params.edit(|values, buffers| {
            let between = |trained: &mut [f32], initial: &[f32]| match weight == 0.0 {
                // Whatever was trained, even what is no number.
                true => trained[..initial.len()].copy_from_slice(initial),
                false => {
                    let pairs = trained.iter_mut().zip(initial);
                    pairs.for_each(|(x, initial)| *x = initial + weight * (*x - initial));
                }
            };
            between(values, &initial.values);
            between(buffers, &initial.buffers);
        })?;
        Ok(Some(trained))
    }

    /// See [`Trainer::undo_interpolation`](crate::session::Trainer::undo_interpolation).
    pub(crate) fn undo_interpolation(&mut self, trained: Option<&Backbone>) -> Result<()> {
        let Some(trained) = trained else {
            return Ok(());
        };
        self.encoder_mut().params.edit(|values, buffers| {
            values[..trained.values.len()].copy_from_slice(&trained.values);
            buffers.copy_from_slice(&trained.buffers);
        })
    }
}

/// The optimizer that `config` asks for, at rest.
fn optimizer<B: TrainingBackend>(config: &Config, network: &Encoder<B>) -> Result<Optimizer<B>> {
    let decay = WeightDecay {
        weight_decay: config.weight_decay as f32,
        norm_and_bias: config.weight_decay_norm,
        train_from: network.frozen_parameters(),
    };
    Ok(match config.optimizer {
        OptimizerKind::AdamW => {
            Optimizer::AdamW(AdamW::new(&network.params, AdamWConfig::new(decay))?)
        }
        OptimizerKind::Sgd => {
            let how = SgdConfig {
                momentum: config.sgd_momentum as f32,
                decay,
                l2_sp: config.l2_sp as f32,
            };
            Optimizer::Sgd(Sgd::new(&network.params, how)?)
        }
    })
}

/// The initial numbers of a new run.
fn init_params<B: TrainingBackend>(
    encoder: &mut Encoder<B>,
    config: &Config,
    start: &Start<'_>,
) -> Result<()> {
    initialize(&mut encoder.params, config.seed)?;
    let Some(file) = start.init else {
        return Ok(());
    };
    file.load_backbone(&mut encoder.params)?;
    match encoder.architecture.head {
        Some(head) => file.load_head_of(&mut encoder.params, head).map(drop),
        None => Ok(()),
    }
}

/// The method's queue, and a second one where it has two: random ones, or those of a checkpoint.
fn queues(
    setup: Setup<'_>,
    dim: usize,
    saved: Option<&mut TrainingState<'_>>,
) -> Result<Queues<Vec<f32>>> {
    let config = setup.config;
    let two = setup.start.teacher.is_some() && config.method == DistillMethod::Compress;
    let count = 1 + usize::from(two);
    let size = match &saved {
        None => config.queue_size,
        Some(saved) => saved.queue_photos.len(),
    };
    let mut queue = Queue::random(count * size, dim, config.seed);
    queue.photos.truncate(size);
    if let Some(saved) = saved {
        queue.keys = fitting(queue.keys.len(), take(&mut saved.queue_keys))?;
        queue.photos = fitting(size, take(&mut saved.queue_photos))?;
        queue.next = saved.queue_next as usize;
        if saved.queue_next >= size as u64 {
            return Err(Error::Shape {
                tensor: "the queue's next row in the checkpoint".into(),
                expected: vec![size],
                got: vec![queue.next],
            });
        }
    }
    let second = queue.keys.split_off(size * dim);
    let second = two.then(|| Queue {
        keys: second,
        ..queue.clone()
    });
    Ok((queue, second))
}

/// The backbone of `params` as it is now; the head's numbers lie behind it.
fn backbone<B: TrainingBackend>(params: &Params<B>) -> Result<Backbone> {
    let (values, buffers) = params.host()?;
    Ok(Backbone {
        values: values[..backbone_size(params)].to_vec(),
        buffers: buffers.to_vec(),
    })
}

/// Numbers of the backbone of `params`.
fn backbone_size<B: TrainingBackend>(params: &Params<B>) -> usize {
    let head = |entry: &&Entry| entry.name.starts_with(HEAD_PREFIX);
    let head = params.layout.entries().iter().find(head);
    head.map_or(params.layout.parameter_count(), |head| head.range.start)
}

/// A network's numbers, as a checkpoint keeps them.
pub(crate) fn network<B: Backend>(params: &Params<B>) -> Result<Network<'_>> {
    let (values, buffers) = params.host()?;
    Ok(Network { values, buffers })
}

// What a checkpoint holds is moved, not copied: for a moment both would be there.

/// Sets a network's numbers to what a checkpoint has kept.
pub(crate) fn restore<B: Backend>(params: &mut Params<B>, saved: Network<'_>) -> Result<()> {
    let backend = params.backend().clone();
    refill(&backend, &mut params.values, saved.values)?;
    refill(&backend, &mut params.buffers, saved.buffers)
}

fn refill<B: Backend>(backend: &B, to: &mut B::Flat, from: Cow<'_, [f32]>) -> Result<()> {
    let size = backend.host(to)?.len();
    *to = backend.flat(fitting(size, from)?)?;
    Ok(())
}

fn fitting<T: Clone>(size: usize, saved: Cow<'_, [T]>) -> Result<Vec<T>> {
    match saved.len() == size {
        true => Ok(saved.into_owned()),
        false => Err(Error::Shape {
            tensor: "part of the checkpoint".into(),
            expected: vec![size],
            got: vec![saved.len()],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::ModelMetadata;
    use seedling_base::rng::{Purpose, Rng};
    use seedling_data::Normalize;
    use seedling_nn::backbones::Arch;
    use seedling_nn::cpu::Cpu;
    use seedling_nn::encoder::{Architecture, Head, Mode};

    #[test]
    fn both_encoders_see_through_the_same_frozen_stages() {
        let config = Config {
            freeze: 5,
            ..Config::adapt()
        };
        let metadata = ModelMetadata {
            architecture: Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Simple)),
            image_size: 32,
            normalize: Normalize::default(),
            made: String::new(),
        };
        let setup = Setup {
            config: &config,
            metadata: &metadata,
            start: &Start::default(),
        };
        let learner = Learner::new(Cpu::default(), setup, None);
        let mut method = learner.unwrap().method;
        let moco = method.moco_mut().expect("MoCo");
        // Equal numbers at the beginning: whatever differs is how they are used.
        let embed = |encoder: &mut Encoder| {
            let noise = |out: &mut [f32]| {
                let mut rng = Rng::new(1, Purpose::Measure, 0, 0);
                out.iter_mut().for_each(|x| *x = rng.normal());
            };
            let images = encoder.images(4, (32, 32), noise).unwrap();
            let embedded = encoder.embed_in(&images, Mode::train(0.1));
            embedded.unwrap().to_vec()
        };
        assert!(moco.query_encoder.frozen_parameters() > 0);
        assert!(embed(&mut moco.query_encoder) == embed(&mut moco.key_encoder));
    }
}
