//! A folder of image files, searched recursively.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::labels::Labels;
use super::{MAX_ENCODED_BYTES, PhotoSource, is_photo_name};
use crate::data::budget::{DecodeBudget, Share};
use crate::data::outline::Outline;
use crate::data::photo::Photo;
use crate::{Error, Result};

/// The image files below a folder, sorted by relative path; hidden files and folders left out.
pub(super) struct Folder {
    root: PathBuf,
    ids: Vec<String>,
    labels: Labels,
    saw_files: bool,
    budget: Arc<DecodeBudget>,
}

impl Folder {
    /// Lists the files; reads none of them.
    pub(super) fn open(root: &Path, budget: Arc<DecodeBudget>) -> Result<Folder> {
        let mut ids = Vec::new();
        let mut saw_files = false;
        let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
        let walk = WalkDir::new(root).follow_links(true).into_iter();
        for entry in walk.filter_entry(|e| e.depth() == 0 || !hidden(e.file_name())) {
            let entry = match entry {
                Ok(entry) => entry,
                // A folder that may not be read or a broken link hides its photos, no others.
                Err(error) if error.depth() > 0 => continue,
                Err(error) => {
                    let source = error.into_io_error();
                    let source = source.unwrap_or_else(|| std::io::Error::other("not readable"));
                    return Err(Error::io(root)(source));
                }
            };
            if !entry.file_type().is_file() {
                continue;
            }
            saw_files = true;
            let Ok(relative) = entry.path().strip_prefix(root) else {
                continue;
            };
            let parts: Option<Vec<_>> = relative.iter().map(|part| part.to_str()).collect();
            // Names that are not Unicode can't be written to any report; nothing can name them.
            let Some(id) = parts.map(|parts| parts.join("/")) else {
                continue;
            };
            if is_photo_name(&id) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(Folder {
            root: root.to_path_buf(),
            labels: Labels::from_ids(ids.iter().map(String::as_str)),
            ids,
            saw_files,
            budget,
        })
    }

    /// Whether there were any files at all.
    pub(super) fn saw_files(&self) -> bool {
        self.saw_files
    }

    fn decode(&self, index: usize) -> Result<(Photo, Share<'_>)> {
        let id = &self.ids[index];
        let path = self.root.join(id);
        let file = std::fs::File::open(&path).map_err(Error::io(&path))?;
        let mut bytes = Vec::new();
        file.take(MAX_ENCODED_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io(&path))?;
        if bytes.len() as u64 > MAX_ENCODED_BYTES {
            return Err(Error::Photo {
                photo: id.clone(),
                reason: format!("a file of more than {} MB", MAX_ENCODED_BYTES >> 20),
            });
        }
        Photo::decode_within(id, &bytes, &self.budget)
    }
}

impl PhotoSource for Folder {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    fn load(&self, index: usize) -> Result<Photo> {
        self.decode(index).map(|(photo, _)| photo)
    }

    fn visit(&self, index: usize, show: &mut dyn FnMut(Photo)) -> Result<()> {
        let (photo, _share) = self.decode(index)?;
        show(photo);
        Ok(())
    }

    fn outline(&self, index: usize) -> Option<Outline> {
        Outline::of_file(&self.root.join(&self.ids[index]))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index)
    }

    fn classes(&self) -> &[String] {
        &self.labels.classes
    }
}
