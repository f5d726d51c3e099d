//! Reading weight files, with every tensor checked against the network that is to take it.

use super::metadata::other_arch;
use super::{HEAD_FILE, HEAD_PREFIX, LINEAR_LAYER, ModelMetadata};
use crate::{Error, Result};
use seedling_base::tensor_file::TensorFile;
use seedling_nn::backbones::Arch;
use seedling_nn::backend::Backend;
use seedling_nn::encoder::{Architecture, Head, LinearLayer};
use seedling_nn::layout::Entry;
use seedling_nn::params::Params;
use std::path::Path;

/// A weight file whose header has been read.
#[derive(Debug)]
pub struct WeightFile {
    file: TensorFile,
    /// Whether it lies in a folder, where a head may lie beside it.
    on_disk: bool,
    /// Its head, where that came with it.
    head: Option<Box<WeightFile>>,
    /// SHA-256 of what it was made of, where it was made of something else.
    digest: Option<String>,
    /// What the header says.
    pub metadata: ModelMetadata,
}

impl WeightFile {
    /// Opens a file of our own or of torchvision. `arch` is the architecture wanted; `None` takes
    /// the one that the header states.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or holds another architecture (one line names both).
    pub fn open(path: &Path, arch: Option<Arch>) -> Result<WeightFile> {
        WeightFile::from_tensors(TensorFile::read(path)?, arch, true)
    }

    /// As [`WeightFile::open`] on bytes in memory; `name` stands for the path in errors.
    ///
    /// # Errors
    /// As [`WeightFile::open`].
    pub fn parse(name: &str, bytes: Vec<u8>, arch: Option<Arch>) -> Result<WeightFile> {
        WeightFile::from_tensors(TensorFile::parse(name, bytes)?, arch, false)
    }

    fn from_tensors(file: TensorFile, arch: Option<Arch>, on_disk: bool) -> Result<WeightFile> {
        let metadata = ModelMetadata::from_header(file.path(), file.metadata(), arch)?;
        if !file.metadata().contains_key("arch")
            && let (Some(wanted), Some(holds)) = (arch, recognize(&file))
            && wanted != holds
        {
            return Err(other_arch(file.path(), holds, wanted));
        }
        Ok(WeightFile {
            file,
            on_disk,
            head: None,
            digest: None,
            metadata,
        })
    }

    /// With the head that belongs to it.
    pub fn with_head(self, head: WeightFile) -> WeightFile {
        WeightFile {
            head: Some(Box::new(head)),
            ..self
        }
    }

    /// Known by the SHA-256 of the file that it was made of.
    pub fn with_digest(self, digest: String) -> WeightFile {
        WeightFile {
            digest: Some(digest),
            ..self
        }
    }

    /// Whether its header says what it is.
    pub fn says_arch(&self) -> bool {
        self.file.metadata().contains_key("arch")
    }

    /// Whether its header says what it is, or its tensors are all of the network it is taken for: one
    /// of neither has other names.
    pub fn is_ours(&self) -> bool {
        let entries = Architecture::new(self.metadata.architecture.arch, None).layout();
        let has = |entry: &Entry| self.file.shape(&entry.name) == Some(&entry.shape[..]);
        self.says_arch() || entries.entries().iter().all(has)
    }

    /// Copies the backbone's tensors into `params`; its head, where it has one, is left alone.
    ///
    /// # Errors
    /// Tensors are missing or unexpected (the message lists them), have other shapes, or hold
    /// numbers that are not finite. `params` is then unchanged.
    pub fn load_backbone<B: Backend>(&self, params: &mut Params<B>) -> Result<()> {
        let extra = self.metadata.architecture.arch.spec().class_layer;
        self.load(params, false, |name| name.starts_with(extra))
    }

    /// The linear layer behind the features, where this file has one of ours: it lies where the network's
    /// class layer would. A class layer of someone else's is none.
    ///
    /// # Errors
    /// The header says that there is one, and it is missing, of other features, or not finite.
    pub fn linear_layer(&self) -> Result<Option<LinearLayer>> {
        let Some(stated) = self.file.metadata().get(LINEAR_LAYER) else {
            return Ok(None);
        };
        let refuse = |reason: String| Error::file(self.file.path(), reason);
        let spec = self.metadata.architecture.arch.spec();
        let layer = spec.class_layer.trim_end_matches('.');
        if stated != layer {
            return Err(refuse(format!(
                "{LINEAR_LAYER} = {stated}: expected {layer}"
            )));
        }
        let (weight, bias) = (format!("{layer}.weight"), format!("{layer}.bias"));
        let inputs = match (self.file.shape(&weight), self.file.shape(&bias)) {
            (Some(&[outputs, inputs]), Some(&[numbers])) if outputs == numbers => inputs,
            (weight, bias) => {
                return Err(refuse(format!(
                    "tensor {layer}: expected a linear layer, got shapes {:?} and {:?}",
                    weight.unwrap_or_default(),
                    bias.unwrap_or_default()
                )));
            }
        };
        let (weight, bias) = (self.file.f32(&weight)?, self.file.f32(&bias)?);
        if weight.iter().chain(&bias).any(|x| !x.is_finite()) {
            let reason = format!("tensor {layer} holds numbers that are not finite");
            return Err(refuse(reason));
        }
        LinearLayer::new(inputs, weight, bias).map(Some)
    }

