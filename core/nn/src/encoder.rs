//! Backbone and projection head: a photo becomes a unit embedding.
//!
//! [`Encoder::forward`] keeps one tensor per convolution in reused buffers; the hand-written
//! [`Encoder::backward`] adds parameter gradients to the encoder's own flat array. Who brings a
//! loss of their own calls both, or uses the encoder as a module of candle's (`seedling_core::candle`).

mod feature_net;
mod head;
mod images;
mod linear_layer;

pub use feature_net::FeatureNet;
pub use head::{EMBEDDING_DIM, Head};
pub use images::Images;
pub use linear_layer::{LinearLayer, WithLayer};

use crate::backbones::{Arch, Backbone, BackboneCache, Shape};
use crate::backend::{BackwardOps, ForwardOps};
use crate::block::{Backward, Buffers, Dropping, Forward};
use crate::cpu::Cpu;
use crate::layer::SqueezeOrder;
use crate::layout::Layout;
use crate::params::Params;
use crate::window::Padding;
use crate::workspace::Workspace;
use seedling_base::error::{Error, Result};

/// What distinguishes one network from another of the same architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Architecture {
    pub arch: Arch,
    pub head: Option<Head>,
    pub norm_eps: f32,
    pub padding: Padding,
    pub squeeze_order: SqueezeOrder,
}

impl Architecture {
    /// `arch` as its twin defines it.
    pub fn new(arch: Arch, head: Option<Head>) -> Architecture {
        Architecture {
            arch,
            head,
            norm_eps: arch.spec().norm_eps,
            padding: Padding::Symmetric,
            squeeze_order: SqueezeOrder::default(),
        }
    }
}

/// How a forward pass treats batch norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Running statistics.
    Eval,
    /// Statistics of the images given; running ones move towards them by `norm_momentum`.
    Train {
        norm_momentum: f32,
        /// Equal parts of the images that have statistics of their own.
        microbatches: usize,
        /// What is left out at random, if anything.
        dropping: Option<Dropping>,
    },
}

impl Mode {
    /// Training with nothing left out.
    pub const fn train(norm_momentum: f32) -> Mode {
        Mode::Train {
            norm_momentum,
            microbatches: 1,
            dropping: None,
        }
    }

    /// The same for `n` micro-batches at once, of which `pass` tells the first apart from others of its step.
    pub fn at_pass(self, pass: u64, n: usize) -> Mode {
        let mut mode = self.map_dropping(|dropping| Dropping { pass, ..dropping });
        if let Mode::Train { microbatches, .. } = &mut mode {
            *microbatches = n;
        }
        mode
    }

    /// The same in step `step`.
    pub fn at_step(self, step: u64) -> Mode {
        self.map_dropping(|dropping| Dropping { step, ..dropping })
    }

    fn map_dropping(self, change: impl FnOnce(Dropping) -> Dropping) -> Mode {
        match self {
            Mode::Train {
                norm_momentum,
                microbatches,
                dropping,
            } => Mode::Train {
                norm_momentum,
                microbatches,
                dropping: dropping.map(change),
            },
            Mode::Eval => Mode::Eval,
        }
    }

    fn dropping(self) -> Option<Dropping> {
        match self {
            Mode::Train {
                microbatches,
                dropping,
                ..
            } => dropping.map(|dropping| Dropping {
                microbatches,
                ..dropping
            }),
            Mode::Eval => None,
        }
    }
}

/// A network and its numbers.
#[derive(Debug)]
pub struct Encoder<B: ForwardOps = Cpu> {
    pub architecture: Architecture,
    pub params: Params<B>,
    network: Network,
}

#[derive(Debug)]
struct Network {
    backbone: Backbone,
    head: Vec<head::Layer>,
    frozen: usize,
}

impl Network {
    fn new(layout: &mut Layout, architecture: Architecture, frozen: usize) -> Network {
        let Architecture {
            arch,
            norm_eps,
            padding,
            squeeze_order,
            head,
        } = architecture;
        let shape = Shape {
            norm_eps,
            padding,
            squeeze_order,
        };
        let backbone = (arch.spec().build)(layout, shape);
        let features = backbone.feature_dim();
        let head = head.map_or_else(Vec::new, |head| head.layers(layout, features));
        Network {
            head,
            frozen: backbone.frozen(frozen),
            backbone,
        }
    }
}

/// Tells the layers of the head apart from the backbone's stages, where draws are made for them.
const LAYERS: usize = 200;

