//! How long a study will take: steps of each network are timed before it begins, and what its tasks then take corrects
//! the rest.

use super::task::{Kind, Task};
use super::work::{State, progress};
use seedling_core::config::{Config, Device};
use seedling_core::data::{self, PhotoSource, Recipe, Scratch};
use seedling_core::rng::{Purpose, Rng};
use seedling_core::{Result, bench, session};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Photos of a step that is timed, at most; queue of it.
const PHOTOS: usize = 32;
const QUEUE: usize = 1024;

/// How long a network's steps are timed, and photos that are read.
const SECONDS: f64 = 0.5;
const READ: usize = 48;

/// A forward pass alone, of a training step's time.
const FORWARD: f64 = 0.15;

/// A teacher's forward pass beside a student's step.
const TEACHER: f64 = 1.5;

/// Of a run that trains, this much must be done before its pace is believed.
const BELIEVED: f64 = 0.05;

/// Seconds that each task should take, and did.
pub(super) struct Estimate {
    expected: Vec<f64>,
    took: Mutex<Vec<(usize, f64)>>,
}

/// What is known of the machine.
struct Pace {
    threads: usize,
    device: Device,
    /// Seconds of a training step, for each photo, by network and size.
    steps: HashMap<(String, usize), f64>,
    /// Seconds to read a photo and make two views of it, by dataset and size.
    photos: HashMap<(String, usize), f64>,
    sources: HashMap<String, Arc<dyn PhotoSource>>,
}

impl Estimate {
    /// Times what is needed for the tasks that are not done, on `threads` of a device.
    ///
    /// # Errors
    /// A dataset cannot be read, or a network not be trained on this device.
    pub(super) fn new(tasks: &[Task], threads: usize, device: Device) -> Result<Estimate> {
        let mut pace = Pace {
            threads,
            device,
            steps: HashMap::new(),
            photos: HashMap::new(),
            sources: HashMap::new(),
        };
        let mut expected = Vec::new();
        for task in tasks {
            expected.push(match (task.is_done(), &task.config) {
                (true, _) => 0.0,
                (false, Some(config)) => pace.training(task, config)?,
                (false, None) => {
                    let trained = tasks.get(task.needs.first().copied().unwrap_or(0));
                    match trained.and_then(|trained| trained.config.as_ref()) {
                        Some(config) => pace.measuring(task, config)?,
                        None => 0.0,
                    }
                }
            });
        }
        Ok(Estimate {
            expected,
            took: Mutex::default(),
        })
    }

    /// A task is done, and took so long.
    pub(super) fn took(&self, task: usize, seconds: f64) {
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        took.push((task, seconds));
    }

    /// Seconds of work that are left, one task after another.
    pub(super) fn left(&self, tasks: &[Task], states: &[State]) -> f64 {
        let took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        // What tasks of a kind took, of what they should have: those that run count as far as they are.
        let trains = |kind: Kind| kind != Kind::Measure;
        let mut sums = [(0.0, 0.0); 2];
        for &(task, seconds) in took.iter() {
            let sum = &mut sums[usize::from(trains(tasks[task].kind))];
            *sum = (sum.0 + seconds, sum.1 + self.expected[task]);
        }
        let mut parts = vec![0.0; tasks.len()];
        for (at, state) in states.iter().enumerate() {
            let State::Running(since) = state else {
                continue;
            };
            let part = progress(&tasks[at]).filter(|part| *part > BELIEVED);
            if let Some(part) = part {
                parts[at] = part;
                let sum = &mut sums[1];
                let seconds = since.elapsed().as_secs_f64();
                *sum = (sum.0 + seconds, sum.1 + part * self.expected[at]);
            }
        }
        let ratio = |kind: Kind| match sums[usize::from(trains(kind))] {
            (took, expected) if expected > 0.0 => took / expected,
            _ => 1.0,
        };
        let left = |(at, state): (usize, &State)| match state {
            State::Done | State::Failed(_) => 0.0,
            _ => (1.0 - parts[at]) * self.expected[at] * ratio(tasks[at].kind),
        };
        states.iter().enumerate().map(left).sum()
    }
}

