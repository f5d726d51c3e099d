//! The tensors of a file, whichever program wrote it: safetensors, PyTorch's archive (a zip file with a pickle
//! that says what lies where), or what PyTorch wrote before (`legacy`). Nothing a file claims is believed:
//! every size is held against the bytes that are there before memory is asked for.

use crate::legacy::{Legacy, is_legacy};
use crate::pickle::{Id, Node, Pickle};
use seedling_core::tensor_file::TensorFile;
use seedling_core::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zip::ZipArchive;

/// Bytes of a pickle at most: what describes tensors, not their numbers.
const LONGEST_PICKLE: u64 = 32 << 20;

/// How deep dictionaries may lie in each other.
const DEEPEST: usize = 16;

/// Named tensors of a file.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    source: Source,
    entries: BTreeMap<String, Entry>,
}

enum Source {
    Safetensors(TensorFile),
    Archive(Mutex<Archive>),
    Legacy(Mutex<Legacy<Box<dyn Bytes>>>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Source::Safetensors(_) => "Safetensors",
            Source::Archive(_) => "Archive",
            Source::Legacy(_) => "Legacy",
        })
    }
}

/// Reads and seeks.
trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

struct Archive {
    zip: ZipArchive<Box<dyn Bytes>>,
    /// The folder inside that everything lies in, with its slash.
    root: String,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    shape: Vec<usize>,
    stored: Option<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    key: String,
    dtype: Dtype,
    offset: usize,
    stride: Vec<usize>,
}

/// Number types of PyTorch's storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
}

