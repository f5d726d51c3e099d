//! How fast a device takes a step, in how much memory: the work to be timed, and the table that phones and
//! desks fill alike. The clock is the caller's.

use crate::config::{Config, Keep};
use crate::device::Work;
use crate::learner::Learner;
use crate::memory::device::fitted;
use crate::memory::{Budget, fit_budget};
use crate::method::Setup;
use crate::start::Start;
use crate::weights::ModelMetadata;
use crate::{Error, Result};
use seedling_base::rng::{Purpose, Rng};
use seedling_data::Normalize;
use seedling_data::bench::RenderedPhotos;
use seedling_nn::backend::LaunchStats;
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::Architecture;
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{Pixels, Resident, Views};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Networks, sizes of views and budgets of the table.
pub const ARCHS: [&str; 2] = ["mobilenet_v3_small", "mobilenet_v3_large"];
/// See [`ARCHS`]; in pixels.
pub const IMAGE_SIZES: [usize; 4] = [96, 128, 160, 224];
/// See [`ARCHS`]; in MB.
pub const BUDGETS_MB: [usize; 3] = [200, 300, 600];

/// Photos whose headers the forecast looks at.
const PHOTOS: usize = 8;

/// A training step of contrast (both encoders, loss, backward, optimizer, momentum update) on noise.
pub struct StepBench<B: TrainingBackend = Cpu> {
    learner: Learner<B>,
    pixels: Noise<B>,
    photos: Vec<u32>,
    side: usize,
    taken: u64,
}

/// Where the images of a step lie.
enum Noise<B: TrainingBackend> {
    Host([Vec<f32>; 2]),
    Device(Resident<B>),
}

/// Where a step finds its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagesIn {
    /// On the host: each step sends them to its device.
    Host,
    /// In the device's memory, where they stay.
    Device,
}

/// Steps on whatever device.
pub trait Steps: Send {
    /// Takes one. The first allocates what the others use again.
    ///
    /// # Errors
    /// The numbers are no longer finite, or the device's.
    fn step(&mut self) -> Result<()>;

    /// What the steps have asked of a GPU, and the most bytes of its memory that they have taken; nothing
    /// on a CPU.
    fn gpu(&self) -> Option<(LaunchStats, usize)>;
}

/// Steps as `config` has them, on its device.
///
/// # Errors
/// The settings cannot be meant, or the device is not there.
pub fn open(config: &Config, images: ImagesIn) -> Result<Box<dyn Steps>> {
    struct Open<'a>(&'a Config, ImagesIn);
    impl Work for Open<'_> {
        type Output = Box<dyn Steps>;

        fn run<B: TrainingBackend>(self, backend: B) -> Result<Box<dyn Steps>> {
            let config = method(self.0);
            let setup = Setup {
                config: &config,
                metadata: &metadata(&config),
                start: &Start::default(),
            };
            let (backend, _) = fitted(backend, setup)?;
            Ok(Box::new(StepBench::with_backend(
                &backend, &config, self.1,
            )?))
        }
    }
    config.device.run(Open(config, images))
}

impl StepBench {
    /// A step on the CPU.
    ///
    /// # Errors
    /// The settings cannot be meant.
    pub fn new(config: &Config) -> Result<StepBench> {
        StepBench::with_backend(&Cpu::default(), config, ImagesIn::Host)
    }
}

impl<B: TrainingBackend> StepBench<B> {
    /// A step as `config` has it, from random weights.
    ///
    /// # Errors
    /// The settings cannot be meant, or the backend's.
    pub fn with_backend(backend: &B, config: &Config, images: ImagesIn) -> Result<StepBench<B>> {
        config.validate()?;
        let config = method(config);
        let setup = Setup {
            config: &config,
            metadata: &metadata(&config),
            start: &Start::default(),
        };
        let views = [noise(&config, 0), noise(&config, 1)];
        let pixels = match images {
            ImagesIn::Host => Noise::Host(views),
            ImagesIn::Device => {
                let send = |view: &[f32]| backend.upload(view.len(), |to| to.copy_from_slice(view));
                let [first, second] = &views;
                Noise::Device(Resident([send(first)?, send(second)?]))
            }
        };
        Ok(StepBench {
            learner: Learner::new(backend.clone(), setup, None)?,
            pixels,
            photos: (0..config.batch_size as u32).collect(),
            side: config.image_size,
            taken: 0,
        })
    }
}

