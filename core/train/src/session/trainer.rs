//! What a session asks of whatever is on its device.

use super::run::Run;
use super::untrained::Untrained;
use super::{Start, plan};
use crate::Result;
use crate::checkpoint::Numbers;
use crate::config::Config;
use crate::device::{Device, Work};
use crate::weights::{About, Precision};
use seedling_nn::encoder::{FeatureNet, LinearLayer};
use seedling_ssl::ops::TrainingBackend;
use seedling_ssl::step::{StepStats, Views};
use std::path::Path;

/// A run in progress on some engine. Each of its errors may be the engine's.
pub(super) trait Trainer: Send + Sync {
    /// Photos per view that the method looks at.
    fn views(&self) -> usize;

    /// Whether its engine makes views of photos itself.
    fn makes_views(&self) -> bool;

    /// Loss and gradient of step number `step`, which [`Trainer::update`] then follows. One that
    /// fails or is cancelled leaves nothing.
    fn learn(&mut self, views: &Views, step: u64) -> Result<StepStats>;

    /// Follows the gradient, and lets the key encoder follow; says `false` and does nothing where a
    /// gradient is not finite.
    fn update(&mut self, lr: f32) -> Result<bool>;

    /// The network that is trained.
    fn network(&self) -> &dyn FeatureNet;

    /// Keeps the running statistics for [`Trainer::recall_statistics`].
    fn keep_statistics(&mut self) -> Result<()>;

    /// Sets the running statistics to what was kept.
    fn recall_statistics(&self) -> Result<()>;

    /// The teacher, where there is one.
    fn teacher(&self) -> Option<&dyn FeatureNet>;

    /// Sets what is taken from the teacher's features.
    fn centre_teacher(&mut self, centre: Vec<f32>);

    /// Keeps the album, (photos, dim), as it looks to the initial weights.
    fn keep_in_mind(&mut self, album: Vec<f32>) -> Result<()>;

    /// Whether it keeps the album in mind, or is of no method that would.
    fn has_in_mind(&self) -> bool;

    /// Shows `see` all numbers that training changes.
    fn numbers(&self, see: &mut dyn FnMut(Numbers<'_>) -> Result<()>) -> Result<()>;

    /// Takes the backbone back to what the run began with, except for `share` of what has changed;
    /// returns what it was, for [`Trainer::unmix`]. Does nothing in a run that does not mix.
    fn mix(&self, share: f32) -> Result<Option<Backbone>>;

    /// Sets the backbone to what it was before it was mixed.
    fn unmix(&self, trained: &Backbone) -> Result<()>;

    /// Writes the backbone, with a linear layer behind its features.
    fn save_backbone(
        &self,
        path: &Path,
        about: &About,
        layer: Option<&LinearLayer>,
        precision: Precision,
    ) -> Result<()>;

    /// Writes the projection head.
    fn save_head(&self, path: &Path, about: &About) -> Result<()>;
}

/// A backbone's numbers at some time, on the host.
pub(super) struct Backbone {
    pub(super) values: Vec<f32>,
    pub(super) buffers: Vec<f32>,
}

/// A trainer on the device that `config.device` names: a new one, or one that goes on from `saved`.
///
/// # Errors
/// The device is not there, weights do not fit, or `saved` is not of such a run.
pub(super) fn open(
    config: &Config,
    about: &About,
    start: &Start<'_>,
    saved: Option<Numbers<'_>>,
) -> Result<Box<dyn Trainer>> {
    struct Open<'a>(&'a Config, &'a About, &'a Start<'a>, Option<Numbers<'a>>);
    impl Work for Open<'_> {
        type Output = Box<dyn Trainer>;

        fn on<B: TrainingBackend>(self, backend: B) -> Result<Box<dyn Trainer>> {
            let Open(config, about, start, saved) = self;
            if !config.trains() {
                let how = (about, config.seed);
                let backend = plan::in_precision(backend, config)?;
                return Ok(Box::new(Untrained::new(backend, how, start, saved)?));
            }
            let (backend, smaller) = plan::fitted(backend, (config, about, start))?;
            let mut run = Run::new(backend, config, about, start, saved)?;
            run.smaller = smaller;
            Ok(Box::new(run))
        }
    }
    let device: Device = config.device.parse()?;
    device.run(Open(config, about, start, saved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_data::Normalise;
    use seedling_nn::backbones::Arch;
    use seedling_nn::encoder::{Architecture, Head};

    #[test]
    fn an_unknown_engine_is_refused() {
        let config = Config {
            device: "abacus".into(),
            ..Config::adapt()
        };
        let about = About {
            architecture: Architecture::new(Arch::MOBILENET_V3_SMALL, Some(Head::Simple)),
            image_size: 32,
            normalise: Normalise::default(),
            made: String::new(),
        };
        let refused = open(&config, &about, &Start::default(), None)
            .err()
            .unwrap();
        assert!(refused.to_string().contains("abacus"));
    }
}
