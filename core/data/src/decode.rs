//! Decoding: whatever a camera or an archive holds becomes upright 8-bit RGB.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use image::ImageFormat;

use super::budget::{DecodeBudget, Reservation};
use super::image::Decoded;
use super::photo::Photo;
use super::{image as general, jpeg, tiff};
use crate::{Error, Result};

impl Photo {
    /// Decodes JPEG, PNG, WebP, BMP, GIF (its first frame) or TIFF, told apart by content.
    ///
    /// EXIF orientation is applied; gray, CMYK and 16-bit pictures become 8-bit RGB;
    /// transparency is laid over white. `id` only names the photo in errors.
    ///
    /// # Errors
    /// [`Error::Photo`] for anything that is not a whole picture of a known format, or takes more
    /// than the usual [`DecodeBudget`].
    pub fn decode(id: &str, bytes: &[u8]) -> Result<Photo> {
        let budget = DecodeBudget::default();
        Photo::decode_within(id, bytes, &budget).map(|(photo, _)| photo)
    }

    /// The same within a shared budget; the photo's reservation comes along.
    pub(super) fn decode_within<'a>(
        id: &str,
        bytes: &[u8],
        budget: &'a DecodeBudget,
    ) -> Result<(Photo, Reservation<'a>)> {
        // Decoders are given whatever lies in the folder: one that panics must not end a run.
        quietly(|| decode(bytes, budget))
            .unwrap_or_else(|_| Err(DECODER_PANICKED.into()))
            .map_err(|reason| Error::Photo {
                photo: id.into(),
                reason,
            })
    }
}

thread_local! {
    /// Whether a panic of this thread is caught, and told as a photo's reason.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What `work` gives, or that it panicked: without the message that a panic leaves on stderr.
fn quietly<T>(work: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                usual(panic);
            }
        }));
    });
    CAUGHT.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(false);
    outcome
}

/// The reason given where a decoder panicked.
pub const DECODER_PANICKED: &str = "the decoder failed on it";

fn decode<'a>(bytes: &[u8], budget: &'a DecodeBudget) -> Decoded<'a> {
    if bytes.is_empty() {
        return Err("empty file".into());
    }
    if let Some(name) = foreign_format(bytes) {
        return Err(format!(
            "{name} is not decoded here; convert it to JPEG or PNG first"
        ));
    }
    // Whatever stands behind the start: it may be no segment yet.
    if bytes.starts_with(&[0xFF, 0xD8]) {
        return jpeg::decode(bytes, budget);
    }
    // BigTIFF, which is told apart from TIFF by its version.
    if [b"II\x2B\0", b"MM\0\x2B"]
        .iter()
        .any(|start| bytes.starts_with(*start))
    {
        return tiff::decode(bytes, budget);
    }
    let format = image::guess_format(bytes).map_err(|_| "not an image format known here")?;
    match format {
        ImageFormat::Tiff => tiff::decode(bytes, budget),
        other => general::decode(bytes, other, budget),
    }
}

/// Names the phone formats that would need a video decoder (ISO media files, by brand).
fn foreign_format(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8)? != b"ftyp" {
        return None;
    }
    match bytes.get(8..12)? {
        b"avif" | b"avis" => Some("AVIF"),
        b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" | b"mif1" | b"msf1" => {
            Some("HEIC")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Set for the process that panics.
    const INNER: &str = "SEEDLING_TEST_PANICS";

    #[test]
    fn a_panic_that_is_caught_says_nothing() {
        if std::env::var_os(INNER).is_some() {
            assert!(quietly(|| panic!("of the decoder")).is_err());
            let other = std::thread::spawn(|| panic!("of another thread"));
            assert!(other.join().is_err());
            return;
        }
        let inner = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "decode::tests::a_panic_that_is_caught_says_nothing",
                "--nocapture",
            ])
            .env(INNER, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inner.stderr);
        assert!(inner.status.success(), "{said}");
        assert!(
            said.contains("of another thread") && !said.contains("of the decoder"),
            "{said}"
        );
    }
}