    /// Copies a head's tensors into `params` from a file that [`super::save_head`] wrote.
    ///
    /// # Errors
    /// As [`WeightFile::load_backbone`].
    pub fn load_head<B: Backend>(&self, params: &mut Params<B>) -> Result<()> {
        self.load(params, true, |_| false)
    }

    /// SHA-256 of the whole file, or of the one it was made of.
    ///
    /// # Errors
    /// It can't be read any more.
    pub fn digest(&self) -> Result<String> {
        if let Some(digest) = &self.digest {
            return Ok(digest.clone());
        }
        self.file.digest()
    }

    /// Copies the head that belongs to this backbone into `params`, if there is one and it has the
    /// shape of theirs; says whether.
    ///
    /// # Errors
    /// There is one, but it cannot be used.
    pub fn load_head_of<B: Backend>(&self, params: &mut Params<B>, head: Head) -> Result<bool> {
        let beside;
        let file = match &self.head {
            Some(own) => Some(&**own),
            None => {
                beside = self.head_beside()?;
                beside.as_ref()
            }
        };
        match file.filter(|file| file.metadata.architecture.head == Some(head)) {
            Some(file) => file.load_head(params).map(|()| true),
            None => Ok(false),
        }
    }

    /// Which head belongs to this backbone, if any.
    ///
    /// # Errors
    /// As [`WeightFile::load_head_of`].
    pub fn head(&self) -> Result<Option<Head>> {
        match &self.head {
            Some(own) => Ok(own.metadata.architecture.head),
            None => Ok(self
                .head_beside()?
                .and_then(|file| file.metadata.architecture.head)),
        }
    }

    /// The head's file beside this backbone's, where there is one. Weights in memory have none.
    ///
    /// # Errors
    /// There is one, but it cannot be used.
    pub fn head_beside(&self) -> Result<Option<WeightFile>> {
        let path = self.file.path().with_file_name(HEAD_FILE);
        if !self.on_disk || !path.is_file() {
            return Ok(None);
        }
        WeightFile::open(&path, Some(self.metadata.architecture.arch)).map(Some)
    }

    fn load<B: Backend>(
        &self,
        params: &mut Params<B>,
        head: bool,
        known: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let layout = params.layout.clone();
        let wanted: Vec<&Entry> = layout
            .entries()
            .iter()
            .filter(|entry| entry.name.starts_with(HEAD_PREFIX) == head)
            .collect();
        self.check_names(&wanted, known)?;
        let read = |entry: &Entry| {
            let numbers = self.file.f32(&entry.name)?;
            match numbers.iter().all(|x| x.is_finite()) {
                true => Ok(numbers),
                false => Err(Error::file(
                    self.file.path(),
                    format!("tensor {} holds numbers that are not finite", entry.name),
                )),
            }
        };
        let tensors = wanted.iter().map(|e| read(e)).collect::<Result<Vec<_>>>()?;
        params.edit(|values, buffers| {
            for (entry, numbers) in wanted.iter().zip(tensors) {
                let all = match entry.role.is_buffer() {
                    true => &mut *buffers,
                    false => &mut *values,
                };
                if let Some(place) = all.get_mut(entry.range.clone()) {
                    place.copy_from_slice(&numbers);
                }
            }
        })
    }

    /// Every wanted tensor is there with its shape, and nothing else is.
    fn check_names(&self, wanted: &[&Entry], known: impl Fn(&str) -> bool) -> Result<()> {
        let missing: Vec<&str> = wanted
            .iter()
            .map(|entry| entry.name.as_str())
            .filter(|name| self.file.shape(name).is_none())
            .collect();
        let unexpected: Vec<&str> = self
            .file
            .names()
            .filter(|name| !name.ends_with("num_batches_tracked") && !known(name))
            .filter(|name| wanted.iter().all(|entry| entry.name != *name))
            .collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            return Err(Error::file(
                self.file.path(),
                format!(
                    "not the weights of {}: missing {}, unexpected {}",
                    self.metadata.architecture.arch,
                    some_of(&missing),
                    some_of(&unexpected)
                ),
            ));
        }
        for entry in wanted {
            match self.file.shape(&entry.name) {
                Some(shape) if shape == entry.shape => {}
                shape => {
                    return Err(Error::file(
                        self.file.path(),
                        format!(
                            "tensor {}: expected shape {:?}, got {:?}",
                            entry.name,
                            entry.shape,
                            shape.unwrap_or_default()
                        ),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The network all of whose tensors a file holds: torchvision's files have no header to say it.
fn recognize(file: &TensorFile) -> Option<Arch> {
    let holds = |arch: &Arch| {
        let layout = Architecture::new(*arch, None).layout();
        let entries = layout.entries();
        entries
            .iter()
            .all(|entry| file.shape(&entry.name) == Some(&entry.shape[..]))
    };
    Arch::ALL.iter().copied().find(holds)
}

/// A count and the first few names.
fn some_of(names: &[&str]) -> String {
    let shown = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".into(),
        1..=3 => shown,
        n => format!("{n} ({shown}, ...)"),
    }
}
