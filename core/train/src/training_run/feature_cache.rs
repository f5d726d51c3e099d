//! Features of photos, chunk by chunk, in memory and in a file of the run's folder: a measurement of
//! thousands of photos is not begun anew after a pause or the death of the process, and ends with the same
//! bits. The file goes when what was measured is in a checkpoint.

use crate::Result;
use seedling_base::chunk_log;
use seedling_data::Skipped;
use seedling_ssl::eval::Features;
use seedling_ssl::eval::extract::Extracted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file's name in a run folder.
pub const FILE_NAME: &str = "features.chunks";

/// What stands before a chunk's numbers.
#[derive(Serialize, Deserialize)]
struct Header {
    pass: String,
    views: usize,
    dim: usize,
    photos: Vec<usize>,
    skipped: Vec<Skipped>,
}

/// What was seen so far, by a key for each pass over photos.
pub struct FeatureCache {
    path: PathBuf,
    passes: BTreeMap<String, Extracted<Vec<Features>>>,
}

impl FeatureCache {
    /// Of the run in `folder`: what an earlier process has left where it goes `on`, nothing otherwise.
    ///
    /// # Errors
    /// The file cannot be read, or not be removed.
    pub fn open(folder: &Path, on: bool) -> Result<FeatureCache> {
        let mut seen = FeatureCache {
            path: folder.join(FILE_NAME),
            passes: BTreeMap::new(),
        };
        match on {
            true => seen.read()?,
            false => seen.clear()?,
        }
        Ok(seen)
    }

    /// Photos of this pass that were asked for so far.
    pub fn processed(&self, key: &str) -> usize {
        let pass = self.passes.get(key);
        pass.map_or(0, |pass| pass.photos.len() + pass.skipped.len())
    }

    /// What this pass has seen.
    pub fn pass(&self, key: &str) -> Option<&Extracted<Vec<Features>>> {
        self.passes.get(key)
    }

    /// Adds a chunk to a pass.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add(&mut self, key: &str, chunk: Extracted<Vec<Features>>) -> Result<()> {
        let header = Header {
            pass: key.into(),
            views: chunk.features.len(),
            dim: chunk.features.first().map_or(0, |view| view.dim),
            photos: chunk.photos.clone(),
            skipped: chunk.skipped.clone(),
        };
        let numbers: Vec<&[f32]> = chunk.features.iter().map(|view| &*view.values).collect();
        chunk_log::append(&self.path, &header, &numbers.concat())?;
        self.keep(key, chunk);
        Ok(())
    }

    /// What a pass has seen, which is then forgotten: to be dropped where it is not needed. The file keeps it.
    pub fn take(&mut self, key: &str) -> Option<Extracted<Vec<Features>>> {
        self.passes.remove(key)
    }

    /// Forgets everything: what came of it is kept elsewhere.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        self.passes.clear();
        chunk_log::remove(&self.path)
    }

    fn keep(&mut self, key: &str, chunk: Extracted<Vec<Features>>) {
        match self.passes.get_mut(key) {
            None => {
                self.passes.insert(key.into(), chunk);
            }
            Some(pass) => {
                for (view, more) in pass.features.iter_mut().zip(chunk.features) {
                    view.rows += more.rows;
                    view.values.extend(more.values);
                }
                pass.photos.extend(chunk.photos);
                pass.skipped.extend(chunk.skipped);
            }
        }
    }

    fn read(&mut self) -> Result<()> {
        let path = self.path.clone();
        let whole = chunk_log::read(&path, |header: Header, numbers| {
            let (rows, dim) = (header.photos.len(), header.dim);
            // A chunk of another version says nothing.
            if header.views == 0 || header.views * rows * dim != numbers.len() {
                return;
            }
            let features = (0..header.views).map(|view| {
                let values = &numbers[view * rows * dim..][..rows * dim];
                Features::new(rows, dim, values.to_vec())
            });
            if let Ok(features) = features.collect() {
                let chunk = Extracted {
                    features,
                    photos: header.photos,
                    skipped: header.skipped,
                };
                self.keep(&header.pass, chunk);
            }
        })?;
        chunk_log::cut(&path, whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: usize) -> Extracted<Vec<Features>> {
        let view = |by: f32| Features::new(2, 3, vec![first as f32 + by; 6]).unwrap();
        Extracted {
            features: vec![view(0.1), view(0.2)],
            photos: vec![first, first + 1],
            skipped: vec![Skipped {
                id: format!("{first}\n.jpg"),
                reason: "torn".into(),
            }],
        }
    }

    #[test]
    fn chunks_come_back_and_a_torn_one_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut seen = FeatureCache::open(folder.path(), false).unwrap();
        seen.add("a", chunk(0)).unwrap();
        seen.add("b", chunk(7)).unwrap();
        seen.add("a", chunk(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let again = FeatureCache::open(folder.path(), true).unwrap();
        let pass = again.pass("a").unwrap();
        assert_eq!((again.processed("a"), again.processed("b")), (6, 3));
        assert_eq!(pass.photos, [0, 1, 2, 3]);
        let views = pass.features.iter().zip(&seen.pass("a").unwrap().features);
        for (again, view) in views {
            assert_eq!((again.rows, &again.values), (4, &view.values));
        }
        assert_eq!(pass.skipped, [chunk(0).skipped, chunk(2).skipped].concat());

        // Torn in its numbers, in its header, and damaged.
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for bytes in [
            &whole[..whole.len() - 1],
            &whole[..whole.len() - 50],
            &damaged,
        ] {
            std::fs::write(&path, bytes).unwrap();
            let mut again = FeatureCache::open(folder.path(), true).unwrap();
            assert_eq!((again.processed("a"), again.processed("b")), (3, 3));
            again.add("a", chunk(2)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let again = FeatureCache::open(folder.path(), false).unwrap();
        assert_eq!((again.processed("a"), path.exists()), (0, false));
    }
}
