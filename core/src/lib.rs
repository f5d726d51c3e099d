//! Contrastive training of small vision models on the device that holds the photos.
//!
//! The way of the data, top to bottom; imports only ever point up, to what stands earlier in this
//! list (or to [`error`], [`rng`], [`layout`], [`cancel`], [`atomic`], [`tensor_file`], `chunk_log`, `eigen` and
//! [`simd`], which know none of it, or to [`config`], which knows the networks' names only):
//!
//! 1. [`data`] finds photos, decodes them and makes two random views of each.
//! 2. [`nn`] and [`backbones`] turn views into features, channels last: shapes for any backend, and
//!    the processor's fused operations.
//! 3. [`params`] are a network's numbers; [`encoder`] adds the projection head: a photo becomes a unit
//!    embedding.
//! 4. [`loss`] and [`queue`] compare embeddings; [`moco`] and [`distill`] are the two methods,
//!    [`step`] what goes into and comes out of either, and `microbatch` the loop they share.
//! 5. [`optim`], [`schedule`], [`checkpoint`] and [`weights`] move and keep the parameters.
//! 6. [`eval`] extracts and measures features; [`whitening`] makes a linear layer of an album, [`index`] what is searched; [`verdict`]
//!    says from them which weights to keep.
//! 7. [`device`] opens an engine by its name; [`session`] owns all of that: one `step()` is one optimizer step. The caller owns the loop.
//! 8. [`device`] opens an engine by its name; [`governor`] says whether a device may go on training now.
//! 9. [`course`] is a run from the measurement before to the weights and the one after; [`records`]
//!    are what it writes down. [`mod@bench`] is one step to be timed.

pub mod atomic;
pub mod backbones;
pub mod bench;
pub mod cancel;
pub mod checkpoint;
mod chunk_log;
pub mod config;
pub mod course;
pub mod data;
pub mod device;
pub mod distill;
mod eigen;
pub mod encoder;
pub mod error;
pub mod eval;
pub mod governor;
pub mod index;
pub mod init;
pub mod layout;
pub mod loss;
mod microbatch;
pub mod moco;
pub mod nn;
pub mod optim;
pub mod params;
pub mod queue;
pub mod records;
pub mod rng;
pub mod schedule;
pub mod session;
pub mod simd;
pub mod step;
pub mod tensor_file;
pub mod verdict;
pub mod weights;
pub mod whitening;

pub use error::{Error, Result};
