//! Reads pickles without running them.
//!
//! A pickle is a program that builds objects by calling functions. Here a call is only written down
//! ([`Node::Call`]): whoever knows what a call means looks at its name and arguments. A name that is
//! none of those that checkpoints hold is refused, for Python would run it.
//!
//! Nodes lie in one list and name each other by their place in it, so that no nesting, however deep,
//! is ever descended into by recursion.

use std::collections::HashMap;

/// A place in [`Pickle`]'s list.
pub type Id = u32;

/// What a pickle builds.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Tuple, list, set or frozen set.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// `module.name`.
    Global(String),
    /// A function or class, its arguments, and what was put into the result afterwards.
    Call {
        function: Id,
        arguments: Id,
        items: Vec<(Id, Id)>,
    },
    /// Something that lies outside the pickle, by what identifies it.
    Persistent(Id),
}

/// A pickle's objects.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    /// What it is all about.
    pub root: Id,
}

impl Pickle {
    /// The object at `id`.
    pub fn node(&self, id: Id) -> &Node {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    /// What identifies each thing that lies outside the pickle.
    pub fn persistent(&self) -> impl Iterator<Item = Id> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Persistent(id) => Some(*id),
            _ => None,
        })
    }

    /// Reads a whole pickle. The message says what is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Pickle, String> {
        Pickle::first(bytes).map(|(pickle, _)| pickle)
    }

    /// Reads the pickle that `bytes` begin with, and says where it ends.
    pub fn first(bytes: &[u8]) -> Result<(Pickle, usize), String> {
        let mut machine = Machine {
            input: Input { bytes, at: 0 },
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            budget: bytes.len().saturating_mul(8).saturating_add(1024),
        };
        let root = machine.run()?;
        let pickle = Pickle {
            nodes: machine.nodes,
            root,
        };
        Ok((pickle, machine.input.at))
    }
}

/// Nodes at most: a checkpoint has some ten for each tensor.
const MOST_NODES: usize = 2_000_000;

/// Beginnings of the names that may be called or referred to: inert for us, and what checkpoints of
/// PyTorch's world hold.
const HARMLESS: [&str; 20] = [
    "torch.",
    "collections.",
    "numpy.core.multiarray.",
    "numpy._core.multiarray.",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.float",
    "numpy.int",
    "argparse.Namespace",
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "pathlib.Pos",
    "pathlib.Pure",
    "pathlib.Windows",
    "_codecs.encode",
    "copyreg._reconstructor",
    "copy_reg._reconstructor",
    "typing.Any",
];

/// The same among Python's own.
const HARMLESS_BUILTINS: [&str; 13] = [
    "dict",
    "list",
    "set",
    "frozenset",
    "tuple",
    "int",
    "float",
    "bool",
    "complex",
    "str",
    "bytes",
    "bytearray",
    "object",
];

/// Names below those beginnings that do run something.
const HARMFUL: [&str; 8] = [
    "torch.hub.",
    "torch.load",
    "torch.utils.",
    "torch.jit.",
    "torch.package.",
    "torch.multiprocessing.",
    "torch.serialization.",
    "torch.distributed.",
];

