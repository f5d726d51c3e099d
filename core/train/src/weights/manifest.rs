//! Signed manifests: what a weight file is, said by its maker. Checked before a byte of the weights
//! is parsed, since a parser is where a crafted file would attack.
//!
//! A manifest is a short TOML text. Its last line signs (ed25519, RFC 8032) every byte before it.
//! `version` counts the releases of a network's weights; `not_before` is the oldest of them that may
//! still be used, for a release that must not come back. Whoever has seen a manifest remembers its
//! `not_before` ([`Seen`]) and refuses older versions from then on.

use super::WeightFile;
use crate::{Error, Result};
use ed25519_compact::{KeyPair, Seed, Signature};
use seedling_base::atomic;
use seedling_base::error::Distrust;
use seedling_base::tensor_file::hex;
use seedling_nn::backbones::Arch;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What is signed begins with this, so that a signature means nothing elsewhere.
const CONTEXT: &[u8] = b"seedling weights manifest 1\n";

/// The beginning of a manifest's last line.
const SIGNATURE: &str = "signature = ";

/// Longer texts are no manifests.
const LONGEST: u64 = 64 * 1024;

/// What says who signed: 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// What signs: 32 random bytes, written as 64 hexadecimal digits. Whoever has them can sign.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

/// What a weight file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the weight file, for people.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// How many bytes it has.
    pub size_bytes: u64,
    /// The network.
    pub arch: String,
    /// Width and height at which photos are to be processed.
    pub image_size: u64,
    /// Which release of this network's weights it is.
    pub version: u64,
    /// The oldest release that may still be used.
    pub not_before: u64,
    /// Who signed.
    pub key: PublicKey,
}

/// Whom to trust, and from which version on.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Any of these may have signed.
    pub keys: Vec<PublicKey>,
    /// The oldest version that may be used.
    pub oldest: u64,
}

impl Manifest {
    /// Describes the weight file at `path`.
    ///
    /// # Errors
    /// It cannot be read or is no weight file; `not_before` is newer than `version`.
    pub fn describe(
        path: &Path,
        version: u64,
        not_before: u64,
        key: PublicKey,
    ) -> Result<Manifest> {
        if not_before > version {
            return Err(Error::Config(format!(
                "not_before = {not_before} would refuse these weights themselves (version {version})"
            )));
        }
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let (size_bytes, sha256) = (bytes.len() as u64, hex(&Sha256::digest(&bytes)));
        let metadata = WeightFile::parse(&path.to_string_lossy(), bytes, None)?.metadata;
        let arch = metadata.architecture.arch;
        Ok(Manifest {
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            sha256,
            size_bytes,
            arch: arch.name().into(),
            image_size: metadata.image_size as u64,
            version,
            not_before,
            key,
        })
    }

    /// The manifest's text with `secret`'s signature. `key` becomes that of `secret`.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn sign(mut self, secret: &SecretKey) -> Result<String> {
        self.key = secret.public();
        let mut text = toml::to_string(&self).map_err(|e| Error::Config(e.to_string()))?;
        let signature = secret.pair().sk.sign(message(&text), None);
        text.push_str(&format!("{SIGNATURE}\"{}\"\n", hex(&*signature)));
        Ok(text)
    }

    /// Reads a manifest's text and says whether it is to be trusted.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(text: &str, trust: &Trust) -> std::result::Result<Manifest, Distrust> {
        let malformed = |reason: &str| Distrust::Malformed(reason.into());
        let body = text
            .trim_end()
            .rfind('\n')
            .map_or(0, |line_feed| line_feed + 1);
        let (body, last) = text.split_at(body);
        let signature = last
            .trim()
            .strip_prefix(SIGNATURE)
            .map(|quoted| quoted.trim_matches('"'))
            .and_then(bytes_of::<64>)
            .ok_or_else(|| malformed("its last line is no signature"))?;
        let signed = |key: &&PublicKey| {
            let key = ed25519_compact::PublicKey::new(key.0);
            key.verify(message(body), &Signature::new(signature))
                .is_ok()
        };
        let signer = trust.keys.iter().find(signed);
        // Who is said to have signed is only for the message, unless he has.
        let manifest: Manifest = toml::from_str(body)
            .map_err(|e| Distrust::Malformed(e.message().lines().collect::<Vec<_>>().join(" ")))?;
        match signer {
            Some(signer) if *signer == manifest.key => {}
            None if !trust.keys.contains(&manifest.key) => {
                return Err(Distrust::Foreign(manifest.key.to_string()));
            }
            _ => return Err(Distrust::Forged),
        }
        match manifest.version < trust.oldest {
            true => Err(Distrust::Downgraded {
                version: manifest.version,
                oldest: trust.oldest,
            }),
            false => Ok(manifest),
        }
    }

    /// Says whether `bytes` are the weights this manifest is about.
    ///
    /// # Errors
    /// They are not.
    pub fn admits(&self, bytes: &[u8]) -> std::result::Result<(), Distrust> {
        let got = bytes.len() as u64;
        if got < self.size_bytes {
            return Err(Distrust::Truncated {
                expected: self.size_bytes,
                got,
            });
        }
        if got > self.size_bytes {
            let expected = self.size_bytes;
            return Err(Distrust::Tampered(format!("{got} bytes, not {expected}")));
        }
        match hex(&Sha256::digest(bytes)) == self.sha256.to_ascii_lowercase() {
            true => Ok(()),
            false => Err(Distrust::Tampered("another SHA-256".into())),
        }
    }
}

