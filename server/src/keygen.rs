//! `seedling keygen`: a pair of keys to sign weights with.

use crate::Outcome;
use crate::console::Console;
use crate::flags::Common;
use clap::Args;
use seedling_core::weights::manifest::SecretKey;
use seedling_core::{Error, Result};
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Make a pair of keys to sign weights with
///
/// The secret key goes to FILE, readable by its owner alone; keep it off the devices that use the
/// weights. The public key goes to FILE.pub: it is what an app is built with.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  seedling keygen release.key")]
pub struct KeygenArgs {
    /// The secret key's file; must not exist yet
    pub file: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

/// Runs the command.
///
/// # Errors
/// A file exists already or cannot be written; the system has no random numbers.
pub fn run(args: &KeygenArgs, console: &Console) -> Result<Outcome> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|e| Error::Config(format!("the system gives no random numbers ({e})")))?;
    let secret = SecretKey::from_random(seed);
    let public = secret.public();
    let mut name = args.file.clone().into_os_string();
    name.push(".pub");
    let beside = PathBuf::from(name);
    if beside.exists() {
        return Err(Error::file(&beside, "exists already"));
    }
    write_new(&args.file, &secret.reveal(), true)?;
    write_new(&beside, &public.to_string(), false)?;
    console.say(&format!("secret   {}  (keep it)", args.file.display()));
    console.say(&format!("public   {}  {public}", beside.display()));
    console.summary(&json!({
        "command": "keygen",
        "secret": args.file,
        "public": beside,
        "key": public.to_string(),
    }));
    Ok(Outcome::Done)
}

/// A key is never overwritten: what was signed with the old one could not be signed again.
fn write_new(path: &Path, text: &str, secret: bool) -> Result<()> {
    let mut how = OpenOptions::new();
    how.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        how.mode(if secret { 0o600 } else { 0o644 });
    }
    how.open(path)
        .and_then(|mut file| {
            writeln!(file, "{text}")?;
            file.sync_all()
        })
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::file(path, "exists already"),
            _ => Error::io(path)(error),
        })
}
