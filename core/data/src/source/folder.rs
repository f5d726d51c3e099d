//! A folder of image files, searched recursively.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walkdir::WalkDir;

use super::labels::Labels;
use super::{MAX_ENCODED_BYTES, PhotoSource, Skipped, is_photo_name, names};
use crate::budget::{DecodeBudget, Reservation};
use crate::outline::Outline;
use crate::photo::Photo;
use crate::{Error, Result};

/// The image files below a folder, sorted by their ids; hidden files and those of systems left out.
pub(super) struct Folder {
    root: PathBuf,
    ids: Vec<String>,
    /// Paths below the root of those whose ids do not say it: names that are no Unicode.
    odd: HashMap<String, PathBuf>,
    left_out: Vec<Skipped>,
    labels: Labels,
    saw_files: bool,
    budget: Arc<DecodeBudget>,
}

impl Folder {
    /// Lists the files; reads none of them.
    pub(super) fn open(root: &Path, budget: Arc<DecodeBudget>) -> Result<Folder> {
        let mut found: Vec<(String, Option<PathBuf>)> = Vec::new();
        let (mut left_out, mut saw_files) = (Vec::new(), false);
        let mut walk = WalkDir::new(root).follow_links(true).into_iter();
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // A folder that may not be read or a broken link hides its photos, no others.
                Err(error) if error.depth() > 0 => {
                    let path = error.path().unwrap_or(root);
                    left_out.push(Skipped {
                        id: id_of(root, path),
                        reason: why(&error),
                    });
                    continue;
                }
                Err(error) => {
                    let source = error.into_io_error();
                    let source = source.unwrap_or_else(|| std::io::Error::other("not readable"));
                    return Err(Error::io(root)(source));
                }
            };
            if entry.depth() == 0 {
                continue;
            }
            let (id, name) = (id_of(root, entry.path()), names::os_text(entry.file_name()));
            let folder = entry.file_type().is_dir();
            if let Some(reason) = names::left_out(&name) {
                if folder {
                    walk.skip_current_dir();
                }
                // Of hidden files, only photos would be missed.
                if folder || is_photo_name(&name) {
                    left_out.push(Skipped {
                        id: if folder { id + "/" } else { id },
                        reason: reason.into(),
                    });
                }
                continue;
            }
            if folder {
                continue;
            }
            saw_files = true;
            if !is_photo_name(&name) {
                continue;
            }
            if !entry.file_type().is_file() {
                left_out.push(Skipped {
                    id,
                    reason: "not a file".into(),
                });
                continue;
            }
            let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
            let odd = relative.to_str().is_none();
            found.push((id, odd.then(|| relative.to_path_buf())));
        }
        found.sort_unstable();
        names::tell_apart(&mut found, |(id, _)| id);
        left_out.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
        let odd = found.into_iter().filter_map(|(id, odd)| Some((id, odd?)));
        Ok(Folder {
            root: root.to_path_buf(),
            odd: odd.collect(),
            left_out,
            labels: Labels::from_ids(ids.iter().map(String::as_str)),
            ids,
            saw_files,
            budget,
        })
    }

    fn path(&self, index: usize) -> PathBuf {
        let id = &self.ids[index];
        match self.odd.get(id) {
            Some(path) => self.root.join(path),
            None => self.root.join(id),
        }
    }

    /// Whether there were any files at all.
    pub(super) fn saw_files(&self) -> bool {
        self.saw_files
    }

    fn decode(&self, index: usize) -> Result<(Photo, Reservation<'_>)> {
        let (id, path) = (&self.ids[index], self.path(index));
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
        let (photo, _reservation) = self.decode(index)?;
        show(photo);
        Ok(())
    }

    fn outline(&self, index: usize) -> Option<Outline> {
        Outline::of_file(&self.path(index))
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index)
    }

    fn classes(&self) -> &[String] {
        &self.labels.classes
    }

    fn left_out(&self) -> &[Skipped] {
        &self.left_out
    }
}

/// A path below `root` as text, with `/`.
fn id_of(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<String> = relative.iter().map(names::os_text).collect();
    parts.join("/")
}

/// Why a folder or file could not be listed.
fn why(error: &walkdir::Error) -> String {
    match (error.loop_ancestor(), error.io_error()) {
        (Some(_), _) => "a link to a folder that holds it".into(),
        (None, Some(error)) => match error.kind() {
            std::io::ErrorKind::NotFound => "a link to nothing".into(),
            std::io::ErrorKind::PermissionDenied => "may not be read (permission denied)".into(),
            _ => error.to_string(),
        },
        (None, None) => "not readable".into(),
    }
}
