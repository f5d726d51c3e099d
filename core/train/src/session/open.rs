//! From settings to a trainer on the device that they name.

use super::state::RunState;
use super::trained::Trained;
use super::trainer::Trainer;
use super::untrained::Untrained;
use crate::Result;
use crate::checkpoint::TrainingState;
use crate::device::Work;
use crate::learner::Learner;
use crate::memory::device;
use crate::method::Setup;
use crate::start::Start;
use seedling_ssl::ops::TrainingBackend;

/// A trainer: a new one, or one that continues from `saved`.
///
/// # Errors
/// The device is not there, weights do not fit, or `saved` is not of such a run.
pub(super) fn open(
    state: RunState,
    start: &Start<'_>,
    saved: Option<TrainingState<'_>>,
) -> Result<Box<dyn Trainer>> {
    struct Open<'a>(RunState, &'a Start<'a>, Option<TrainingState<'a>>);
    impl Work for Open<'_> {
        type Output = Box<dyn Trainer>;

        fn run<B: TrainingBackend>(self, backend: B) -> Result<Box<dyn Trainer>> {
            let Open(state, start, saved) = self;
            let state = state.with_undrawn(backend.makes_views());
            if !state.config.trains() {
                let backend = device::in_precision(backend, &state.config)?;
                return Ok(Box::new(Untrained::new(backend, state, start, saved)?));
            }
            let setup = Setup {
                config: &state.config,
                metadata: &state.metadata,
                start,
            };
            let (backend, smaller) = device::fitted(backend, setup)?;
            let learner = Learner::new(backend, setup, saved)?;
            Ok(Box::new(Trained {
                state,
                learner,
                smaller,
            }))
        }
    }
    let device = state.config.device;
    device.run(Open(state, start, saved))
}
