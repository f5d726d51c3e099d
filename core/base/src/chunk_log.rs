//! A file of numbers that grows chunk by chunk, each behind a header and a checksum: what long work has done
//! so far. After a kill whatever is whole is read again.

use crate::atomic;
use crate::tensor_file::hex;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;

/// The line before a chunk's numbers.
#[derive(Serialize, Deserialize)]
struct Line<H> {
    #[serde(flatten)]
    header: H,
    /// How many numbers follow.
    numbers: usize,
    /// SHA-256 of them.
    digest: String,
}

/// A chunk as it stands in a file.
fn chunk(path: &Path, header: &impl Serialize, numbers: &[f32]) -> Result<Vec<u8>> {
    let mut data = Vec::with_capacity(4 * numbers.len());
    for x in numbers {
        data.extend_from_slice(&x.to_le_bytes());
    }
    let line = Line {
        header,
        numbers: numbers.len(),
        digest: hex(&Sha256::digest(&data)),
    };
    let mut bytes = serde_json::to_vec(&line)
        .map_err(|e| Error::file(path, format!("cannot be written ({e})")))?;
    bytes.push(b'\n');
    bytes.extend(data);
    Ok(bytes)
}

/// How such a file begins: nothing else is ever read, cut or written over.
const MAGIC: &[u8] = b"seedling chunks 1\n";

/// A whole file of one chunk.
///
/// # Errors
/// As [`append`].
pub fn write(path: &Path, header: &impl Serialize, numbers: &[f32]) -> Result<()> {
    let bytes = chunk(path, header, numbers)?;
    atomic::write(path, |file| {
        file.write_all(MAGIC)?;
        file.write_all(&bytes)
    })
}

/// Adds a chunk to the file at `path`, which is made where it is missing.
///
/// # Errors
/// The disk refuses; what was added in part is not read again, see [`cut`].
pub fn append(path: &Path, header: &impl Serialize, numbers: &[f32]) -> Result<()> {
    let bytes = chunk(path, header, numbers)?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io(path))?;
    let new = file.metadata().map_err(Error::io(path))?.len() == 0;
    let begin = if new { MAGIC } else { b"" };
    file.write_all(begin)
        .and_then(|()| file.write_all(&bytes))
        .map_err(Error::io(path))
}

/// Hands all whole chunks of the file at `path` to `see`, in order, up to the first that is torn or damaged;
/// returns how many bytes they take. A missing file has none.
///
/// # Errors
/// The file cannot be read, or is something else.
pub fn read<H: DeserializeOwned>(path: &Path, mut see: impl FnMut(H, Vec<f32>)) -> Result<u64> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        other => other.map_err(Error::io(path))?,
    };
    let mut reader = BufReader::new(file);
    let mut begin = Vec::new();
    let limit = MAGIC.len() as u64;
    let read = (&mut reader).take(limit).read_to_end(&mut begin);
    read.map_err(Error::io(path))?;
    if begin != MAGIC {
        // A process may have died while it wrote the beginning.
        return match MAGIC.starts_with(&begin) {
            true => Ok(0),
            false => Err(Error::file(path, "is something else; it is left alone")),
        };
    }
    let mut whole = limit;
    while let Some((header, numbers, bytes)) = next(&mut reader) {
        whole += bytes;
        see(header, numbers);
    }
    Ok(whole)
}

/// Cuts off what lies behind the `whole` bytes that [`read`] found.
///
/// # Errors
/// The file cannot be shortened.
pub fn cut(path: &Path, whole: u64) -> Result<()> {
    match OpenOptions::new().write(true).open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        file => file
            .and_then(|file| file.set_len(whole))
            .map_err(Error::io(path)),
    }
}

/// Removes the file at `path`, if it is there.
///
/// # Errors
/// The system refuses.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(path)(e)),
        _ => Ok(()),
    }
}

/// The next chunk and its length; `None` at the end, or where it is not whole.
fn next<H: DeserializeOwned>(reader: &mut impl BufRead) -> Option<(H, Vec<f32>, u64)> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok()?;
    let Line {
        header,
        numbers,
        digest,
    } = serde_json::from_slice(&line).ok()?;
    let bytes = numbers.checked_mul(4)?;
    let mut data = Vec::new();
    reader.take(bytes as u64).read_to_end(&mut data).ok()?;
    if data.len() != bytes || hex(&Sha256::digest(&data)) != digest {
        return None;
    }
    let words = data.as_chunks::<4>().0.iter();
    let values = words.map(|&word| f32::from_le_bytes(word)).collect();
    Some((header, values, (line.len() + bytes) as u64))
}
