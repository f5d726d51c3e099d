//! Seedling for apps: what Kotlin and Swift see. A thin face over `seedling_core`, which does the
//! work; nothing is decided here.
//!
//! The way of an app: [`Weights`] that someone trusted has signed, [`Photos`] that it hands over, a
//! [`Session`] that trains on them in slices, its [`Verdict`], and [`Search`] or [`evaluate`] with the
//! result.
//!
//! Every call says how long it takes. Those that compute are to be made from a background thread;
//! all of them may be made from any thread.

mod benchmark;
#[cfg(target_os = "android")]
mod bitmap;
mod error;
mod evaluation;
mod governor;
mod listener;
mod photos;
mod progress;
mod relay;
mod search;
mod session;
mod settings;
mod slices;
mod verdict;
mod weights;

pub use benchmark::benchmark;
pub use error::SeedlingError;
pub use evaluation::{Evaluation, evaluate};
pub use governor::{Decision, Governor, Sensors, usual_rules};
pub use listener::{Listener, ListenerError, Stop};
pub use photos::Photos;
pub use progress::{Progress, Stage};
pub use search::{Embedding, Match, Search, SearchSettings};
pub use session::{Outcome, Resources, Session};
pub use settings::Settings;
pub use slices::{SliceEntry, Slices, least_free};
pub use verdict::Verdict;
pub use weights::Weights;

uniffi::setup_scaffolding!();
