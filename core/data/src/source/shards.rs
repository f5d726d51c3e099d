//! Archives of photos: `.tar` is read in place by offset, `.tar.gz` is kept in memory as the
//! encoded images it holds (it can only be read from its start).

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::MultiGzDecoder;
use tar::EntryType;

use super::labels::Labels;
use super::{MAX_ENCODED_BYTES, PhotoSource, Skipped, is_photo_name, names};
use crate::budget::{DecodeBudget, Reservation};
use crate::photo::Photo;
use crate::{Error, Result};

/// Most bytes that the photos of compressed archives may take in memory, each with what it takes
/// to list it.
const MAX_KEPT_BYTES: u64 = 512 << 20;

/// About what listing a photo takes.
const LISTING_BYTES: u64 = 256;

/// Most bytes that a compressed archive may unpack to, photos and all else.
const MAX_UNPACKED_BYTES: u64 = 2 * MAX_KEPT_BYTES;

/// Where encoded photos lie.
enum Store {
    File(PathBuf, Mutex<File>),
    /// Each by itself: one long array would be copied as it grows.
    Memory(Vec<Vec<u8>>),
}

struct Entry {
    id: String,
    shard: usize,
    /// Where its bytes start in a file, or which it is of those in memory.
    place: u64,
    len: usize,
}

/// The photos of one or more archives.
pub(super) struct Shards {
    stores: Vec<Store>,
    entries: Vec<Entry>,
    left_out: Vec<Skipped>,
    labels: Labels,
    budget: Arc<DecodeBudget>,
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
    pub(super) fn open(paths: &[PathBuf], budget: Arc<DecodeBudget>) -> Result<Shards> {
        let mut stores = Vec::new();
        let mut room = MAX_KEPT_BYTES;
        // (photo, its id inside the archive): classes are folders inside, whatever the archive.
        let mut found: Vec<(Entry, String)> = Vec::new();
        let mut left_out = Vec::new();
        for path in paths {
            let prefix = match shard_stem(path) {
                Some(stem) if paths.len() > 1 => format!("{stem}/"),
                _ => String::new(),
            };
            let (store, listed) = read_shard(path, &mut room)?;
            left_out.extend(listed.left_out.into_iter().map(|mut member| {
                member.id.insert_str(0, &prefix);
                member
            }));
            for (inner, place, len) in listed.photos {
                let entry = Entry {
                    id: format!("{prefix}{inner}"),
                    shard: stores.len(),
                    place,
                    len,
                };
                found.push((entry, inner));
            }
            stores.push(store);
        }
        if found.is_empty() {
            let names: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
            let names = names.join(", ");
            return Err(Error::NoPhotos(match left_out.first() {
                None => format!("{names}: no photos in it"),
                Some(Skipped { id, reason }) => format!(
                    "{names}: no photos that can be used; {} left out, the first {id}: {reason}",
                    left_out.len()
                ),
            }));
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
            left_out,
            labels,
            budget,
        })
    }
}

/// What an archive holds.
#[derive(Default)]
struct Listed {
    /// Of each photo its name, its place and how many bytes it has.
    photos: Vec<(String, u64, usize)>,
    left_out: Vec<Skipped>,
    /// Hard links: of each its name, and the member that it is another name of.
    links: Vec<(String, String)>,
}

impl Listed {
    /// The id of a member that is a photo with bytes of its own; notes down links and what is left out.
    fn photo<R: Read>(&mut self, entry: &tar::Entry<'_, R>) -> Option<String> {
        let path = entry.path_bytes();
        let id = match member_id(&path) {
            Ok(id) => id?,
            Err(reason) => {
                self.leave_out(names::text(&path), reason);
                return None;
            }
        };
        match entry.header().entry_type() {
            EntryType::Link => {
                let target = entry.link_name_bytes();
                match target.and_then(|target| member_id(&target).ok().flatten()) {
                    Some(target) => self.links.push((id, target)),
                    None => self.leave_out(id, "a hard link to what is no photo"),
                }
                None
            }
            EntryType::Symlink => {
                self.leave_out(id, "a link; archives are read in place");
                None
            }
            kind if !kind.is_file() => None,
            _ if entry.size() > MAX_ENCODED_BYTES => {
                self.leave_out(id, "larger than any photo");
                None
            }
            _ => Some(id),
        }
    }

    fn leave_out(&mut self, id: String, reason: &str) {
        let reason = reason.into();
        self.left_out.push(Skipped { id, reason });
    }

    /// Hard links become further names of the members that they are linked to. A link may lead to a link.
    fn resolve(mut self) -> Listed {
        let mut places: HashMap<String, (u64, usize)> = HashMap::new();
        for (id, place, len) in &self.photos {
            places.insert(id.clone(), (*place, *len));
        }
        for (id, target) in std::mem::take(&mut self.links) {
            match places.get(&target).copied() {
                Some((place, len)) => {
                    places.insert(id.clone(), (place, len));
                    self.photos.push((id, place, len));
                }
                None => self.leave_out(id, "a hard link to what is not in the archive"),
            }
        }
        self
    }
}

