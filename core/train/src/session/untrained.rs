//! A run that takes no step: the initial weights, to extract features with. No key encoder, queue or optimizer
//! is made, and none is in its checkpoints.

use super::state::RunState;
use super::trainer::Trainer;
use crate::checkpoint::TrainingState;
use crate::learner::{Backbone, network, restore};
use crate::start::Start;
use crate::weights::{self, ModelMetadata, Precision};
use crate::{Error, Result};
use seedling_nn::backend::LaunchStats;
use seedling_nn::encoder::{Architecture, Encoder, FeatureNet, LinearLayer};
use seedling_nn::init::initialize;
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;

/// A network on backend `B` that stays as it is.
pub(super) struct Untrained<B: TrainingBackend> {
    state: RunState,
    encoder: Encoder<B>,
}

impl<B: TrainingBackend> Untrained<B> {
    pub(super) fn new(
        backend: B,
        state: RunState,
        start: &Start<'_>,
        saved: Option<TrainingState<'_>>,
    ) -> Result<Untrained<B>> {
        let architecture = Architecture {
            head: None,
            ..state.metadata.architecture
        };
        let mut encoder = Encoder::with_backend(backend, architecture, false, 0)?;
        match (saved, start.init) {
            (Some(saved), _) => restore(&mut encoder.params, saved.trained)?,
            (None, Some(file)) => file.load_backbone(&mut encoder.params)?,
            (None, None) => initialize(&mut encoder.params, state.config.seed)?,
        }
        Ok(Untrained { state, encoder })
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::Config(
        "epochs and steps are both 0: this run takes no step".into(),
    ))
}

impl<B: TrainingBackend> Trainer for Untrained<B> {
    fn state(&self) -> &RunState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut RunState {
        &mut self.state
    }

    fn learn(&mut self, _: &Views, _: u64, _: f32) -> Result<StepStats> {
        refused()
    }

    fn observe(&mut self, _: &[Vec<f32>], _: (usize, usize), _: f32) -> Result<()> {
        refused()
    }

    fn launch_stats(&self) -> Option<LaunchStats> {
        None
    }

    fn network(&self) -> &dyn FeatureNet {
        &self.encoder
    }

    fn keep_statistics(&mut self) -> Result<()> {
        refused()
    }

    fn recall_statistics(&mut self) -> Result<()> {
        refused()
    }

    fn teacher(&self) -> Option<&dyn FeatureNet> {
        None
    }

    fn knows_neighbors(&self) -> (&dyn FeatureNet, Option<[(f32, f32); 3]>) {
        (self.network(), None)
    }

    fn center_teacher(&mut self, _: Vec<f32>) {}

    fn wants_initial_embeddings(&self) -> bool {
        false
    }

    fn set_initial_embeddings(&mut self, _: Vec<f32>) -> Result<()> {
        refused()
    }

    fn with_training_state(
        &self,
        see: &mut dyn FnMut(TrainingState<'_>) -> Result<()>,
    ) -> Result<()> {
        see(TrainingState {
            trained: network(&self.encoder.params)?,
            ..TrainingState::default()
        })
    }

    fn interpolate(&mut self, _: f32) -> Result<Option<Backbone>> {
        Ok(None)
    }

    fn undo_interpolation(&mut self, _: Option<&Backbone>) -> Result<()> {
        Ok(())
    }

    fn save_backbone(
        &self,
        path: &Path,
        metadata: &ModelMetadata,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()> {
        let features = self.encoder.feature_dim();
        weights::save_backbone(
            path,
            &self.encoder.params,
            features,
            metadata,
            layer,
            precision,
        )
    }

    fn save_head(&self, _: &Path, _: &ModelMetadata) -> Result<()> {
        refused()
    }
}
