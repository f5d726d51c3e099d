//! `seedling bench`: how fast this machine is, and how much memory a step takes.

use crate::console::Console;
use crate::flags::Common;
use crate::photos::budget;
use crate::settings::Settings;
use crate::{Outcome, memory};
use clap::Args;
use seedling_core::config::{Config, Layer};
use seedling_core::data::bench::{RenderedPhotos, ViewsWork};
use seedling_core::data::{self, PhotoSource};
use seedling_core::encoder::{Architecture, EMBEDDING_DIM, Encoder, Mode};
use seedling_core::init::initialise;
use seedling_core::moco::{Moco, MocoConfig, key_orders};
use seedling_core::nn::workspace::Workspace;
use seedling_core::optim::{Sgd, SgdConfig};
use seedling_core::queue::Queue;
use seedling_core::rng::{Purpose, Rng};
use seedling_core::step::Views;
use seedling_core::{Error, Result, session};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Scenes rendered where no photos are named.
const RENDERED: usize = 16;

/// Measure speed and memory: a training step, features, and views of photos
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling bench                                            MobileNetV3-Large at 224 px
  seedling bench --batch-size 16 --bn-group 8 --threads 2 --json
  seedling bench ~/Pictures                                 views of real photos")]
pub struct BenchArgs {
    /// Photos to make views of (rendered ones where none are named)
    pub photos: Option<PathBuf>,
    /// The network
    #[arg(long)]
    pub arch: Option<String>,
    /// Height and width of its images
    #[arg(long, value_name = "PX")]
    pub image_size: Option<u32>,
    /// Photos per optimizer step
    #[arg(long, value_name = "N")]
    pub batch_size: Option<u32>,
    /// Photos per micro-batch
    #[arg(long, value_name = "N")]
    pub bn_group: Option<u32>,
    /// Seconds for each figure
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The settings or the photos cannot be used.
pub fn run(args: &BenchArgs, console: &Console) -> Result<Outcome> {
    let base = Config {
        batch_size: 32,
        bn_group: 16,
        queue_size: 4096,
        key_momentum: 0.999,
        temperature: 0.2,
        head: "simple".into(),
        ..Config::pretrain()
    };
    let mut flags = Layer::new("flags");
    flags
        .put("arch", args.arch.clone())
        .put("image_size", args.image_size.map(i64::from))
        .put("batch_size", args.batch_size.map(i64::from))
        .put("bn_group", args.bn_group.map(i64::from));
    let settings = Settings::new(base, Vec::new(), &args.common, flags)?;
    let config = settings.config;
    config.validate()?;
    let source: Arc<dyn PhotoSource> = match &args.photos {
        Some(path) => data::open_within(path, budget(&config))?,
        None => Arc::new(RenderedPhotos::new(RENDERED, config.seed)?),
    };
    session::on_own_threads(config.threads, || {
        let threads = rayon::current_num_threads();
        console.note(&format!(
            "{} at {} px, batch {} in groups of {}, {threads} threads",
            config.arch, config.image_size, config.batch_size, config.bn_group
        ));
        let step = moco_step(&config, args.seconds)?;
        console.say(&format!(
            "training step   {:8.1} images/s, the fastest {:.1}",
            step.rate.mean, step.rate.fastest
        ));
        if let Some(peak) = step.peak_memory_mb {
            console.say(&format!("  peak memory   {peak:8.0} MB"));
        }
        let features = features(&config, args.seconds)?;
        console.say(&format!(
            "features        {:8.1} images/s, the fastest {:.1}",
            features.mean, features.fastest
        ));
        let mut work = ViewsWork::new(&*source)?;
        let views = rate(1, args.seconds, |_| work.photo())?;
        console.say(&format!(
            "two aug+ views  {:8.1} photos/s per core",
            views.mean
        ));
        console.summary(&json!({
            "command": "bench",
            "arch": config.arch,
            "image_size": config.image_size,
            "batch_size": config.batch_size,
            "bn_group": config.bn_group,
            "threads": threads,
            "moco_step": {
                "images_per_second": step.rate.mean,
                "fastest_images_per_second": step.rate.fastest,
                "peak_memory_mb": step.peak_memory_mb,
            },
            "features": {
                "images_per_second": features.mean,
                "fastest_images_per_second": features.fastest,
            },
            "views": { "photos_per_second_per_core": views.mean },
        }));
        Ok(Outcome::Done)
    })?
}

/// Images (or photos) per second.
struct Rate {
    /// Over the whole time.
    mean: f64,
    /// Of the fastest single piece of work: what the machine does when nothing else runs on it.
    fastest: f64,
}

struct StepFigures {
    rate: Rate,
    peak_memory_mb: Option<f64>,
}

/// A whole MoCo v2 step (both encoders, loss, backward, SGD) on noise, as often as `seconds`
/// allow after one that warms up.
fn moco_step(config: &Config, seconds: f64) -> Result<StepFigures> {
    memory::reset_peak();
    let architecture = Architecture::new(config.arch.parse()?, Some(config.head.parse()?));
    let workspace = Workspace::default();
    let query = Encoder::new(architecture, true, config.freeze, &workspace)?;
    initialise(&query.params, config.seed)?;
    let key = Encoder::new(architecture, false, config.freeze, &workspace)?;
    let how = SgdConfig {
        momentum: config.sgd_momentum as f32,
        weight_decay: config.weight_decay as f32,
        decay_norm_and_bias: config.weight_decay_norm,
        anchor: 0.0,
        train_from: query.frozen_parameters(),
    };
    let mut sgd = Sgd::new(&query.params, how)?;
    let how = MocoConfig {
        temperature: config.temperature as f32,
        key_momentum: config.key_momentum as f32,
        symmetric: config.symmetric,
        bn_group: config.bn_group,
        mode: Mode::Train { norm_momentum: 0.1 },
        mask_own_photo: config.mask_own_photo,
        neighbours: 0.0,
        neighbour_temperature: 0.1,
    };
    let queue = Queue::random(config.queue_size, EMBEDDING_DIM, config.seed);
    let mut moco = Moco::new(query, key, queue, how)?;
    let [first, second] = [noise(config, 0), noise(config, 1)];
    let photos: Vec<u32> = (0..config.batch_size as u32).collect();
    let views = Views {
        pixels: &[&first[..], &second[..]],
        size: (config.image_size, config.image_size),
        photos: &photos,
    };
    let rate = rate(config.batch_size, seconds, |n| {
        let stats = moco.step(&views, &key_orders(config.seed, n, config.batch_size))?;
        let params = &moco.query.params;
        // A session's step looks before it follows the gradient.
        if !stats.loss.is_finite() || !params.grads_are_finite()? {
            return Err(Error::Training("the step diverged".into()));
        }
        // A rate of almost nothing: noise must not drive the numbers apart.
        sgd.step(params, 1e-6)?;
        moco.follow()
    })?;
    Ok(StepFigures {
        rate,
        peak_memory_mb: memory::peak_mb(),
    })
}

fn features(config: &Config, seconds: f64) -> Result<Rate> {
    let architecture = Architecture::new(config.arch.parse()?, None);
    let encoder = Encoder::new(architecture, false, 0, &Workspace::default())?;
    initialise(&encoder.params, config.seed)?;
    let side = config.image_size;
    let images = encoder.images(config.batch_size, (side, side), |out| {
        out.copy_from_slice(&noise(config, 0));
    })?;
    rate(config.batch_size, seconds, |_| {
        encoder.features(&images).map(drop)
    })
}

/// Rate of `work`, which handles `images` at a time; the first time does not count.
fn rate(images: usize, seconds: f64, mut work: impl FnMut(u64) -> Result<()>) -> Result<Rate> {
    work(0)?;
    let start = Instant::now();
    let (mut n, mut fastest) = (0, f64::INFINITY);
    while n == 0 || start.elapsed().as_secs_f64() < seconds {
        n += 1;
        let one = Instant::now();
        work(n)?;
        fastest = fastest.min(one.elapsed().as_secs_f64());
    }
    Ok(Rate {
        mean: n as f64 * images as f64 / start.elapsed().as_secs_f64(),
        fastest: images as f64 / fastest,
    })
}

fn noise(config: &Config, index: u64) -> Vec<f32> {
    let mut rng = Rng::new(config.seed, Purpose::Measure, 9, index);
    let numbers = config.batch_size * config.image_size * config.image_size * 3;
    (0..numbers).map(|_| rng.range(-2.0, 2.0)).collect()
}
