//! The door for others' code: the encoder as a module of candle's, for heads and losses written with
//! candle.
//!
//! [`Module::forward`] of an [`EncoderModule`] is one operation of candle's graph. `backward()` of a loss
//! behind it gives the gradients of whatever candle trains, and adds those of the encoder to its own
//! (`Params::grads`), which an optimizer of [`crate::optim`] takes on. `examples/candle_head.rs` trains so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Error, Layout, Module, Result, Shape, Tensor, Var,
};
use seedling_nn::backend::BackwardOps;
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::{Encoder, ForwardCache, Images, Mode};

/// An encoder as a module: from images to embeddings, or to features where it has no head. Clones share it.
#[derive(Clone, Debug)]
pub struct EncoderModule<B: BackwardOps = Cpu> {
    encoder: Arc<Mutex<Encoder<B>>>,
    mode: Mode,
}

impl<B: BackwardOps> EncoderModule<B> {
    /// `encoder`, passed through in `mode`. It has room for gradients where it was made to be trained.
    pub fn new(encoder: Encoder<B>, mode: Mode) -> EncoderModule<B> {
        EncoderModule {
            encoder: Arc::new(Mutex::new(encoder)),
            mode,
        }
    }

    /// The encoder, for who follows its gradients or saves it; not while a forward or backward pass runs.
    pub fn encoder(&self) -> MutexGuard<'_, Encoder<B>> {
        locked(&self.encoder)
    }

    /// Embeddings (n, dim) of images that lie on the encoder's backend already, as a tensor of the CPU.
    ///
    /// # Errors
    /// The backend's, or candle's.
    pub fn embed(&self, images: Images<B>) -> Result<Tensor> {
        // candle records an operation only if an input is a variable. The images themselves stay out
        // of the graph: they get no gradient, and their buffer can be used again.
        let recorded = Var::from_slice(&[0f32], 1, &Device::Cpu)?;
        recorded.apply_op1(EncoderOp {
            module: self.clone(),
            images,
            saved: Mutex::new(None),
        })
    }
}

impl<B: BackwardOps> Module for EncoderModule<B> {
    /// Embeddings (n, dim) of `images` (n, 3, height, width), RGB and normalized, on any device; they are on
    /// the same device. No gradient reaches the images.
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let (n, channels, height, width) = images.dims4()?;
        if channels != 3 {
            candle_core::bail!(
                "an encoder sees RGB images (n, 3, height, width), not {channels} channels"
            );
        }
        let pixels = images
            .detach()
            .to_device(&Device::Cpu)?
            .to_dtype(DType::F32)?
            .permute((0, 2, 3, 1))?
            .flatten_all()?
            .to_vec1::<f32>()?;
        let on_backend = self
            .encoder()
            .images(n, (height, width), |out| out.copy_from_slice(&pixels))
            .map_err(Error::wrap)?;
        self.embed(on_backend)?.to_device(images.device())
    }
}

/// The encoder's forward, with [`Encoder::backward`] as its gradient.
struct EncoderOp<B: BackwardOps> {
    module: EncoderModule<B>,
    images: Images<B>,
    /// Filled by the forward, emptied by its backward.
    saved: Mutex<Option<ForwardCache<B>>>,
}

impl<B: BackwardOps> CustomOp1 for EncoderOp<B> {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut encoder = self.module.encoder();
        let mut forward = || {
            let (out, saved) = encoder.forward(&self.images, self.module.mode)?;
            Ok((encoder.backend().download(&out)?, saved))
        };
        let (out, saved) = forward().map_err(|e: crate::Error| Error::wrap(e))?;
        *locked(&self.saved) = Some(saved);
        let shape = Shape::from((self.images.n, encoder.output_dim()));
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let Some(saved) = locked(&self.saved).take() else {
            candle_core::bail!("the encoder's backward ran twice on one forward");
        };
        let grad = grad.flatten_all()?.to_vec1::<f32>()?;
        let mut encoder = self.module.encoder();
        let backward = || {
            let fill = |dy: &mut [f32]| dy.copy_from_slice(&grad);
            let dy = encoder.backend().upload(grad.len(), fill)?;
            encoder.backward(&self.images, saved, dy)
        };
        backward().map_err(Error::wrap)?;
        Ok(None)
    }
}

/// A lock; a thread that panicked while it held one leaves plain numbers behind.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the guide shows has to compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/candle.md")]
pub struct Guide;
