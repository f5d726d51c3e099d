//! PyTorch's format before 1.6: pickles one behind the other (magic number, protocol, the writer's system, the
//! contents, the keys of the storages in their order), then the numbers of each storage behind their count.
//! Nothing it claims is believed, as in `tensors`.

use crate::pickle::{Node, Pickle};
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

/// The number that the first pickle holds (0x1950a86a20f9469cfc6c), as it stands there.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Bytes within which it stands, whatever the pickle's protocol.
const BEGINNING: usize = 40;
/// The protocol of the file that is known.
const PROTOCOL: i64 = 1001;
/// Bytes of all pickles together that are read at first, and at most.
const FIRST_READ: u64 = 1 << 20;
/// The end of a pickle.
const STOP: u8 = b'.';

/// Whether a file that begins so is of this format.
pub(crate) fn is_legacy(first: &[u8]) -> bool {
    beginning(first).is_some()
}

/// Where the first pickle ends.
fn beginning(first: &[u8]) -> Option<usize> {
    let first = &first[..first.len().min(BEGINNING)];
    let at = first.windows(MAGIC.len()).position(|part| part == MAGIC)?;
    let end = at + MAGIC.len();
    (first.starts_with(&[0x80]) && first.get(end) == Some(&STOP)).then_some(end + 1)
}

/// A file of this format.
pub(crate) struct Legacy<R> {
    file: R,
    /// Of each storage, by its key, where its numbers begin and how many there are.
    places: HashMap<String, (u64, u64)>,
}

impl<R: Read + Seek> Legacy<R> {
    /// Reads all but the numbers; beside them comes what says which storage each tensor is a part of. `width`
    /// says how many bytes a number of a storage class has; no more than
    /// `longest` bytes of pickles are read. The message says what is wrong with it.
    pub(crate) fn open(
        mut file: R,
        longest: u64,
        width: impl Fn(&str) -> Option<usize>,
    ) -> Result<(Legacy<R>, Pickle), String> {
        let unreadable = |e: std::io::Error| e.to_string();
        let length = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
        let mut wanted = FIRST_READ;
        // How long the pickles are is known when they are read.
        let (contents, keys, end) = loop {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            let read = file.by_ref().take(wanted).read_to_end(&mut bytes);
            read.map_err(unreadable)?;
            match pickles(&bytes) {
                Ok(found) => break found,
                Err(_) if wanted < length && wanted < longest => wanted = (wanted * 4).min(longest),
                Err(reason) => return Err(reason),
            }
        };
        let widths = widths(&contents, width)?;
        let mut places = HashMap::new();
        let mut at = end as u64;
        for key in keys {
            let width = widths.get(&key);
            let width = *width.ok_or(format!("storage {key} belongs to no tensor"))?;
            let mut count = [0; 8];
            file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
            let cut_off = || "it is cut off".to_string();
            file.read_exact(&mut count).map_err(|_| cut_off())?;
            let count = u64::try_from(i64::from_le_bytes(count));
            let count = count.map_err(|_| "a storage has less than no numbers")?;
            let bytes = count.checked_mul(width as u64);
            let next = bytes.and_then(|bytes| bytes.checked_add(at)?.checked_add(8));
            let next = next.filter(|next| *next <= length).ok_or_else(cut_off)?;
            places.insert(key, (at + 8, count));
            at = next;
        }
        Ok((Legacy { file, places }, contents))
    }

    /// The bytes of numbers `from` to `to` of a storage, each `width` long; `None` where there are none such.
    pub(crate) fn bytes(
        &mut self,
        key: &str,
        (from, to): (usize, usize),
        width: usize,
    ) -> Option<Vec<u8>> {
        let (start, count) = *self.places.get(key)?;
        if to as u64 > count || from > to {
            return None;
        }
        let start = start.checked_add((from * width) as u64)?;
        self.file.seek(SeekFrom::Start(start)).ok()?;
        let mut bytes = Vec::new();
        let wanted = ((to - from) * width) as u64;
        self.file
            .by_ref()
            .take(wanted)
            .read_to_end(&mut bytes)
            .ok()?;
        (bytes.len() as u64 == wanted).then_some(bytes)
    }
}

/// The contents, the storages' keys, and where the numbers begin.
fn pickles(bytes: &[u8]) -> Result<(Pickle, Vec<String>, usize), String> {
    let mut at = beginning(bytes).ok_or("no magic number")?;
    let mut next = || -> Result<Pickle, String> {
        let (pickle, length) = Pickle::first(bytes.get(at..).unwrap_or_default())?;
        at += length;
        Ok(pickle)
    };
    let protocol = next()?;
    if *protocol.node(protocol.root) != Node::Int(PROTOCOL) {
        return Err("another version of PyTorch's old format".into());
    }
    let system = next()?;
    if let Node::Dict(items) = system.node(system.root) {
        let little = items.iter().find(
            |(key, _)| matches!(system.node(*key), Node::Text(key) if key == "little_endian"),
        );
        if little.is_some_and(|(_, value)| *system.node(*value) == Node::Bool(false)) {
            return Err("its numbers are big-endian".into());
        }
    }
    let contents = next()?;
    let keys = next()?;
    let Node::Sequence(items) = keys.node(keys.root) else {
        return Err("no list of storages".into());
    };
    let text = |id: &u32| match keys.node(*id) {
        Node::Text(key) => Ok(key.clone()),
        _ => Err("a storage's key is no text".to_string()),
    };
    let names = items.iter().map(text).collect::<Result<_, _>>()?;
    Ok((contents, names, at))
}

/// Bytes of a number of each storage, by its key.
fn widths(
    contents: &Pickle,
    width: impl Fn(&str) -> Option<usize>,
) -> Result<HashMap<String, usize>, String> {
    let mut widths = HashMap::new();
    for id in contents.persistent() {
        // ("storage", class, key, device, numbers, view)
        let Node::Sequence(parts) = contents.node(id) else {
            continue;
        };
        let [_, class, key, ..] = parts[..] else {
            continue;
        };
        if let (Node::Global(class), Node::Text(key)) = (contents.node(class), contents.node(key)) {
            let width = width(class).ok_or(format!("numbers of dtype {class}"))?;
            if widths
                .insert(key.clone(), width)
                .is_some_and(|other| other != width)
            {
                return Err(format!("storage {key} is of two dtypes"));
            }
        }
    }
    Ok(widths)
}
