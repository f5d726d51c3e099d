//! The threads that make batches, and what they share with whoever takes them.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::LoaderConfig;
use crate::Error;
use crate::batch::{Made, Undrawn};
use crate::cache::Cache;
use crate::source::PhotoSource;
use crate::views::Scratch;
use seedling_base::rng::{Purpose, Rng};

/// The outcome for one photo of a batch.
type Outcome = std::result::Result<Made, String>;

/// A batch in the making.
pub(super) struct Pending {
    pub(super) number: u64,
    pub(super) photos: Vec<usize>,
    pub(super) slots: Vec<Option<Outcome>>,
    pub(super) dealt: usize,
    pub(super) done: usize,
}

pub(super) struct State {
    pub(super) pending: VecDeque<Pending>,
    /// Number of the next batch to begin, counted from the first of epoch 0.
    pub(super) begin: u64,
    pub(super) order: (u64, Arc<Vec<usize>>),
    pub(super) spare: Vec<Vec<u8>>,
    pub(super) stop: bool,
}

pub(super) struct Shared {
    pub(super) source: Arc<dyn PhotoSource>,
    pub(super) config: LoaderConfig,
    pub(super) steps: u64,
    pub(super) cache: Cache,
    pub(super) state: Mutex<State>,
    /// There may be a photo to make.
    pub(super) work: Condvar,
    /// The first batch may be complete.
    pub(super) ready: Condvar,
}

/// The order of photos in an epoch.
fn order_of(config: &LoaderConfig, photos: usize, epoch: u64) -> Vec<usize> {
    Rng::new(config.seed, Purpose::Order, epoch, 0).permutation(photos)
}

/// Waiting and locking continue after a panic elsewhere: the state is consistent at every unlock.
pub(super) fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// `steps` batches an epoch; the first to make is number `begin`.
    pub(super) fn new(
        source: Arc<dyn PhotoSource>,
        config: LoaderConfig,
        steps: u64,
        begin: u64,
    ) -> Shared {
        let order = Arc::new(order_of(&config, source.len(), begin / steps));
        Shared {
            cache: Cache::new(config.cache_mb),
            steps,
            state: Mutex::new(State {
                pending: VecDeque::new(),
                begin,
                order: (begin / steps, order),
                spare: Vec::new(),
                stop: false,
            }),
            work: Condvar::new(),
            ready: Condvar::new(),
            source,
            config,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn order(&self, state: &mut State, epoch: u64) -> Arc<Vec<usize>> {
        if state.order.0 != epoch {
            let order = order_of(&self.config, self.source.len(), epoch);
            state.order = (epoch, Arc::new(order));
        }
        state.order.1.clone()
    }

    /// Deals the next photo to make: its batch's number, its row, its index and a buffer.
    fn deal(&self, state: &mut State) -> Option<(u64, usize, usize, Vec<u8>)> {
        let open = state.pending.iter().position(|p| p.dealt < p.photos.len());
        let at = match open {
            Some(at) => at,
            None if state.pending.len() < self.config.ahead.max(1) => {
                let number = state.begin;
                state.begin += 1;
                let order = self.order(state, number / self.steps);
                let size = self.config.batch_size;
                let start = (number % self.steps) as usize * size;
                state.pending.push_back(Pending {
                    number,
                    photos: order[start..start + size].to_vec(),
                    slots: (0..size).map(|_| None).collect(),
                    dealt: 0,
                    done: 0,
                });
                state.pending.len() - 1
            }
            None => return None,
        };
        let buffer = state.spare.pop().unwrap_or_default();
        let pending = &mut state.pending[at];
        let row = pending.dealt;
        pending.dealt += 1;
        Some((pending.number, row, pending.photos[row], buffer))
    }

    /// The views of one photo in one epoch, in `pixels`.
    pub(super) fn make(
        &self,
        index: usize,
        epoch: u64,
        pixels: Vec<u8>,
        scratch: &mut Scratch,
    ) -> Outcome {
        // Decoders already catch their own panics; one anywhere else must not stop the batch,
        // because the caller would wait for it forever.
        let made = catch_unwind(AssertUnwindSafe(|| {
            self.try_make(index, epoch, pixels, scratch)
        }));
        made.unwrap_or_else(|_| Err("making its views failed".into()))
    }

    fn try_make(
        &self,
        index: usize,
        epoch: u64,
        mut pixels: Vec<u8>,
        scratch: &mut Scratch,
    ) -> Outcome {
        let config = &self.config;
        let size = config.image_size;
        let photo = self.cache.get_or(index, || {
            // Crops have at least 0.45 of the shorter side, so twice the view loses nothing;
            // always shrunk, so that cached and fresh photos are the same.
            self.source
                .with_photo(index, |photo| photo.shrunk(2 * size))
        });
        let photo = photo.map_err(Error::reason)?;
        let draw = |view: usize| {
            let stream = (index * 2 + view) as u64;
            let mut rng = Rng::new(config.seed, Purpose::Augment, epoch, stream);
            config.recipe.sample(photo.width, photo.height, &mut rng)
        };
        if config.undrawn {
            let views = (0..config.views).map(draw).collect();
            return Ok(Made::Undrawn(Undrawn { photo, views }));
        }
        let view_len = size * size * 3;
        pixels.resize(config.views * view_len, 0);
        for (view, out) in pixels.chunks_exact_mut(view_len).enumerate() {
            draw(view).render(&photo, size, scratch, out);
        }
        Ok(Made::Pixels(pixels))
    }
}

/// A worker: photo after photo until told to stop.
pub(super) fn work(shared: &Shared) {
    let mut scratch = Scratch::default();
    let mut state = shared.lock();
    while !state.stop {
        let Some((number, row, index, buffer)) = shared.deal(&mut state) else {
            state = wait(&shared.work, state);
            continue;
        };
        drop(state);
        let outcome = shared.make(index, number / shared.steps, buffer, &mut scratch);
        state = shared.lock();
        let batch = state.pending.iter_mut().find(|p| p.number == number);
        if let Some(batch) = batch {
            batch.slots[row] = Some(outcome);
            batch.done += 1;
            if batch.done == batch.photos.len() {
                shared.ready.notify_all();
            }
        }
    }
}
