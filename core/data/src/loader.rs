//! Batches of views, made ahead of time by worker threads.
//!
//! What a batch holds depends only on the seed, the epoch and the step: photos are dealt to the
//! threads one by one, and every photo has its own stream of random numbers. Unreadable photos
//! are replaced by a fixed rule (see [`Loader::next_batch`]), so batches stay full and a run that
//! was stopped and resumed sees exactly what it would have seen.

mod workers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::workers::{Pending, Shared, wait, work};
use super::batch::{Batch, BatchViews, Made};
use super::pixel_norm::Normalize;
use super::source::{PhotoSource, Skipped};
use super::views::{Recipe, Scratch};
use crate::{Error, Result};

/// What batches look like and how they are made.
#[derive(Clone, Debug)]
pub struct LoaderConfig {
    /// The views to draw.
    pub recipe: Recipe,
    /// Side of a view in pixels.
    pub image_size: usize,
    /// Photos in a batch.
    pub batch_size: usize,
    /// Where fewer photos than `batch_size` can be read, batches are cut to a multiple of this.
    pub microbatch: usize,
    /// Views of each photo: 1 or 2.
    pub views: usize,
    /// Seed of the order and of the views.
    pub seed: u64,
    /// Worker threads; at least 1 is used. They don't change what is made.
    pub threads: usize,
    /// Batches that may be in the making or waiting (bytes, not floats); at least 1.
    pub ahead: usize,
    /// Megabytes of decoded photos to keep between epochs; 0 decodes each time. Same batches.
    pub cache_mb: usize,
    /// How views become floats.
    pub normalize: Normalize,
    /// Whether batches hold photos and the random numbers of their views, and no pixels: for a backend
    /// that makes views itself.
    pub undrawn: bool,
}

impl LoaderConfig {
    /// Two views of each photo by `recipe`; one thread, two batches ahead, no cache.
    pub fn new(recipe: Recipe, image_size: usize, batch_size: usize, seed: u64) -> LoaderConfig {
        LoaderConfig {
            recipe,
            image_size,
            batch_size,
            microbatch: batch_size,
            views: 2,
            seed,
            threads: 1,
            ahead: 2,
            cache_mb: 0,
            normalize: Normalize::default(),
            undrawn: false,
        }
    }
}

/// The next batch's place in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Passes over the dataset finished before.
    pub epoch: u64,
    /// Batches of this epoch taken before.
    pub step: u64,
}

/// Makes batches in order, forever; the caller decides when to stop.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    next: u64,
    skipped: BTreeMap<usize, String>,
    scratch: Scratch,
}

impl Loader {
    /// Starts the workers at `position`.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that make no batch (more photos in a batch than there are);
    /// [`Error::Io`] where threads can't be started.
    pub fn new(
        source: Arc<dyn PhotoSource>,
        config: LoaderConfig,
        position: Position,
    ) -> Result<Loader> {
        check(&config, source.len())?;
        let steps = (source.len() / config.batch_size) as u64;
        let begin = position.epoch * steps + position.step;
        let threads = config.threads.max(1);
        let shared = Arc::new(Shared::new(source, config, steps, begin));
        let mut loader = Loader {
            shared,
            workers: Vec::new(),
            next: begin,
            skipped: BTreeMap::new(),
            scratch: Scratch::default(),
        };
        for n in 0..threads {
            let shared = loader.shared.clone();
            let worker = std::thread::Builder::new()
                .name(format!("loader-{n}"))
                .spawn(move || work(&shared))
                .map_err(Error::io("loader thread"))?;
            loader.workers.push(worker);
        }
        Ok(loader)
    }