/// The id of an archive's member, as `tar` unpacks it: below the folder, whatever its path begins with.
/// `None` where it is no photo.
///
/// # Errors
/// Why a photo is left out.
fn member_id(path: &[u8]) -> std::result::Result<Option<String>, &'static str> {
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|part| !part.is_empty() && *part != b".")
        .map(names::text)
        .collect();
    let Some(name) = parts.last().filter(|name| is_photo_name(name)) else {
        return Ok(None);
    };
    if parts.iter().any(|part| part == "..") {
        return Err("its path leads out of the archive (..)");
    }
    // A photo in a folder of a system, or one that is hidden itself.
    let folders = parts.iter().rev().skip(1);
    match folders.chain([name]).find_map(|part| names::left_out(part)) {
        Some(reason) => Err(reason),
        None => Ok(Some(parts.join("/"))),
    }
}

/// Lists an archive. `room` is what compressed ones may still take in memory.
fn read_shard(path: &Path, room: &mut u64) -> Result<(Store, Listed)> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    let mut magic = [0u8; 2];
    let compressed = file.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
    file.seek(SeekFrom::Start(0)).map_err(Error::io(path))?;
    let mut listed = Listed::default();
    let broken = |listed: &Listed, e: &dyn std::fmt::Display| {
        let whole = listed.photos.len();
        let reason = format!("the archive is cut off or broken behind {whole} photos ({e})");
        Error::file(path, reason)
    };
    if !compressed {
        let mut archive = tar::Archive::new(BufReader::new(&file));
        for entry in archive.entries_with_seek().map_err(Error::io(path))? {
            let entry = entry.map_err(|e| broken(&listed, &e))?;
            let (start, size) = (entry.raw_file_position(), entry.size());
            if entry.header().entry_type().is_file() && start.saturating_add(size) > length {
                return Err(broken(&listed, &"the file ends inside a member"));
            }
            if let Some(id) = listed.photo(&entry) {
                listed.photos.push((id, start, size as usize));
            }
        }
        let store = Store::File(path.to_path_buf(), Mutex::new(file));
        return Ok((store, listed.resolve()));
    }
    let too_much = || {
        let mb = MAX_KEPT_BYTES >> 20;
        Error::file(
            path,
            format!(
                "holds more than is kept in memory ({mb} MB of photos); unpack it, or make it a \
                 plain .tar (gunzip), which is read in place"
            ),
        )
    };
    let mut photos = Vec::new();
    let unpacked = MultiGzDecoder::new(BufReader::new(file)).take(MAX_UNPACKED_BYTES);
    let mut archive = tar::Archive::new(unpacked);
    for entry in archive.entries().map_err(Error::io(path))? {
        let entry = entry.map_err(|e| broken(&listed, &e))?;
        if let Some(id) = listed.photo(&entry) {
            let size = entry.size();
            *room = room
                .checked_sub(size + LISTING_BYTES)
                .ok_or_else(too_much)?;
            let mut bytes = Vec::with_capacity(size as usize);
            let read = entry.take(size).read_to_end(&mut bytes);
            read.map_err(|e| broken(&listed, &e))?;
            if bytes.len() as u64 != size {
                return Err(broken(&listed, &"the file ends inside a member"));
            }
            listed.photos.push((id, photos.len() as u64, bytes.len()));
            photos.push(bytes);
        }
    }
    // The archive's end is two empty blocks; a stream that was cut off at the limit has none.
    if archive.into_inner().limit() == 0 {
        return Err(too_much());
    }
    Ok((Store::Memory(photos), listed.resolve()))
}

impl Shards {
    fn decode(&self, index: usize) -> Result<(Photo, Reservation<'_>)> {
        let entry = &self.entries[index];
        match &self.stores[entry.shard] {
            Store::Memory(photos) => {
                let bytes = &photos[entry.place as usize];
                Photo::decode_within(&entry.id, bytes, &self.budget)
            }
            Store::File(path, file) => {
                let mut bytes = vec![0; entry.len];
                {
                    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                    file.seek(SeekFrom::Start(entry.place))
                        .and_then(|_| file.read_exact(&mut bytes))
                        .map_err(Error::io(path))?;
                }
                Photo::decode_within(&entry.id, &bytes, &self.budget)
            }
        }
    }
}

impl PhotoSource for Shards {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.entries[index].id
    }

    fn load(&self, index: usize) -> Result<Photo> {
        self.decode(index).map(|(photo, _)| photo)
    }

    fn visit(&self, index: usize, show: &mut dyn FnMut(Photo)) -> Result<()> {
        let (photo, _reservation) = self.decode(index)?;
        show(photo);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn compressed_archives_are_kept_up_to_a_limit() {
        let mut tar = tar::Builder::new(Vec::new());
        for n in 0..40 {
            let mut header = tar::Header::new_gnu();
            header.set_size(100);
            tar.append_data(&mut header, format!("a/{n}.png"), &[0u8; 100][..])
                .unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("many.tar.gz");
        let file = File::create(&path).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        gzip.write_all(&tar.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap();

        let mut room = 41 * (100 + LISTING_BYTES);
        assert_eq!(read_shard(&path, &mut room).unwrap().1.photos.len(), 40);
        assert_eq!(room, 100 + LISTING_BYTES);
        // What is left is for the next archive.
        let refused = read_shard(&path, &mut room).err().unwrap().to_string();
        assert!(
            refused.contains("many.tar.gz") && refused.contains("unpack"),
            "{refused}"
        );
    }
}
