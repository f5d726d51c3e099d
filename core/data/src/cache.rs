//! Decoded photos kept between epochs, up to a budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::photo::Photo;
use crate::Result;

/// Keeps what it is given first until the budget is spent. Every epoch asks for every photo
/// once, so throwing out the oldest would throw out the next one needed.
pub(super) struct Cache {
    budget: usize,
    kept: Mutex<(usize, HashMap<usize, Arc<Photo>>)>,
}

impl Cache {
    pub(super) fn new(megabytes: usize) -> Cache {
        Cache {
            budget: megabytes.saturating_mul(1 << 20),
            kept: Mutex::new((0, HashMap::new())),
        }
    }

    /// The photo kept under `index`, or the one `load` makes.
    pub(super) fn get_or(
        &self,
        index: usize,
        load: impl FnOnce() -> Result<Photo>,
    ) -> Result<Arc<Photo>> {
        if self.budget == 0 {
            return load().map(Arc::new);
        }
        let lock = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(photo) = lock().1.get(&index) {
            return Ok(photo.clone());
        }
        let photo = Arc::new(load()?);
        let mut kept = lock();
        let after = kept.0 + photo.rgb.len();
        if after <= self.budget && kept.1.insert(index, photo.clone()).is_none() {
            kept.0 = after;
        }
        Ok(photo)
    }
}
