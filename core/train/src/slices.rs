//! A run in the slices of time that a system grants, across launches of an app: over which photos it is,
//! whether a slice may begin, what became of each, and whether others have to follow.

use crate::governor::Reason;
use crate::{Error, Result};
use seedling_base::atomic;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

/// The names of the photos.
const NAMES_FILE: &str = "album.json";
/// One JSON object a slice.
const LOG_FILE: &str = "slices.jsonl";
/// There while a slice is in progress.
const BEGUN_FILE: &str = "slice.begun";
/// Lines of the log that are kept.
const KEPT: usize = 500;

/// Bytes below which nothing should be begun: two checkpoints and the weights.
pub const LEAST_FREE: u64 = 200_000_000;

/// What became of a slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SliceEntry {
    /// When it ended, in seconds since 1970.
    pub at: f64,
    /// `done`, `paused`, `failed`, `killed`, or the governor's reason to stop.
    pub ended: String,
    /// What there is to say about it.
    pub detail: String,
}

/// How a slice has ended.
#[derive(Clone, Debug, PartialEq)]
pub enum SliceEnd {
    /// The run is done.
    Done,
    /// The time granted was over, or someone paused it.
    Paused,
    /// The governor has stopped it.
    Stopped(Reason),
    /// An error has; `storage` where the disk refused.
    Failed { storage: bool },
}

/// What is kept of a run between its slices, in a folder.
#[derive(Clone, Debug)]
pub struct Slices {
    folder: PathBuf,
}

impl Slices {
    /// In `folder`, which is made where it is missing.
    pub fn new(folder: impl Into<PathBuf>) -> Slices {
        Slices {
            folder: folder.into(),
        }
    }

    /// The names of the photos that the run was begun with, from its first slice to its last. Between two
    /// slices a photo may be deleted: then it is skipped, and the run continues with the others, which a list
    /// that had changed would not let it. `None` where it has not begun.
    ///
    /// # Errors
    /// The file can't be read, or is damaged.
    pub fn names(&self) -> Result<Option<Vec<String>>> {
        let path = self.path(NAMES_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let names = serde_json::from_slice(&text);
        names.map(Some).map_err(|error| {
            let reason = format!("is no list of the photos of a run ({error})");
            Error::file(&path, reason)
        })
    }

    /// Keeps these names for the slices to come.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remember(&self, names: &[String]) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(Error::io(&self.folder))?;
        let text = serde_json::to_vec(names).map_err(|e| Error::Config(e.to_string()))?;
        atomic::write(&self.path(NAMES_FILE), |file| file.write_all(&text))
    }

