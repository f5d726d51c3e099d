//! Backbones: image to features. To add one, list it in [`Arch`] with its [`Facts`], and build it
//! in [`Backbone::new`]; the test suite runs over [`Arch::ALL`].

mod mobilenet;

pub use crate::arch::{Arch, Facts};
pub use mobilenet::{Backbone, BackboneSaved};