/// How large a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Trainable numbers, those of the head included.
    pub parameters: usize,
    /// Numbers of running statistics.
    pub statistics: usize,
    /// Length of a feature vector.
    pub features: usize,
    /// Stages of the backbone that can be frozen.
    pub depth: usize,
}

impl Architecture {
    /// Its tensors, without making it.
    pub fn layout(self) -> Layout {
        let mut layout = Layout::default();
        Network::new(&mut layout, self, 0);
        layout
    }

    /// Its size, without making it.
    pub fn size(self) -> Size {
        let mut layout = Layout::default();
        let Network { backbone, .. } = Network::new(&mut layout, self, 0);
        Size {
            parameters: layout.parameter_count(),
            statistics: layout.buffer_count(),
            features: backbone.feature_dim(),
            depth: backbone.depth(),
        }
    }
}

/// What one forward pass leaves for its backward.
#[derive(Debug)]
pub struct ForwardCache<B: ForwardOps> {
    backbone: BackboneCache<B>,
    /// What the features were multiplied by, where some were left out.
    kept: Option<B::Buf>,
    /// What each layer of the head has kept.
    head: Vec<head::HeadCache<B>>,
    /// Of the unit embeddings, where there is a head.
    unit: Option<B::L2NormCache>,
}

impl Encoder {
    /// On the CPU; see [`Encoder::with_backend`]. `workspace` may be shared by encoders that do not run
    /// at the same time.
    ///
    /// # Errors
    /// The network has fewer stages than `frozen`.
    pub fn new(
        architecture: Architecture,
        trained: bool,
        frozen: usize,
        workspace: &Workspace,
    ) -> Result<Encoder> {
        Encoder::with_backend(Cpu::new(workspace), architecture, trained, frozen)
    }
}

impl<B: ForwardOps> Encoder<B> {
    /// On `backend`, all parameters zero. `trained` makes room for gradients. The first `frozen`
    /// stages of the backbone ([`Backbone::depth`]) are never trained.
    ///
    /// # Errors
    /// The network has fewer stages than `frozen`, or the backend's.
    pub fn with_backend(
        backend: B,
        architecture: Architecture,
        trained: bool,
        frozen: usize,
    ) -> Result<Encoder<B>> {
        let mut layout = Layout::default();
        let network = Network::new(&mut layout, architecture, frozen);
        let backend = match architecture.arch.spec().tokens {
            true => backend.in_f32(),
            false => backend,
        };
        let depth = network.backbone.depth();
        if frozen > depth {
            return Err(Error::Config(format!(
                "freeze = {frozen}: {} has {depth} stages",
                architecture.arch
            )));
        }
        Ok(Encoder {
            architecture,
            params: Params::zeros(layout, trained, backend)?,
            network,
        })
    }

    /// The backend it runs on.
    pub fn backend(&self) -> &B {
        self.params.backend()
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
            .map_or(self.feature_dim(), |layer| layer.linear.outputs)
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
    ) -> Result<Images<B>> {
        Images::new(self.backend(), n, size, fill)
    }

    /// Features (n, feature_dim) on the running statistics.
    ///
    /// # Errors
    /// The backend's.
    pub fn features(&self, images: &Images<B>) -> Result<Vec<f32>> {
        let mut pass = self.evaluation(images.n);
        let backbone = &self.network.backbone;
        let (features, _) = backbone.forward(&mut pass, &images.pixels, images.size, 0)?;
        self.backend().download(&features)
    }

    /// Unit embeddings (n, 128) on the running statistics; without a head, features as they are. They stay
    /// in the backend's memory.
    ///
    /// # Errors
    /// The backend's.
    pub fn embed(&self, images: &Images<B>) -> Result<B::Buf> {
        let pass = self.evaluation(images.n);
        Ok(self.network.forward(pass, images, Mode::Eval)?.0)
    }

    /// The same in `mode`, for which running statistics may move. Nothing is kept, and no gradient flows.
    ///
    /// # Errors
    /// The backend's.
    pub fn embed_in(&mut self, images: &Images<B>, mode: Mode) -> Result<B::Buf> {
        Ok(self.run(images, mode, false)?.0)
    }

    /// The same, and what [`Encoder::backward`] needs.
    ///
    /// # Errors
    /// The backend's.
    pub fn forward(&mut self, images: &Images<B>, mode: Mode) -> Result<(B::Buf, ForwardCache<B>)> {
        self.run(images, mode, true)
    }