/// The settings of a step that asks nothing of a dataset: its target is the positive.
fn method(config: &Config) -> Config {
    Config {
        neighbor_weight: 0.0,
        interpolation: 1.0,
        keep: Keep::Always,
        ..config.clone()
    }
}

/// What is trained: the settings' network, from random weights.
fn metadata(config: &Config) -> ModelMetadata {
    ModelMetadata {
        architecture: Architecture::new(config.arch, Some(config.head)),
        image_size: config.image_size,
        normalize: Normalize::default(),
        made: String::new(),
    }
}

impl<B: TrainingBackend> Steps for StepBench<B> {
    fn step(&mut self) -> Result<()> {
        let host;
        let pixels: &dyn Pixels = match &self.pixels {
            Noise::Host([first, second]) => {
                host = [&first[..], &second[..]];
                &host
            }
            Noise::Device(resident) => resident,
        };
        let views = Views {
            pixels,
            size: (self.side, self.side),
            photos: &self.photos,
        };
        // A rate of almost nothing: noise must not drive the numbers apart.
        self.learner.step(&views, self.taken, 1e-6)?;
        self.taken += 1;
        Ok(())
    }

    fn gpu(&self) -> Option<(LaunchStats, usize)> {
        let backend = self.learner.encoder().backend();
        Some((backend.launch_stats()?, backend.most_bytes()))
    }
}

/// Seconds that steps as `config` has them take by the clock `now`: at least two, and more for `seconds`. The
/// first, which does not count, allocates. `asked` may end it.
///
/// # Errors
/// The settings cannot be meant; what `asked` says.
pub fn times(
    config: &Config,
    seconds: f64,
    now: impl Fn() -> f64,
    asked: impl Fn() -> Result<()>,
) -> Result<Vec<f64>> {
    let mut work = open(config, ImagesIn::Host)?;
    work.step()?;
    let (start, mut taken) = (now(), Vec::new());
    while taken.len() < 2 || now() - start < seconds {
        asked()?;
        let begun = now();
        work.step()?;
        taken.push(now() - begun);
    }
    Ok(taken)
}

/// A batch of one view each: normalized noise.
pub fn noise(config: &Config, index: u64) -> Vec<f32> {
    let mut rng = Rng::new(config.seed, Purpose::Measure, 9, index);
    let numbers = config.batch_size * config.image_size * config.image_size * 3;
    (0..numbers).map(|_| rng.range(-2.0, 2.0)).collect()
}

/// `seedling adapt`'s settings for a network and a size of views within a budget, and the megabytes
/// that a run with them is predicted to take.
///
/// # Errors
/// The budget is too small; the message says what would do.
pub fn settings(
    arch: &str,
    image_size: usize,
    budget_mb: usize,
    threads: usize,
) -> Result<(Config, f64)> {
    let mut config = Config {
        arch: arch.parse()?,
        image_size,
        threads,
        ..Config::adapt()
    };
    let photos = RenderedPhotos::new(PHOTOS, 0)?;
    let budget = Budget {
        megabytes: budget_mb,
        unified: false,
    };
    let asks_for = |key: &str| key == "image_size";
    let forecast = fit_budget(&mut config, (None, &photos), budget, asks_for)?;
    let total = forecast.map_or(budget_mb as f64, |forecast| forecast.total());
    Ok((config, total))
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The network.
    pub arch: String,
    /// Width and height of its views.
    pub image_size: usize,
    /// The budget, in MB.
    pub budget_mb: usize,
    /// Photos computed at a time, of `batch_size` in a step.
    pub microbatch: usize,
    /// Photos of a step.
    pub batch_size: usize,
    /// Stages that were not trained, for want of memory.
    pub frozen_stages: usize,
    /// Threads.
    pub threads: usize,
    /// What the forecast says that a whole run takes, in MB.
    pub predicted_mb: f64,
    /// Milliseconds of the fastest step: what the device does when nothing else runs on it.
    pub fastest_ms: f64,
    /// Milliseconds of a step in the mean.
    pub mean_ms: f64,
    /// The most that the process has held by then, in MB, where the system tells.
    pub peak_mb: Option<f64>,
}

