//! The teacher of a distillation: a frozen network, and how its features become embeddings.

use std::fmt;
use std::sync::Arc;

use seedling_base::cancel::CancelToken;
use seedling_base::rng::{Purpose, Rng};
use seedling_nn::activation::Act;
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::{Encoder, FeatureNet, Images};
use seedling_nn::layer::Linear;

use crate::ops::TrainingBackend;
use crate::step::Views;
use crate::{Error, Result};

/// A frozen network whose view of images a student learns.
#[derive(Debug)]
pub struct Teacher<B: TrainingBackend = Cpu> {
    net: Net<B>,
    backend: B,
    /// Per channel (factor, offset) from the student's pixels to the teacher's: two networks may
    /// have been trained with different means and deviations.
    pub rescale: [(f32, f32); 3],
    /// Height and width at which it looks; `None` looks at what the student sees.
    pub side: Option<usize>,
    /// What makes embeddings of its features, where its own head does not.
    pub projection: Option<Projection<B>>,
}

/// The network itself.
enum Net<B: TrainingBackend> {
    /// On the student's backend.
    Own(Encoder<B>),
    /// On whatever backend it brings.
    Foreign(Arc<dyn FeatureNet>),
}

impl<B: TrainingBackend> fmt::Debug for Net<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::Own(encoder) => encoder.fmt(f),
            Net::Foreign(net) => write!(f, "Foreign({})", net.feature_dim()),
        }
    }
}

/// From features to embeddings: centered, projected, normalized.
#[derive(Debug)]
pub struct Projection<B: TrainingBackend = Cpu> {
    /// Mean of the features over the data: a supervised network's features share a large
    /// common part that would drown their differences.
    pub center: Vec<f32>,
    /// (out, feature_dim), and a bias of zeros: keeps the queue small and the angles
    /// (Johnson-Lindenstrauss).
    pub numbers: B::Flat,
    layer: Linear,
}

/// (to, from) numbers of N(0, 1 / to).
pub fn projection(from: usize, to: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed, Purpose::Projection, 0, 0);
    let std = 1.0 / (to as f32).sqrt();
    let numbers = (0..to * from).map(|_| rng.normal() * std);
    numbers.collect()
}

impl<B: TrainingBackend> Projection<B> {
    /// A fixed random one N(0, 1 / `to`), and no center yet.
    ///
    /// # Errors
    /// The backend's.
    pub fn new(backend: &B, from: usize, to: usize, seed: u64) -> Result<Projection<B>> {
        let weights = to * from;
        let mut numbers = projection(from, to, seed);
        numbers.resize(weights + to, 0.0);
        Ok(Projection {
            center: vec![0.0; from],
            numbers: backend.flat(numbers)?,
            layer: Linear {
                weight: 0..weights,
                bias: weights..weights + to,
                inputs: from,
                outputs: to,
                act: Act::Identity,
            },
        })
    }
}

impl<B: TrainingBackend> Teacher<B> {
    /// One whose features become embeddings of length `out` by a fixed random projection; where it
    /// has a head, one whose embeddings are its own.
    ///
    /// # Errors
    /// Its head makes embeddings of another length, or the backend's.
    pub fn new(
        encoder: Encoder<B>,
        rescale: [(f32, f32); 3],
        out: usize,
        seed: u64,
    ) -> Result<Teacher<B>> {
        let backend = encoder.backend().clone();
        let dim = encoder.output_dim();
        let projection = match encoder.architecture.head {
            None => Some(Projection::new(&backend, dim, out, seed)?),
            Some(_) if dim == out => None,
            Some(head) => {
                return Err(Error::Config(format!(
                    "the teacher's head ({}) makes embeddings of {dim} numbers, the student's of \
                     {out}; teacher_head = ignore takes its features instead",
                    head.name()
                )));
            }
        };
        Ok(Teacher {
            net: Net::Own(encoder),
            backend,
            rescale,
            side: None,
            projection,
        })
    }

    /// The same of a network on another backend than `backend`, the student's.
    ///
    /// # Errors
    /// The backend's.
    pub fn foreign(
        net: Arc<dyn FeatureNet>,
        backend: B,
        rescale: [(f32, f32); 3],
        out: usize,
        seed: u64,
    ) -> Result<Teacher<B>> {
        let projection = Projection::new(&backend, net.feature_dim(), out, seed)?;
        Ok(Teacher {
            net: Net::Foreign(net),
            backend,
            rescale,
            side: None,
            projection: Some(projection),
        })
    }