    /// Batches in one epoch; a last incomplete one is dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        self.shared.steps
    }

    /// Where the next batch stands; a new loader given this continues exactly here.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.next / self.shared.steps,
            step: self.next % self.shared.steps,
        }
    }

    /// How many photos were found unreadable so far.
    pub fn skipped_count(&self) -> usize {
        self.skipped.len()
    }

    /// Photos found unreadable so far, by index.
    pub fn skipped(&self) -> Vec<Skipped> {
        let named = self.skipped.iter().map(|(&index, reason)| Skipped {
            id: self.shared.source.id(index).into(),
            reason: reason.clone(),
        });
        named.collect()
    }

    /// The next batch; waits until it is made.
    ///
    /// An unreadable photo's place is taken by the first readable photo that follows this batch
    /// in the epoch's order (wrapping around to its beginning), none twice. Where the whole dataset
    /// has too few, the batch holds as many whole groups as there are readable photos for.
    ///
    /// # Errors
    /// [`Error::NoPhotos`]: not enough readable photos for one micro-batch.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let pending = self.wait_for_first();
        let steps = self.shared.steps;
        let (epoch, step) = (pending.number / steps, pending.number % steps);
        let (mut photos, mut made, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (index, slot)) in pending.photos.into_iter().zip(pending.slots).enumerate() {
            photos.push(index as u32);
            made.push(match slot {
                Some(Ok(made)) => Some(made),
                failed => {
                    let reason = failed.and_then(|outcome| outcome.err());
                    self.skipped.insert(index, reason.unwrap_or_default());
                    gaps.push(row);
                    None
                }
            });
        }
        if !gaps.is_empty() {
            self.fill(&mut photos, &mut made, &gaps, (epoch, step))?;
        }
        let config = &self.shared.config;
        self.next += 1;
        Ok(Batch {
            epoch,
            step,
            photos,
            normalize: config.normalize,
            views: BatchViews::new(config.views, config.undrawn, made.into_iter().flatten()),
        })
    }

    /// Gives a batch's memory back for later ones.
    pub fn recycle(&self, batch: Batch) {
        if let BatchViews::Pixels { photos, .. } = batch.views {
            self.shared.lock().spare.extend(photos);
        }
    }

    fn wait_for_first(&self) -> Pending {
        let mut state = self.shared.lock();
        loop {
            let complete = state.pending.front();
            let complete = complete.is_some_and(|p| p.done == p.photos.len());
            if let Some(first) = complete.then(|| state.pending.pop_front()).flatten() {
                self.shared.work.notify_all();
                return first;
            }
            state = wait(&self.shared.ready, state);
        }
    }

    /// Puts the epoch's following readable photos into the rows `gaps` (rising). Where there are not enough,
    /// what stays empty is left out, and what is then too much for whole groups. By then every photo has been
    /// tried, so that the result depends on nothing but the dataset.
    fn fill(
        &mut self,
        photos: &mut Vec<u32>,
        made: &mut Vec<Option<Made>>,
        gaps: &[usize],
        (epoch, step): (u64, u64),
    ) -> Result<()> {
        let shared = self.shared.clone();
        let total = shared.source.len();
        let order = shared.order(&mut shared.lock(), epoch);
        let end = (step as usize + 1) * shared.config.batch_size;
        let others = total - shared.config.batch_size;
        let mut candidates = (0..others).map(|k| order[(end + k) % total]);
        'gaps: for &row in gaps {
            for index in candidates.by_ref() {
                if self.skipped.contains_key(&index) {
                    continue;
                }
                match shared.make(index, epoch, Vec::new(), &mut self.scratch) {
                    Ok(found) => {
                        (photos[row], made[row]) = (index as u32, Some(found));
                        continue 'gaps;
                    }
                    Err(reason) => self.skipped.insert(index, reason),
                };
            }
            break;
        }
        for &row in gaps.iter().rev().filter(|row| made[**row].is_none()) {
            photos.remove(row);
        }
        made.retain(Option::is_some);
        if photos.len() == shared.config.batch_size {
            return Ok(());
        }
        let microbatch = shared.config.microbatch.max(1);
        let whole = photos.len() / microbatch * microbatch;
        if whole == 0 {
            return Err(self.too_few());
        }
        photos.truncate(whole);
        made.truncate(whole);
        Ok(())
    }

    fn too_few(&self) -> Error {
        let total = self.shared.source.len();
        let readable = total - self.skipped.len();
        let example = self.skipped.iter().next().map(|(&index, reason)| {
            let id = self.shared.source.id(index);
            format!("; {id}: {reason}")
        });
        let example = example.unwrap_or_default();
        if readable == 0 {
            return Error::NoPhotos(format!("none of the {total} photos can be read{example}"));
        }
        Error::NoPhotos(format!(
            "only {readable} of {total} photos can be read, fewer than one micro-batch of {}{example}",
            self.shared.config.microbatch
        ))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has nothing left to say.
            let _ = worker.join();
        }
    }
}

fn check(config: &LoaderConfig, photos: usize) -> Result<()> {
    let wrong = |text: String| Err(Error::Config(text));
    if config.batch_size == 0 || config.image_size == 0 {
        return wrong("batch_size and image_size must be at least 1".into());
    }
    if !(1..=2).contains(&config.views) {
        return wrong(format!("a photo has 1 or 2 views, not {}", config.views));
    }
    if config.batch_size > photos {
        return wrong(format!(
            "batch_size {} is more than the dataset's {photos} photos; set batch_size={photos} or less",
            config.batch_size
        ));
    }
    Ok(())
}
