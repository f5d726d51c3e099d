//! How much memory a run will take.
//!
//! Most of it can be counted: networks, queue, batches, decoded photos. What a pass through the
//! network takes depends on every layer; it is run dry at two small sizes, and grows with the
//! pixels.

use crate::Result;
use crate::config::{Config, OptimizerKind};
use crate::start::measure_size;
use crate::threads::on_own_threads;
use crate::weights::WeightFile;
use seedling_data::{Outline, PhotoSource};
use seedling_nn::encoder::{Architecture, Encoder, Mode, Size};
use seedling_nn::workspace::Workspace;
use seedling_ssl::eval::extract;
use seedling_ssl::whitening;
use std::collections::BTreeMap;

const MB: f64 = 1024.0 * 1024.0;

/// Megabytes of program, libraries, and weights that are built in or lie open; what talks to GPUs takes
/// some whether there is one or not.
const PROGRAM: f64 = if cfg!(feature = "gpu") { 26.0 } else { 20.0 };

/// Megabytes that a thread holds for itself: its stack, and a view or a photo in the making.
const THREAD: f64 = 2.5;

/// Fraction by which what a dry run took may fall short: buffers that fit less well, and several threads'
/// that meet.
const SLACK: f64 = 1.06;

/// Photos per forward pass of an estimate of running statistics, at least: the variance within very few says
/// little.
pub(crate) const STATISTICS_BATCH: usize = 8;

/// Megabytes for decoding below which a phone's usual photo (12 megapixels) would be skipped.
pub(super) const LEAST_DECODE_MB: usize = 36;

/// Megabytes that a run takes at most, by what takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Program, libraries and threads.
    pub program: f64,
    /// All copies of the networks' numbers, and the queue.
    pub networks: f64,
    /// Decoded photos, kept and in the making.
    pub photos: f64,
    /// Views of batches, made ahead.
    pub batches: f64,
    /// A micro-batch's tensors while it is trained on; or photos' while they are processed, with what was
    /// seen in all of them. The larger of the two.
    pub work: f64,
}

impl Forecast {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.program + self.networks + self.photos + self.batches + self.work
    }
}

/// Photos whose headers are read; of more it is not known how large they are.
const MOST_OUTLINES: usize = 2000;

/// What decoding and keeping a dataset's photos takes.
#[derive(Debug)]
struct PhotoStats {
    count: usize,
    /// Of all photos, where all say it.
    outlines: Option<Vec<Outline>>,
}

impl PhotoStats {
    fn survey(source: &dyn PhotoSource) -> PhotoStats {
        let count = source.len();
        // A photo that says nothing is mostly none, and skipped.
        let outlines: Vec<Outline> = (0..count.min(MOST_OUTLINES))
            .filter_map(|index| source.outline(index))
            .collect();
        let known = count <= MOST_OUTLINES && 2 * outlines.len() > count;
        PhotoStats {
            count,
            outlines: known.then_some(outlines),
        }
    }

    /// Megabytes to decode within, out of a budget for everything: as much as lets every thread decode
    /// an upright photo, or one turn the largest.
    fn decoding(&self, budget_mb: usize, threads: usize) -> usize {
        let most = (budget_mb / 6).max(LEAST_DECODE_MB);
        let Some(outlines) = &self.outlines else {
            return most;
        };
        let largest = outlines.iter().map(|photo| photo.pixels()).max();
        let a_pixel = TURNED_BYTES.max(PIXEL_BYTES * threads as f64);
        let wanted = a_pixel * largest.unwrap_or(0) as f64 / MB;
        most.min(wanted.ceil() as usize + 1)
    }

