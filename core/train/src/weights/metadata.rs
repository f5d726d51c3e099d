//! What the header of a weight file says about it.

use crate::{Error, Result};
use seedling_data::Normalize;
use seedling_nn::backbones::Arch;
use seedling_nn::encoder::{Architecture, Head};
use seedling_nn::layer::SqueezeOrder;
use seedling_nn::window::Padding;
use std::collections::BTreeMap;
use std::path::Path;

/// What a user of the weights must know, and how they came about.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelMetadata {
    /// The network. Its head is the one the weights were trained with, where one is known.
    pub architecture: Architecture,
    /// Width and height of the images it is to be used on, in pixels.
    pub image_size: usize,
    /// How pixels become inputs.
    pub normalize: Normalize,
    /// How the weights were made, in a sentence.
    pub made: String,
}

impl ModelMetadata {
    /// The header's entries.
    pub fn to_header(&self) -> BTreeMap<String, String> {
        let Architecture {
            arch,
            head,
            norm_eps,
            padding,
            squeeze_order,
        } = self.architecture;
        let triple = |[r, g, b]: [f32; 3]| format!("[{r}, {g}, {b}]");
        let mut entries = BTreeMap::new();
        let mut put = |key: &str, value: String| entries.insert(key.to_string(), value);
        put("arch", arch.name().into());
        put("image_size", self.image_size.to_string());
        put("mean", triple(self.normalize.mean));
        put("std", triple(self.normalize.std));
        put("bn_eps", norm_eps.to_string());
        put("se_order", order_name(squeeze_order).into());
        put("padding", padding_name(padding).into());
        put("made", self.made.clone());
        if let Some(head) = head {
            put("head", head.name().into());
        }
        entries
    }

    /// Reads the header of the file at `path`. What it does not say is torchvision's.
    /// `expected` is the architecture the caller wants, if it wants one.
    pub(crate) fn from_header(
        path: &Path,
        entries: &BTreeMap<String, String>,
        expected: Option<Arch>,
    ) -> Result<ModelMetadata> {
        let refuse = |reason: String| Error::file(path, reason);
        let stated = entries
            .get("arch")
            .map(|name| name.parse::<Arch>())
            .transpose()
            .map_err(|error| refuse(error.to_string()))?;
        let arch = match (stated, expected) {
            (Some(stated), Some(expected)) if stated != expected => {
                return Err(other_arch(path, stated, expected));
            }
            (stated, expected) => stated.or(expected).ok_or_else(|| Error::UnknownArch {
                path: path.to_path_buf(),
            })?,
        };
        let mut architecture = Architecture::new(arch, None);
        if let Some(eps) = entries.get("bn_eps") {
            architecture.norm_eps = eps
                .parse()
                .ok()
                .filter(|eps: &f32| *eps > 0.0 && *eps < 1.0)
                .ok_or_else(|| refuse(format!("bn_eps = {eps}: expected a small number")))?;
        }
        if let Some(order) = entries.get("se_order") {
            architecture.squeeze_order = [SqueezeOrder::ActivationFirst, SqueezeOrder::GateFirst]
                .into_iter()
                .find(|known| order_name(*known) == order)
                .ok_or_else(|| {
                    refuse(format!(
                        "se_order = {order}: expected activation_first or gate_first"
                    ))
                })?;
        }
        if let Some(padding) = entries.get("padding") {
            architecture.padding = [Padding::Symmetric, Padding::Same]
                .into_iter()
                .find(|known| padding_name(*known) == padding)
                .ok_or_else(|| {
                    refuse(format!("padding = {padding}: expected symmetric or same"))
                })?;
        }
        if let Some(head) = entries.get("head") {
            let head = head.parse::<Head>();
            architecture.head = Some(head.map_err(|error| refuse(error.to_string()))?);
        }
        let image_size = match entries.get("image_size") {
            None => 224,
            Some(size) => size
                .parse()
                .ok()
                .filter(|size| (16..=4096).contains(size))
                .ok_or_else(|| refuse(format!("image_size = {size}: expected 16 to 4096")))?,
        };
        let mut normalize = Normalize::default();
        for (key, slot) in [("mean", &mut normalize.mean), ("std", &mut normalize.std)] {
            if let Some(text) = entries.get(key) {
                *slot = serde_json::from_str(text)
                    .ok()
                    .filter(|v: &[f32; 3]| v.iter().all(|x| x.is_finite()))
                    .ok_or_else(|| refuse(format!("{key} = {text}: expected three numbers")))?;
            }
        }
        if normalize.std.iter().any(|&std| std <= 0.0) {
            return Err(refuse("std must be above 0".into()));
        }
        Ok(ModelMetadata {
            architecture,
            image_size,
            normalize,
            made: entries.get("made").cloned().unwrap_or_default(),
        })
    }
}

/// The file at `path` holds another network than the one wanted.
pub(super) fn other_arch(path: &Path, holds: Arch, wanted: Arch) -> Error {
    Error::OtherArch {
        path: path.to_path_buf(),
        holds: holds.name().into(),
        wanted: wanted.name().into(),
    }
}

fn order_name(order: SqueezeOrder) -> &'static str {
    match order {
        SqueezeOrder::ActivationFirst => "activation_first",
        SqueezeOrder::GateFirst => "gate_first",
    }
}

fn padding_name(padding: Padding) -> &'static str {
    match padding {
        Padding::Symmetric => "symmetric",
        Padding::Same => "same",
    }
}