    /// Forgets them: the next run is over the photos there are then.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget(&self) -> Result<()> {
        let path = self.path(NAMES_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&path)(error)),
            _ => Ok(()),
        }
    }

    /// A slice begins at `now`, with so many bytes free, where that is known. One before it that has not ended
    /// was killed with its process, and is logged so.
    ///
    /// # Errors
    /// Fewer than `least` bytes are free.
    pub fn start(&self, now: f64, free: Option<u64>, least: u64) -> Result<()> {
        if self.path(BEGUN_FILE).exists() {
            self.log(now, "killed", "the process ended without a word");
        }
        // What can't be written is no reason to lose a night; so of the log.
        let _ = fs::create_dir_all(&self.folder);
        let _ = fs::write(self.path(BEGUN_FILE), []);
        match free.filter(|free| *free < least) {
            None => Ok(()),
            Some(free) => Err(Error::Io {
                path: self.folder.clone(),
                source: std::io::Error::new(
                    ErrorKind::StorageFull,
                    format!(
                        "{} MB are free, {} are needed",
                        free / 1_000_000,
                        least / 1_000_000
                    ),
                ),
            }),
        }
    }

    /// The slice has ended at `now`. Says whether others have to follow.
    pub fn ended(&self, now: f64, end: &SliceEnd, detail: &str) -> bool {
        let (word, more) = match end {
            SliceEnd::Done => ("done", false),
            SliceEnd::Paused => ("paused", true),
            SliceEnd::Stopped(reason) => (reason.word(), true),
            // A full disk may have room tomorrow; photos and weights don't mend themselves.
            SliceEnd::Failed { storage } => ("failed", *storage),
        };
        self.log(now, word, detail);
        more
    }

    /// What became of the slices, the oldest first: the latest few hundred. Lines that a crash has cut short are
    /// left out.
    pub fn entries(&self) -> Vec<SliceEntry> {
        let text = fs::read_to_string(self.path(LOG_FILE)).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn log(&self, at: f64, ended: &str, detail: &str) {
        let _ = fs::remove_file(self.path(BEGUN_FILE));
        let mut entries = self.entries();
        entries.push(SliceEntry {
            at,
            ended: ended.into(),
            detail: detail.into(),
        });
        let latest = &entries[entries.len().saturating_sub(KEPT)..];
        let lines: Vec<String> = latest
            .iter()
            .filter_map(|entry| serde_json::to_string(entry).ok())
            .collect();
        let text = lines.join("\n") + "\n";
        let _ = atomic::write(&self.path(LOG_FILE), |file| file.write_all(text.as_bytes()));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_beginning_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let slices = Slices::new(folder.path().join("new"));
        assert_eq!(slices.names().unwrap(), None);
        let names = ["a\tb\n.jpg".to_string(), "ä".into()];
        slices.remember(&names).unwrap();
        assert_eq!(slices.names().unwrap().unwrap(), names);
        fs::write(slices.path(NAMES_FILE), "[1").unwrap();
        let refused = slices.names().unwrap_err().to_string();
        assert!(refused.contains(NAMES_FILE), "{refused}");
        slices.forget().unwrap();
        slices.forget().unwrap();
        assert_eq!(slices.names().unwrap(), None);
    }

    #[test]
    fn every_slice_leaves_a_line_and_says_whether_others_follow() {
        let folder = tempfile::tempdir().unwrap();
        let slices = Slices::new(folder.path());
        let ends = [
            (SliceEnd::Paused, true),
            (SliceEnd::Stopped(Reason::NotCharging), true),
            (SliceEnd::Failed { storage: true }, true),
            (SliceEnd::Failed { storage: false }, false),
            (SliceEnd::Done, false),
        ];
        for (now, (end, more)) in (1..).zip(&ends) {
            slices.start(f64::from(now), None, LEAST_FREE).unwrap();
            assert_eq!(slices.ended(f64::from(now), end, "two\nlines"), *more);
        }
        // One that is killed is told of by the next, which has too little room.
        slices.start(6.0, Some(u64::MAX), LEAST_FREE).unwrap();
        let few = slices.start(7.0, Some(7_000_000), LEAST_FREE);
        let few = few.unwrap_err().to_string();
        assert!(few.contains("7 MB are free, 200 are needed"), "{few}");
        let words: Vec<String> = slices.entries().into_iter().map(|e| e.ended).collect();
        let expected = [
            "paused",
            "not charging",
            "failed",
            "failed",
            "done",
            "killed",
        ];
        assert_eq!(words, expected);
        assert_eq!(slices.entries()[0].detail, "two\nlines");
    }

    #[test]
    fn the_log_is_short_and_survives_a_line_cut_short() {
        let folder = tempfile::tempdir().unwrap();
        let slices = Slices::new(folder.path());
        for now in 0..KEPT + 3 {
            slices.ended(now as f64, &SliceEnd::Paused, "");
        }
        assert_eq!(slices.entries().len(), KEPT);
        assert_eq!(slices.entries()[0].at, 3.0);
        let text = fs::read_to_string(slices.path(LOG_FILE)).unwrap();
        fs::write(slices.path(LOG_FILE), &text[..text.len() - 9]).unwrap();
        assert_eq!(slices.entries().len(), KEPT - 1);
    }
}
