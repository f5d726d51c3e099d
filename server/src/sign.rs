//! `seedling sign`: a manifest that vouches for a weight file.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use clap::Args;
use seedling_core::weights::manifest::{Manifest, SecretKey};
use seedling_core::{Error, Result, atomic};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Sign a weight file: write the manifest that devices check before they use it
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  seedling sign weights.safetensors --key release.key --version 3
  seedling sign weights.safetensors --key release.key --version 4 --not-before 4    take back all before
Then ship weights.safetensors and weights.safetensors.manifest together.")]
pub struct SignArgs {
    /// The weight file
    pub weights: PathBuf,
    /// The secret key (seedling keygen)
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Which release of this network's weights it is: 1, 2, 3, ...
    #[arg(long = "version", value_name = "N")]
    pub release: u64,
    /// The oldest release that devices may still use once they have seen this one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub not_before: u64,
    /// The manifest's file [default: WEIGHTS.manifest]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
}

/// Where a weight file's manifest lies unless someone says otherwise.
pub fn manifest_of(weights: &Path) -> PathBuf {
    let mut name = weights.to_path_buf().into_os_string();
    name.push(".manifest");
    name.into()
}

/// Runs the command.
///
/// # Errors
/// The weights or the key cannot be used, or the manifest cannot be written.
pub fn run(args: &SignArgs, console: &Console) -> Result<Outcome> {
    let text = std::fs::read_to_string(&args.key).map_err(Error::io(&args.key))?;
    let secret: SecretKey = text
        .parse()
        .map_err(|error: Error| Error::file(&args.key, error.to_string()))?;
    let key = secret.public();
    let manifest = Manifest::describe(&args.weights, args.release, args.not_before, key)?;
    let out = match &args.out {
        Some(path) => path.clone(),
        None => manifest_of(&args.weights),
    };
    let text = manifest.clone().sign(&secret)?;
    atomic::write(&out, |file| file.write_all(text.as_bytes()))?;
    console.say(&format!(
        "{} version {} signed by {key}\nmanifest {}",
        manifest.arch,
        manifest.version,
        out.display()
    ));
    console.summary(&json!({
        "command": "sign",
        "manifest": out,
        "version": manifest.version,
        "not_before": manifest.not_before,
        "sha256": manifest.sha256,
        "key": key.to_string(),
    }));
    Ok(Outcome::Done)
}