fn is_harmless(name: &str) -> bool {
    let builtin = name
        .strip_prefix("builtins.")
        .or(name.strip_prefix("__builtin__."));
    match builtin {
        Some(name) => HARMLESS_BUILTINS.contains(&name),
        None => {
            HARMLESS.iter().any(|known| name.starts_with(known))
                && !HARMFUL.iter().any(|harmful| name.starts_with(harmful))
        }
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take_bytes(&mut self, len: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(len).ok_or("it ends too early")?;
        let found = self.bytes.get(self.at..end).ok_or("it ends too early")?;
        self.at = end;
        Ok(found)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let found = self.take_bytes(N)?;
        found.try_into().map_err(|_| "it ends too early".into())
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn length32(&mut self) -> Result<usize, String> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length64(&mut self) -> Result<usize, String> {
        usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| "a length is absurd".into())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|b| *b == b'\n');
        let line = self.take_bytes(len.ok_or("it ends too early")?)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|_| "a line is no text".into())
    }

    fn text(&mut self, len: usize) -> Result<String, String> {
        let bytes = self.take_bytes(len)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

struct Machine<'a> {
    input: Input<'a>,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Ids that may still be put into containers: what keeps a short program from building much.
    budget: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id, String> {
        loop {
            let op = self.input.byte()?;
            match op {
                b'.' => return self.pop(),
                // PROTO, FRAME
                0x80 => {
                    self.input.byte()?;
                }
                0x95 => {
                    self.input.take_bytes(8)?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.marked()?;
                }
                b'2' => {
                    let top = *self.stack.last().ok_or("its stack is empty")?;
                    self.memoize(top)?;
                }
                _ => self.value(op)?,
            }
        }
    }

    /// Operations that make or change an object.
    fn value(&mut self, op: u8) -> Result<(), String> {
        match op {
            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'I' => {
                let node = match self.input.line()? {
                    "01" => Node::Bool(true),
                    "00" => Node::Bool(false),
                    digits => Node::Int(digits.trim().parse().map_err(|_| "a number is none")?),
                };
                self.push(node)
            }
            b'L' => {
                let digits = self.input.line()?.trim().trim_end_matches('L');
                let number = digits
                    .parse()
                    .map_err(|_| "a number is none or too large")?;
                self.push(Node::Int(number))
            }
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.push(Node::Int(number.into()))
            }
            b'K' => {
                let number = self.input.byte()?;
                self.push(Node::Int(number.into()))
            }
            b'M' => {
                let number = u16::from_le_bytes(self.input.array()?);
                self.push(Node::Int(number.into()))
            }
            0x8a => {
                let len = self.input.byte()?;
                self.long(len.into())
            }
            0x8b => {
                let len = self.input.length32()?;
                self.long(len)
            }
            b'F' => {
                let number = self.input.line()?.trim().parse();
                self.push(Node::Float(number.map_err(|_| "a number is none")?))
            }
            b'G' => {
                let number = f64::from_be_bytes(self.input.array()?);
                self.push(Node::Float(number))
            }
            b'V' | b'S' => {
                let line = self.input.line()?.trim_matches(['\'', '"']).to_string();
                self.push(Node::Text(line))
            }
            b'X' | b'T' => {
                let len = self.input.length32()?;
                self.push_text(len)
            }
            0x8c | b'U' => {
                let len = self.input.byte()?;
                self.push_text(len.into())
            }
            0x8d => {
                let len = self.input.length64()?;
                self.push_text(len)
            }
            b'B' => {
                let len = self.input.length32()?;
                self.push_bytes(len)
            }
            b'C' => {
                let len = self.input.byte()?;
                self.push_bytes(len.into())
            }
            0x8e | 0x96 => {
                let len = self.input.length64()?;
                self.push_bytes(len)
            }
            b')' | b']' | 0x8f => self.push(Node::Sequence(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.marked()?;
                self.push(Node::Sequence(items))
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..op - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Sequence(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                self.extend(items)
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let items = pairs(self.marked()?)?;
                self.push(Node::Dict(items))
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.insert(vec![(key, value)])
            }
            b'u' => {
                let items = pairs(self.marked()?)?;
                self.insert(items)
            }
            _ => self.reference(op),
        }
    }

    /// Operations about names, calls and what was built before.
    fn reference(&mut self, op: u8) -> Result<(), String> {
        match op {
            b'c' => {
                let name = format!("{}.{}", self.input.line()?, self.input.line()?);
                self.global(name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.node(module), self.node(name)) {
                    (Node::Text(module), Node::Text(name)) => {
                        let name = format!("{module}.{name}");
                        self.global(name)
                    }
                    _ => Err("a name is no text".into()),
                }
            }
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments)
            }
            0x92 => {
                let (_, arguments, function) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(function, arguments)
            }
            b'i' => {
                let name = format!("{}.{}", self.input.line()?, self.input.line()?);
                let arguments = self.marked()?;
                self.global(name)?;
                let function = self.pop()?;
                self.push(Node::Sequence(arguments))?;
                let arguments = self.pop()?;
                self.call(function, arguments)
            }
            b'o' => {
                let mut items = self.marked()?;
                if items.is_empty() {
                    return Err("an object has no class".into());
                }
                let function = items.remove(0);
                self.push(Node::Sequence(items))?;
                let arguments = self.pop()?;
                self.call(function, arguments)
            }
            // BUILD: an object's state, where it is a dictionary.
            b'b' => {
                let state = self.pop()?;
                match self.node(state).clone() {
                    Node::Dict(items) => self.insert(items),
                    _ => Ok(()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            b'P' => {
                let id = self.input.line()?.to_string();
                self.push(Node::Text(id))?;
                let id = self.pop()?;
                self.push(Node::Persistent(id))
            }
            b'p' => {
                let place = self.input.line()?.trim().parse();
                self.remember(place.map_err(|_| "a place in its memo is no number")?)
            }
            b'q' => {
                let place = self.input.byte()?;
                self.remember(place.into())
            }
            b'r' => {
                let place = u32::from_le_bytes(self.input.array()?);
                self.remember(place)
            }
            0x94 => self.remember(self.memo.len() as u32),
            b'g' => {
                let place = self.input.line()?.trim().parse();
                self.recall(place.map_err(|_| "a place in its memo is no number")?)
            }
            b'h' => {
                let place = self.input.byte()?;
                self.recall(place.into())
            }
            b'j' => {
                let place = u32::from_le_bytes(self.input.array()?);
                self.recall(place)
            }
            other => Err(format!(
                "it has an operation {other:#04x} that is none of PyTorch's"
            )),
        }
    }

    fn node(&self, id: Id) -> &Node {
        self.nodes.get(id as usize).unwrap_or(&Node::None)
    }

    fn push(&mut self, node: Node) -> Result<(), String> {
        if self.nodes.len() >= MOST_NODES {
            return Err("it has more objects than a checkpoint".into());
        }
        if let Node::Sequence(items) = &node {
            self.spend(items.len())?;
        }
        self.nodes.push(node);
        self.memoize(self.nodes.len() as Id - 1)
    }

    fn memoize(&mut self, id: Id) -> Result<(), String> {
        if self.stack.len() >= MOST_NODES {
            return Err("its stack is deeper than a checkpoint's".into());
        }
        self.stack.push(id);
        Ok(())
    }

    fn spend(&mut self, items: usize) -> Result<(), String> {
        self.budget = self
            .budget
            .checked_sub(items)
            .ok_or("it repeats itself without end")?;
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self
            .marks
            .last()
            .is_some_and(|mark| *mark >= self.stack.len())
        {
            return Err("its stack is empty".into());
        }
        self.stack.pop().ok_or_else(|| "its stack is empty".into())
    }

    /// Everything above the last mark.
    fn marked(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        match mark <= self.stack.len() {
            true => Ok(self.stack.split_off(mark)),
            false => Err("a mark is misplaced".into()),
        }
    }

    fn long(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.input.take_bytes(len)?;
        // What doesn't fit is some hash or seed, never a size.
        let mut number = [if bytes.last().is_some_and(|b| *b >= 0x80) {
            0xff
        } else {
            0
        }; 8];
        let node = match bytes.len() <= 8 {
            true => {
                number[..bytes.len()].copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(number))
            }
            false => Node::None,
        };
        self.push(node)
    }

    fn push_text(&mut self, len: usize) -> Result<(), String> {
        let text = self.input.text(len)?;
        self.push(Node::Text(text))
    }

    fn push_bytes(&mut self, len: usize) -> Result<(), String> {
        let bytes = self.input.take_bytes(len)?.to_vec();
        self.push(Node::Bytes(bytes))
    }

    fn global(&mut self, name: String) -> Result<(), String> {
        match is_harmless(&name) {
            true => self.push(Node::Global(name)),
            false => Err(format!(
                "it refers to {name}, which Python would run on opening it; nothing was run here"
            )),
        }
    }

    fn call(&mut self, function: Id, arguments: Id) -> Result<(), String> {
        self.push(Node::Call {
            function,
            arguments,
            items: Vec::new(),
        })
    }

    fn top(&mut self) -> Result<&mut Node, String> {
        let top = *self.stack.last().ok_or("its stack is empty")?;
        self.nodes
            .get_mut(top as usize)
            .ok_or_else(|| "its stack is empty".into())
    }

    fn extend(&mut self, more: Vec<Id>) -> Result<(), String> {
        self.spend(more.len())?;
        // What is appended to an object is of no interest.
        if let Node::Sequence(items) = self.top()? {
            items.extend(more);
        }
        Ok(())
    }

    fn insert(&mut self, more: Vec<(Id, Id)>) -> Result<(), String> {
        self.spend(more.len())?;
        if let Node::Dict(items) | Node::Call { items, .. } = self.top()? {
            items.extend(more);
        }
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or("its stack is empty")?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let found = self.memo.get(&place).copied();
        self.memoize(found.ok_or("it refers to what it has not built")?)
    }
}

/// Keys and values by turns.
fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>, String> {
    match items.len().is_multiple_of(2) {
        true => Ok(items
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect()),
        false => Err("a key has no value".into()),
    }
}
