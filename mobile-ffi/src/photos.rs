//! The photos of an app.

use crate::error::Result;
use seedling_core::data::pixels::Pixels;
use seedling_core::data::{self, PhotoSource};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Megabytes for decoding where there is no budget: searches and evaluations.
pub(crate) const DECODE_MB: usize = 64;

/// A list of photos that only grows. A name tells one from the others: a session that continues after
/// the app died asks for the same names in the same order.
#[derive(Default, uniffi::Object)]
pub struct Photos {
    list: Mutex<data::Photos>,
}

#[uniffi::export]
impl Photos {
    /// None yet.
    #[uniffi::constructor]
    pub fn new() -> Arc<Photos> {
        Arc::default()
    }

    /// A file that is read whenever it is needed (JPEG, PNG, WebP, BMP, GIF, TIFF). Returns at once;
    /// a file that turns out to be none of these, or vanishes, is skipped and counted.
    pub fn add_file(&self, name: String, path: String) -> Result<()> {
        Ok(self.list().add_file(&name, path.into())?)
    }

    /// A whole encoded picture, kept in memory. Returns at once.
    pub fn add_encoded(&self, name: String, bytes: Vec<u8>) -> Result<()> {
        Ok(self.list().add_encoded(&name, bytes)?)
    }

    /// `height` rows of `width` pixels R, G, B, A: what the platform's decoder makes of a HEIC photo,
    /// upright. They are kept reduced to 320 pixels of the shorter side. Takes as long as reducing
    /// a photo: some 50 ms for 12 megapixels.
    /// The pixels are read where they lie.
    pub fn add_pixels(&self, name: String, width: i32, height: i32, rgba: &[u8]) -> Result<()> {
        let [width, height] = [width, height].map(|side| u32::try_from(side).unwrap_or(0));
        // Reduced outside the lock: others may add theirs meanwhile.
        let bytes = Pixels::packed((width, height), rgba).reduced(&name)?;
        Ok(self.list().add_encoded(&name, bytes)?)
    }

    /// Says what class the photo of that name is of, for [`crate::evaluate`]. Training never reads it.
    /// Returns at once.
    pub fn label(&self, name: String, class_name: String) -> Result<()> {
        Ok(self.list().set_label(&name, &class_name)?)
    }

    /// How many there are. Returns at once.
    pub fn count(&self) -> i32 {
        self.list().len() as i32
    }
}

impl Photos {
    /// What there is now, decoded within so many megabytes.
    pub(crate) fn source(&self, decode_mb: usize) -> Arc<data::Photos> {
        Arc::new(self.list().within(decode_mb))
    }

    fn list(&self) -> MutexGuard<'_, data::Photos> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
