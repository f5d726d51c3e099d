//! What an app can act on.

use seedling_core::Error;

/// Why a call did not do what it was asked to. `reason` is one line for a log.
#[derive(Debug, thiserror::Error, uniffi::Error)]
pub enum SeedlingError {
    /// The photos cannot be used: too few, gone, or not those the run was started with. Hand over
    /// others.
    #[error("{reason}")]
    Photos { reason: String },
    /// The weights cannot be used: damaged, or of another network. Fetch them again.
    #[error("{reason}")]
    Weights { reason: String },
    /// The weights are not vouched for by anybody trusted. Do not use them.
    #[error("{reason}")]
    Untrusted { reason: String },
    /// Settings that cannot be meant, a memory budget that is too small, or a GPU that is
    /// not there; the text says what would do.
    #[error("{reason}")]
    Settings { reason: String },
    /// The disk refused: it may be full.
    #[error("{reason}")]
    Storage { reason: String },
    /// Training went wrong; the run is not worth continuing with. Discard it.
    #[error("{reason}")]
    Training { reason: String },
    /// The session is at work: pause it first.
    #[error("{reason}")]
    Busy { reason: String },
    /// Someone has asked it to stop.
    #[error("{reason}")]
    Stopped { reason: String },
    /// The session was closed.
    #[error("{reason}")]
    Closed { reason: String },
}

/// What the functions of this library return.
pub type Result<T> = std::result::Result<T, SeedlingError>;

impl From<Error> for SeedlingError {
    fn from(error: Error) -> SeedlingError {
        let reason = error.to_string();
        match error {
            Error::Photo { .. } | Error::NoPhotos(_) => SeedlingError::Photos { reason },
            Error::File { .. } | Error::OtherArch { .. } | Error::UnknownArch { .. } => {
                SeedlingError::Weights { reason }
            }
            Error::Untrusted { .. } => SeedlingError::Untrusted { reason },
            Error::Config(_) | Error::Device(_) | Error::DeviceMemory { .. } => {
                SeedlingError::Settings { reason }
            }
            Error::Io { .. } => SeedlingError::Storage { reason },
            Error::Canceled => SeedlingError::Stopped { reason },
            _ => SeedlingError::Training { reason },
        }
    }
}
