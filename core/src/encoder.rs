//! Backbone and projection head: a photo becomes a unit embedding.
//!
//! [`Encoder::forward`] keeps one tensor per convolution in reused buffers; the hand-written
//! [`Encoder::backward`] adds parameter gradients to the encoder's own flat array. Who brings a
//! loss of their own finds both as one candle operation ([`Encoder::embed_tracked`]).

mod images;
mod op;

pub use images::Images;

use std::sync::{Arc, PoisonError};

use candle_core::Tensor;

use crate::backbones::{Arch, Backbone, BackboneSaved};
use crate::error::{Error, Result};
use crate::nn::activation::Act;
use crate::nn::block::{Backward, Forward, Linear};
use crate::nn::ops::normalize;
use crate::nn::ops::window::Padding;
use crate::nn::workspace::{Buffer, Workspace};
use crate::params::{Layout, Params, read, write};

/// The projection head on top of the features (method.md, "Heads"): no batch norm, ReLU between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// d - d - 128, as MoCo v2.
    Simple,
    /// d - 2d - 128, as the paper's improved recipe.
    Wide,
}

/// Length of an embedding.
pub const EMBEDDING_DIM: usize = 128;

impl Head {
    /// Every head.
    pub const ALL: [Head; 2] = [Head::Simple, Head::Wide];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Head::Simple => "simple",
            Head::Wide => "wide",
        }
    }

    fn hidden(self, features: usize) -> usize {
        match self {
            Head::Simple => features,
            Head::Wide => 2 * features,
        }
    }
}

impl std::str::FromStr for Head {
    type Err = Error;

    fn from_str(name: &str) -> Result<Head> {
        Head::ALL
            .into_iter()
            .find(|h| h.name() == name)
            .ok_or_else(|| {
                let known = Head::ALL.map(Head::name).join(", ");
                Error::Config(format!("unknown head '{name}' (known: {known})"))
            })
    }
}

/// What distinguishes one network from another of the same architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    pub arch: Arch,
    pub head: Option<Head>,
    pub norm_eps: f32,
    pub padding: Padding,
}

impl Architecture {
    /// torchvision's definition of `arch`.
    pub fn new(arch: Arch, head: Option<Head>) -> Architecture {
        Architecture {
            arch,
            head,
            norm_eps: arch.facts().norm_eps,
            padding: Padding::Symmetric,
        }
    }
}

/// How a forward pass treats batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Running statistics.
    Eval,
    /// Statistics of the images given; running ones move towards them by `norm_momentum`.
    Train { norm_momentum: f32 },
}

/// A network and its numbers. Cloning shares both.
#[derive(Clone, Debug)]
pub struct Encoder {
    pub architecture: Architecture,
    pub params: Arc<Params>,
    network: Arc<Network>,
    workspace: Workspace,
}

#[derive(Debug)]
struct Network {
    backbone: Backbone,
    head: Vec<Linear>,
    frozen: usize,
}

/// What one forward pass leaves for its backward.
#[derive(Debug)]
pub struct Saved {
    backbone: BackboneSaved,
    /// Each head layer's input and value before its activation.
    head: Vec<(Buffer, Buffer)>,
    /// The unit embeddings and 1 / |x|, where there is a head.
    unit: Option<(Buffer, Vec<f32>)>,
}

impl Encoder {
    /// All parameters zero. `trained` makes room for gradients; `workspace` may be shared by
    /// encoders that do not run at the same time. The first `frozen` stages of the backbone
    /// ([`Backbone::depth`]) are never trained.
    pub fn new(
        architecture: Architecture,
        trained: bool,
        frozen: usize,
        workspace: &Workspace,
    ) -> Result<Encoder> {
        let mut layout = Layout::default();
        let Architecture {
            arch,
            norm_eps,
            padding,
            head,
        } = architecture;
        let backbone = Backbone::new(&mut layout, arch, norm_eps, padding);
        if frozen > backbone.depth() {
            return Err(Error::Config(format!(
                "freeze = {frozen}: {arch} has {} stages",
                backbone.depth()
            )));
        }
        let features = backbone.feature_dim();
        let head = head.map_or_else(Vec::new, |head| {
            let hidden = head.hidden(features);
            vec![
                Linear::new(
                    &mut layout,
                    "projection_head.0",
                    (features, hidden),
                    Act::Relu,
                ),
                Linear::new(
                    &mut layout,
                    "projection_head.2",
                    (hidden, EMBEDDING_DIM),
                    Act::Identity,
                ),
            ]
        });
        Ok(Encoder {
            architecture,
            params: Arc::new(Params::zeros(Arc::new(layout), trained)),
            network: Arc::new(Network {
                backbone,
                head,
                frozen,
            }),
            workspace: workspace.clone(),
        })
    }

