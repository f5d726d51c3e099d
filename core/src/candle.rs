//! The door for others' code: the encoder as a module of candle's, for heads and losses written with
//! candle.
//!
//! [`Module::forward`] of an [`EncoderModule`] is one operation of candle's graph. `backward()` of a loss
//! behind it gives the gradients of whatever candle trains, and adds those of the encoder to its own
//! (`Params::grads`), which an optimizer of [`crate::optim`] takes on. `examples/candle_head.rs` trains so.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Error, Layout, Module, Result, Shape, Tensor, Var,
};
use seedling_nn::backend::BackwardOps;
use seedling_nn::cpu::Cpu;
use seedling_nn::encoder::{Encoder, Images, Mode, Saved};

/// An encoder as a module: from images to embeddings, or to features where it has no head.
#[derive(Clone, Debug)]
pub struct EncoderModule<B: BackwardOps = Cpu> {
    encoder: Encoder<B>,
    mode: Mode,
}

impl<B: BackwardOps> EncoderModule<B> {
    /// `encoder`, whose numbers are shared, passed through in `mode`.
    pub fn new(encoder: &Encoder<B>, mode: Mode) -> EncoderModule<B> {
        EncoderModule {
            encoder: encoder.clone(),
            mode,
        }
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
            encoder: self.encoder.clone(),
            images,
            mode: self.mode,
            saved: Mutex::new(None),
        })
    }
}

impl<B: BackwardOps> Module for EncoderModule<B> {
    /// Embeddings (n, dim) of `images` (n, 3, height, width), RGB and normalised, on any device; they are on
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
            .encoder
            .images(n, (height, width), |out| out.copy_from_slice(&pixels))
            .map_err(Error::wrap)?;
        self.embed(on_backend)?.to_device(images.device())
    }
}

/// The encoder's forward, with [`Encoder::backward`] as its gradient.
struct EncoderOp<B: BackwardOps> {
    encoder: Encoder<B>,
    images: Images<B>,
    mode: Mode,
    /// Filled by the forward, emptied by its backward.
    saved: Mutex<Option<Saved<B>>>,
}

impl<B: BackwardOps> CustomOp1 for EncoderOp<B> {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let forward = || {
            let (out, saved) = self.encoder.forward(&self.images, self.mode)?;
            Ok((self.encoder.backend().download(&out)?, saved))
        };
        let (out, saved) = forward().map_err(|e: crate::Error| Error::wrap(e))?;
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        let shape = Shape::from((self.images.n, self.encoder.output_dim()));
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(saved) = saved.take() else {
            candle_core::bail!("the encoder's backward ran twice on one forward");
        };
        let grad = grad.flatten_all()?.to_vec1::<f32>()?;
        let backward = || {
            let fill = |dy: &mut [f32]| dy.copy_from_slice(&grad);
            let dy = self.encoder.backend().upload(grad.len(), fill)?;
            self.encoder.backward(&self.images, saved, dy)
        };
        backward().map_err(Error::wrap)?;
        Ok(None)
    }
}