/// Opens weights that a manifest vouches for, with what it says. Both are read once: what is parsed
/// is what was checked.
///
/// # Errors
/// [`Error::Untrusted`] with the reason; the weights cannot be read, or are damaged all the same.
pub fn open(weights: &Path, manifest: &Path, trust: &Trust) -> Result<(WeightFile, Manifest)> {
    let untrusted = |reason: Distrust| Error::Untrusted {
        path: weights.to_path_buf(),
        reason,
    };
    if !manifest.exists() {
        let missing = format!("{} is missing", manifest.display());
        return Err(untrusted(Distrust::Malformed(missing)));
    }
    let found = Manifest::verify(&text(manifest)?, trust).map_err(untrusted)?;
    let length = fs::metadata(weights).map_err(Error::io(weights))?.len();
    if length > found.size_bytes {
        let reason = format!("{length} bytes, not {}", found.size_bytes);
        return Err(untrusted(Distrust::Tampered(reason)));
    }
    let bytes = fs::read(weights).map_err(Error::io(weights))?;
    found.admits(&bytes).map_err(untrusted)?;
    let arch: Arch = found.arch.parse()?;
    let file = WeightFile::parse(&weights.to_string_lossy(), bytes, Some(arch))?;
    Ok((file, found))
}

/// Reads a manifest's text.
///
/// # Errors
/// It cannot be read, or is far too long for one.
pub fn text(path: &Path) -> Result<String> {
    let length = fs::metadata(path).map_err(Error::io(path))?.len();
    if length > LONGEST {
        return Err(Error::file(path, "is no manifest: it is far too long"));
    }
    fs::read_to_string(path).map_err(Error::io(path))
}

/// The oldest version of each network's weights that may be used, as manifests seen so far say. A
/// small file that outlives the process.
#[derive(Debug)]
pub struct Seen {
    path: PathBuf,
    oldest: BTreeMap<String, u64>,
}

impl Seen {
    /// Name of the file in the folder given.
    pub const FILE: &str = "trusted-versions.toml";

    /// Reads the file in `folder`, which need not hold one yet.
    ///
    /// # Errors
    /// There is one, but it cannot be read.
    pub fn open(folder: &Path) -> Result<Seen> {
        let path = folder.join(Seen::FILE);
        let oldest = match path.exists() {
            false => BTreeMap::new(),
            true => toml::from_str(&text(&path)?)
                .map_err(|_| Error::file(&path, "is damaged; remove it to begin anew"))?,
        };
        Ok(Seen { path, oldest })
    }

    /// The oldest version of `arch`'s weights that may be used.
    pub fn oldest(&self, arch: &str) -> u64 {
        self.oldest.get(arch).copied().unwrap_or(0)
    }

    /// Says whether what a manifest is about has not been taken back by a later one, and remembers
    /// what it takes back itself.
    ///
    /// # Errors
    /// [`Distrust::Downgraded`]; the file cannot be written.
    pub fn accept(&mut self, weights: &Path, manifest: &Manifest) -> Result<()> {
        let oldest = self.oldest(&manifest.arch);
        if manifest.version < oldest {
            return Err(Error::Untrusted {
                path: weights.to_path_buf(),
                reason: Distrust::Downgraded {
                    version: manifest.version,
                    oldest,
                },
            });
        }
        if manifest.not_before > oldest {
            self.oldest
                .insert(manifest.arch.clone(), manifest.not_before);
            let text = toml::to_string(&self.oldest).map_err(|e| Error::Config(e.to_string()))?;
            atomic::write(&self.path, |file| file.write_all(text.as_bytes()))?;
        }
        Ok(())
    }
}

impl SecretKey {
    /// Of 32 bytes from a generator fit for secrets.
    pub fn from_random(bytes: [u8; 32]) -> SecretKey {
        SecretKey(bytes)
    }

    /// The key that says who signed.
    pub fn public(&self) -> PublicKey {
        PublicKey(*self.pair().pk)
    }

    /// For its file, and nowhere else.
    pub fn reveal(&self) -> String {
        hex(&self.0)
    }

    fn pair(&self) -> KeyPair {
        KeyPair::from_seed(Seed::new(self.0))
    }
}

impl FromStr for SecretKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<SecretKey> {
        // The text is not repeated: it may be almost right.
        let wrong = || Error::Config("not a secret key: expected 64 hexadecimal digits".into());
        bytes_of(text.trim()).map(SecretKey).ok_or_else(wrong)
    }
}

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<PublicKey> {
        let text = text.trim();
        let wrong = || {
            Error::Config(format!(
                "not a public key: expected 64 hexadecimal digits, got `{text}`"
            ))
        };
        bytes_of(text).map(PublicKey).ok_or_else(wrong)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = Error;

    fn try_from(text: String) -> Result<PublicKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> String {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Secrets stay out of logs.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

fn message(body: &str) -> Vec<u8> {
    [CONTEXT, body.as_bytes()].concat()
}

/// `N` bytes from twice as many hexadecimal digits.
fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    if digits.len() != 2 * N {
        return None;
    }
    bytes.try_into().ok()
}
