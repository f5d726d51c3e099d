//! The folder a run lives in: made new or taken up again, and held by one process at a time.

use seedling_core::checkpoint;
use seedling_core::session::finish::WEIGHTS_FILE;
use seedling_core::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// An open run folder.
#[derive(Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Released when the process ends, however it ends.
    _lock: File,
}

impl RunFolder {
    /// Opens the folder at `path`: for a new run it must not hold one yet, for a resumed run it
    /// must.
    ///
    /// # Errors
    /// It cannot be written, holds a run already or none, or another process works in it.
    pub fn open(path: &Path, resume: bool) -> Result<RunFolder> {
        let shown = path.display();
        // Without a checkpoint nothing was trained that could be lost.
        let used = checkpoint::exists(path) || path.join(WEIGHTS_FILE).exists();
        if resume && !checkpoint::exists(path) {
            let reason = "has no checkpoint to resume from; start it without --resume";
            return Err(Error::file(path, reason));
        }
        if !resume && used {
            return Err(Error::file(
                path,
                format!(
                    "holds a run already; go on with it (--resume), remove it (rm -r {shown}), or name another folder (--out)"
                ),
            ));
        }
        fs::create_dir_all(path).map_err(Error::io(path))?;
        let lock_path = path.join(".lock");
        let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::file(
                    path,
                    "another seedling is working in this folder",
                ));
            }
            // Some network file systems know no locks; then nobody is kept out.
            Err(TryLockError::Error(_)) => {}
        }
        Ok(RunFolder {
            path: path.to_path_buf(),
            _lock: lock,
        })
    }
}
