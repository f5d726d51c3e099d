//! What the app hears while a session works, on the thread that trains; and how it ends other work.

use crate::progress::{Progress, Stage};
use seedling_core::cancel::CancelToken;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An exception that a listener has thrown. It is dropped: training continues.
#[derive(Debug, thiserror::Error, uniffi::Error)]
pub enum ListenerError {
    /// Whatever it was.
    #[error("{reason}")]
    Failed { reason: String },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for ListenerError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> ListenerError {
        ListenerError::Failed {
            reason: error.to_string(),
        }
    }
}

/// Ends work that is in progress elsewhere, within a few photos.
#[derive(Default, uniffi::Object)]
pub struct Stop {
    pub(crate) cancel: CancelToken,
}

#[uniffi::export]
impl Stop {
    /// Nobody has asked yet.
    #[uniffi::constructor]
    pub fn new() -> Arc<Stop> {
        Arc::default()
    }

    /// Asks whatever was given this to end; it fails with [`crate::SeedlingError::Stopped`]. From any
    /// thread. Returns at once.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }
}

/// Hears how a session is getting on. What it throws is dropped.
#[uniffi::export(with_foreign)]
pub trait Listener: Send + Sync {
    /// At most ten times a second, and at the end of each stage. To return soon: training waits.
    fn progress(&self, progress: Progress) -> Result<(), ListenerError>;

    /// A line that a developer should see in the log.
    fn warning(&self, text: String) -> Result<(), ListenerError>;
}

/// Passes progress on, not too often.
pub(crate) struct Throttle {
    listener: Option<Arc<dyn Listener>>,
    told: Option<Instant>,
}

impl Throttle {
    const PAUSE: Duration = Duration::from_millis(100);

    pub(crate) fn new(listener: Option<Arc<dyn Listener>>) -> Throttle {
        Throttle {
            listener,
            told: None,
        }
    }

    pub(crate) fn progress(&mut self, progress: Progress) {
        let now = Instant::now();
        let soon = self.told.is_some_and(|told| now - told < Throttle::PAUSE);
        if soon && progress.done < progress.total {
            return;
        }
        self.told = Some(now);
        if let Some(listener) = &self.listener {
            // An app's exception is not ours to end the work by.
            let _ = listener.progress(progress);
        }
    }

    pub(crate) fn photos(&mut self, stage: Stage, done: usize, total: usize) {
        self.progress(Progress {
            stage,
            done: done as i64,
            total: total as i64,
            loss: None,
            photos_per_second: None,
        });
    }

    pub(crate) fn warning(&self, text: &str) {
        if let Some(listener) = &self.listener {
            let _ = listener.warning(text.into());
        }
    }
}

/// Tells of photos that are processed, and ends that where someone asks for it.
pub(crate) struct ExtractionProgress {
    throttle: Throttle,
    stop: Option<Arc<Stop>>,
    stage: Stage,
}

impl ExtractionProgress {
    pub(crate) fn new(
        stage: Stage,
        listener: Option<Arc<dyn Listener>>,
        stop: Option<Arc<Stop>>,
    ) -> ExtractionProgress {
        ExtractionProgress {
            throttle: Throttle::new(listener),
            stop,
            stage,
        }
    }

    pub(crate) fn photos(&mut self, done: usize, total: usize) -> seedling_core::Result<()> {
        self.throttle.photos(self.stage, done, total);
        self.stop
            .as_ref()
            .map_or(Ok(()), |stop| stop.cancel.check())
    }
}
