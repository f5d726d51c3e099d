//! Helpers shared by the black-box tests.

pub mod formula;
pub mod golden;
pub mod program;
