//! Photos: where they come from, how they are decoded, and the views made of them.
//!
//! [`source`] lists photos and reads them, [`image`] and `jpeg` decode, [`resize`], [`augment`]
//! and [`blur`] are the arithmetic, [`views`] draws the random numbers, [`loader`] turns all of
//! it into batches. Nothing here knows a network.

pub mod augment;
mod batch;
pub mod bench;
pub mod blur;
mod budget;
mod byte;
mod cache;
pub mod contact_sheet;
pub mod demo;
pub mod image;
mod jpeg;
pub mod loader;
pub mod resize;
pub mod source;
pub mod views;

pub use batch::Batch;
pub use budget::DecodeBudget;
pub use image::Photo;
pub use loader::{Loader, LoaderConfig, Position, Skipped};
pub use source::{PhotoSource, open, open_within, split};
pub use views::{Normalise, Recipe, Scratch, ViewParams};