impl Row {
    /// What steps of these seconds each have shown.
    pub fn new(
        (config, predicted_mb): &(Config, f64),
        budget_mb: usize,
        threads: usize,
        seconds: &[f64],
        peak_mb: Option<f64>,
    ) -> Row {
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let mean = seconds.iter().sum::<f64>() / seconds.len().max(1) as f64;
        Row {
            arch: config.arch.to_string(),
            image_size: config.image_size,
            budget_mb,
            microbatch: config.bn_group,
            batch_size: config.batch_size,
            frozen_stages: config.freeze,
            threads,
            predicted_mb: *predicted_mb,
            fastest_ms: fastest * 1e3,
            mean_ms: mean * 1e3,
            peak_mb,
        }
    }

    /// Images per second of the fastest step.
    pub fn images_per_second(&self) -> f64 {
        self.batch_size as f64 / self.fastest_ms * 1e3
    }
}

/// What a device does; [`fmt::Display`] is Markdown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its name, and that of its system.
    pub device: String,
    /// The lines, in the order they were measured.
    pub rows: Vec<Row>,
}

impl Table {
    /// As what apps share.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|e| Error::Config(e.to_string()))
    }

    /// Of what an app has shared.
    ///
    /// # Errors
    /// It is something else.
    pub fn from_json(text: &str) -> Result<Table> {
        serde_json::from_str(text).map_err(|e| Error::Config(format!("no table of steps: {e}")))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:\n", self.device)?;
        writeln!(
            f,
            "| network | px | budget, MB | micro-batch of {} | frozen stages | ms per step | images/s | peak, MB | predicted for a run |",
            self.rows.first().map_or(64, |row| row.batch_size)
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let peak = row.peak_mb.map_or(String::new(), |mb| format!("{mb:.0}"));
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {:.0} | {:.1} | {peak} | {:.0} |",
                row.arch.trim_start_matches("mobilenet_v3_"),
                row.image_size,
                row.budget_mb,
                row.microbatch,
                row.frozen_stages,
                row.fastest_ms,
                row.images_per_second(),
                row.predicted_mb,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_of_what_was_measured_and_survives_the_way_to_a_desk() {
        let settings = settings("mobilenet_v3_small", 64, 300, 1).unwrap();
        assert!(settings.1 <= 300.0 && settings.0.image_size == 64);
        let row = Row::new(&settings, 300, 1, &[0.5, 0.25], Some(180.4));
        assert_eq!((row.fastest_ms, row.mean_ms), (250.0, 375.0));
        assert_eq!(row.images_per_second(), 4.0 * row.batch_size as f64);
        let table = Table {
            device: "a phone".into(),
            rows: vec![row],
        };
        let again = Table::from_json(&table.to_json().unwrap()).unwrap();
        assert_eq!(again, table);
        assert!(table.to_string().contains("| small | 64 | 300 |"));
        assert!(Table::from_json("{}").is_err());
        let few = super::settings("mobilenet_v3_large", 224, 60, 1).unwrap_err();
        assert!(few.to_string().contains("at least"), "{few}");
    }

    #[test]
    fn steps_can_be_taken_again_and_again() {
        let config = Config {
            image_size: 32,
            batch_size: 4,
            bn_group: 2,
            queue_size: 8,
            ..Config::adapt()
        };
        let mut bench = StepBench::new(&config).unwrap();
        for _ in 0..3 {
            bench.step().unwrap();
        }
    }
}
