//! A whole run.
//!
//! [`config`] are the settings, [`device`] opens a backend by its name; [`optim`], [`schedule`],
//! [`checkpoint`] and [`weights`] move and keep the parameters; [`session`] owns all of that: one `step()`
//! is one optimizer step. [`training_run`] is a run from the measurement before to the weights and the one after,
//! [`records`] are what it writes down, [`governor`] says whether a device may continue training now. [`index`]
//! is what searches of a dataset ask, [`mod@bench`] one step to be timed.

pub mod bench;
pub mod checkpoint;
pub mod config;
pub mod device;
pub mod governor;
pub mod index;
mod learner;
pub mod memory;
mod method;
pub mod optim;
pub mod records;
pub mod schedule;
pub mod session;
pub mod slices;
mod start;
mod threads;
pub mod training_run;
pub mod weights;

pub use seedling_base::{Error, Result};
