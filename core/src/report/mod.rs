//! What a run leaves for people to look at.
//!
//! 1. [`records`] is the run folder's `metrics.jsonl`: every step and measurement, one line each.
//! 2. [`tensorboard`] writes the same as events for TensorBoard.
//! 3. [`album`] keeps a sample of the photos, small, with their features before and after.
//! 4. [`html`] renders all of it into one self-contained page: [`summary`] says what happened in
//!    words, [`chart`] draws curves, [`map`] lays photos out in two dimensions, and [`gallery`]
//!    shows them and their nearest neighbours.

pub mod album;
pub mod chart;
pub mod gallery;
pub mod html;
pub mod map;
mod markup;
pub mod records;
pub mod summary;
pub mod tensorboard;

pub use album::Album;
pub use html::render;
pub use records::{MeasureRecord, MetricsWriter, Record, RunRecord, StepRecord, When};
pub use tensorboard::EventWriter;
