//! Archives of photos: `.tar` is read in place by offset, `.tar.gz` is kept in memory as the
//! encoded images it holds (it can only be read from its start).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use flate2::read::MultiGzDecoder;

use super::labels::Labels;
use super::{PhotoSource, is_photo_name};
use crate::data::image::Photo;
use crate::{Error, Result};

/// Largest encoded photo that is taken from an archive.
const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// Where encoded photos lie.
enum Store {
    File(PathBuf, Mutex<File>),
    Memory(Vec<u8>),
}

struct Entry {
    id: String,
    shard: usize,
    offset: u64,
    len: usize,
}

/// The photos of one or more archives.
pub(super) struct Shards {
    stores: Vec<Store>,
    entries: Vec<Entry>,
    labels: Labels,
}

/// The name without its archive endings, if it has them.
pub(super) fn shard_stem(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    let endings = [".tar", ".tar.gz", ".tgz"];
    endings.iter().find_map(|ending| name.strip_suffix(ending))
}

/// Whether the name is an archive's.
pub(super) fn is_shard(path: &Path) -> bool {
    shard_stem(path).is_some()
}

/// Archives directly inside `folder`, sorted; hidden ones left out.
pub(super) fn shards_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let stem = shard_stem(&path);
        if stem.is_some_and(|stem| !stem.starts_with('.')) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Shards {
    /// Reads the archives' lists (and, of compressed ones, the photos). With several archives,
    /// ids start with the archive's name.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Shards> {
        let mut stores = Vec::new();
        // (photo, its id inside the archive): classes are folders inside, whatever the archive.
        let mut found: Vec<(Entry, String)> = Vec::new();
        for path in paths {
            let prefix = match shard_stem(path) {
                Some(stem) if paths.len() > 1 => format!("{stem}/"),
                _ => String::new(),
            };
            let (store, listed) = read_shard(path)?;
            for (inner, offset, len) in listed {
                let entry = Entry {
                    id: format!("{prefix}{inner}"),
                    shard: stores.len(),
                    offset,
                    len,
                };
                found.push((entry, inner));
            }
            stores.push(store);
        }
        if found.is_empty() {
            let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
            return Err(Error::NoPhotos(format!(
                "{}: no photos in it",
                names.join(", ")
            )));
        }
        found.sort_by(|a, b| a.0.id.cmp(&b.0.id));
        // An archive may hold a name twice: as when unpacking, the last one counts.
        let mut kept: Vec<(Entry, String)> = Vec::with_capacity(found.len());
        for item in found {
            match kept.last_mut() {
                Some(last) if last.0.id == item.0.id => *last = item,
                _ => kept.push(item),
            }
        }
        let labels = Labels::from_ids(kept.iter().map(|(_, inner)| inner.as_str()));
        Ok(Shards {
            stores,
            entries: kept.into_iter().map(|(entry, _)| entry).collect(),
            labels,
        })
    }
}

/// A photo inside an archive: its name, where its bytes start and how many there are.
type Listed = Vec<(String, u64, usize)>;

fn read_shard(path: &Path) -> Result<(Store, Listed)> {
    let broken = |e: std::io::Error| Error::file(path, format!("not a readable archive ({e})"));
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut magic = [0u8; 2];
    let compressed = file.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
    file.seek(SeekFrom::Start(0)).map_err(Error::io(path))?;
    let mut listed = Listed::new();
    if !compressed {
        let mut archive = tar::Archive::new(BufReader::new(&file));
        for entry in archive.entries_with_seek().map_err(broken)? {
            let entry = entry.map_err(broken)?;
            if let Some(id) = photo_id(&entry) {
                listed.push((id, entry.raw_file_position(), entry.size() as usize));
            }
        }
        return Ok((Store::File(path.to_path_buf(), Mutex::new(file)), listed));
    }
    let mut bytes = Vec::new();
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if let Some(id) = photo_id(&entry) {
            let start = bytes.len();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            listed.push((id, start as u64, bytes.len() - start));
        }
    }
    bytes.shrink_to_fit();
    Ok((Store::Memory(bytes), listed))
}

/// The id of an archive member that is a photo: its path without `.` parts, nothing hidden.
fn photo_id<R: Read>(entry: &tar::Entry<'_, R>) -> Option<String> {
    if !entry.header().entry_type().is_file() || entry.size() > MAX_ENCODED_BYTES {
        return None;
    }
    let path = entry.path().ok()?;
    let mut parts = Vec::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => parts.push(name.to_str()?),
            _ => return None,
        }
    }
    if parts.iter().any(|part| part.starts_with('.')) || !is_photo_name(parts.last()?) {
        return None;
    }
    Some(parts.join("/"))
}

impl PhotoSource for Shards {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.entries[index].id
    }

    fn load(&self, index: usize) -> Result<Photo> {
        let entry = &self.entries[index];
        match &self.stores[entry.shard] {
            Store::Memory(bytes) => {
                let start = entry.offset as usize;
                Photo::decode(&entry.id, &bytes[start..start + entry.len])
            }
            Store::File(path, file) => {
                let mut bytes = vec![0; entry.len];
                {
                    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                    file.seek(SeekFrom::Start(entry.offset))
                        .and_then(|_| file.read_exact(&mut bytes))
                        .map_err(Error::io(path))?;
                }
                Photo::decode(&entry.id, &bytes)
            }
        }
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index)
    }

    fn classes(&self) -> &[String] {
        &self.labels.classes
    }
}
