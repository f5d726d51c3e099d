//! The folder a run lives in: made new or taken up again, and held by one process at a time.

use seedling_core::checkpoint;
use seedling_core::report::{album, records};
use seedling_core::session::finish::WEIGHTS_FILE;
use seedling_core::{Error, Result};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Files that a run has written before its first step is done.
const FIRST_FILES: [&str; 5] = [
    "config.toml",
    records::FILE_NAME,
    album::FILE_NAME,
    checkpoint::FILE,
    ".lock",
];

/// An open run folder. Dropped without [`RunFolder::keep`], a new run takes with it what it has
/// written, so that a run that fails before its first step does not stand in the way of the next.
/// To be kept from the first checkpoint on: whatever then ends the process, it can be resumed.
#[derive(Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the folder itself is this run's.
    made: bool,
    /// What was in it before a new run.
    before: HashSet<OsString>,
    keep: AtomicBool,
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
        if path.exists() && !path.is_dir() {
            return Err(Error::file(path, "is a file; a run needs a folder (--out)"));
        }
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
        let made = !path.exists();
        fs::create_dir_all(path).map_err(Error::io(path))?;
        let before = names(path).collect();
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
            made,
            before,
            keep: AtomicBool::new(resume),
            _lock: lock,
        })
    }

    /// There is something in it now that would be missed.
    pub fn keep(&self) {
        self.keep.store(true, Ordering::Relaxed);
    }

    /// There is nothing after all: the run ended, in order, before its first step.
    pub fn give_up(&self) {
        self.keep.store(false, Ordering::Relaxed);
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if *self.keep.get_mut() {
            return;
        }
        // What can't be removed does not stand in the way either.
        for name in names(&self.path).filter(|name| !self.before.contains(name)) {
            let text = name.to_string_lossy();
            if FIRST_FILES.contains(&&*text) || text.starts_with("events.out.tfevents.") {
                let _ = fs::remove_file(self.path.join(&name));
            }
        }
        if self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Names of everything in a folder.
fn names(path: &Path) -> impl Iterator<Item = OsString> + use<> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name())
}
