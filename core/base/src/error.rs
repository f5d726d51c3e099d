//! What can go wrong, each with the path, tensor or number a reader needs to act on it.

use std::path::{Path, PathBuf};

/// Every fallible function of this crate returns this.
pub type Result<T> = std::result::Result<T, Error>;

/// One variant per kind of failure a caller may want to tell apart.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a read or a write.
    #[error("{path}: {source}", path = path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    /// One photo could not be read; loaders skip and count these.
    #[error("{photo}: not a readable photo ({reason})")]
    Photo { photo: String, reason: String },
    /// A source holds nothing to work with.
    #[error("{0}")]
    NoPhotos(String),
    /// A weight file, checkpoint or golden file is not what it should be.
    #[error("{path}: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    /// A weight file is of another network than the caller wants.
    #[error("{path}: holds weights of {holds}, but {wanted} was asked for", path = path.display())]
    OtherArch {
        path: PathBuf,
        holds: String,
        wanted: String,
    },
    /// A weight file does not say of which network it is, and nobody else did.
    #[error("{path}: does not say which architecture it holds", path = path.display())]
    UnknownArch { path: PathBuf },
    /// Weights that nobody trusted vouches for.
    #[error("{path}: {reason}", path = path.display())]
    Untrusted { path: PathBuf, reason: Distrust },
    /// A tensor of a file or a call has the wrong shape.
    #[error("{tensor}: expected shape {expected:?}, got {got:?}")]
    Shape {
        tensor: String,
        expected: Vec<usize>,
        got: Vec<usize>,
    },
    /// A setting is unknown or out of range; the text says which and what would do.
    #[error("{0}")]
    Config(String),
    /// Training went wrong in a way that no retry mends (a loss that is not finite).
    #[error("{0}")]
    Training(String),
    /// A device that computes is not there, is lost, or has too little memory.
    #[error("{0}")]
    Device(String),
    /// A device has no more memory: all of what it has, or may give, is taken.
    #[error("the device's memory is at its end with {} MB taken", .held / 1_000_000)]
    DeviceMemory { held: usize },
    /// Someone asked to stop ([`crate::cancel::CancelToken`]).
    #[error("canceled")]
    Canceled,
}

/// Why weights are not to be trusted. Each has its own remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The text is no manifest.
    #[error("no usable manifest ({0})")]
    Malformed(String),
    /// Signed, but by nobody who is trusted.
    #[error("signed by the key {0}, which is not trusted")]
    Foreign(String),
    /// The text is not what was signed.
    #[error("the manifest was changed after it was signed")]
    Forged,
    /// The weights are shorter than the manifest says: a download that broke off, or a full disk.
    #[error("the weights have {got} of {expected} bytes; fetch them again")]
    Truncated { expected: u64, got: u64 },
    /// The weights are not those that were signed.
    #[error("the weights are not those that were signed ({0})")]
    Tampered(String),
    /// Older than what may still be used.
    #[error("version {version} is older than {oldest}, the oldest that may still be used")]
    Downgraded { version: u64, oldest: u64 },
}

impl Error {
    /// An [`Error::Io`] that names the path, for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// Why a photo could not be read, where its name is said already.
    pub fn reason(self) -> String {
        match self {
            Error::Photo { reason, .. } => reason,
            other => other.to_string(),
        }
    }

    /// An [`Error::File`].
    pub fn file(path: impl AsRef<Path>, reason: impl Into<String>) -> Error {
        Error::File {
            path: path.as_ref().to_path_buf(),
            reason: reason.into(),
        }
    }
}