    /// Megabytes of photos kept, being decoded, and encoded, with workers of a loader and others.
    fn megabytes(&self, config: &Config, threads: usize) -> f64 {
        let (kept, decoding) = (config.cache_mb as f64, config.decode_mb as f64);
        let (kept, decoding, encoded) = match &self.outlines {
            None => (kept, decoding, USUAL_ENCODED),
            Some(outlines) => {
                // A view is drawn from twice its size.
                let all: usize = outlines
                    .iter()
                    .map(|photo| photo.shrunk_bytes(2 * config.image_size))
                    .sum();
                let most = |of: fn(&Outline) -> usize| {
                    outlines.iter().map(of).max().unwrap_or(0) as f64 / MB
                };
                let largest = most(|photo| photo.pixels());
                let at_once = 2.0 * threads as f64 * TURNED_BYTES * largest;
                // Photos of one size use up the part of the budget that holds a whole number of them.
                let one = PIXEL_BYTES * largest;
                let whole = (decoding / one).floor() * one;
                let smallest = outlines.iter().map(|photo| photo.pixels()).min();
                let small = PIXEL_BYTES * smallest.unwrap_or(0) as f64 / MB;
                let used = if small > decoding - whole {
                    whole
                } else {
                    decoding
                };
                let encoded = most(|photo| photo.encoded);
                (kept.min(all as f64 / MB), used.min(at_once), encoded)
            }
        };
        kept + decoding + 2.0 * threads as f64 * encoded
    }
}

/// Megabytes of an encoded photo, where its file has not been read.
const USUAL_ENCODED: f64 = 4.0;

/// Bytes that a pixel takes while it is decoded.
const PIXEL_BYTES: f64 = 3.0;

/// The same where the photo is turned upright then.
const TURNED_BYTES: f64 = 6.0;

/// Forecasts of runs of one network on one dataset: what a dry run took is kept.
#[derive(Debug)]
pub struct Forecaster<'a> {
    init: Option<&'a WeightFile>,
    photos: PhotoStats,
    size: Size,
    backbone: Size,
    extraction: Line,
    /// By the number of frozen stages.
    training: BTreeMap<usize, Line>,
    architecture: Architecture,
    threads: usize,
}

/// Bytes of a pass over some pixels.
#[derive(Clone, Copy, Debug)]
struct Line {
    fixed: f64,
    per_pixel: f64,
}

impl Line {
    fn megabytes(self, photos: usize, side: usize) -> f64 {
        SLACK * (self.fixed + self.per_pixel * (photos * side * side) as f64) / MB
    }
}