impl Pace {
    fn training(&mut self, task: &Task, config: &Config) -> Result<f64> {
        let step = self.step(config)?;
        let data = task.arguments[1].clone();
        let photo = self.photo(&data, config)?;
        let steps = match config.steps {
            0 => {
                let photos = self.source(&data)?.len();
                config.epochs * (photos / config.batch_size.max(1)).max(1)
            }
            steps => steps,
        };
        let teacher = match task.kind {
            Kind::Distill => TEACHER,
            _ => 1.0,
        };
        Ok((steps * config.batch_size) as f64 * (teacher * step + photo))
    }

    fn measuring(&mut self, task: &Task, config: &Config) -> Result<f64> {
        let forward = FORWARD * self.step(config)?;
        let data = task.arguments[1].clone();
        let photo = self.photo(&data, config)?;
        let whole = self.source(&data)?.clone();
        let (train, test) = match data::split(Path::new(&data), &whole) {
            Some((train, test)) => (train.len(), test.len()),
            None => (4 * whole.len() / 5, whole.len() / 5),
        };
        let number = |flag: &str| {
            let at = task.arguments.iter().position(|text| text == flag)?;
            task.arguments.get(at + 1)?.parse::<usize>().ok()
        };
        let crops = number("--crops").unwrap_or((20_000 / train.max(1)).clamp(2, 10));
        let transfer = task.arguments.iter().any(|text| text == "transfer");
        // As `eval` asks: views of both halves, neighbors of the training half, and its crops.
        let views = match transfer {
            true => (1 + crops) * train + test,
            false => 6 * test + train + (1 + crops) * train + test,
        };
        Ok(views as f64 * (forward + photo / 2.0))
    }

    /// Seconds of a training step for each photo.
    fn step(&mut self, config: &Config) -> Result<f64> {
        let key = (config.arch.to_string(), config.image_size);
        if let Some(&known) = self.steps.get(&key) {
            return Ok(known);
        }
        let photos = config.bn_group.clamp(2, PHOTOS);
        let small = Config {
            batch_size: photos,
            bn_group: photos,
            queue_size: QUEUE,
            device: self.device,
            threads: self.threads,
            ..config.clone()
        };
        let start = Instant::now();
        let now = || start.elapsed().as_secs_f64();
        let taken = session::on_own_threads(self.threads, || {
            bench::times(&small, SECONDS, now, || Ok(()))
        })??;
        let seconds = taken.iter().sum::<f64>() / (taken.len() * photos) as f64;
        self.steps.insert(key, seconds);
        Ok(seconds)
    }

    fn source(&mut self, path: &str) -> Result<&Arc<dyn PhotoSource>> {
        if !self.sources.contains_key(path) {
            let source = data::open(Path::new(path))?;
            self.sources.insert(path.into(), source);
        }
        Ok(&self.sources[path])
    }

    /// Seconds to read a photo and make two views of it, where all threads do so.
    fn photo(&mut self, path: &str, config: &Config) -> Result<f64> {
        let key = (path.to_string(), config.image_size);
        if let Some(&known) = self.photos.get(&key) {
            return Ok(known);
        }
        let side = config.image_size;
        let recipe: Recipe = config.views.clone();
        let threads = self.threads.max(1) as f64;
        let source = self.source(path)?.clone();
        let mut rng = Rng::new(0, Purpose::Measure, 0, 0);
        let (mut scratch, mut out) = (Scratch::default(), vec![0; side * side * 3]);
        let start = Instant::now();
        let mut read = 0;
        for _ in 0..READ.min(source.len()) {
            let Ok(photo) = source.load(rng.below(source.len())) else {
                continue;
            };
            for _ in 0..2 {
                let view = recipe.sample(photo.width, photo.height, &mut rng);
                view.render(&photo, side, &mut scratch, &mut out);
            }
            read += 1;
        }
        let seconds = start.elapsed().as_secs_f64() / f64::from(read.max(1)) / threads;
        self.photos.insert(key, seconds);
        Ok(seconds)
    }
}
