//! What a search asks: an album's photos as some weights see them.
//!
//! 1. [`graph`] ties photos to their nearest and diffuses features over these ties.
//! 2. [`stored`] keeps in a file what was seen of each photo, so that an index is built in slices, and is
//!    renewed within seconds when photos come and go.

pub mod graph;
pub mod stored;

pub use graph::AlbumIndex;
pub use stored::{StoredFeatures, models_key};
