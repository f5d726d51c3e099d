//! `seedling bench`: how fast this machine is, and how much memory a step takes.

use crate::console::Console;
use crate::flags::Common;
use crate::photos::{self, budget};
use crate::settings::Settings;
use crate::{Outcome, memory, table};
use clap::Args;
use clap::builder::PossibleValuesParser;
use seedling_core::backbones::Arch;
use seedling_core::bench::{self, ImagesIn, noise};
use seedling_core::config::{Config, Device, Layer};
use seedling_core::data::bench::{RenderedPhotos, ViewsWork};
use seedling_core::data::{Normalize, Photo, PhotoSource, Recipe, ViewParams};
use seedling_core::device::Work;
use seedling_core::encoder::Head;
use seedling_core::encoder::{Architecture, Encoder};
use seedling_core::init::initialize;
use seedling_core::ops::TrainingBackend;
use seedling_core::rng::{Purpose, Rng};
use seedling_core::{Result, session};
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
  seedling bench ~/Pictures                                 views of real photos
  seedling bench --arch mobilenet_v3_small --image-size 224 --memory-mb 256
  seedling bench --table                                    all networks, sizes and budgets
  seedling bench --table phone.json                         the same, of what an app has shared")]
pub struct BenchArgs {
    /// Photos to make views of (rendered ones where none are named)
    pub photos: Option<PathBuf>,
    /// The network
    #[arg(long, value_parser = PossibleValuesParser::new(Arch::TRAINED))]
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
    /// A training step with adapt's settings within a budget of so many MB, which picks the micro-batch
    #[arg(long, value_name = "M", conflicts_with_all = ["batch_size", "bn_group", "photos"])]
    pub memory_mb: Option<usize>,
    /// Milliseconds and memory of a step for each network, size and budget; of FILE, where an app has
    /// shared what it measured on a phone
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with_all = ["memory_mb", "photos"])]
    pub table: Option<Option<PathBuf>>,
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
    let threads = args.common.threads.unwrap_or(0) as usize;
    match (&args.table, args.memory_mb) {
        (Some(Some(file)), _) => return table::shared(file, console),
        (Some(None), _) => return table::fill(args.seconds, threads, console),
        (None, Some(budget)) => {
            let arch = args.arch.as_deref().unwrap_or(bench::ARCHS[0]);
            let line = table::Line {
                arch,
                side: args.image_size.unwrap_or(128) as usize,
                budget,
            };
            return table::line(line, args.seconds, threads, console);
        }
        (None, None) => {}
    }
    let base = Config {
        batch_size: 32,
        bn_group: 16,
        queue_size: 4096,
        key_momentum: 0.999,
        temperature: 0.2,
        head: Head::Simple,
        ..Config::pretrain()
    };
    let mut flags = Layer::new("flags");
    flags
        .set("arch", args.arch.clone())
        .set("image_size", args.image_size.map(i64::from))
        .set("batch_size", args.batch_size.map(i64::from))
        .set("bn_group", args.bn_group.map(i64::from));
    let settings = Settings::new(base, Vec::new(), &args.common, flags)?;
    let config = settings.config;
    config.validate()?;
    let source: Arc<dyn PhotoSource> = match &args.photos {
        Some(path) => photos::open(path, &budget(&config), console)?,
        None => Arc::new(RenderedPhotos::new(RENDERED, config.seed)?),
    };
    session::on_own_threads(config.threads, || {
        let threads = rayon::current_num_threads();
        console.note(&format!(
            "{} at {} px, batch {} in micro-batches of {}, {threads} threads",
            config.arch, config.image_size, config.batch_size, config.bn_group
        ));
        // A GPU has its images already: what it takes to send them is measured beside it.
        let cpu = config.device == Device::Cpu;
        let place = if cpu {
            ImagesIn::Host
        } else {
            ImagesIn::Device
        };
        let step = moco_step(&config, place, args.seconds)?;
        console.say(&format!(
            "training step   {:8.1} images/s, the fastest {:.1}",
            step.rate.mean, step.rate.fastest
        ));
        if let Some(peak) = step.peak_memory_mb {
            console.say(&format!("  peak memory   {peak:8.0} MB"));
        }
        if let Some(gpu) = &step.gpu {
            console.say(&format!(
                "  on the GPU   {:8.0} MB, {:.0} launches a step, {:.1} ms of the host's time",
                gpu.peak_mb, gpu.launches, gpu.host_ms
            ));
        }
        let sent = match place {
            ImagesIn::Host => None,
            ImagesIn::Device => Some(moco_step(&config, ImagesIn::Host, args.seconds)?),
        };
        if let Some(sent) = &sent {
            console.say(&format!(
                "  images sent  {:8.1} images/s, the fastest {:.1}",
                sent.rate.mean, sent.rate.fastest
            ));
        }
        let features = features(&config, args.seconds)?;
        console.say(&format!(
            "features        {:8.1} images/s, the fastest {:.1}",
            features.mean, features.fastest
        ));
        let gpu_views = gpu_views(&config, &*source, args.seconds)?;
        if let Some(rate) = &gpu_views {
            console.say(&format!(
                "two aug+ views  {:8.1} photos/s on the GPU, decoded before",
                rate.mean
            ));
        }
        let mut work = ViewsWork::new(&*source)?;
        let views = rate(1, args.seconds, |_| work.photo())?;
        console.say(&format!(
            "two aug+ views  {:8.1} photos/s per core",
            views.mean
        ));
        console.summary(&json!({
            "command": "bench",
            "arch": config.arch.name(),
            "image_size": config.image_size,
            "batch_size": config.batch_size,
            "bn_group": config.bn_group,
            "threads": threads,
            "device": config.device.to_string(),
            "precision": config.precision.to_string(),
            "moco_step": {
                "images_per_second": step.rate.mean,
                "fastest_images_per_second": step.rate.fastest,
                "peak_memory_mb": step.peak_memory_mb,
                "gpu": step.gpu.as_ref().map(|gpu| json!({
                    "peak_mb": gpu.peak_mb,
                    "launches_per_step": gpu.launches,
                    "host_ms_per_step": gpu.host_ms,
                })),
            },
            "moco_step_images_sent": sent.as_ref().map(|sent| json!({
                "images_per_second": sent.rate.mean,
                "fastest_images_per_second": sent.rate.fastest,
            })),
            "features": {
                "images_per_second": features.mean,
                "fastest_images_per_second": features.fastest,
            },
            "views": {
                "photos_per_second_per_core": views.mean,
                "photos_per_second_on_gpu": gpu_views.map(|rate| rate.mean),
            },
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
    gpu: Option<GpuFigures>,
}

/// What a step asks of a GPU.
struct GpuFigures {
    peak_mb: f64,
    launches: f64,
    /// What the host is busy with, other than waiting.
    host_ms: f64,
}

/// A whole MoCo v2 step (both encoders, loss, backward, SGD) on noise, as often as `seconds`
/// allow after one that warms up.
fn moco_step(config: &Config, images: ImagesIn, seconds: f64) -> Result<StepFigures> {
    memory::reset_peak();
    let mut bench = bench::open(config, images)?;
    let (mut before, mut begun, mut steps) = (None, Instant::now(), 0.0);
    let rate = rate(config.batch_size, seconds, |n| {
        bench.step()?;
        if n == 0 {
            // Compiling kernels and taking memory was this step's.
            (before, begun) = (bench.gpu(), Instant::now());
        }
        steps = n as f64;
        Ok(())
    })?;
    let gpu = before
        .zip(bench.gpu())
        .map(|((before, _), (after, bytes))| {
            let busy = begun.elapsed().saturating_sub(after.waited - before.waited);
            GpuFigures {
                peak_mb: bytes as f64 / 1e6,
                launches: (after.launches - before.launches) as f64 / steps,
                host_ms: busy.as_secs_f64() * 1e3 / steps,
            }
        });
    Ok(StepFigures {
        rate,
        peak_memory_mb: memory::peak_mb(),
        gpu,
    })
}

/// Photos a second of which a GPU makes two views, where the device makes them itself.
fn gpu_views(config: &Config, source: &dyn PhotoSource, seconds: f64) -> Result<Option<Rate>> {
    struct GpuViews<'a>(&'a Config, &'a dyn PhotoSource, f64);
    impl Work for GpuViews<'_> {
        type Output = Option<Rate>;

        fn run<B: TrainingBackend>(self, backend: B) -> Result<Option<Rate>> {
            let GpuViews(config, source, seconds) = self;
            if !backend.makes_views() {
                return Ok(None);
            }
            let side = config.image_size;
            let recipe = Recipe::by_name("aug+")?;
            let count = source.len().min(config.batch_size);
            let photos: Vec<Photo> = (0..count)
                .map(|i| Ok(source.load(i)?.shrunk(2 * side)))
                .collect::<Result<_>>()?;
            let normalize = Normalize::default();
            let mut rng = Rng::new(config.seed, Purpose::Augment, 0, 0);
            let two = rate(count, seconds, |_| {
                let mut draw = |photo: &Photo| recipe.sample(photo.width, photo.height, &mut rng);
                let drawn: Vec<(&Photo, ViewParams)> = (photos.iter().chain(&photos))
                    .map(|photo| (photo, draw(photo)))
                    .collect();
                let views: Vec<_> = drawn.iter().map(|(photo, view)| (*photo, view)).collect();
                backend.views(&views, side, &normalize)?;
                backend.wait()
            })?;
            Ok(Some(two))
        }
    }
    let device = config.device;
    device.run(GpuViews(config, source, seconds))
}

fn features(config: &Config, seconds: f64) -> Result<Rate> {
    struct Features<'a>(&'a Config, f64);
    impl Work for Features<'_> {
        type Output = Rate;

        fn run<B: TrainingBackend>(self, backend: B) -> Result<Rate> {
            let Features(config, seconds) = self;
            let architecture = Architecture::new(config.arch, None);
            let mut encoder = Encoder::with_backend(backend, architecture, false, 0)?;
            initialize(&mut encoder.params, config.seed)?;
            let side = config.image_size;
            let images = encoder.images(config.batch_size, (side, side), |out| {
                out.copy_from_slice(&noise(config, 0));
            })?;
            rate(config.batch_size, seconds, |_| {
                encoder.features(&images).map(drop)
            })
        }
    }
    let device = config.device;
    device.run(Features(config, seconds))
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
