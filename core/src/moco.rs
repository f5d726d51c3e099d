//! MoCo v2 (He et al. 2020, Chen et al. 2020) on one device, in micro-batches.
//!
//! The paper's runs used 8 GPUs, each with its own batch-norm statistics and with keys shuffled
//! across them. Negatives come from the queue only, so the loss is separable per query: a batch
//! of `batch` photos runs here as `batch / bn_group` groups one after another, gradients added
//! up. That is MoCo on so many devices exactly, in the memory of one group.

use candle_core::{Device, Tensor};

use crate::encoder::{EMBEDDING_DIM, Encoder, Mode};
use crate::error::{Error, Result};
use crate::loss::{Agreement, Contrast, Target, cross_entropy};
use crate::queue::Queue;
use crate::rng::{Purpose, Rng};

/// The method's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MocoConfig {
    /// Temperature of the loss.
    pub temperature: f32,
    /// How slowly the key encoder follows: key <- m key + (1 - m) query.
    pub key_momentum: f32,
    /// Average both directions instead of querying with the first view only.
    pub symmetric: bool,
    /// Photos per micro-batch: those that share batch-norm statistics.
    pub bn_group: usize,
    /// How batch norm behaves in both encoders.
    pub mode: Mode,
    /// Leave a query's own photo out of its negatives.
    pub mask_own_photo: bool,
}

/// Two views of a batch of photos.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// Each (photos, height, width, 3).
    pub images: [&'a [f32]; 2],
    /// Height and width.
    pub size: (usize, usize),
    /// Which photo each row shows.
    pub photos: &'a [u32],
}

/// What a step reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepStats {
    /// Mean loss over the batch.
    pub loss: f32,
    /// How queries agree with their positives.
    pub agreement: Agreement,
    /// Spread of the query embeddings: their standard deviation over the batch, averaged over
    /// dimensions, times sqrt(dim). 1 is uniform on the sphere, 0 is collapse.
    pub spread: f32,
}

/// Query encoder, key encoder and queue.
#[derive(Debug)]
pub struct Moco {
    pub query: Encoder,
    pub key: Encoder,
    pub queue: Queue,
    pub config: MocoConfig,
}

impl Moco {
    /// Takes a query encoder with its initial values; the key encoder starts as its copy.
    ///
    /// # Errors
    /// If the encoders differ, have no projection head, or the queue's rows have another length.
    pub fn new(query: Encoder, key: Encoder, queue: Queue, config: MocoConfig) -> Result<Moco> {
        if query.architecture != key.architecture || query.architecture.head.is_none() {
            return Err(Error::Config(
                "MoCo needs two encoders of one architecture, with a projection head".into(),
            ));
        }
        if queue.size() == 0 || queue.keys.len() != queue.size() * EMBEDDING_DIM {
            return Err(Error::Config(format!(
                "MoCo needs a queue of rows of {EMBEDDING_DIM} numbers"
            )));
        }
        if config.bn_group == 0 {
            return Err(Error::Config("bn_group must be at least 1".into()));
        }
        key.params.copy_from(&query.params);
        Ok(Moco {
            query,
            key,
            queue,
            config,
        })
    }

    /// One step up to, but without, the optimizer's: moves the key encoder, leaves the batch's
    /// mean gradient in `query.params.grads`, and enqueues the keys. `key_order` says in which
    /// order the keys of each direction are encoded (see [`key_orders`]).
    pub fn step(&mut self, views: &Views, key_order: &[Vec<usize>; 2]) -> Result<StepStats> {
        self.query.params.zero_grads();
        self.key
            .params
            .follow(&self.query.params, self.config.key_momentum);
        let [first, second] = views.images;
        let batch = views.photos.len();
        let mut stats = StepStats::default();
        if self.config.symmetric {
            let keys_1 = self.keys(first, views.size, &key_order[0])?;
            let keys_2 = self.keys(second, views.size, &key_order[1])?;
            self.queries(first, views, &keys_2, 2 * batch, &mut stats)?;
            self.queries(second, views, &keys_1, 2 * batch, &mut stats)?;
            self.queue.enqueue(&keys_1, views.photos);
            self.queue.enqueue(&keys_2, views.photos);
        } else {
            let keys = self.keys(second, views.size, &key_order[0])?;
            self.queries(first, views, &keys, batch, &mut stats)?;
            self.queue.enqueue(&keys, views.photos);
        }
        Ok(stats)
    }

