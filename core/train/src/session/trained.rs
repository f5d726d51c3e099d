//! The trainer of a run that takes steps, on backend `B`.

use super::state::RunState;
use super::trainer::Trainer;
use crate::Result;
use crate::checkpoint::TrainingState;
use crate::learner::{Backbone, Learner};
use crate::memory::device::Smaller;
use crate::weights::{self, ModelMetadata, Precision};
use seedling_nn::backend::LaunchStats;
use seedling_nn::encoder::{FeatureNet, LinearLayer};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;

/// A learner, and its place in the run.
pub(super) struct Trained<B: TrainingBackend> {
    pub(super) state: RunState,
    pub(super) learner: Learner<B>,
    /// What would fit into the device's memory if this did not.
    pub(super) smaller: Smaller,
}

impl<B: TrainingBackend> Trainer for Trained<B> {
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

    fn launch_stats(&self) -> Option<LaunchStats> {
        self.learner.encoder().backend().launch_stats()
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

    fn knows_neighbors(&self) -> (&dyn FeatureNet, Option<[(f32, f32); 3]>) {
        self.learner.knows_neighbors()
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

    fn with_training_state(
        &self,
        see: &mut dyn FnMut(TrainingState<'_>) -> Result<()>,
    ) -> Result<()> {
        self.learner.with_training_state(see)
    }

    fn interpolate(&mut self, weight: f32) -> Result<Option<Backbone>> {
        self.learner.interpolate(weight)
    }

    fn undo_interpolation(&mut self, trained: Option<&Backbone>) -> Result<()> {
        self.learner.undo_interpolation(trained)
    }

    fn save_backbone(
        &self,
        path: &Path,
        metadata: &ModelMetadata,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()> {
        let encoder = self.learner.encoder();
        let features = encoder.feature_dim();
        weights::save_backbone(path, &encoder.params, features, metadata, layer, precision)
    }

    fn save_head(&self, path: &Path, metadata: &ModelMetadata) -> Result<()> {
        let encoder = self.learner.encoder();
        weights::save_head(path, &encoder.params, encoder.feature_dim(), metadata)
    }
}