impl Dtype {
    fn from_storage(storage: &str) -> Option<Dtype> {
        Some(match storage.strip_prefix("torch.")? {
            "DoubleStorage" => Dtype::F64,
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::Bf16,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" | "BoolStorage" => Dtype::U8,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::Bf16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 => 1,
        }
    }

    /// The number in `b`, which has [`Dtype::bytes`].
    fn number(self, b: &[u8]) -> f32 {
        fn array<const N: usize>(b: &[u8]) -> [u8; N] {
            b.try_into().unwrap_or([0; N])
        }
        match self {
            Dtype::F64 => f64::from_le_bytes(array(b)) as f32,
            Dtype::F32 => f32::from_le_bytes(array(b)),
            Dtype::F16 => half::f16::from_le_bytes(array(b)).to_f32(),
            Dtype::Bf16 => half::bf16::from_le_bytes(array(b)).to_f32(),
            Dtype::I64 => i64::from_le_bytes(array(b)) as f32,
            Dtype::I32 => i32::from_le_bytes(array(b)) as f32,
            Dtype::I16 => i16::from_le_bytes(array(b)).into(),
            Dtype::I8 => i8::from_le_bytes(array(b)).into(),
            Dtype::U8 => b.first().copied().unwrap_or(0).into(),
        }
    }
}

impl Tensors {
    /// Opens a file; what it is, its first bytes say.
    ///
    /// # Errors
    /// It cannot be read, is of no known format, or lies about itself. One line says which.
    pub fn open(path: &Path) -> Result<Tensors> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut first = Vec::new();
        let beginning = file.by_ref().take(64).read_to_end(&mut first);
        beginning.map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(0)).map_err(Error::io(path))?;
        if is_zip(&first) {
            return Tensors::archive(path, Box::new(BufReader::new(file)));
        }
        if is_legacy(&first) {
            return Tensors::legacy(path, Box::new(BufReader::new(file)));
        }
        refuse_pickle(path, &first)?;
        Tensors::safetensors(path, TensorFile::read(path)?)
    }

    /// As [`Tensors::open`] on bytes in memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`Tensors::open`].
    pub fn parse(name: &str, bytes: Vec<u8>) -> Result<Tensors> {
        let path = Path::new(name);
        if is_zip(&bytes) {
            return Tensors::archive(path, Box::new(Cursor::new(bytes)));
        }
        if is_legacy(&bytes) {
            return Tensors::legacy(path, Box::new(Cursor::new(bytes)));
        }
        refuse_pickle(path, &bytes)?;
        Tensors::safetensors(path, TensorFile::parse(name, bytes)?)
    }

    fn safetensors(path: &Path, file: TensorFile) -> Result<Tensors> {
        let entries = file
            .names()
            .map(|name| {
                let shape = file.shape(name).unwrap_or_default().to_vec();
                let entry = Entry {
                    shape,
                    stored: None,
                };
                (name.to_string(), entry)
            })
            .collect();
        Ok(Tensors {
            path: path.to_path_buf(),
            source: Source::Safetensors(file),
            entries,
        })
    }

    fn archive(path: &Path, bytes: Box<dyn Bytes>) -> Result<Tensors> {
        let refuse = |reason: String| Error::file(path, reason);
        let damaged = |e: zip::result::ZipError| refuse(format!("a damaged zip archive: {e}"));
        let mut zip = ZipArchive::new(bytes).map_err(damaged)?;
        let names: Vec<String> = zip
            .file_names()
            .filter_map(|name| Some(name.ok()?.into_owned()))
            .collect();
        let pickle = names
            .iter()
            .find(|name| name.ends_with("data.pkl"))
            .cloned()
            .ok_or_else(|| refuse("a zip archive, but not one of PyTorch's: no data.pkl".into()))?;
        let root = pickle.trim_end_matches("data.pkl").to_string();
        if names.iter().any(|name| name.ends_with("constants.pkl")) {
            return Err(refuse(
                "a TorchScript program; save model.state_dict() instead".into(),
            ));
        }
        let mut text = Vec::new();
        let entry = zip.by_name(&pickle).map_err(damaged)?;
        entry
            .take(LONGEST_PICKLE + 1)
            .read_to_end(&mut text)
            .map_err(Error::io(path))?;
        if text.len() as u64 > LONGEST_PICKLE {
            return Err(refuse(
                "its description is longer than a checkpoint's".into(),
            ));
        }
        let pickle = Pickle::read(&text).map_err(|e| refuse(format!("its pickle: {e}")))?;
        let entries = Reader { pickle: &pickle }.tensors();
        if entries.is_empty() {
            return Err(refuse("holds no tensors".into()));
        }
        let archive = Archive { zip, root };
        Ok(Tensors {
            path: path.to_path_buf(),
            source: Source::Archive(Mutex::new(archive)),
            entries,
        })
    }

    fn legacy(path: &Path, bytes: Box<dyn Bytes>) -> Result<Tensors> {
        let width = |class: &str| Dtype::from_storage(class).map(Dtype::bytes);
        let (legacy, pickle) = Legacy::open(bytes, LONGEST_PICKLE, width).map_err(|reason| {
            let text = format!("written by PyTorch before 1.6, and broken: {reason}");
            Error::file(path, text)
        })?;
        let entries = Reader { pickle: &pickle }.tensors();
        if entries.is_empty() {
            return Err(Error::file(path, "holds no tensors"));
        }
        Ok(Tensors {
            path: path.to_path_buf(),
            source: Source::Legacy(Mutex::new(legacy)),
            entries,
        })
    }

    /// Where it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a safetensors header says besides.
    pub fn metadata(&self) -> Option<&BTreeMap<String, String>> {
        match &self.source {
            Source::Safetensors(file) => Some(file.metadata()),
            Source::Archive(_) | Source::Legacy(_) => None,
        }
    }

    /// All names, in their order; those of nested dictionaries with a dot between.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor's dimensions.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| &entry.shape[..])
    }

    /// A tensor's numbers, row-major.
    ///
    /// # Errors
    /// There is no such tensor, or the file does not hold what it claims to.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let refuse = |reason: &str| Error::file(&self.path, format!("tensor {name}: {reason}"));
        let stored = match (&self.source, self.entries.get(name)) {
            (Source::Safetensors(file), _) => return file.f32(name),
            (_, Some(Entry { shape, stored })) => stored.as_ref().map(|stored| (shape, stored)),
            (_, None) => None,
        };
        let (shape, stored) = stored.ok_or_else(|| refuse("is not there"))?;
        let extent = extent(shape, stored).ok_or_else(|| refuse("has an absurd size"))?;
        let bytes = match &self.source {
            Source::Safetensors(_) => return Err(refuse("is not there")),
            Source::Archive(archive) => {
                let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                archive.bytes(stored, extent).map_err(refuse)?
            }
            Source::Legacy(legacy) => {
                let mut legacy = legacy.lock().unwrap_or_else(PoisonError::into_inner);
                let bytes = legacy.bytes(&stored.key, extent, stored.dtype.bytes());
                bytes.ok_or_else(|| refuse("claims more numbers than there are"))?
            }
        };
        Ok(laid_out(shape, stored, &bytes))
    }
}

