//! Named tensors in a safetensors file: written atomically and byte for byte reproducibly, read
//! with every claim of the header checked. Weight files and checkpoints are both this.

use crate::atomic;
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Metadata key of the checksum that [`write_sealed`] adds.
const SEAL: &str = "sha256";

/// Bytes of a file on disk that are read at a time; whole numbers of every type.
const BLOCK: usize = 1 << 16;

/// Numbers of one tensor to be written.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// Stored as they are.
    F32(&'a [f32]),
    /// Rounded to half precision.
    F16(&'a [f32]),
    /// Stored as they are.
    U32(&'a [u32]),
    /// Stored as they are.
    I64(&'a [i64]),
}

impl Data<'_> {
    /// How many numbers they are.
    pub fn count(&self) -> usize {
        match self {
            Data::F32(v) | Data::F16(v) => v.len(),
            Data::U32(v) => v.len(),
            Data::I64(v) => v.len(),
        }
    }

    fn dtype(&self) -> Dtype {
        match self {
            Data::F32(_) => Dtype::F32,
            Data::F16(_) => Dtype::F16,
            Data::U32(_) => Dtype::U32,
            Data::I64(_) => Dtype::I64,
        }
    }

    /// Streams little-endian bytes, a small block at a time.
    fn write(&self, sink: &mut dyn Write) -> io::Result<()> {
        fn blocks<T: Copy, const N: usize>(
            values: &[T],
            sink: &mut dyn Write,
            bytes: impl Fn(T) -> [u8; N],
        ) -> io::Result<()> {
            let mut block = Vec::with_capacity(4096 * N);
            for values in values.chunks(4096) {
                block.clear();
                values.iter().for_each(|&v| block.extend(bytes(v)));
                sink.write_all(&block)?;
            }
            Ok(())
        }
        match self {
            Data::F32(v) => blocks(v, sink, f32::to_le_bytes),
            Data::F16(v) => blocks(v, sink, |x| half::f16::from_f32(x).to_le_bytes()),
            Data::U32(v) => blocks(v, sink, u32::to_le_bytes),
            Data::I64(v) => blocks(v, sink, i64::to_le_bytes),
        }
    }
}

/// One tensor to be written.
#[derive(Clone, Debug)]
pub struct TensorRef<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions; their product is the number of values.
    pub shape: Vec<usize>,
    /// Its numbers, row-major.
    pub data: Data<'a>,
}

/// Writes tensors and metadata to `path`, replacing it atomically.
///
/// # Errors
/// [`Error::Shape`] where shape and numbers disagree, [`Error::Io`] where the disk refuses.
pub fn write(
    path: &Path,
    tensors: &[TensorRef<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    write_ordered(path, &ordered(tensors)?, metadata)
}

/// As [`fn@write`], with a checksum over all content in the metadata, for [`TensorFile::verify`].
///
/// # Errors
/// As [`fn@write`].
pub fn write_sealed(
    path: &Path,
    tensors: &[TensorRef<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let tensors = ordered(tensors)?;
    // Names, shapes and metadata are covered through the header as it is without a seal.
    let mut digest = Digester(Sha256::new());
    digest.0.update(header(&describe(&tensors), metadata));
    tensors
        .iter()
        .try_for_each(|tensor| tensor.data.write(&mut digest))
        .map_err(Error::io(path))?;
    let mut sealed = metadata.clone();
    sealed.insert(SEAL.to_string(), hex(&digest.0.finalize()));
    write_ordered(path, &tensors, &sealed)
}

/// What [`fn@write`] would write, in memory.
///
/// # Errors
/// [`Error::Shape`] where shape and numbers disagree.
pub fn bytes(tensors: &[TensorRef<'_>], metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream(&ordered(tensors)?, metadata, &mut bytes).map_err(Error::io("memory"))?;
    Ok(bytes)
}

/// SHA-256 of a whole file.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let mut digest = Digester(Sha256::new());
    let mut file = File::open(path).map_err(Error::io(path))?;
    io::copy(&mut file, &mut digest).map_err(Error::io(path))?;
    Ok(hex(&digest.0.finalize()))
}

fn write_ordered(
    path: &Path,
    tensors: &[&TensorRef<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    atomic::write(path, |file| stream(tensors, metadata, file))
}

fn stream(
    tensors: &[&TensorRef<'_>],
    metadata: &BTreeMap<String, String>,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let header = header(&describe(tensors), metadata);
    sink.write_all(&(header.len() as u64).to_le_bytes())?;
    sink.write_all(&header)?;
    tensors
        .iter()
        .try_for_each(|tensor| tensor.data.write(sink))
}

/// Widest type first, as PyTorch needs every tensor aligned to its type; then by name.
fn ordered<'a, 'b>(tensors: &'b [TensorRef<'a>]) -> Result<Vec<&'b TensorRef<'a>>> {
    for tensor in tensors {
        if tensor.shape.iter().product::<usize>() != tensor.data.count() {
            return Err(Error::Shape {
                tensor: tensor.name.clone(),
                expected: tensor.shape.clone(),
                got: vec![tensor.data.count()],
            });
        }
    }
    let mut tensors: Vec<_> = tensors.iter().collect();
    tensors.sort_by_key(|tensor| (Reverse(tensor.data.dtype().bitsize()), &tensor.name));
    Ok(tensors)
}

/// What the header says of one tensor.
type Description<'a> = (&'a str, Dtype, &'a [usize]);

fn describe<'b>(tensors: &[&'b TensorRef<'_>]) -> Vec<Description<'b>> {
    tensors
        .iter()
        .map(|tensor| {
            (
                tensor.name.as_str(),
                tensor.data.dtype(),
                tensor.shape.as_slice(),
            )
        })
        .collect()
}

/// The JSON header, padded to 8 bytes: the same content always makes the same bytes.
fn header(tensors: &[Description<'_>], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut entries = vec![format!("\"__metadata__\":{}", json!(metadata))];
    let mut offset = 0;
    for (name, dtype, shape) in tensors {
        let end = offset + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let info = json!({
            "dtype": format!("{dtype:?}"),
            "shape": shape,
            "data_offsets": [offset, end],
        });
        entries.push(format!("{}:{info}", json!(name)));
        offset = end;
    }
    let mut bytes = format!("{{{}}}", entries.join(",")).into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}

/// A tensor file that was read, or is being read.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    content: Content,
    /// Where the header ends and the tensors begin.
    data: usize,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Stored>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Content {
    Memory(Vec<u8>),
    /// Large files stay on disk: a checkpoint in memory beside what is made of it would be a run's
    /// peak.
    Disk(Mutex<File>),
}

/// Where one tensor lies in the file's bytes.
#[derive(Debug)]
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl TensorFile {
    /// Reads a whole file into memory and checks it.
    ///
    /// # Errors
    /// It cannot be read, or is not a whole safetensors file.
    pub fn read(path: &Path) -> Result<TensorFile> {
        let (mut file, length) = regular(path)?;
        let mut bytes = Vec::with_capacity(length as usize);
        file.read_to_end(&mut bytes).map_err(Error::io(path))?;
        TensorFile::parse(path, bytes)
    }

    /// Reads a file's header and checks it; tensors are read one by one when they are asked for.
    ///
    /// # Errors
    /// It cannot be read, or is not a whole safetensors file.
    pub fn open(path: &Path) -> Result<TensorFile> {
        let (file, length) = regular(path)?;
        let mut bytes = Vec::new();
        let mut read = |count: u64| -> Result<u64> {
            let found = (&file).take(count).read_to_end(&mut bytes);
            found.map_err(Error::io(path))?;
            // Eight bytes say how long the header is.
            Ok(bytes
                .first_chunk()
                .map_or(0, |size| u64::from_le_bytes(*size)))
        };
        let header = read(8)?;
        // It may claim anything.
        read(header.min(length))?;
        TensorFile::described_by(path, length, &bytes, Content::Disk(file.into()))
    }

    /// Checks bytes that are already in memory; `path` names them in errors.
    ///
    /// # Errors
    /// They are not a whole safetensors file.
    pub fn parse(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<TensorFile> {
        let (path, length) = (path.as_ref(), bytes.len() as u64);
        let mut file = TensorFile::described_by(path, length, &bytes, Content::Memory(Vec::new()))?;
        file.content = Content::Memory(bytes);
        Ok(file)
    }

    /// A file of `length` bytes that begins with `bytes`, which hold its whole header.
    fn described_by(
        path: &Path,
        length: u64,
        bytes: &[u8],
        content: Content,
    ) -> Result<TensorFile> {
        let refuse = |reason: &dyn fmt::Display| {
            Error::file(path, format!("not a whole safetensors file ({reason})"))
        };
        let (size, rest) = bytes
            .split_first_chunk()
            .ok_or_else(|| refuse(&"it has no header"))?;
        let header = usize::try_from(u64::from_le_bytes(*size)).ok();
        let header = header.and_then(|size| rest.get(..size));
        let header = header.ok_or_else(|| refuse(&"its header is cut short"))?;
        let claimed: Metadata = serde_json::from_slice(header).map_err(|e| refuse(&e))?;
        // Made anew, it is checked: tensors lie one after the other, each as long as its shape says.
        let infos = claimed.offset_keys().into_iter().filter_map(|name| {
            let info = claimed.info(&name)?.clone();
            Some((name, info))
        });
        let parsed = Metadata::new(claimed.metadata().clone(), infos.collect());
        let parsed = parsed.map_err(|e| refuse(&e))?;
        let start = size.len() + header.len();
        if (start + parsed.data_len()) as u64 != length {
            return Err(refuse(
                &"its tensors are cut short, or something follows them",
            ));
        }
        let tensors = parsed
            .tensors()
            .into_iter()
            .map(|(name, info)| {
                let (from, to) = info.data_offsets;
                let stored = Stored {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    range: start + from..start + to,
                };
                (name, stored)
            })
            .collect();
        let metadata = parsed.metadata().clone().unwrap_or_default();
        Ok(TensorFile {
            path: path.to_path_buf(),
            metadata: metadata.into_iter().collect(),
            tensors,
            data: start,
            content,
        })
    }

    /// Checks the checksum of [`write_sealed`].
    ///
    /// # Errors
    /// There is none, or the content is not what was written.
    pub fn verify(&self) -> Result<()> {
        let refuse = |reason| Err(Error::file(&self.path, reason));
        let Some(expected) = self.metadata.get(SEAL) else {
            return refuse("has no checksum");
        };
        // Written again, the header must come out the same; without the seal it was digested.
        let mut tensors: Vec<Description<'_>> = self
            .tensors
            .iter()
            .map(|(name, stored)| (name.as_str(), stored.dtype, stored.shape.as_slice()))
            .collect();
        tensors.sort_by_key(|(name, dtype, _)| (Reverse(dtype.bitsize()), *name));
        let mut found = Vec::new();
        self.for_each_chunk(8..self.data, |bytes| found.extend_from_slice(bytes))?;
        let same = found == header(&tensors, &self.metadata);
        let mut metadata = self.metadata.clone();
        metadata.remove(SEAL);
        let mut digest = Sha256::new();
        digest.update(header(&tensors, &metadata));
        self.for_each_chunk(self.data..self.end(), |bytes| digest.update(bytes))?;
        if !same || hex(&digest.finalize()) != *expected {
            return refuse("is damaged: its checksum does not match its content");
        }
        Ok(())
    }

    /// SHA-256 of the whole file, in hexadecimal digits.
    ///
    /// # Errors
    /// It was left on disk, and cannot be read any more.
    pub fn digest(&self) -> Result<String> {
        let mut digest = Sha256::new();
        self.for_each_chunk(0..self.end(), |bytes| digest.update(bytes))?;
        Ok(hex(&digest.finalize()))
    }

    /// Where the file was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header's metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, or `None` where there is none of that name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| stored.shape.as_slice())
    }

    /// A tensor of f32, f16 or bf16 as f32.
    ///
    /// # Errors
    /// It is missing or of another type, or can't be read.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.find(name)?;
        match stored.dtype {
            Dtype::F32 => self.decode(stored, f32::from_le_bytes),
            Dtype::F16 => self.decode(stored, |b| half::f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => self.decode(stored, |b| half::bf16::from_le_bytes(b).to_f32()),
            other => Err(self.wrong_type(name, "F32, F16 or BF16", other)),
        }
    }

    /// A tensor of u32.
    ///
    /// # Errors
    /// It is missing or of another type, or can't be read.
    pub fn u32(&self, name: &str) -> Result<Vec<u32>> {
        let stored = self.find(name)?;
        match stored.dtype {
            Dtype::U32 => self.decode(stored, u32::from_le_bytes),
            other => Err(self.wrong_type(name, "U32", other)),
        }
    }

    /// Where the last tensor ends, and with it the file.
    fn end(&self) -> usize {
        let ends = self.tensors.values().map(|stored| stored.range.end);
        ends.max().unwrap_or(self.data)
    }

    fn find(&self, name: &str) -> Result<&Stored> {
        let stored = self.tensors.get(name);
        stored.ok_or_else(|| Error::file(&self.path, format!("has no tensor `{name}`")))
    }

    fn decode<T, const N: usize>(
        &self,
        stored: &Stored,
        value: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>> {
        let mut values = Vec::with_capacity(stored.range.len() / N);
        self.for_each_chunk(stored.range.clone(), |bytes| {
            let (items, _) = bytes.as_chunks::<N>();
            values.extend(items.iter().map(|bytes| value(*bytes)));
        })?;
        Ok(values)
    }

    /// Shows `see` these bytes, block by block.
    fn for_each_chunk(&self, range: Range<usize>, mut see: impl FnMut(&[u8])) -> Result<()> {
        match &self.content {
            Content::Memory(bytes) => see(bytes.get(range).unwrap_or_default()),
            Content::Disk(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let mut block = vec![0; BLOCK];
                file.seek(io::SeekFrom::Start(range.start as u64))
                    .map_err(Error::io(&self.path))?;
                let mut left = range.len();
                while left > 0 {
                    let block = &mut block[..left.min(BLOCK)];
                    file.read_exact(block).map_err(Error::io(&self.path))?;
                    see(block);
                    left -= block.len();
                }
            }
        }
        Ok(())
    }

    fn wrong_type(&self, name: &str, expected: &str, got: Dtype) -> Error {
        Error::file(
            &self.path,
            format!("tensor `{name}`: expected {expected}, got {got:?}"),
        )
    }
}

/// An open file and its length.
fn regular(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(Error::io(path))?;
    let found = file.metadata().map_err(Error::io(path))?;
    match found.is_file() {
        true => Ok((file, found.len())),
        false => Err(Error::file(path, "not a regular file")),
    }
}

/// Lets a digest stand where bytes are written.
struct Digester(Sha256);

impl Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lowercase hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
