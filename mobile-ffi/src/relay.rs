//! From what a run tells to what an app hears.

use crate::listener::{Listener, Throttle};
use crate::progress::{Progress, Stage};
use seedling_core::memory;
use seedling_core::training_run::{Event, Observer};
use std::sync::Arc;
use std::time::Instant;

/// Passes on what a run tells.
pub(crate) struct Relay {
    pub(crate) throttle: Throttle,
    pub(crate) start: Instant,
}

impl Relay {
    pub(crate) fn new(listener: Option<Arc<dyn Listener>>) -> Relay {
        Relay {
            throttle: Throttle::new(listener),
            start: Instant::now(),
        }
    }
}

impl Observer for Relay {
    fn event(&mut self, event: Event<'_>) -> seedling_core::Result<()> {
        match event {
            Event::Warning(text) | Event::Note(text) => self.throttle.warning(text),
            Event::Measuring { done, total, .. } => {
                self.throttle.photos(Stage::Measuring, done, total)
            }
            Event::Selecting { done, total } => self.throttle.photos(Stage::Selecting, done, total),
            Event::Step {
                progress,
                photos_per_second,
                ..
            } => self.throttle.progress(Progress {
                stage: Stage::Training,
                done: progress.step as i64,
                total: progress.steps as i64,
                loss: Some(f64::from(progress.stats.loss)),
                photos_per_second: Some(photos_per_second),
            }),
            _ => {}
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn peak_memory_mb(&self) -> Option<f64> {
        memory::peak_mb()
    }
}
