//! A folder of image files, searched recursively.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::labels::Labels;
use super::{PhotoSource, is_photo_name};
use crate::data::image::Photo;
use crate::{Error, Result};

/// The image files below a folder, sorted by relative path; hidden files and folders left out.
pub(super) struct Folder {
    root: PathBuf,
    ids: Vec<String>,
    labels: Labels,
    saw_files: bool,
}

impl Folder {
    /// Lists the files; reads none of them.
    pub(super) fn open(root: &Path) -> Result<Folder> {
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
        })
    }

    /// Whether there were any files at all.
    pub(super) fn saw_files(&self) -> bool {
        self.saw_files
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
        let id = &self.ids[index];
        let path = self.root.join(id);
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        Photo::decode(id, &bytes)
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index)
    }

    fn classes(&self) -> &[String] {
        &self.labels.classes
    }
}
