//! Backbone and projection head: a photo becomes a unit embedding.
//!
//! The whole network is one candle operation: its forward keeps one tensor per convolution in
//! reused buffers, its hand-written backward adds parameter gradients to the encoder's own flat
//! array. The graph outside carries embeddings and losses only.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Layout as TensorLayout, Shape, Tensor, Var};

use crate::backbones::{Arch, Backbone, BackboneSaved};
use crate::error::{Error, Result};
use crate::nn::activation::Act;
use crate::nn::block::{Backward, Forward, Linear};
use crate::nn::ops::depthwise::Padding;
use crate::nn::ops::normalize;
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
            norm_eps: arch.default_norm_eps(),
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

#[derive(Debug)]
struct Saved {
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

    /// Features (n, feature_dim) of images (n, height, width, 3), row-major, on the running
    /// statistics.
    pub fn features(&self, images: &Tensor) -> Result<Tensor> {
        let (n, height, width) = image_dims(images)?;
        let images = images.flatten_all()?.to_vec1::<f32>()?;
        let values = read(&self.params.values);
        let mut buffers = write(&self.params.buffers);
        let mut pass = self.pass(&values, &mut buffers, Mode::Eval);
        let (features, _) =
            self.network
                .backbone
                .forward(&mut pass, &images, (height, width), 0, false);
        Ok(Tensor::from_slice(
            &features,
            (n, self.feature_dim()),
            &candle_core::Device::Cpu,
        )?)
    }

    /// Unit embeddings (n, 128) of images (n, height, width, 3); without a head, features as they
    /// are. Nothing is kept and no gradient flows.
    pub fn embed(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        image_dims(images)?;
        Ok(images.apply_op1_no_bwd(&self.op(mode, false))?)
    }

    /// The same inside candle's graph: `backward()` of a loss of the result adds this network's
    /// parameter gradients to `params.grads`. The images get none.
    pub fn embed_tracked(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        image_dims(images)?;
        // candle records an operation only if an input is a variable.
        let anchor = Var::from_tensor(images)?;
        Ok(anchor.apply_op1(self.op(mode, true))?)
    }

    fn op(&self, mode: Mode, keep: bool) -> EncoderOp {
        EncoderOp {
            encoder: self.clone(),
            mode,
            keep,
            saved: Mutex::new(None),
        }
    }

    fn pass<'a>(&'a self, values: &'a [f32], buffers: &'a mut [f32], mode: Mode) -> Forward<'a> {
        Forward {
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

    fn forward(
        &self,
        images: &[f32],
        size: (usize, usize),
        mode: Mode,
        keep: bool,
    ) -> (Buffer, Option<Saved>) {
        let values = read(&self.params.values);
        let mut buffers = write(&self.params.buffers);
        let mut pass = self.pass(&values, &mut buffers, mode);
        let network = &self.network;
        let (mut x, backbone) =
            network
                .backbone
                .forward(&mut pass, images, size, network.frozen, keep);
        let mut head = Vec::new();
        for layer in &network.head {
            let (y, u) = layer.forward(&mut pass, &x);
            head.push((std::mem::replace(&mut x, y), u));
        }
        let unit = (!head.is_empty()).then(|| normalize::forward(&mut x, self.output_dim()));
        let saved = backbone.map(|backbone| Saved {
            backbone,
            head,
            unit: unit.map(|inverse| {
                let mut y = self.workspace.take(x.len());
                y.copy_from_slice(&x);
                (y, inverse)
            }),
        });
        (x, saved)
    }

    fn backward(&self, images: &[f32], saved: Saved, grad: &[f32]) {
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

/// (n, height, width) of a batch of RGB images.
fn image_dims(images: &Tensor) -> Result<(usize, usize, usize)> {
    match images.dims() {
        &[n, height, width, 3] if n * height * width > 0 => Ok((n, height, width)),
        dims => Err(Error::Shape {
            tensor: "images".into(),
            expected: vec![0, 0, 0, 3],
            got: dims.to_vec(),
        }),
    }
}

/// The network as candle sees it.
struct EncoderOp {
    encoder: Encoder,
    mode: Mode,
    /// Whether a backward will follow.
    keep: bool,
    /// Filled by a tracked forward, emptied by its backward.
    saved: Mutex<Option<Saved>>,
}

fn contiguous<'a>(
    storage: &'a CpuStorage,
    layout: &TensorLayout,
) -> candle_core::Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("expected a contiguous tensor");
    };
    Ok(&values[start..end])
}

impl CustomOp1 for EncoderOp {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &TensorLayout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (n, height, width, _) = layout.shape().dims4()?;
        let images = contiguous(storage, layout)?;
        let (out, saved) = self
            .encoder
            .forward(images, (height, width), self.mode, self.keep);
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = saved;
        Ok((
            CpuStorage::F32(out.to_vec()),
            Shape::from((n, self.encoder.output_dim())),
        ))
    }

    fn bwd(
        &self,
        images: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let saved = self
            .saved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(saved) = saved else {
            candle_core::bail!("the encoder's backward ran twice on one forward");
        };
        let grad = grad.flatten_all()?.to_vec1::<f32>()?;
        let (storage, layout) = images.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("the encoder runs on the CPU");
        };
        self.encoder
            .backward(contiguous(storage, layout)?, saved, &grad);
        Ok(None)
    }
}