    /// The network.
    pub fn net(&self) -> &dyn FeatureNet {
        match &self.net {
            Net::Own(encoder) => encoder,
            Net::Foreign(net) => &**net,
        }
    }

    /// What it says of images normalized for the student, which are used up: raw features
    /// (n, feature_dim), or unit embeddings where it has a head.
    ///
    /// # Errors
    /// The backend's, or the network's.
    pub fn features(&self, mut images: Images<B>) -> Result<B::Buf> {
        let Images { n, size, .. } = images;
        self.backend.rescale(&mut images.pixels, &self.rescale)?;
        let seen = self.side.map_or(size, |side| (side, side));
        let encoder = match &self.net {
            Net::Own(encoder) if seen == size => return encoder.embed(&images),
            Net::Own(encoder) => Some(encoder),
            Net::Foreign(_) => None,
        };
        let pixels = self.backend.download(&images.pixels)?;
        drop(images);
        let images: Vec<Vec<f32>> = pixels
            .chunks_exact(size.0 * size.1 * 3)
            .map(|image| resized(image, size, seen))
            .collect();
        if let Some(encoder) = encoder {
            let fill = |out: &mut [f32]| {
                let places = out.chunks_exact_mut(seen.0 * seen.1 * 3).zip(&images);
                places.for_each(|(out, image)| out.copy_from_slice(image));
            };
            return encoder.embed(&encoder.images(n, seen, fill)?);
        }
        let features = self.net().features_of(&images, seen)?;
        self.backend
            .upload(features.len(), |out| out.copy_from_slice(&features))
    }

    /// Unit embeddings (n, out) of images normalized for the student, which are used up.
    ///
    /// # Errors
    /// As [`Teacher::features`].
    pub fn embed(&self, images: Images<B>) -> Result<B::Buf> {
        let mut features = self.features(images)?;
        let Some(projection) = &self.projection else {
            return Ok(features);
        };
        let center: Vec<(f32, f32)> = projection.center.iter().map(|c| (1.0, -c)).collect();
        self.backend.rescale(&mut features, &center)?;
        let (mut out, _) =
            self.backend
                .linear(&projection.layer, &projection.numbers, &features)?;
        self.backend
            .l2_normalize(&mut out, projection.layer.outputs)?;
        Ok(out)
    }

    /// The same of a view (0 or 1) of a whole batch, `microbatch` images at a time.
    ///
    /// # Errors
    /// The views have no pixels, someone has canceled, or as [`Teacher::features`].
    pub fn embed_views(
        &self,
        views: &Views,
        view: usize,
        microbatch: usize,
        cancel: &CancelToken,
    ) -> Result<B::Buf> {
        let order: Vec<usize> = (0..views.photos.len()).collect();
        let mut microbatches = Vec::new();
        for rows in order.chunks(microbatch.max(1)) {
            cancel.check()?;
            microbatches.push(self.embed(views.images(&self.backend, view, rows)?)?);
        }
        self.backend
            .gather(&microbatches, &order, self.embedding_dim())
    }

    fn embedding_dim(&self) -> usize {
        match (&self.projection, &self.net) {
            (Some(projection), _) => projection.layer.outputs,
            (None, Net::Own(encoder)) => encoder.output_dim(),
            (None, Net::Foreign(net)) => net.feature_dim(),
        }
    }
}

/// An image (height, width, 3) at another size, bilinear between the centers of pixels.
fn resized(image: &[f32], (height, width): (usize, usize), to: (usize, usize)) -> Vec<f32> {
    if (height, width) == to {
        return image.to_vec();
    }
    // Two neighbors and the weight of the second, for each place along a side.
    let along = |from: usize, to: usize| -> Vec<(usize, usize, f32)> {
        let place = |i: usize| {
            let at = (i as f32 + 0.5) * from as f32 / to as f32 - 0.5;
            let at = at.clamp(0.0, (from - 1) as f32);
            let first = at as usize;
            (first, (first + 1).min(from - 1), at - first as f32)
        };
        (0..to).map(place).collect()
    };
    let (rows, columns) = (along(height, to.0), along(width, to.1));
    let mut out = Vec::with_capacity(to.0 * to.1 * 3);
    for (top, bottom, down) in rows {
        for (left, right, across) in &columns {
            for c in 0..3 {
                let pixel = |y: usize, x: usize| image[(y * width + x) * 3 + c];
                let lerp = |y: usize| pixel(y, *left) * (1.0 - across) + pixel(y, *right) * across;
                out.push(lerp(top) * (1.0 - down) + lerp(bottom) * down);
            }
        }
    }
    out
}
