//! The network as candle sees it: one operation with a backward of its own.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var};

use super::{Encoder, Images, Mode, Saved};
use crate::error::{Error, Result};
use crate::nn::backend::Backend;

/// Embeddings (n, dim) whose `backward()` reaches the encoder's gradients.
pub(super) fn apply<B: Backend>(
    encoder: &Encoder<B>,
    images: Images<B>,
    mode: Mode,
) -> Result<Tensor> {
    // candle records an operation only if an input is a variable. The images themselves stay out
    // of the graph: they get no gradient, and their buffer can be used again.
    let anchor = Var::from_slice(&[0f32], 1, &Device::Cpu)?;
    let op = EncoderOp {
        encoder: encoder.clone(),
        images,
        mode,
        saved: Mutex::new(None),
    };
    Ok(anchor.apply_op1(op)?)
}

struct EncoderOp<B: Backend> {
    encoder: Encoder<B>,
    images: Images<B>,
    mode: Mode,
    /// Filled by the forward, emptied by its backward.
    saved: Mutex<Option<Saved<B>>>,
}

impl<B: Backend> CustomOp1 for EncoderOp<B> {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let forward = || {
            let (out, saved) = self.encoder.forward(&self.images, self.mode)?;
            Ok((self.encoder.backend().download(&out)?, saved))
        };
        let (out, saved) = forward().map_err(|e: Error| candle_core::Error::wrap(e))?;
        *self.saved.lock().unwrap_or_else(PoisonError::into_inner) = Some(saved);
        Ok((
            CpuStorage::F32(out),
            Shape::from((self.images.n, self.encoder.output_dim())),
        ))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let saved = self
            .saved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(saved) = saved else {
            candle_core::bail!("the encoder's backward ran twice on one forward");
        };
        let grad = grad.flatten_all()?.to_vec1::<f32>()?;
        let backward = || {
            let fill = |dy: &mut [f32]| dy.copy_from_slice(&grad);
            let dy = self.encoder.backend().upload(grad.len(), fill)?;
            self.encoder.backward(&self.images, saved, dy)
        };
        backward().map_err(candle_core::Error::wrap)?;
        Ok(None)
    }
}
