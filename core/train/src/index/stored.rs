//! Features of photos by their names, in a file that grows while photos are processed: an index can be built
//! in slices, survives the process, and takes only photos that are new.

use crate::Result;
use crate::weights::WeightFile;
use seedling_base::chunk_log;
use seedling_data::{PhotoSource, Skipped};
use seedling_ssl::eval::Features;
use seedling_ssl::eval::extract::Extracted;
use seedling_ssl::eval::tta::{self, FeatureModel};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What stands before a chunk's numbers.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Which weights saw the photos, and how.
    model: String,
    dim: usize,
    ids: Vec<String>,
    skipped: Vec<Skipped>,
}

/// Photos that are processed before what was seen is stored.
const CHUNK: usize = 32;

/// What tells the features of these weights, each at its size in pixels, and so many views from others'.
///
/// # Errors
/// A weight file cannot be read any more.
pub fn models_key<'a>(
    weights: impl Iterator<Item = (&'a WeightFile, usize)>,
    views: usize,
) -> Result<String> {
    let names = weights.map(|(file, side)| Ok(format!("{} at {side}", file.digest()?)));
    let names = names.collect::<Result<Vec<String>>>()?;
    Ok(format!("{}, tta views {views}", names.join(" and ")))
}

/// What some weights have seen of photos. A photo is known by its name: one that was changed under its name
/// has to be taken out first ([`StoredFeatures::forget`]).
#[derive(Debug)]
pub struct StoredFeatures {
    /// Where it lies; nowhere, for features that live as long as the process.
    path: Option<PathBuf>,
    model: String,
    dim: usize,
    rows: Features,
    /// The row of each photo that could be read.
    places: HashMap<String, usize>,
    /// Why others could not be.
    skipped: BTreeMap<String, String>,
}

