//! What a session has on its engine: method, networks, queue and optimizer.

use super::build::{moco_config, optimizer, training_mode};
use super::plan::Smaller;
use super::trainer::{Backbone, Trainer};
use super::{Guide, Start};
use crate::checkpoint::{Network, Numbers};
use crate::config::Config;
use crate::optim::Optimizer;
use crate::weights::{self, About, HEAD_PREFIX, Precision, WeightFile};
use crate::{Error, Result};
use seedling_nn::encoder::{Architecture, Encoder, FeatureNet, Head, LinearLayer};
use seedling_nn::init::initialise;
use seedling_nn::layout::Entry;
use seedling_nn::params::{Locked, Params, read, write};
use seedling_ssl::distill::{Distill, DistillConfig, Teacher};
use seedling_ssl::moco::{Moco, key_orders};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::queue::Queue;
use seedling_ssl::step::{StepStats, Views};
use std::borrow::Cow;
use std::iter::once;
use std::mem::take;
use std::path::Path;

/// A run on engine `B`.
pub(super) struct Run<B: TrainingBackend> {
    method: Method<B>,
    optimizer: Optimizer<B>,
    seed: u64,
    /// What the run began with, where its result is to be mixed with it.
    initial: Option<Backbone>,
    /// The running statistics that were kept.
    kept: Vec<B::Flat>,
    /// What would fit if this did not.
    pub(super) smaller: Smaller,
}

/// The two ways to train.
enum Method<B: TrainingBackend> {
    /// Contrast with one's own slowly moving copy.
    Moco(Moco<B>),
    /// Learn from a larger network's view of the same images.
    Distill {
        distill: Distill<B>,
        teacher: Teacher<B>,
    },
}

impl<B: TrainingBackend> Run<B> {
    pub(super) fn new(
        backend: B,
        config: &Config,
        about: &About,
        start: &Start<'_>,
        mut saved: Option<Numbers<'_>>,
    ) -> Result<Run<B>> {
        let encoder = Encoder::on(backend.clone(), about.architecture, true, config.freeze)?;
        match &mut saved {
            None => begin(&encoder, config, start)?,
            Some(saved) => restore(&encoder.params, take(&mut saved.trained))?,
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
        let queue = queue(config, dim, saved.as_mut())?.with_keys(|keys| backend.flat(keys))?;
        let mut method = Method::new(encoder, queue, config, about, start)?;
        let mut optimizer = optimizer(config, method.encoder())?;
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
            match &mut method {
                Method::Moco(moco) => {
                    restore(&moco.key.params, saved.key_encoder)?;
                    if !saved.album.is_empty() {
                        moco.album = Some(backend.flat(saved.album.into_owned())?);
                    }
                }
                Method::Distill { teacher, .. } => {
                    if let Some(projection) = &mut teacher.projection {
                        let size = projection.centre.len();
                        projection.centre = fitting(size, saved.teacher_centre)?;
                    }
                }
            }
        }
        let kept = method
            .trained()
            .map(|network| {
                let statistics = network.params.layout.buffer_count();
                backend.flat(vec![0.0; statistics])
            })
            .collect::<Result<_>>()?;
        Ok(Run {
            method,
            optimizer,
            seed: config.seed,
            initial,
            kept,
            smaller: Smaller::default(),
        })
    }
}

impl<B: TrainingBackend> Trainer for Run<B> {
    fn views(&self) -> usize {
        match self.method {
            Method::Moco(_) => 2,
            Method::Distill { .. } => 1,
        }
    }

    fn makes_views(&self) -> bool {
        self.method.encoder().backend().makes_views()
    }

    fn learn(&mut self, views: &Views, step: u64) -> Result<StepStats> {
        self.keep_statistics()?;
        let stats = match &mut self.method {
            Method::Moco(moco) => {
                moco.config.mode = moco.config.mode.at_step(step);
                moco.step(views, &key_orders(self.seed, step, views.photos.len()))
            }
            Method::Distill { distill, teacher } => {
                distill.config.mode = distill.config.mode.at_step(step);
                teacher
                    .embed_views(views, distill.config.bn_group, &distill.cancel)
                    .and_then(|targets| distill.step(views, &targets))
            }
        };
        stats.map_err(|error| {
            // Where the engine is lost, the first error says why.
            let _ = self.recall_statistics();
            self.smaller.explain(error)
        })
    }

