//! Initial weights, vouched for.

use crate::error::Result;
use seedling_core::data::PhotoSource;
use seedling_core::device::Device;
use seedling_core::encoder::{Architecture, FeatureNet};
use seedling_core::eval::extract::Extractor;
use seedling_core::eval::tta::FeatureModel;
use seedling_core::weights::WeightFile;
use seedling_core::weights::manifest::{self, PublicKey, Seen, Trust};
use std::path::Path;
use std::sync::Arc;

/// Weights that someone trusted has signed.
#[derive(uniffi::Object)]
pub struct Weights {
    pub(crate) file: WeightFile,
    pub(crate) path: String,
    version: i64,
}

#[uniffi::export]
impl Weights {
    /// Opens the weights at `path`, whose manifest lies beside them (`path` and `.manifest`), if one
    /// of `keys` (64 digits each, as `seedling keygen` prints them) has signed it. What it takes back
    /// is remembered in `storage`, a folder of the app's that outlives it. Reads the file once.
    #[uniffi::constructor]
    pub fn open(path: String, keys: Vec<String>, storage: String) -> Result<Arc<Weights>> {
        let weights = Path::new(&path);
        let keys: seedling_core::Result<Vec<PublicKey>> = keys.iter().map(|k| k.parse()).collect();
        let trust = Trust {
            keys: keys?,
            oldest: 0,
        };
        let beside = format!("{path}.manifest");
        let (file, manifest) = manifest::open(weights, Path::new(&beside), &trust)?;
        Seen::open(Path::new(&storage))?.accept(weights, &manifest)?;
        Ok(Arc::new(Weights {
            file,
            version: manifest.version.try_into().unwrap_or(i64::MAX),
            path,
        }))
    }

    /// Opens weights that a [`crate::Session`] of this app has written on this device. Reads the
    /// file once.
    #[uniffi::constructor]
    pub fn open_own(path: String) -> Result<Arc<Weights>> {
        Ok(Arc::new(Weights {
            file: WeightFile::open(Path::new(&path), None)?,
            version: 0,
            path,
        }))
    }

    /// The network they are for. Returns at once.
    pub fn arch(&self) -> String {
        self.file.metadata.architecture.arch.name().into()
    }

    /// Which release they are; 0 for weights of the app's own. Returns at once.
    pub fn version(&self) -> i64 {
        self.version
    }
}

impl Weights {
    /// Their network, without a head, and with the linear layer that the file has.
    pub(crate) fn network(&self) -> Result<Arc<dyn FeatureNet>> {
        let architecture = Architecture {
            head: None,
            ..self.file.metadata.architecture
        };
        Ok(Device::Cpu.load(architecture, &self.file)?)
    }

    /// Whether an album's statistics lie behind their features.
    pub(crate) fn has_layer(&self) -> Result<bool> {
        Ok(self.file.linear_layer()?.is_some())
    }

    /// How `encoder`, made of them, extracts features.
    pub(crate) fn extractor<'a>(
        &'a self,
        encoder: &'a dyn FeatureNet,
        source: &'a dyn PhotoSource,
    ) -> Extractor<'a> {
        let metadata = &self.file.metadata;
        Extractor {
            encoder,
            source,
            image_size: metadata.image_size,
            normalize: &metadata.normalize,
        }
    }

    /// The same for several views.
    pub(crate) fn model<'a>(&'a self, encoder: &'a dyn FeatureNet) -> FeatureModel<'a> {
        FeatureModel {
            encoder,
            image_size: self.file.metadata.image_size,
            normalize: &self.file.metadata.normalize,
            layer: None,
        }
    }
}