impl Archive {
    /// The bytes of these numbers of a storage, or why there are none.
    fn bytes(
        &mut self,
        stored: &Stored,
        (first, last): (usize, usize),
    ) -> std::result::Result<Vec<u8>, &'static str> {
        let file = format!("{}data/{}", self.root, stored.key);
        let entry = self.zip.by_name(&file);
        let mut entry = entry.map_err(|_| "its numbers are missing")?;
        let size = entry.size();
        if size != entry.compressed_size() {
            return Err("its numbers are compressed, which PyTorch never does");
        }
        let (start, end) = (first * stored.dtype.bytes(), last * stored.dtype.bytes());
        if end as u64 > size {
            return Err("claims more numbers than there are");
        }
        let skipped = std::io::copy(&mut entry.by_ref().take(start as u64), &mut std::io::sink());
        skipped.map_err(|_| "its numbers cannot be read")?;
        let mut bytes = Vec::new();
        // Grows with what is really there: a size in a header is only a claim.
        let read = entry.take((end - start) as u64).read_to_end(&mut bytes);
        read.map_err(|_| "its numbers are damaged")?;
        match bytes.len() == end - start {
            true => Ok(bytes),
            false => Err("claims more numbers than there are"),
        }
    }
}

/// The first and one past the last number of the storage that a tensor touches.
fn extent(shape: &[usize], stored: &Stored) -> Option<(usize, usize)> {
    let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    if count == 0 {
        return Some((stored.offset, stored.offset));
    }
    let mut last = stored.offset;
    for (dim, stride) in shape.iter().zip(&stored.stride) {
        last = last.checked_add((dim - 1).checked_mul(*stride)?)?;
    }
    let end = last.checked_add(1)?;
    end.checked_mul(stored.dtype.bytes())?;
    // A stride of 0 would make many numbers of few bytes.
    (count <= (end - stored.offset).saturating_mul(2)).then_some((stored.offset, end))
}

/// The numbers of `bytes`, which begin at the tensor's first, in row-major order.
fn laid_out(shape: &[usize], stored: &Stored, bytes: &[u8]) -> Vec<f32> {
    let width = stored.dtype.bytes();
    let number = |at: usize| {
        let bytes = bytes.get(at * width..(at + 1) * width);
        bytes.map_or(0.0, |bytes| stored.dtype.number(bytes))
    };
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        out.push(number(
            index.iter().zip(&stored.stride).map(|(i, s)| i * s).sum(),
        ));
        for (i, dim) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *dim {
                break;
            }
            *i = 0;
        }
    }
    out
}

fn is_zip(first: &[u8]) -> bool {
    first.starts_with(b"PK\x03\x04")
}

/// A pickle that PyTorch did not write.
fn refuse_pickle(path: &Path, first: &[u8]) -> Result<()> {
    let pickle = first.len() >= 2 && first[0] == 0x80 && (2..=5).contains(&first[1]);
    match pickle {
        true => Err(Error::file(
            path,
            "a pickle, but not one of PyTorch's: save the state dict with torch.save or safetensors",
        )),
        false => Ok(()),
    }
}

