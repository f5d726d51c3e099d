//! Where photos come from: anything that can list them by name and read one.

mod cifar;
mod folder;
mod labels;
mod names;
mod shards;
mod split;
mod subset;

use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

use super::budget::DecodeBudget;
use super::outline::Outline;
use super::photo::Photo;
use crate::{Error, Result};

pub use split::split;
pub use subset::hold_out;

/// A fixed list of photos. Indices are stable: the same dataset gives the same order every time.
pub trait PhotoSource: Send + Sync {
    /// How many photos are listed (readable or not).
    fn len(&self) -> usize;

    /// Whether nothing is listed.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The photo's name: unique, stable, and a path relative to the source with `/`.
    fn id(&self, index: usize) -> &str;

    /// Reads and decodes one photo.
    ///
    /// # Errors
    /// [`Error::Photo`] or [`Error::Io`] when it can't be; others are unaffected.
    fn load(&self, index: usize) -> Result<Photo>;

    /// Reads and decodes one photo and shows it, keeping account of its memory for as long. A
    /// source that decodes within a [`DecodeBudget`] does so here; `show` must not read another
    /// photo. To be called through `with_photo`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn visit(&self, index: usize, show: &mut dyn FnMut(Photo)) -> Result<()> {
        show(self.load(index)?);
        Ok(())
    }

    /// How large the photo is by its header, where that can be told without decoding it.
    fn outline(&self, _index: usize) -> Option<Outline> {
        None
    }

    /// The photo's class as an index into [`classes`](Self::classes), where photos have one.
    fn label(&self, index: usize) -> Option<usize>;

    /// Names of the classes, sorted; empty where photos have none.
    fn classes(&self) -> &[String];

    /// What lies where photos were looked for, and is not listed: what could not be opened, hidden photos,
    /// and folders that systems put there (named with a `/` at the end).
    fn left_out(&self) -> &[Skipped] {
        &[]
    }
}

/// A photo that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its id.
    pub id: String,
    /// Why, in a few words.
    pub reason: String,
}

impl dyn PhotoSource + '_ {
    /// What `visit` makes of a photo, whose memory is accounted for until then.
    ///
    /// # Errors
    /// As [`PhotoSource::load`].
    pub fn with_photo<T>(&self, index: usize, visit: impl FnOnce(Photo) -> T) -> Result<T> {
        let (mut visit, mut seen) = (Some(visit), None);
        self.visit(index, &mut |photo| {
            if let Some(visit) = visit.take() {
                seen = Some(visit(photo));
            }
        })?;
        seen.ok_or_else(|| Error::Photo {
            photo: self.id(index).into(),
            reason: "its source showed nothing".into(),
        })
    }
}

/// Largest encoded photo that is read.
pub(super) const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// Opens a dataset: a folder of images (recursively; class subfolders become labels), CIFAR-10 or
/// CIFAR-100 binaries, or `.tar` / `.tar.gz` shards, one file or a folder of them.
///
/// # Errors
/// Nothing there, or nothing in it that could be a photo: one line saying which.
pub fn open(path: &Path) -> Result<Arc<dyn PhotoSource>> {
    open_within(path, Arc::default())
}

/// [`open`] with a budget for decoding, which several sources may share.
///
/// # Errors
/// As [`open`].
pub fn open_within(path: &Path, budget: Arc<DecodeBudget>) -> Result<Arc<dyn PhotoSource>> {
    let meta = std::fs::metadata(path).map_err(Error::io(path))?;
    if meta.is_file() {
        if shards::is_shard(path) {
            let paths = [path.to_path_buf()];
            return Ok(Arc::new(shards::Shards::open(&paths, budget)?));
        }
        if cifar::is_binary(path) {
            return Ok(Arc::new(cifar::Cifar::open(&[path.to_path_buf()])?));
        }
        return Err(Error::NoPhotos(format!(
            "{}: neither a folder of photos nor a .tar or .tar.gz of them",
            path.display()
        )));
    }
    let photos = folder::Folder::open(path, budget.clone())?;
    let binaries = cifar::binaries_in(path)?;
    // Beside photos, `test.bin` is anybody's file; alone it is the dataset's, or should be.
    if !binaries.is_empty() && (photos.is_empty() || cifar::are_records(&binaries)) {
        return Ok(Arc::new(cifar::Cifar::open(&binaries)?));
    }
    let shards = shards::shards_in(path)?;
    // A pair made for training and testing is a dataset on purpose; other archives beside
    // photos are somebody's backup.
    if let Some((train, test)) = split::shard_pair(&shards) {
        return Ok(Arc::new(shards::Shards::open(&[train, test], budget)?));
    }
    if !photos.is_empty() {
        return Ok(Arc::new(photos));
    }
    if !shards.is_empty() {
        return Ok(Arc::new(shards::Shards::open(&shards, budget)?));
    }
    Err(Error::NoPhotos(format!(
        "{}: no photos here ({})",
        path.display(),
        if photos.saw_files() {
            "there are files, but none is named .jpg, .png, .webp, .bmp, .gif or .tiff"
        } else {
            "the folder is empty"
        }
    )))
}

/// Whether a file of this name is worth trying to decode. HEIC and AVIF are listed so that the
/// loader can say why they are skipped.
pub(super) fn is_photo_name(name: &str) -> bool {
    const KNOWN: [&str; 14] = [
        "jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff", "heic",
        "heif", "avif",
    ];
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    extension.is_some_and(|e| KNOWN.iter().any(|known| e.eq_ignore_ascii_case(known)))
}