    /// Unit keys (batch, dim) in the batch's order, encoded in micro-batches of a shuffled one:
    /// a query and its key must not share batch-norm statistics, or they give the answer away.
    fn keys(&self, images: &[f32], size: (usize, usize), order: &[usize]) -> Result<Vec<f32>> {
        let image = size.0 * size.1 * 3;
        let mut keys = vec![0.0; order.len() * EMBEDDING_DIM];
        for group in order.chunks(self.config.bn_group) {
            let mut gathered = Vec::with_capacity(group.len() * image);
            for &i in group {
                gathered.extend_from_slice(&images[i * image..(i + 1) * image]);
            }
            let encoded = self
                .key
                .embed(&batch_tensor(gathered, size)?, self.config.mode)?;
            let encoded = encoded.flatten_all()?.to_vec1::<f32>()?;
            for (row, &i) in encoded.chunks_exact(EMBEDDING_DIM).zip(group) {
                keys[i * EMBEDDING_DIM..(i + 1) * EMBEDDING_DIM].copy_from_slice(row);
            }
        }
        Ok(keys)
    }

    /// Loss and gradient of one direction, group by group. `total` is the number of queries that
    /// the loss is averaged over.
    fn queries(
        &self,
        images: &[f32],
        views: &Views,
        keys: &[f32],
        total: usize,
        stats: &mut StepStats,
    ) -> Result<()> {
        let group = self.config.bn_group;
        let image = views.size.0 * views.size.1 * 3;
        let mut embeddings = Vec::with_capacity(keys.len());
        for (i, photos) in views.photos.chunks(group).enumerate() {
            let first = i * group;
            let rows = first..first + photos.len();
            let pixels = images[rows.start * image..rows.end * image].to_vec();
            let queries = self
                .query
                .embed_tracked(&batch_tensor(pixels, views.size)?, self.config.mode)?;
            let contrast = Contrast {
                positives: &keys[rows.start * EMBEDDING_DIM..rows.end * EMBEDDING_DIM],
                queue: &self.queue,
                photos: self.config.mask_own_photo.then_some(photos),
                temperature: self.config.temperature,
                target: Target::Positive,
                batch: total,
            };
            let (loss, agreement) = cross_entropy(&queries, contrast)?;
            loss.backward()?;
            stats.loss += loss.to_scalar::<f32>()?;
            stats.agreement.positive += agreement.positive;
            stats.agreement.accuracy += agreement.accuracy;
            embeddings.extend(queries.flatten_all()?.to_vec1::<f32>()?);
        }
        stats.spread = spread(&embeddings, EMBEDDING_DIM);
        Ok(())
    }
}

/// The key orders of step `step`: a random one for each direction.
pub fn key_orders(seed: u64, step: u64, batch: usize) -> [Vec<usize>; 2] {
    [0, 1].map(|direction| Rng::new(seed, Purpose::Shuffle, step, direction).permutation(batch))
}

/// (n, height, width, 3) from pixels in that order.
pub(crate) fn batch_tensor(pixels: Vec<f32>, (height, width): (usize, usize)) -> Result<Tensor> {
    let n = pixels.len() / (height * width * 3).max(1);
    Ok(Tensor::from_vec(
        pixels,
        (n, height, width, 3),
        &Device::Cpu,
    )?)
}

/// [`StepStats::spread`] of rows of `dim` numbers.
pub(crate) fn spread(rows: &[f32], dim: usize) -> f32 {
    let n = (rows.len() / dim).max(1) as f64;
    let mut total = 0.0;
    for d in 0..dim {
        let column = || rows.iter().skip(d).step_by(dim).map(|&x| x as f64);
        let mean = column().sum::<f64>() / n;
        total += (column().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    }
    (total / (dim as f64).sqrt()) as f32
}