/// Finds tensors among a pickle's objects.
struct Reader<'a> {
    pickle: &'a Pickle,
}

impl Reader<'_> {
    fn tensors(&self) -> BTreeMap<String, Entry> {
        let mut found = BTreeMap::new();
        let mut open = vec![(String::new(), self.pickle.root, 0)];
        // An object that refers to itself is walked through once.
        let mut seen = HashSet::new();
        while let Some((name, id, depth)) = open.pop() {
            if let Some(entry) = self.tensor(id) {
                found.insert(name, entry);
                continue;
            }
            if depth >= DEEPEST || !seen.insert(id) {
                continue;
            }
            let inner = |key: &str| match name.is_empty() {
                true => key.to_string(),
                false => format!("{name}.{key}"),
            };
            for &(key, value) in self.items(id) {
                if let Node::Text(key) = self.pickle.node(key) {
                    open.push((inner(key), value, depth + 1));
                }
            }
        }
        found
    }

    fn items(&self, id: Id) -> &[(Id, Id)] {
        match self.pickle.node(id) {
            Node::Dict(items) | Node::Call { items, .. } => items,
            _ => &[],
        }
    }

    fn name(&self, id: Id) -> &str {
        match self.pickle.node(id) {
            Node::Global(name) => name,
            _ => "",
        }
    }

    fn sequence(&self, id: Id) -> &[Id] {
        match self.pickle.node(id) {
            Node::Sequence(items) => items,
            _ => &[],
        }
    }

    fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let size = |id: &Id| match self.pickle.node(*id) {
            Node::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        };
        self.sequence(id).iter().map(size).collect()
    }

    /// A tensor, if `id` is the call that makes one.
    fn tensor(&self, id: Id) -> Option<Entry> {
        let mut id = id;
        // A parameter is a tensor with something around it.
        for _ in 0..4 {
            let Node::Call {
                function,
                arguments,
                ..
            } = self.pickle.node(id)
            else {
                return None;
            };
            let arguments = self.sequence(*arguments);
            match self.name(*function) {
                "torch._utils._rebuild_parameter"
                | "torch._utils._rebuild_parameter_with_state"
                | "torch._tensor._rebuild_from_type_v2" => {
                    let inner = arguments
                        .iter()
                        .find(|id| matches!(self.pickle.node(**id), Node::Call { .. }));
                    id = *inner?;
                }
                "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => {
                    let [storage, offset, shape, stride, ..] = *arguments else {
                        return None;
                    };
                    return self.stored(storage, offset, shape, stride);
                }
                _ => return None,
            }
        }
        None
    }

    fn stored(&self, storage: Id, offset: Id, shape: Id, stride: Id) -> Option<Entry> {
        let Node::Persistent(id) = self.pickle.node(storage) else {
            return None;
        };
        // ("storage", class, key, device, numbers), and in old files whether it is part of another: (key,
        // offset, numbers).
        let parts = self.sequence(*id);
        let [_, class, key, ..] = *parts else {
            return None;
        };
        let view = parts.get(5).map_or(&[][..], |view| self.sequence(*view));
        let moved = match view.get(1).map(|id| self.pickle.node(*id)) {
            Some(Node::Int(moved)) => *moved,
            _ => 0,
        };
        let Node::Text(key) = self.pickle.node(key) else {
            return None;
        };
        let Node::Int(offset) = self.pickle.node(offset) else {
            return None;
        };
        let (shape, stride) = (self.sizes(shape)?, self.sizes(stride)?);
        (shape.len() == stride.len() && shape.len() <= 8).then_some(Entry {
            shape,
            stored: Some(Stored {
                key: key.clone(),
                dtype: Dtype::from_storage(self.name(class))?,
                offset: usize::try_from(offset.checked_add(moved)?).ok()?,
                stride,
            }),
        })
    }
}
