//! How far work is.

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum Stage {
    /// Extracting features of the photos, before or after training.
    Measuring,
    /// Taking steps.
    Training,
    /// Asking which weights serve better.
    Selecting,
    /// Extracting features of the photos for a search.
    Searching,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, uniffi::Record)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Steps taken, or photos processed.
    pub done: i64,
    /// Out of how many.
    pub total: i64,
    /// Mean loss of the last step; `None` outside training.
    pub loss: Option<f64>,
    /// Photos a second in the last step; `None` outside training.
    pub photos_per_second: Option<f64>,
}
