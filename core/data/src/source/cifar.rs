//! CIFAR-10 and CIFAR-100 in their binary form: records of label bytes and three 32 x 32 planes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::PhotoSource;
use crate::photo::Photo;
use crate::{Error, Result};

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;

/// Records of one file: CIFAR-10 has one label byte, CIFAR-100 a coarse and a fine one.
struct Part {
    path: PathBuf,
    file: Mutex<File>,
    label_bytes: usize,
    first: usize,
    records: usize,
}

/// The photos of one or more binary files, in file order.
pub(super) struct Cifar {
    parts: Vec<Part>,
    ids: Vec<String>,
    labels: Vec<u8>,
    classes: Vec<String>,
}

/// Whether the name is one of the dataset's.
pub(super) fn is_binary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        matches!(name, "train.bin" | "test.bin" | "test_batch.bin")
            || (name.starts_with("data_batch_") && name.ends_with(".bin"))
    })
}

/// Whether the file belongs to the test half.
pub(super) fn is_test(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    matches!(name, Some("test.bin" | "test_batch.bin"))
}

/// The dataset's files directly inside `folder`: training files, sorted, then the test file.
pub(super) fn binaries_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if is_binary(&path) && path.is_file() {
            found.push(path);
        }
    }
    found.sort_by_key(|path| (is_test(path), path.clone()));
    Ok(found)
}

/// Bytes before a record's pixels.
fn label_bytes(path: &Path) -> usize {
    let name = path.file_name().and_then(|name| name.to_str());
    match name {
        Some("train.bin" | "test.bin") => 2,
        _ => 1,
    }
}

/// Whether these files can be the dataset's, by name (CIFAR-10's is nobody else's) and size.
pub(super) fn are_records(paths: &[PathBuf]) -> bool {
    let whole = |path: &PathBuf| {
        let record = (label_bytes(path) + 3 * PIXELS) as u64;
        let len = std::fs::metadata(path).map_or(0, |meta| meta.len());
        len > 0 && len.is_multiple_of(record)
    };
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("data_batch_"))
    };
    let both_halves = || paths.iter().any(|p| is_test(p)) && !paths.iter().all(|p| is_test(p));
    paths.iter().all(whole) && (paths.iter().any(named) || both_halves())
}

impl Cifar {
    /// Opens the files and reads their labels.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Cifar> {
        let mut cifar = Cifar {
            parts: Vec::new(),
            ids: Vec::new(),
            labels: Vec::new(),
            classes: Vec::new(),
        };
        let mut counts = [0usize; 2];
        for path in paths {
            let part = cifar.add(path)?;
            let test = is_test(path);
            let count = &mut counts[usize::from(test)];
            let half = if test { "test" } else { "train" };
            let ids = (*count..*count + part.records).map(|n| format!("{half}/{n:05}"));
            cifar.ids.extend(ids);
            *count += part.records;
            cifar.parts.push(part);
        }
        if cifar.ids.is_empty() {
            let folder = paths.first().map(|path| path.display().to_string());
            return Err(Error::NoPhotos(format!(
                "{}: no records in it",
                folder.unwrap_or_default()
            )));
        }
        cifar.classes = class_names(paths.first(), cifar.labels.iter().copied().max());
        Ok(cifar)
    }

    fn add(&mut self, path: &Path) -> Result<Part> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len() as usize;
        let label_bytes = label_bytes(path);
        let record = label_bytes + 3 * PIXELS;
        if !len.is_multiple_of(record) {
            return Err(Error::file(
                path,
                format!("{len} bytes are no whole number of {record}-byte CIFAR records"),
            ));
        }
        let first = self.labels.len();
        let mut bytes = vec![0; record];
        for _ in 0..len / record {
            file.read_exact(&mut bytes).map_err(Error::io(path))?;
            // Of coarse and fine, the fine class is last.
            self.labels.push(bytes[label_bytes - 1]);
        }
        Ok(Part {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            label_bytes,
            first,
            records: len / record,
        })
    }
}

/// Class names from the text file beside the binaries, else numbers.
fn class_names(path: Option<&PathBuf>, greatest: Option<u8>) -> Vec<String> {
    let classes = usize::from(greatest.unwrap_or(0)) + 1;
    let folder = path.and_then(|path| path.parent());
    for name in ["batches.meta.txt", "fine_label_names.txt"] {
        let text = folder.and_then(|folder| std::fs::read_to_string(folder.join(name)).ok());
        let names: Vec<String> = text
            .iter()
            .flat_map(|text| text.lines().map(str::trim).filter(|line| !line.is_empty()))
            .map(String::from)
            .collect();
        if names.len() >= classes {
            return names;
        }
    }
    (0..classes).map(|class| class.to_string()).collect()
}

impl PhotoSource for Cifar {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn id(&self, index: usize) -> &str {
        &self.ids[index]
    }

    fn load(&self, index: usize) -> Result<Photo> {
        let of = self.parts.partition_point(|part| part.first <= index) - 1;
        let part = &self.parts[of];
        let record = part.label_bytes + 3 * PIXELS;
        let offset = (index - part.first) * record + part.label_bytes;
        let mut planes = [0u8; 3 * PIXELS];
        {
            let mut file = part.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(offset as u64))
                .and_then(|_| file.read_exact(&mut planes))
                .map_err(Error::io(&part.path))?;
        }
        let rgb = (0..3 * PIXELS).map(|i| planes[i % 3 * PIXELS + i / 3]);
        Photo::new(SIDE, SIDE, rgb.collect())
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.labels.get(index).map(|&label| usize::from(label))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }
}
