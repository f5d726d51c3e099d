//! A run's beginning: a new run, or one that was left.

use super::{RunFolder, TrainingRun};
use crate::Result;
use crate::checkpoint::State;
use crate::config::Config;
use crate::session::{self, Session, Start};
use seedling_data::{PhotoSource, hold_out};
use std::sync::Arc;

/// Photos to train on, and to measure on.
pub type Sources = (Arc<dyn PhotoSource>, Arc<dyn PhotoSource>);

impl TrainingRun {
    /// Begins a run by `method` in `folder`, which was opened new. Returns lines for a person, too:
    /// what was fitted to the photos.
    ///
    /// # Errors
    /// See `Session::new` and [`TrainingRun::new`].
    pub fn start(
        folder: RunFolder,
        mut config: Config,
        (source, measured_on): Sources,
        start: &Start<'_>,
        method: &str,
    ) -> Result<(TrainingRun, Vec<String>)> {
        let mut notes = Vec::new();
        if config.trains() && source.len() < config.train_from {
            notes.push(format!(
                "{} photos are fewer than train_from = {}: only a linear layer is fitted (--epochs N trains \
                 nevertheless)",
                source.len(),
                config.train_from
            ));
            (config.epochs, config.steps) = (0, 0);
        }
        let (trained_on, held) = part(&config, &source);
        notes.extend(session::fit(&mut config, trained_on.len())?);
        if !held.is_empty() {
            notes.push(format!(
                "{} of {} photos are held out from training, to judge the result on",
                held.len(),
                source.len()
            ));
        }
        let session = Session::new(config, trained_on, start)?;
        let mut run = TrainingRun::new(folder, session, measured_on, method)?;
        run.selection = (source, held);
        Ok((run, notes))
    }

    /// Continues with the run in `folder`, which was opened to resume it, from its checkpoint `state`.
    /// `config` holds the settings now wanted.
    ///
    /// # Errors
    /// See `Session::resume` and [`TrainingRun::new`].
    pub fn resume(
        folder: RunFolder,
        mut config: Config,
        (source, measured_on): Sources,
        start: &Start<'_>,
        (state, method): (State<'_>, &str),
    ) -> Result<TrainingRun> {
        let (trained_on, held) = part(&config, &source);
        session::fit(&mut config, trained_on.len())?;
        let session = Session::resume(config, trained_on, start, state)?;
        let mut run = TrainingRun::new(folder, session, measured_on, method)?;
        run.selection = (source, held);
        Ok(run)
    }
}

/// The photos to train on, and which are held out.
fn part(config: &Config, source: &Arc<dyn PhotoSource>) -> (Arc<dyn PhotoSource>, Vec<usize>) {
    match config.selects_weights() {
        true => hold_out(source, config.holdout),
        false => (source.clone(), Vec::new()),
    }
}
