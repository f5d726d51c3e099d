//! The trainer of a run: what a session asks of its backend, whichever that is.

use super::state::RunState;
use super::untrained::Untrained;
use crate::Result;
use crate::checkpoint::Numbers;
use crate::device::Work;
use crate::learner::{Backbone, Learner, Setup};
use crate::memory::device::{self, Smaller};
use crate::start::Start;
use crate::weights::{self, About, Precision};
use seedling_nn::encoder::{FeatureNet, LinearLayer};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;

/// A run in progress on some backend. Each of its errors may be the backend's.
pub trait Trainer: Send + Sync {
    /// Photos, settings, and the place in the run.
    fn state(&self) -> &RunState;

    /// The same, to be changed.
    fn state_mut(&mut self) -> &mut RunState;

    /// The training step number `step` with rate `lr`. One that fails or is cancelled leaves nothing.
    ///
    /// # Errors
    /// See [`super::Session::step`].
    fn learn(&mut self, views: &Views, step: u64, lr: f32) -> Result<StepStats>;

    /// The network that is trained, for measurements between steps.
    fn network(&self) -> &dyn FeatureNet;

    /// Moves the network's running statistics towards those of the images by `norm_momentum`.
    ///
    /// # Errors
    /// The backend's, as of all below.
    fn observe(
        &mut self,
        images: &[Vec<f32>],
        size: (usize, usize),
        norm_momentum: f32,
    ) -> Result<()>;

    /// Keeps the running statistics for [`Trainer::recall_statistics`].
    ///
    /// # Errors
    /// The backend's.
    fn keep_statistics(&mut self) -> Result<()>;

    /// Sets the running statistics to what was kept.
    ///
    /// # Errors
    /// The backend's.
    fn recall_statistics(&mut self) -> Result<()>;

    /// The teacher, where there is one.
    fn teacher(&self) -> Option<&dyn FeatureNet>;

    /// Sets what is taken from the teacher's features.
    fn center_teacher(&mut self, center: Vec<f32>);

    /// Whether the target asks for embeddings of the album by the initial weights that are not there yet.
    fn wants_initial_embeddings(&self) -> bool;

    /// Sets them, (photos, dim).
    ///
    /// # Errors
    /// The backend's.
    fn set_initial_embeddings(&mut self, embeddings: Vec<f32>) -> Result<()>;

    /// Shows `see` all numbers that training changes, as a checkpoint keeps them.
    ///
    /// # Errors
    /// The backend's, or what `see` says.
    fn numbers(&self, see: &mut dyn FnMut(Numbers<'_>) -> Result<()>) -> Result<()>;

    /// Takes the backbone back to what the run began with, except for `weight` of what has changed;
    /// returns what it was, for [`Trainer::undo_interpolation`]. Does nothing in a run that keeps no
    /// initial weights.
    ///
    /// # Errors
    /// The backend's.
    fn interpolate(&mut self, weight: f32) -> Result<Option<Backbone>>;

    /// Sets the backbone to what it was before it was interpolated.
    ///
    /// # Errors
    /// The backend's.
    fn undo_interpolation(&mut self, trained: &Backbone) -> Result<()>;

    /// Writes the backbone, with a linear layer behind its features.
    ///
    /// # Errors
    /// A number is not finite, or the disk refuses.
    fn save_backbone(
        &self,
        path: &Path,
        about: &About,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()>;

    /// Writes the projection head.
    ///
    /// # Errors
    /// As [`Trainer::save_backbone`].
    fn save_head(&self, path: &Path, about: &About) -> Result<()>;
}

/// The trainer on backend `B`.
struct BackendTrainer<B: TrainingBackend> {
    state: RunState,
    learner: Learner<B>,
    /// What would fit into the device's memory if this did not.
    smaller: Smaller,
}

impl<B: TrainingBackend> Trainer for BackendTrainer<B> {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut RunState {
        &mut self.state
    }

    fn learn(&mut self, views: &Views, step: u64, lr: f32) -> Result<StepStats> {
        let stats = self.learner.step(views, step, lr);
        stats.map_err(|error| self.smaller.explain(error))
    }

    fn network(&self) -> &dyn FeatureNet {
        self.learner.encoder()
    }

    fn observe(
        &mut self,
        images: &[Vec<f32>],
        size: (usize, usize),
        norm_momentum: f32,
    ) -> Result<()> {
        let encoder = self.learner.encoder_mut();
        encoder.observe(images, size, norm_momentum)
    }

    fn keep_statistics(&mut self) -> Result<()> {
        self.learner.keep_statistics()
    }

    fn recall_statistics(&mut self) -> Result<()> {
        self.learner.recall_statistics()
    }

    fn teacher(&self) -> Option<&dyn FeatureNet> {
        self.learner.teacher()
    }

    fn center_teacher(&mut self, center: Vec<f32>) {
        self.learner.center_teacher(center);
    }

    fn wants_initial_embeddings(&self) -> bool {
        self.learner.wants_initial_embeddings()
    }

    fn set_initial_embeddings(&mut self, embeddings: Vec<f32>) -> Result<()> {
        self.learner.set_initial_embeddings(embeddings)
    }

    fn numbers(&self, see: &mut dyn FnMut(Numbers<'_>) -> Result<()>) -> Result<()> {
        self.learner.numbers(see)
    }

    fn interpolate(&mut self, weight: f32) -> Result<Option<Backbone>> {
        self.learner.interpolate(weight)
    }

    fn undo_interpolation(&mut self, trained: &Backbone) -> Result<()> {
        self.learner.undo_interpolation(trained)
    }

    fn save_backbone(
        &self,
        path: &Path,
        about: &About,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()> {
        let encoder = self.learner.encoder();
        let features = encoder.feature_dim();
        weights::save_backbone(path, &encoder.params, features, about, layer, precision)
    }

    fn save_head(&self, path: &Path, about: &About) -> Result<()> {
        let encoder = self.learner.encoder();
        weights::save_head(path, &encoder.params, encoder.feature_dim(), about)
    }
}

/// A trainer on the device that the settings name: a new one, or one that goes on from `saved`.
///
/// # Errors
/// The device is not there, weights do not fit, or `saved` is not of such a run.
pub(super) fn open(
    state: RunState,
    start: &Start<'_>,
    saved: Option<Numbers<'_>>,
) -> Result<Box<dyn Trainer>> {
    struct Open<'a>(RunState, &'a Start<'a>, Option<Numbers<'a>>);
    impl Work for Open<'_> {
        type Output = Box<dyn Trainer>;

        fn on<B: TrainingBackend>(self, backend: B) -> Result<Box<dyn Trainer>> {
            let Open(state, start, saved) = self;
            let state = state.with_undrawn(backend.makes_views());
            if !state.config.trains() {
                let backend = device::in_precision(backend, &state.config)?;
                return Ok(Box::new(Untrained::new(backend, state, start, saved)?));
            }
            let setup = Setup {
                config: &state.config,
                about: &state.about,
                start,
            };
            let (backend, smaller) = device::fitted(backend, setup)?;
            let learner = Learner::new(backend, setup, saved)?;
            Ok(Box::new(BackendTrainer {
                state,
                learner,
                smaller,
            }))
        }
    }
    let device = state.config.device;
    device.run(Open(state, start, saved))
}
