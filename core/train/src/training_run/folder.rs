//! The folder a run lives in: made new or taken up again, and held by one process at a time.

use super::feature_cache;
use crate::checkpoint;
use crate::records;
use crate::session::finish::WEIGHTS_FILE;
use crate::weights::HEAD_FILE;
use crate::{Error, Result};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Files that a run has written before its first step is done.
const FIRST_FILES: [&str; 6] = [
    CONFIG_FILE,
    records::FILE_NAME,
    checkpoint::FILE,
    checkpoint::PREVIOUS,
    feature_cache::FILE_NAME,
    LOCK_FILE,
];

/// Open in whoever works in a folder.
const LOCK_FILE: &str = ".lock";

/// What is said of a folder that another process works in.
pub const BUSY: &str = "another seedling is working in this folder";

/// Name of the run's settings in its folder.
pub const CONFIG_FILE: &str = "config.toml";

/// An open run folder. Dropped without [`RunFolder::keep`], a new run takes with it what it has
/// written, so that a run that fails before its first step does not stand in the way of the next.
/// To be kept from the first checkpoint on: whatever then ends the process, it can be resumed.
#[derive(Debug)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it was opened to continue with its run.
    pub resumed: bool,
    /// Whether the folder itself is this run's.
    made: bool,
    /// What was in it before a new run.
    before: HashSet<OsString>,
    /// Beginnings of the names of files that whoever watches the run writes into it.
    guests: &'static [&'static str],
    keep: AtomicBool,
    /// Released when the process ends, however it ends.
    _lock: File,
}

/// Keeps other processes out of the folder at `path` for as long as it is open.
fn lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK_FILE);
    let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::file(path, BUSY)),
        // Some network file systems know no locks; then nobody is kept out.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(lock),
    }
}

/// Removes what a run has written into the folder at `path`, results included, and the folder where
/// nothing else is in it.
///
/// # Errors
/// Another process works in it, or a file cannot be removed.
pub fn forget(path: &Path) -> Result<()> {
    if !path.is_dir() {
        return Ok(());
    }
    let _lock = lock(path)?;
    let ours = [
        CONFIG_FILE,
        records::FILE_NAME,
        WEIGHTS_FILE,
        HEAD_FILE,
        feature_cache::FILE_NAME,
    ];
    for name in ours.into_iter().chain(checkpoint::FILES).chain([LOCK_FILE]) {
        for path in [path.join(name), path.join(format!(".{name}.partial"))] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(&path)(error));
                }
                _ => {}
            }
        }
    }
    // Something of the app's may be in it.
    let _ = fs::remove_dir(path);
    Ok(())
}

impl RunFolder {
    /// Opens the folder at `path`: for a new run it must not hold one yet, for a resumed run it
    /// must. `guests` are the beginnings of the names of files that the caller will write into it.
    ///
    /// # Errors
    /// It cannot be written, holds a run already or none, or another process works in it.
    pub fn open(path: &Path, resume: bool, guests: &'static [&'static str]) -> Result<RunFolder> {
        let shown = path.display();
        if path.exists() && !path.is_dir() {
            return Err(Error::file(path, "is a file; a run needs a folder (--out)"));
        }
        let nothing = "has no checkpoint to resume from; start it without --resume";
        let made = !path.exists();
        if resume && made {
            return Err(Error::file(path, nothing));
        }
        fs::create_dir_all(path).map_err(Error::io(path))?;
        let before = names(path).collect();
        // Before anything in it is read: what another process is writing is not to be judged, nor to be
        // removed.
        let lock = lock(path)?;
        let folder = RunFolder {
            path: path.to_path_buf(),
            resumed: resume,
            made,
            before,
            guests,
            keep: AtomicBool::new(false),
            _lock: lock,
        };
        // Without a checkpoint nothing was trained that could be lost.
        let used = checkpoint::exists(path) || path.join(WEIGHTS_FILE).exists();
        if resume && !checkpoint::exists(path) {
            return Err(Error::file(path, nothing));
        }
        if !resume && used {
            return Err(Error::file(
                path,
                format!(
                    "holds a run already; continue with it (--resume), remove it (rm -r {shown}), or name another folder (--out)"
                ),
            ));
        }
        folder.keep.store(resume, Ordering::Relaxed);
        Ok(folder)
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
            let guest = self.guests.iter().any(|guest| text.starts_with(guest));
            if guest || FIRST_FILES.contains(&&*text) {
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
