//! What a run leaves for people to look at. Nothing of it is needed to train.
//!
//! 1. [`tensorboard`] writes the run's log as events for TensorBoard.
//! 2. [`thumbnails`] keeps a sample of the photos, small, with their features before and after.
//! 3. [`eval_page`] shows a measurement alone: a table, [`plane`] alignment and uniformity, [`triangles`] photos and
//!    their views by t-SNE; [`study_page`] shows a study's tables.
//! 4. [`html`] renders log and thumbnails into one self-contained page: [`summary`] says what happened
//!    in words, [`chart`] draws curves, [`map`] lays photos out in two dimensions, and [`gallery`]
//!    shows them and their nearest neighbors.

pub mod chart;
pub mod eval_page;
mod frame;
pub mod gallery;
pub mod html;
pub mod map;
mod markup;
pub mod plane;
pub mod study_page;
pub mod summary;
pub mod tensorboard;
pub mod thumbnails;
pub mod triangles;

pub use html::render;
pub use tensorboard::EventWriter;
pub use thumbnails::Thumbnails;
