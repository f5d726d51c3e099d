//! A course's beginning: a new run, or one that was left.

use super::{Course, RunFolder};
use crate::Result;
use crate::checkpoint::State;
use crate::config::Config;
use crate::data::PhotoSource;
use crate::session::{self, Session, Start};
use std::sync::Arc;

/// Photos to train on, and to measure on.
pub type Sources = (Arc<dyn PhotoSource>, Arc<dyn PhotoSource>);

impl Course {
    /// Begins a run by `method` in `folder`, which was opened new. Returns lines for a person, too:
    /// what was fitted to the photos.
    ///
    /// # Errors
    /// See [`Session::new`] and [`Course::new`].
    pub fn begin(
        folder: RunFolder,
        mut config: Config,
        (source, measured_on): Sources,
        start: &Start<'_>,
        method: &str,
    ) -> Result<(Course, Vec<String>)> {
        let notes = session::fit(&mut config, source.len())?;
        let session = Session::new(config, source, start)?;
        Ok((Course::new(folder, session, measured_on, method)?, notes))
    }

    /// Goes on with the run in `folder`, which was opened to resume it, from its checkpoint `state`.
    /// `config` holds the settings now wanted.
    ///
    /// # Errors
    /// See [`Session::resume`] and [`Course::new`].
    pub fn resume(
        folder: RunFolder,
        mut config: Config,
        (source, measured_on): Sources,
        start: &Start<'_>,
        (state, method): (State<'_>, &str),
    ) -> Result<Course> {
        session::fit(&mut config, source.len())?;
        let session = Session::resume(config, source, start, state)?;
        Course::new(folder, session, measured_on, method)
    }
}
