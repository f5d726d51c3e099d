//! A network as a chain of stages, whatever its family.

use crate::Result;
use crate::backend::{Backend, BackwardOps, ForwardOps};
use crate::block::{Backward, Forward, Size, Stage, StageCache};

/// One network: image to features.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// In the order of the forward pass; so are their parameters.
    stages: Vec<Stage>,
    /// How many of them can be frozen from the bottom: all but those that make features of the last
    /// activations.
    depth: usize,
    /// How many of them are never trained.
    fixed: usize,
    /// Length of a feature vector.
    features: usize,
}

/// What a backward pass needs: per stage its input (the first one's are the images) and what the
/// stage kept; `None` for frozen stages, and all of them where nothing is kept.
#[derive(Debug)]
pub struct BackboneCache<B: ForwardOps> {
    stages: Vec<Option<Kept<B>>>,
}

/// A stage's input and what it has kept.
type Kept<B> = (Option<<B as Backend>::Buf>, StageCache<B>);

impl Backbone {
    /// Of `trunk` stages that can be frozen and `tail` ones that make features of what they leave.
    pub fn new(trunk: Vec<Stage>, tail: Vec<Stage>, features: usize) -> Backbone {
        let depth = trunk.len();
        Backbone {
            stages: trunk.into_iter().chain(tail).collect(),
            depth,
            fixed: 0,
            features,
        }
    }

    /// The same, with the first `fixed` stages never trained.
    pub fn with_fixed(self, fixed: usize) -> Backbone {
        Backbone { fixed, ..self }
    }

    /// Length of a feature vector.
    pub fn feature_dim(&self) -> usize {
        self.features
    }

    /// Stages that can be frozen from the bottom.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// How many stages are frozen where `requested` are to be.
    pub fn frozen(&self, requested: usize) -> usize {
        requested.max(self.fixed)
    }

    /// Parameters (a prefix of the flat values) of the first `stages` of [`Backbone::depth`].
    pub fn frozen_parameters(&self, stages: usize) -> usize {
        self.stages
            .get(..stages.min(self.depth))
            .and_then(|frozen| frozen.iter().filter_map(Stage::parameters_end).max())
            .unwrap_or(0)
    }

    /// Images (n, height, width, 3) to features (n, feature_dim), and what backward needs. The
    /// first `frozen` stages run on their running statistics and keep nothing.
    pub fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
        frozen: usize,
    ) -> Result<(B::Buf, BackboneCache<B>)> {
        let mut kept = Vec::with_capacity(self.stages.len());
        let (mut x, mut size): (Option<B::Buf>, Size) = (None, size);
        for (i, stage) in self.stages.iter().enumerate() {
            let mut pass = pass.stage(i >= frozen, i);
            let (y, out_size, cache) =
                stage.forward(&mut pass, x.as_ref().unwrap_or(images), size)?;
            let input = x.replace(y);
            size = out_size;
            kept.push(pass.keep.then_some((input, cache)));
        }
        let features = match x {
            Some(features) => features,
            None => pass.backend.upload(0, |_| ())?,
        };
        Ok((features, BackboneCache { stages: kept }))
    }

    /// Adds parameter gradients for the features' gradient `dy`, stage by stage from the top;
    /// what a stage has kept is given back as soon as it is used.
    pub fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        images: &B::Buf,
        cache: BackboneCache<B>,
        mut dy: B::Buf,
    ) -> Result<()> {
        for (stage, cache) in self.stages.iter().zip(cache.stages).rev() {
            let Some((x, cache)) = cache else {
                return Ok(());
            };
            match stage.backward(pass, x.as_ref().unwrap_or(images), cache, dy)? {
                Some(dx) => dy = dx,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