    /// Length of a feature vector.
    pub fn feature_dim(&self) -> usize {
        self.network.backbone.feature_dim()
    }

    /// Length of what [`Encoder::embed`] returns: the embedding's, or without a head the features'.
    pub fn output_dim(&self) -> usize {
        self.network
            .head
            .last()
            .map_or(self.feature_dim(), |l| l.outputs)
    }

    /// Parameters of frozen stages: the first so many of the flat values.
    pub fn frozen_parameters(&self) -> usize {
        self.network.backbone.frozen_parameters(self.network.frozen)
    }

    /// Room for `n` images of `size` (height, width), in a buffer used before; `fill` writes them.
    pub fn images(
        &self,
        n: usize,
        size: (usize, usize),
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<Images> {
        Images::new(&self.workspace, n, size, fill)
    }

    /// Features (n, feature_dim) on the running statistics.
    pub fn features(&self, images: &Images) -> Vec<f32> {
        let values = read(&self.params.values);
        let mut buffers = write(&self.params.buffers);
        let mut pass = self.pass(&values, &mut buffers, Mode::Eval, false);
        let backbone = &self.network.backbone;
        let (features, _) = backbone.forward(&mut pass, images, images.size, 0);
        features.to_vec()
    }

    /// Unit embeddings (n, 128); without a head, features as they are. Nothing is kept and no
    /// gradient flows.
    pub fn embed(&self, images: &Images, mode: Mode) -> Vec<f32> {
        self.run(images, mode, false).0.to_vec()
    }

    /// The same, and what [`Encoder::backward`] needs.
    pub fn forward(&self, images: &Images, mode: Mode) -> (Vec<f32>, Saved) {
        let (embeddings, saved) = self.run(images, mode, true);
        (embeddings.to_vec(), saved)
    }

    /// The same as an operation of candle's graph (n, 128): `backward()` of a loss of the result
    /// is [`Encoder::backward`].
    ///
    /// # Errors
    /// Only candle's.
    pub fn embed_tracked(&self, images: Images, mode: Mode) -> Result<Tensor> {
        op::apply(self, images, mode)
    }

    fn pass<'a>(
        &'a self,
        values: &'a [f32],
        buffers: &'a mut [f32],
        mode: Mode,
        keep: bool,
    ) -> Forward<'a> {
        Forward {
            keep,
            values,
            buffers,
            train: mode != Mode::Eval,
            norm_momentum: match mode {
                Mode::Train { norm_momentum } => norm_momentum,
                Mode::Eval => 0.0,
            },
            workspace: &self.workspace,
        }
    }

    fn run(&self, images: &Images, mode: Mode, keep: bool) -> (Buffer, Saved) {
        let values = read(&self.params.values);
        let mut buffers = write(&self.params.buffers);
        let mut pass = self.pass(&values, &mut buffers, mode, keep);
        let network = &self.network;
        let (mut x, backbone) =
            network
                .backbone
                .forward(&mut pass, images, images.size, network.frozen);
        let mut head = Vec::new();
        for layer in &network.head {
            let (y, u) = layer.forward(&mut pass, &x);
            head.push((std::mem::replace(&mut x, y), u));
        }
        let unit = (!head.is_empty()).then(|| {
            let inverse = normalize::forward(&mut x, self.output_dim());
            let mut y = self.workspace.take(x.len());
            y.copy_from_slice(&x);
            (y, inverse)
        });
        let saved = Saved {
            backbone,
            head,
            unit,
        };
        (x, saved)
    }

    /// Adds to `params.grads` for `grad`, the gradient with respect to the embeddings of the
    /// forward on `images` that left `saved`. The images get none.
    pub fn backward(&self, images: &Images, saved: Saved, grad: &[f32]) {
        let values = read(&self.params.values);
        let mut grads = self
            .params
            .grads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut pass = Backward {
            values: &values,
            grads: &mut grads,
            workspace: &self.workspace,
        };
        let mut dy = self.workspace.take(grad.len());
        dy.copy_from_slice(grad);
        if let Some((y, inverse)) = &saved.unit {
            normalize::backward(&mut dy, y, inverse, self.output_dim());
        }
        for (layer, (x, u)) in self.network.head.iter().zip(&saved.head).rev() {
            dy = layer.backward(&mut pass, x, u, dy);
        }
        self.network
            .backbone
            .backward(&mut pass, images, saved.backbone, dy);
    }
}