    fn update(&mut self, lr: f32) -> Result<bool> {
        let params = &self.method.encoder().params;
        if !params.grads_are_finite()? {
            return Ok(false);
        }
        self.optimizer.step(params, lr)?;
        if let Method::Moco(moco) = &self.method {
            moco.follow()?;
        }
        Ok(true)
    }

    fn network(&self) -> &dyn FeatureNet {
        self.method.encoder()
    }

    fn keep_statistics(&mut self) -> Result<()> {
        for (network, kept) in self.method.trained().zip(&mut self.kept) {
            network
                .backend()
                .copy(kept, &read(&network.params.buffers))?;
        }
        Ok(())
    }

    fn recall_statistics(&self) -> Result<()> {
        for (network, kept) in self.method.trained().zip(&self.kept) {
            network
                .backend()
                .copy(&mut write(&network.params.buffers), kept)?;
        }
        Ok(())
    }

    fn teacher(&self) -> Option<&dyn FeatureNet> {
        match &self.method {
            Method::Moco(_) => None,
            // One with a head says embeddings, from which nothing is taken.
            Method::Distill { teacher, .. } => teacher.projection.as_ref().map(|_| teacher.net()),
        }
    }

    fn centre_teacher(&mut self, centre: Vec<f32>) {
        if let Method::Distill { teacher, .. } = &mut self.method
            && let Some(projection) = &mut teacher.projection
        {
            projection.centre = centre;
        }
    }

    fn keep_in_mind(&mut self, album: Vec<f32>) -> Result<()> {
        if let Method::Moco(moco) = &mut self.method {
            moco.album = Some(moco.query.backend().flat(album)?);
        }
        Ok(())
    }

    fn has_in_mind(&self) -> bool {
        match &self.method {
            Method::Moco(moco) => moco.album.is_some(),
            Method::Distill { .. } => true,
        }
    }

