//! What the app hears, and is asked, while a session works. All of it on the thread that trains.

use seedling_core::governor::Readings;

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Stage {
    /// Looking at the photos, before or after training.
    Measuring,
    /// Taking steps.
    Training,
    /// Asking which weights serve better.
    Judging,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Steps taken, or photos looked at.
    pub done: u64,
    /// Out of how many.
    pub total: u64,
    /// Mean loss of the last step; `None` outside training.
    pub loss: Option<f64>,
    /// Photos a second in the last step; `None` outside training.
    pub photos_per_second: Option<f64>,
}

/// An exception that a listener has thrown. It is dropped: training goes on.
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

/// Hears how a session is getting on. What it throws is dropped.
#[uniffi::export(with_foreign)]
pub trait Listener: Send + Sync {
    /// At most ten times a second, and at the end of each stage. To return soon: training waits.
    fn progress(&self, progress: Progress) -> Result<(), ListenerError>;

    /// A line that a developer should see in the log.
    fn warning(&self, text: String) -> Result<(), ListenerError>;
}

/// Reads the device's sensors.
#[uniffi::export(with_foreign)]
pub trait Sensors: Send + Sync {
    /// What they say now; asked before every step. What it throws counts as knowing nothing.
    fn read(&self) -> Result<Readings, ListenerError>;
}

/// See [`seedling_core::governor::Readings`]. Whatever is not known stays empty.
#[uniffi::remote(Record)]
pub struct Readings {
    pub seconds: Option<f64>,
    pub heat: Option<f64>,
    pub battery: Option<f64>,
    pub charging: Option<bool>,
    pub low_power: Option<bool>,
    pub memory_mb: Option<f64>,
}
