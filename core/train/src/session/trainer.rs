//! The trainer of a run: what a session asks of its backend, whichever that is.

use super::state::RunState;
use crate::Result;
use crate::checkpoint::TrainingState;
use crate::learner::Backbone;
use crate::weights::{ModelMetadata, Precision};
use seedling_nn::backend::LaunchStats;
use seedling_nn::encoder::{FeatureNet, LinearLayer};
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;

/// A run in progress on some backend. Each of its errors may be the backend's.
pub trait Trainer: Send + Sync {
    /// Photos, settings, and the place in the run.
    fn state(&self) -> &RunState;

    /// The same, to be changed.
    fn state_mut(&mut self) -> &mut RunState;

    /// The training step number `step` with rate `lr`. One that fails or is canceled leaves nothing.
    ///
    /// # Errors
    /// See `Session::step`.
    fn learn(&mut self, views: &Views, step: u64, lr: f32) -> Result<StepStats>;

    /// What the steps have asked of a GPU; nothing on a CPU.
    fn launch_stats(&self) -> Option<LaunchStats>;

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

    /// Whoever knows which photos are near each other ([`Trainer::wants_initial_embeddings`]): the network that is
    /// trained, or the teacher, with the channels' (factor, offset) from the student's pixels to the teacher's.
    fn knows_neighbors(&self) -> (&dyn FeatureNet, Option<[(f32, f32); 3]>);

    /// Sets what is taken from the teacher's features.
    fn center_teacher(&mut self, center: Vec<f32>);

    /// Whether the method asks for embeddings of the dataset, by the initial weights or a teacher, that are not there yet.
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
    fn with_training_state(
        &self,
        see: &mut dyn FnMut(TrainingState<'_>) -> Result<()>,
    ) -> Result<()>;

    /// Sets the backbone to initial + `weight` * (trained - initial): weights between two networks of which the
    /// second was trained from the first are good ones, and keep more of what the first knew. Returns the
    /// trained backbone for [`Trainer::undo_interpolation`]; `None`, and nothing is done, in a run that keeps
    /// no initial weights.
    ///
    /// # Errors
    /// The backend's.
    fn interpolate(&mut self, weight: f32) -> Result<Option<Backbone>>;

    /// Sets the backbone to `trained`, if there is one, so that a checkpoint never holds interpolated weights.
    ///
    /// # Errors
    /// The backend's.
    fn undo_interpolation(&mut self, trained: Option<&Backbone>) -> Result<()>;

    /// Writes the backbone, with a linear layer behind its features.
    ///
    /// # Errors
    /// A number is not finite, or the disk refuses.
    fn save_backbone(
        &self,
        path: &Path,
        metadata: &ModelMetadata,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()>;

    /// Writes the projection head.
    ///
    /// # Errors
    /// As [`Trainer::save_backbone`].
    fn save_head(&self, path: &Path, metadata: &ModelMetadata) -> Result<()>;
}