impl<'a> Forecaster<'a> {
    /// For runs with these settings' network and threads, from these weights, on these photos. Looks at
    /// their headers.
    ///
    /// # Errors
    /// The settings name no network, or the system grants no threads.
    pub fn new(
        config: &Config,
        init: Option<&'a WeightFile>,
        source: &dyn PhotoSource,
    ) -> Result<Forecaster<'a>> {
        let arch = config.arch;
        let backbone = Architecture::new(arch, None);
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let mut forecaster = Forecaster {
            init,
            photos: PhotoStats::survey(source),
            size: Architecture::new(arch, Some(config.head)).size(),
            backbone: backbone.size(),
            extraction: Line {
                fixed: 0.0,
                per_pixel: 0.0,
            },
            training: BTreeMap::new(),
            architecture: backbone,
            threads,
        };
        forecaster.extraction = forecaster.dry_run(None)?;
        Ok(forecaster)
    }

    /// Stages that can be frozen.
    pub(super) fn depth(&self) -> usize {
        self.backbone.depth
    }

    /// Megabytes to decode within, out of a budget for everything.
    pub(super) fn decoding(&self, budget_mb: usize) -> usize {
        self.photos.decoding(budget_mb, self.threads)
    }

    /// What a run with these settings takes.
    ///
    /// # Errors
    /// `freeze` is more than there are stages.
    pub fn forecast(&mut self, config: &Config) -> Result<Forecast> {
        if !config.trains() {
            let numbers = self.backbone.parameters + self.layers(config, 1);
            return Ok(Forecast {
                program: PROGRAM + self.threads as f64 * THREAD,
                networks: (numbers * 4) as f64 / MB,
                photos: self.photos.megabytes(config, self.threads),
                batches: 0.0,
                work: self.extraction_megabytes(config),
            });
        }
        let training = match self.training.get(&config.freeze) {
            Some(known) => *known,
            None => {
                let found = self.dry_run(Some(config.freeze))?;
                self.training.insert(config.freeze, found);
                found
            }
        };
        let parameters = self.size.parameters;
        // Query, key, gradient; SGD's velocity and the values L2-SP pulls to, or AdamW's two moments.
        let copies = match config.optimizer {
            OptimizerKind::Sgd if config.l2_sp > 0.0 => 5,
            OptimizerKind::Sgd => 4,
            OptimizerKind::AdamW => 5,
        };
        // The backbone that the result is interpolated with, and what it was before it was interpolated.
        let initial = match config.keeps_initial() {
            false => 0,
            true => self.backbone.parameters,
        };
        // As they will be fitted to the photos.
        let microbatches = (self.photos.count / config.bn_group.max(1)).max(1);
        let batch = config.batch_size.min(microbatches * config.bn_group);
        let dim = config.head.embedding_dim();
        let queue = config.queue_size.min(self.photos.count.max(1)) * dim;
        let initial_embeddings = match config.neighbor_weight > 0.0 {
            true => self.photos.count * dim,
            false => 0,
        };
        // Behind the initial weights' features, and behind the trained ones'.
        let layers = self.layers(config, 2);
        let numbers = parameters * copies + initial + queue + initial_embeddings + layers;
        let view = config.image_size * config.image_size * 3;
        let measure_size = measure_size(config, self.init);
        let extraction = self.extraction_megabytes(config) + (initial * 4) as f64 / MB;
        let statistics = self
            .extraction
            .megabytes(config.bn_group.max(STATISTICS_BATCH), measure_size);
        let hidden = config.bn_group * (parameters - self.backbone.parameters).isqrt() * 4 * 4;
        let step = training.megabytes(config.bn_group, config.image_size)
            + (hidden + config.bn_group * view * 4) as f64 / MB;
        Ok(Forecast {
            program: PROGRAM + self.threads as f64 * THREAD,
            networks: (numbers * 4) as f64 / MB,
            photos: self.photos.megabytes(config, self.threads),
            batches: (2 * batch * view * (1 + config.prefetch)) as f64 / MB,
            work: extraction.max(statistics).max(step),
        })
    }

    /// Numbers of so many linear layers behind the features.
    fn layers(&self, config: &Config, count: usize) -> usize {
        match config.whitening {
            true => count * whitening::numbers(self.photos.count, self.size.features),
            false => 0,
        }
    }

    /// Megabytes that extracting features takes, with what was seen of all of them.
    fn extraction_megabytes(&self, config: &Config) -> f64 {
        let (side, features) = (measure_size(config, self.init), self.size.features);
        let batch = extract::batch(side);
        let sample = match config.measure_photos {
            0 => self.photos.count,
            most => most.min(self.photos.count),
        };
        // Plain photos, two views, and copies that are normalized; or, before, plain photos, mirror images and
        // what their statistics take, while the views wait.
        let measured = 5 * sample * features * 4;
        let seen = match config.whitening {
            true => {
                let fitted = whitening::bytes(self.photos.count, features);
                measured.max(fitted + 2 * sample * features * 4)
            }
            false => measured,
        };
        // Bytes of four views of a photo, and twice the floats of one: as they are made, and as they are read.
        let images = 3 * batch * side * side * 3 * 4;
        self.extraction.megabytes(batch, side) + (seen + images) as f64 / MB
    }

    /// A pass at two small sizes: with its backward where stages are `frozen`, without one where
    /// photos are only evaluated.
    fn dry_run(&self, frozen: Option<usize>) -> Result<Line> {
        const PHOTOS: usize = 2;
        const SIDES: [usize; 2] = [64, 128];
        // On one thread: how several meet differs from time to time, and the same command must pick
        // the same micro-batch.
        let bytes = on_own_threads(1, || {
            SIDES.map(|side| -> Result<f64> {
                let workspace = Workspace::default();
                let stages = frozen.unwrap_or(0);
                let mut encoder =
                    Encoder::new(self.architecture, frozen.is_some(), stages, &workspace)?;
                let images = encoder.images(PHOTOS, (side, side), |pixels| pixels.fill(0.0))?;
                match frozen {
                    None => drop(encoder.features(&images)?),
                    Some(_) => {
                        let mode = Mode::train(0.1);
                        let (features, saved) = encoder.forward(&images, mode)?;
                        encoder.backward(&images, saved, features)?;
                    }
                }
                Ok(workspace.most_bytes() as f64)
            })
        })?;
        let [small, large] = bytes;
        let pixels = SIDES.map(|side| (PHOTOS * side * side) as f64);
        let (small, large) = (small?, large?);
        let per_pixel = (large - small) / (pixels[1] - pixels[0]);
        Ok(Line {
            fixed: (small - per_pixel * pixels[0]).max(0.0),
            per_pixel,
        })
    }
}
