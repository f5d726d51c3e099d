//! Weights that come with the program, and weights by name or path.

use crate::console::Console;
use seedling_core::backbones::Arch;
use seedling_core::weights::WeightFile;
use seedling_core::{Error, Result};
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Opens what the setting `init` names: `random` is `None`, `shipped` comes with the program,
/// all else is a file. `arch` is the network wanted; `None` takes what a file says it is. `flag`
/// is what this command has for naming it (`--arch `), for errors to advise.
///
/// # Errors
/// The file cannot be used, or no such weights are shipped.
pub fn open(
    init: &str,
    arch: Option<Arch>,
    flag: &str,
    console: &Console,
) -> Result<Option<WeightFile>> {
    match init {
        "random" => Ok(None),
        "shipped" => shipped(arch.unwrap_or(Arch::MOBILENET_V3_SMALL)).map(Some),
        path => file(Path::new(path), arch, flag, console).map(Some),
    }
}

/// Opens a weight file of ours or of another program, and says as what such a one is read; `arch` and `flag` as
/// for [`open`].
///
/// # Errors
/// The file cannot be used; where another network would take it, the message says how.
pub fn file(path: &Path, arch: Option<Arch>, flag: &str, console: &Console) -> Result<WeightFile> {
    let (file, recognized) =
        seedling_convert::weights::open(path, arch).map_err(|error| advised(error, flag))?;
    if let Some(found) = recognized {
        console.note(&format!(
            "{}: {} of {}, {} tensors; norms' epsilon {} (convert --bn-eps sets it)",
            path.display(),
            found.arch.spec().title,
            found.program,
            found.taken.len(),
            file.metadata.architecture.norm_eps
        ));
        for (reason, names) in &found.left {
            console.detail(&format!("left {}: {reason}", names.join(", ")));
        }
        for note in &found.notes {
            console.note(&format!("note: {note}"));
        }
    }
    Ok(file)
}

fn advised(error: Error, flag: &str) -> Error {
    match &error {
        Error::OtherArch {
            path,
            holds,
            wanted,
        } => Error::file(
            path,
            format!(
                "holds weights of {holds}, but {wanted} was asked for; {flag}{holds} takes them"
            ),
        ),
        Error::UnknownArch { path } => Error::file(
            path,
            format!(
                "does not say which architecture it holds; name it, such as {flag}{}",
                Arch::MOBILENET_V3_SMALL
            ),
        ),
        _ => error,
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