impl StoredFeatures {
    /// Features of `dim` numbers that `model` ([`models_key`]) sees, from the file at
    /// `path` where that is of the same model; a file of another is begun anew.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: Option<&Path>, model: &str, dim: usize) -> Result<StoredFeatures> {
        let mut stored = StoredFeatures {
            path: path.map(Path::to_path_buf),
            model: model.into(),
            dim,
            rows: Features {
                rows: 0,
                dim,
                values: Vec::new(),
            },
            places: HashMap::new(),
            skipped: BTreeMap::new(),
        };
        if let Some(path) = path {
            let (whole, length) = stored.read(path)?;
            match whole {
                true => chunk_log::cut(path, length)?,
                false => stored.rewrite()?,
            }
        }
        Ok(stored)
    }

    /// Names and features in the file at `path`, which is left as it is; `None` unless it is all of this model.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn peek(path: &Path, model: &str, dim: usize) -> Result<Option<(Vec<String>, Features)>> {
        let mut stored = StoredFeatures::open(None, model, dim)?;
        let (whole, _) = stored.read(path)?;
        let (ids, rows): (Vec<String>, Vec<usize>) = stored
            .in_order()
            .into_iter()
            .map(|(row, id)| (id.clone(), row))
            .unzip();
        Ok((whole && !ids.is_empty()).then(|| (ids, stored.rows.select(&rows))))
    }

    /// Keeps what the file at `path` has of this model. Returns whether all of it is, and its whole length.
    fn read(&mut self, path: &Path) -> Result<(bool, u64)> {
        let mut all = true;
        let length = chunk_log::read(path, |header: Header, numbers| {
            let whole = header.ids.len().checked_mul(header.dim) == Some(numbers.len());
            all &= whole && header.model == self.model && header.dim == self.dim;
            if all {
                self.keep(header, &numbers);
            }
        })?;
        Ok((all, length))
    }

    /// Extracts features of the photos of `source` that are missing, some at a time, and stores what is seen of
    /// them. `done` is told how many of how many were processed, and may stop the work by an error.
    ///
    /// # Errors
    /// A network or the disk refuses, or what `done` says; what was stored before stays.
    pub fn extract(
        &mut self,
        models: &[FeatureModel<'_>],
        views: usize,
        source: &dyn PhotoSource,
        mut done: impl FnMut(usize, usize) -> Result<()>,
    ) -> Result<()> {
        let missing = self.missing(source);
        for (i, chunk) in missing.chunks(CHUNK).enumerate() {
            let found = tta::extract(models, views, source, chunk, |processed| {
                done(i * CHUNK + processed, missing.len())
            })?;
            self.add(source, &found)?;
        }
        Ok(())
    }

    /// Photos of `source` that were not asked for yet, by their numbers.
    pub fn missing(&self, source: &dyn PhotoSource) -> Vec<usize> {
        let known = |index: &usize| {
            let id = source.id(*index);
            self.places.contains_key(id) || self.skipped.contains_key(id)
        };
        (0..source.len()).filter(|index| !known(index)).collect()
    }

    /// Adds what was seen of some photos of `source`.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add(&mut self, source: &dyn PhotoSource, found: &Extracted) -> Result<()> {
        let ids = found.photos.iter().map(|&index| source.id(index).into());
        let header = Header {
            model: self.model.clone(),
            dim: self.dim,
            ids: ids.collect(),
            skipped: found.skipped.clone(),
        };
        if let Some(path) = &self.path {
            chunk_log::append(path, &header, &found.features.values)?;
        }
        self.keep(header, &found.features.values);
        Ok(())
    }

    /// The photos of `source` that could be read, in its order, and their features.
    pub fn features_of(&self, source: &dyn PhotoSource) -> (Vec<usize>, Features) {
        let known = |index: usize| Some((index, *self.places.get(source.id(index))?));
        let found = (0..source.len()).filter_map(known);
        let (photos, rows): (Vec<usize>, Vec<usize>) = found.unzip();
        (photos, self.rows.select(&rows))
    }

    /// The photos of `source` that could not be read.
    pub fn skipped(&self, source: &dyn PhotoSource) -> Vec<Skipped> {
        let reason = |index| self.skipped.get_key_value(source.id(index));
        let found = (0..source.len()).filter_map(reason);
        found
            .map(|(id, reason)| Skipped {
                id: id.clone(),
                reason: reason.clone(),
            })
            .collect()
    }

    /// Forgets all photos but those of `source`, so that a file does not grow with photos that are gone.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget_others(&mut self, source: &dyn PhotoSource) -> Result<()> {
        let known = (0..source.len()).map(|index| source.id(index));
        let known: std::collections::HashSet<&str> = known.collect();
        self.forget(|id| !known.contains(id))
    }

    /// Forgets the photos of these names.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget(&mut self, gone: impl Fn(&str) -> bool) -> Result<()> {
        let before = self.places.len() + self.skipped.len();
        let kept = self.in_order().into_iter().filter(|(_, id)| !gone(id));
        let (rows, ids): (Vec<usize>, Vec<String>) =
            kept.map(|(row, id)| (row, id.clone())).unzip();
        self.skipped.retain(|id, _| !gone(id));
        self.rows = self.rows.select(&rows);
        self.places = ids.into_iter().zip(0..).collect();
        match before == self.places.len() + self.skipped.len() {
            true => Ok(()),
            false => self.rewrite(),
        }
    }

    fn keep(&mut self, header: Header, numbers: &[f32]) {
        for (id, row) in header
            .ids
            .into_iter()
            .zip(numbers.chunks_exact(self.dim.max(1)))
        {
            self.places.insert(id, self.rows.rows);
            self.rows.values.extend_from_slice(row);
            self.rows.rows += 1;
        }
        let skipped = header.skipped.into_iter();
        self.skipped
            .extend(skipped.map(|found| (found.id, found.reason)));
    }

    /// The photos that could be read, by their rows.
    fn in_order(&self) -> Vec<(usize, &String)> {
        let mut ids: Vec<_> = self.places.iter().map(|(id, row)| (*row, id)).collect();
        ids.sort_unstable();
        ids
    }

    /// Writes the file anew, as one chunk.
    fn rewrite(&self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let skipped = self.skipped.iter();
        let header = Header {
            model: self.model.clone(),
            dim: self.dim,
            ids: self
                .in_order()
                .into_iter()
                .map(|(_, id)| id.clone())
                .collect(),
            skipped: skipped
                .map(|(id, reason)| Skipped {
                    id: id.clone(),
                    reason: reason.clone(),
                })
                .collect(),
        };
        chunk_log::write(path, &header, &self.rows.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_data::Photos;

    fn photos(names: &[&str]) -> Photos {
        let mut photos = Photos::default();
        for name in names {
            photos.add_encoded(name, vec![1]).unwrap();
        }
        photos
    }

    fn seen(source: &Photos, indices: &[usize]) -> Extracted {
        let values = indices
            .iter()
            .flat_map(|&i| [i as f32, source.id(i).len() as f32]);
        Extracted {
            features: Features::new(indices.len(), 2, values.collect()).unwrap(),
            photos: indices.to_vec(),
            skipped: Vec::new(),
        }
    }

    #[test]
    fn photos_come_and_go_and_a_kill_costs_a_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index");
        let source = photos(&["a", "bb", "ccc", "dddd"]);
        let open = |model: &str| StoredFeatures::open(Some(&path), model, 2).unwrap();
        let mut stored = open("w");
        stored.add(&source, &seen(&source, &[0, 2])).unwrap();
        let mut last = seen(&source, &[3]);
        last.skipped.push(Skipped {
            id: "bb".into(),
            reason: "torn".into(),
        });
        stored.add(&source, &last).unwrap();
        assert!(stored.missing(&source).is_empty());

        // Torn in its last chunk.
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        assert_eq!(open("w").missing(&source), [1, 3]);
        let mut stored = open("w");
        stored.add(&source, &last).unwrap();

        // Other photos, some of them known; those that are gone are forgotten.
        let source = photos(&["new", "ccc", "bb", "a"]);
        let mut stored = open("w");
        assert_eq!(stored.missing(&source), [0]);
        let (found, features) = stored.features_of(&source);
        assert_eq!(found, [1, 3]);
        assert_eq!(features.values, [2.0, 3.0, 0.0, 1.0]);
        assert_eq!(stored.skipped(&source)[0].reason, "torn");
        stored.forget_others(&source).unwrap();
        assert_eq!(open("w").features_of(&source), (found, features));
        stored.forget(|id| id == "bb").unwrap();
        assert_eq!(open("w").missing(&source), [0, 2]);
        // Other weights see other things.
        assert_eq!(open("v").missing(&source).len(), 4);
        assert_eq!(open("w").missing(&source).len(), 4);
        // A file that is something else is left alone.
        std::fs::write(&path, b"\xff\xd8 a photo").unwrap();
        assert!(StoredFeatures::open(Some(&path), "w", 2).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"\xff\xd8 a photo");
        let none = StoredFeatures::open(None, "w", 2).unwrap();
        assert_eq!(none.missing(&source).len(), 4);
    }
}