    fn numbers(&self, see: &mut dyn FnMut(Numbers<'_>) -> Result<()>) -> Result<()> {
        let backend = self.method.encoder().backend();
        let trained = self.method.encoder().params.lock();
        let (queue, key, centre, album) = match &self.method {
            Method::Moco(moco) => {
                let album = moco.album.as_ref();
                (&moco.queue, Some(moco.key.params.lock()), &[][..], album)
            }
            Method::Distill { distill, teacher } => {
                let projection = teacher.projection.as_ref();
                let centre = projection.map_or(&[][..], |projection| &projection.centre);
                (&distill.queue, None, centre, None)
            }
        };
        let album = album.map(|album| backend.host(album)).transpose()?;
        let (velocity, base, squares, updates) = match &self.optimizer {
            Optimizer::Sgd(sgd) => (&sgd.velocity, Some(&sgd.base), None, 0),
            Optimizer::AdamW(adamw) => (&adamw.first, None, Some(&adamw.second), adamw.steps),
        };
        see(Numbers {
            trained: network(&trained)?,
            key_encoder: key.as_ref().map(network).transpose()?.unwrap_or_default(),
            queue_keys: backend.host(&queue.keys)?,
            queue_photos: Cow::Borrowed(&queue.photos),
            queue_next: queue.next as u64,
            velocity: backend.host(velocity)?,
            base: base
                .map(|base| backend.host(base))
                .transpose()?
                .unwrap_or_default(),
            squares: squares
                .map(|all| backend.host(all))
                .transpose()?
                .unwrap_or_default(),
            updates,
            teacher_centre: Cow::Borrowed(centre),
            album: album.unwrap_or_default(),
            initial: self
                .initial
                .as_ref()
                .map_or_else(Network::default, |initial| Network {
                    values: Cow::Borrowed(&initial.values),
                    buffers: Cow::Borrowed(&initial.buffers),
                }),
        })
    }

    fn mix(&self, share: f32) -> Result<Option<Backbone>> {
        let Some(initial) = &self.initial else {
            return Ok(None);
        };
        let params = &self.method.encoder().params;
        let trained = backbone(params)?;
        params.edit(|values, buffers| {
            let mix = |trained: &mut [f32], initial: &[f32]| match share == 0.0 {
                // Whatever was trained, even what is no number.
                true => trained[..initial.len()].copy_from_slice(initial),
                false => {
                    let pairs = trained.iter_mut().zip(initial);
                    pairs.for_each(|(x, initial)| *x = initial + share * (*x - initial));
                }
            };
            mix(values, &initial.values);
            mix(buffers, &initial.buffers);
        })?;
        Ok(Some(trained))
    }

    fn unmix(&self, trained: &Backbone) -> Result<()> {
        self.method.encoder().params.edit(|values, buffers| {
            values[..trained.values.len()].copy_from_slice(&trained.values);
            buffers.copy_from_slice(&trained.buffers);
        })
    }

    fn save_backbone(
        &self,
        path: &Path,
        about: &About,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()> {
        let encoder = self.method.encoder();
        weights::save_backbone(
            path,
            &encoder.params,
            encoder.feature_dim(),
            about,
            layer,
            precision,
        )
    }

    fn save_head(&self, path: &Path, about: &About) -> Result<()> {
        let encoder = self.method.encoder();
        weights::save_head(path, &encoder.params, encoder.feature_dim(), about)
    }
}

impl<B: TrainingBackend> Method<B> {
    fn new(
        encoder: Encoder<B>,
        queue: Queue<B::Flat>,
        config: &Config,
        about: &About,
        start: &Start<'_>,
    ) -> Result<Method<B>> {
        let backend = encoder.backend().clone();
        let mode = training_mode(config, about.architecture.arch);
        let Some(teacher) = start.teacher else {
            let key = Encoder::on(backend, about.architecture, false, config.freeze)?;
            let how = moco_config(config, mode);
            let mut moco = Moco::new(encoder, key, queue, how)?;
            moco.cancel = start.cancel.clone();
            return Ok(Method::Moco(moco));
        };
        let (ours, theirs) = (&about.normalise, teacher.normalise());
        let rescale = std::array::from_fn(|c| {
            (
                ours.std[c] / theirs.std[c],
                (ours.mean[c] - theirs.mean[c]) / theirs.std[c],
            )
        });
        let how = DistillConfig {
            student_temperature: config.student_temperature as f32,
            teacher_temperature: config.teacher_temperature as f32,
            bn_group: config.bn_group,
            mode,
        };
        let dim = encoder.output_dim();
        let mut distill = Distill::new(encoder, queue, how)?;
        let mut teacher = match teacher {
            Guide::Foreign(guide) => {
                Teacher::foreign(guide.net.clone(), backend, rescale, dim, config.seed)?
            }
            Guide::Weights(file) => {
                let architecture = Architecture {
                    head: teacher_head(file, config)?,
                    ..file.about.architecture
                };
                let network = Encoder::on(backend, architecture, false, 0)?;
                file.load_backbone(&network.params)?;
                if let Some(head) = architecture.head {
                    file.load_head_of(&network.params, head)?;
                }
                Teacher::new(network, rescale, dim, config.seed)?
            }
        };
        teacher.side = (config.teacher_size > 0).then_some(config.teacher_size);
        distill.cancel = start.cancel.clone();
        Ok(Method::Distill { distill, teacher })
    }

    /// The network that is trained.
    fn encoder(&self) -> &Encoder<B> {
        match self {
            Method::Moco(moco) => &moco.query,
            Method::Distill { distill, .. } => &distill.student,
        }
    }

    /// The networks whose running statistics move.
    fn trained(&self) -> impl Iterator<Item = &Encoder<B>> {
        let key = match self {
            Method::Moco(moco) => Some(&moco.key),
            Method::Distill { .. } => None,
        };
        once(self.encoder()).chain(key)
    }
}

/// Whether a teacher's embeddings or its features are learned.
///
/// # Errors
/// Its head is to be used, but it has none.
fn teacher_head(file: &WeightFile, config: &Config) -> Result<Option<Head>> {
    match (config.teacher_head.as_str(), file.head()?) {
        ("ignore", _) => Ok(None),
        ("use", None) => Err(Error::Config(
            "teacher_head = use: the teacher's file comes with no head of ours".into(),
        )),
        (_, head) => Ok(head),
    }
}

/// The initial numbers of a new run.
fn begin<B: TrainingBackend>(
    encoder: &Encoder<B>,
    config: &Config,
    start: &Start<'_>,
) -> Result<()> {
    initialise(&encoder.params, config.seed)?;
    let Some(file) = start.init else {
        return Ok(());
    };
    file.load_backbone(&encoder.params)?;
    match encoder.architecture.head {
        Some(head) => file.load_head_of(&encoder.params, head).map(drop),
        None => Ok(()),
    }
}

fn queue(config: &Config, dim: usize, saved: Option<&mut Numbers<'_>>) -> Result<Queue> {
    let Some(saved) = saved else {
        return Ok(Queue::random(config.queue_size, dim, config.seed));
    };
    let mut queue = Queue::random(saved.queue_photos.len(), dim, config.seed);
    queue.keys = fitting(queue.keys.len(), take(&mut saved.queue_keys))?;
    queue.photos = fitting(queue.photos.len(), take(&mut saved.queue_photos))?;
    queue.next = saved.queue_next as usize;
    match saved.queue_next < queue.size() as u64 {
        true => Ok(queue),
        false => Err(Error::Shape {
            tensor: "the queue's next row in the checkpoint".into(),
            expected: vec![queue.size()],
            got: vec![queue.next],
        }),
    }
}

/// The backbone of `params` as it is now; the head's numbers lie behind it.
fn backbone<B: TrainingBackend>(params: &Params<B>) -> Result<Backbone> {
    let locked = params.lock();
    let (values, buffers) = locked.host()?;
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

pub(super) fn network<'a, B: TrainingBackend>(locked: &'a Locked<'_, B>) -> Result<Network<'a>> {
    let (values, buffers) = locked.host()?;
    Ok(Network { values, buffers })
}

// What a checkpoint holds is moved, not copied: for a moment both would be there.

pub(super) fn restore<B: TrainingBackend>(params: &Params<B>, saved: Network<'_>) -> Result<()> {
    refill(params.backend(), &mut write(&params.values), saved.values)?;
    refill(params.backend(), &mut write(&params.buffers), saved.buffers)
}

fn refill<B: TrainingBackend>(backend: &B, to: &mut B::Flat, from: Cow<'_, [f32]>) -> Result<()> {
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
    use seedling_data::Normalise;
    use seedling_nn::backbones::Arch;
    use seedling_nn::cpu::Cpu;
    use seedling_nn::encoder::Mode;

    #[test]
    fn both_encoders_see_through_the_same_frozen_stages() {
        let config = Config {
            freeze: 5,
            ..Config::adapt()
        };
        let about = About {
            architecture: Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Simple)),
            image_size: 32,
            normalise: Normalise::default(),
            made: String::new(),
        };
        let run = Run::new(Cpu::default(), &config, &about, &Start::default(), None).unwrap();
        // Equal numbers at the beginning: whatever differs is how they are used.
        let embed = |encoder: &Encoder| {
            let noise = |out: &mut [f32]| {
                let mut rng =
                    seedling_base::rng::Rng::new(1, seedling_base::rng::Purpose::Measure, 0, 0);
                out.iter_mut().for_each(|x| *x = rng.normal());
            };
            let images = encoder.images(4, (32, 32), noise).unwrap();
            encoder.embed(&images, Mode::train(0.1)).unwrap().to_vec()
        };
        let [query, key] = [0, 1].map(|n| run.method.trained().nth(n).unwrap());
        assert!(query.frozen_parameters() > 0);
        assert!(embed(query) == embed(key));
    }
}
