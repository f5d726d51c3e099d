//! `seedling verify`: what a device does before it uses weights.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use crate::sign::manifest_of;
use clap::Args;
use seedling_core::weights::manifest::{self, PublicKey, Trust};
use seedling_core::{Error, Result};
use serde_json::json;
use std::path::PathBuf;

/// Check a signed weight file as a device does
#[derive(Args, Debug)]
#[command(after_help = "Example:
  seedling verify weights.safetensors --key release.key.pub")]
pub struct VerifyArgs {
    /// The weight file
    pub weights: PathBuf,
    /// A public key that is trusted: its file, or its 64 digits; repeatable
    #[arg(long, value_name = "KEY", required = true)]
    pub key: Vec<String>,
    /// The manifest's file [default: WEIGHTS.manifest]
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,
    /// The oldest version that may be used
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub oldest: u64,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// The weights are not to be trusted, each reason in words of its own; or a file cannot be read.
pub fn run(args: &VerifyArgs, console: &Console) -> Result<Outcome> {
    let keys: Result<Vec<PublicKey>> = args.key.iter().map(|key| public(key)).collect();
    let trust = Trust {
        keys: keys?,
        oldest: args.oldest,
    };
    let path = match &args.manifest {
        Some(path) => path.clone(),
        None => manifest_of(&args.weights),
    };
    let (_, found) = manifest::open(&args.weights, &path, &trust)?;
    console.say(&format!(
        "{} is {} version {}, signed by {}",
        args.weights.display(),
        found.arch,
        found.version,
        found.key
    ));
    console.summary(&json!({
        "command": "verify",
        "arch": found.arch,
        "version": found.version,
        "not_before": found.not_before,
        "sha256": found.sha256,
        "key": found.key.to_string(),
    }));
    Ok(Outcome::Done)
}

fn public(text: &str) -> Result<PublicKey> {
    match std::fs::read_to_string(text) {
        Ok(found) => found
            .parse()
            .map_err(|error: Error| Error::file(text, error.to_string())),
        // Digits are no file; a misspelled file is no digits, and told as both.
        Err(error) => text.parse().map_err(|_| {
            Error::file(
                text,
                format!("neither a key's file ({error}) nor 64 digits"),
            )
        }),
    }
}
