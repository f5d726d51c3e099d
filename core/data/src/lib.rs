//! Photos: where they come from, how they are decoded, and the views made of them.
//!
//! [`source`] lists photos and reads them ([`Photos`] those that an app hands over), [`decode`] makes pictures
//! of them (by `jpeg` or `image`),
//! [`resize`], [`augment`] and [`blur`] are the arithmetic, [`views`] draws the random numbers,
//! [`loader`] turns all of it into batches. Nothing here knows a network.

pub mod augment;
mod batch;
pub mod bench;
pub mod blur;
mod budget;
mod byte;
mod cache;
pub mod contact_sheet;
pub mod decode;
pub mod demo;
mod image;
mod jpeg;
pub mod loader;
mod orientation;
mod outline;
mod photo;
mod photos;
mod pixel_norm;
pub mod pixels;
pub mod resize;
pub mod source;
mod tiff;
pub mod views;

pub use batch::{Batch, Undrawn};
pub use blur::blur_kernel;
pub use budget::DecodeBudget;
pub use loader::{Loader, LoaderConfig, Position};
pub use outline::Outline;
pub use photo::Photo;
pub use photos::Photos;
pub use pixel_norm::Normalize;
pub use resize::Rect;
pub use resize::resize_axis;
pub use source::{PhotoSource, Skipped, hold_out, open, open_within, split};
pub use views::{Color, Recipe, Scratch, ViewParams};

pub use seedling_base::{Error, Result};
