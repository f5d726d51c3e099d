//! Weights that come with the program, and weights by name or path.

use seedling_core::backbones::Arch;
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result};
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Opens what the setting `init` names: `random` is `None`, `shipped` comes with the program,
/// all else is a file. `arch` is the network wanted; `None` takes what a file says it is.
///
/// # Errors
/// The file cannot be used, or no such weights are shipped.
pub fn open(init: &str, arch: Option<Arch>) -> Result<Option<WeightFile>> {
    match init {
        "random" => Ok(None),
        "shipped" => shipped(arch.unwrap_or(Arch::MobilenetV3Small)).map(Some),
        path => WeightFile::open(Path::new(path), arch).map(Some),
    }
}

fn shipped(arch: Arch) -> Result<WeightFile> {
    let Some((_, bytes)) = FILES.iter().find(|(name, _)| *name == arch.name()) else {
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        return Err(Error::Config(format!(
            "no weights of {arch} come with this program (there are: {}); \
             name a file with --init, or start from --init random",
            if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            }
        )));
    };
    WeightFile::parse(&format!("shipped {arch}"), bytes.to_vec(), Some(arch))
}
