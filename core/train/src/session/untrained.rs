//! A run that takes no step: the initial weights, to look at photos with. No key encoder, queue or optimizer
//! is made, and none is in its checkpoints.

use super::Start;
use super::run::{network, restore};
use super::trainer::{Backbone, Trainer};
use crate::checkpoint::Numbers;
use crate::weights::{self, About, Precision};
use crate::{Error, Result};
use seedling_nn::encoder::{Architecture, Encoder, FeatureNet, LinearLayer};
use seedling_nn::init::initialise;
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;

/// A network on engine `B` that stays as it is.
pub(super) struct Untrained<B: TrainingBackend> {
    encoder: Encoder<B>,
}

impl<B: TrainingBackend> Untrained<B> {
    pub(super) fn new(
        backend: B,
        (about, seed): (&About, u64),
        start: &Start<'_>,
        saved: Option<Numbers<'_>>,
    ) -> Result<Untrained<B>> {
        let architecture = Architecture {
            head: None,
            ..about.architecture
        };
        let encoder = Encoder::on(backend, architecture, false, 0)?;
        match (saved, start.init) {
            (Some(saved), _) => restore(&encoder.params, saved.trained)?,
            (None, Some(file)) => file.load_backbone(&encoder.params)?,
            (None, None) => initialise(&encoder.params, seed)?,
        }
        Ok(Untrained { encoder })
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::Config(
        "epochs and steps are both 0: this run takes no step".into(),
    ))
}

impl<B: TrainingBackend> Trainer for Untrained<B> {
    fn views(&self) -> usize {
        1
    }

    fn makes_views(&self) -> bool {
        false
    }

    fn learn(&mut self, _: &Views, _: u64) -> Result<StepStats> {
        refused()
    }

    fn update(&mut self, _: f32) -> Result<bool> {
        refused()
    }

    fn network(&self) -> &dyn FeatureNet {
        &self.encoder
    }

    fn keep_statistics(&mut self) -> Result<()> {
        refused()
    }

    fn recall_statistics(&self) -> Result<()> {
        refused()
    }

    fn teacher(&self) -> Option<&dyn FeatureNet> {
        None
    }

    fn centre_teacher(&mut self, _: Vec<f32>) {}

    fn keep_in_mind(&mut self, _: Vec<f32>) -> Result<()> {
        refused()
    }

    fn has_in_mind(&self) -> bool {
        true
    }

    fn numbers(&self, see: &mut dyn FnMut(Numbers<'_>) -> Result<()>) -> Result<()> {
        let locked = self.encoder.params.lock();
        see(Numbers {
            trained: network(&locked)?,
            ..Numbers::default()
        })
    }

    fn mix(&self, _: f32) -> Result<Option<Backbone>> {
        Ok(None)
    }

    fn unmix(&self, _: &Backbone) -> Result<()> {
        Ok(())
    }

    fn save_backbone(
        &self,
        path: &Path,
        about: &About,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()> {
        let features = self.encoder.feature_dim();
        weights::save_backbone(
            path,
            &self.encoder.params,
            features,
            about,
            layer,
            precision,
        )
    }

    fn save_head(&self, _: &Path, _: &About) -> Result<()> {
        refused()
    }
}