    fn run(
        &mut self,
        images: &Images<B>,
        mode: Mode,
        keep: bool,
    ) -> Result<(B::Buf, ForwardCache<B>)> {
        let backend = self.params.backend().clone();
        let pass = Forward {
            keep,
            images: images.n,
            dropping: mode.dropping(),
            stage: 0,
            values: &self.params.values,
            buffers: Buffers::Moving(&mut self.params.buffers),
            microbatches: match mode {
                Mode::Train { microbatches, .. } => microbatches,
                Mode::Eval => 0,
            },
            norm_momentum: match mode {
                Mode::Train { norm_momentum, .. } => norm_momentum,
                Mode::Eval => 0.0,
            },
            backend: &backend,
        };
        self.network.forward(pass, images, mode)
    }

    fn evaluation(&self, images: usize) -> Forward<'_, B> {
        Forward {
            keep: false,
            images,
            dropping: None,
            stage: 0,
            values: &self.params.values,
            buffers: Buffers::Fixed(&self.params.buffers),
            microbatches: 0,
            norm_momentum: 0.0,
            backend: self.params.backend(),
        }
    }
}

impl Network {
    /// What [`Encoder::forward`] says, in `pass`.
    fn forward<B: ForwardOps>(
        &self,
        mut pass: Forward<'_, B>,
        images: &Images<B>,
        mode: Mode,
    ) -> Result<(B::Buf, ForwardCache<B>)> {
        let (mut x, backbone) =
            self.backbone
                .forward(&mut pass, &images.pixels, images.size, self.frozen)?;
        let (backend, values) = (pass.backend, pass.values);
        let dropping = mode.dropping().unwrap_or_default();
        let drop = |layer, probability, x: &mut B::Buf, n| -> Result<Option<B::Buf>> {
            if probability <= 0.0 || self.head.is_empty() {
                return Ok(None);
            }
            let factors = dropping.factors(layer, probability, n);
            let factors = backend.upload(n, |out| out.copy_from_slice(&factors))?;
            backend.multiply(x, &factors)?;
            Ok(Some(factors))
        };
        let features = images.n * self.backbone.feature_dim();
        let kept = drop(LAYERS, dropping.features, &mut x, features)?;
        let mut head = Vec::new();
        for (i, layer) in self.head.iter().enumerate() {
            let (mut y, u) = backend.linear(&layer.linear, values, &x)?;
            let probability = match mode {
                Mode::Train { .. } => layer.dropped,
                Mode::Eval => 0.0,
            };
            let n = images.n * layer.linear.outputs;
            let kept = drop(LAYERS + 1 + i, probability, &mut y, n)?;
            let x = std::mem::replace(&mut x, y);
            head.push(head::HeadCache { x, u, kept });
        }
        let unit = match self.head.last() {
            None => None,
            Some(last) => Some(backend.l2_normalize(&mut x, last.linear.outputs)?),
        };
        let cache = ForwardCache {
            backbone,
            kept,
            head,
            unit,
        };
        Ok((x, cache))
    }
}

impl<B: BackwardOps> Encoder<B> {
    /// Adds to `params.grads` for `dy`, the gradient with respect to the embeddings of the forward
    /// on `images` that left `cache`. The images get none.
    ///
    /// # Errors
    /// The backend's.
    pub fn backward(
        &mut self,
        images: &Images<B>,
        cache: ForwardCache<B>,
        mut dy: B::Buf,
    ) -> Result<()> {
        let backend = &self.params.backend().clone();
        let (values, dim) = (&self.params.values, self.output_dim());
        if let Some(unit) = &cache.unit {
            backend.l2_normalize_back(&mut dy, unit, dim)?;
        }
        let grads = &mut self.params.grads;
        for (layer, cache) in self.network.head.iter().zip(&cache.head).rev() {
            if let Some(kept) = &cache.kept {
                backend.multiply(&mut dy, kept)?;
            }
            let x_and_u = (&cache.x, &cache.u);
            dy = backend.linear_back(&layer.linear, values, grads, x_and_u, dy)?;
        }
        if let Some(kept) = &cache.kept {
            backend.multiply(&mut dy, kept)?;
        }
        let mut pass = Backward {
            values,
            grads,
            backend,
        };
        self.network
            .backbone
            .backward(&mut pass, &images.pixels, cache.backbone, dy)
    }
}
