//! A view of a batch through a network, in micro-batches: the photos of each share batch-norm statistics, as
//! those on one of MoCo's devices do.
//!
//! Only as many micro-batches' tensors exist at a time as the backend takes at once, and their gradients add
//! up.

use seedling_base::cancel::CancelToken;
use seedling_nn::backend::DeviceOps;
use seedling_nn::encoder::{Encoder, Mode};

use crate::Result;
use crate::loss::Contrast;
use crate::ops::TrainingBackend;
use crate::step::{Learned, Views};

/// How batches go through networks.
#[derive(Clone, Debug)]
pub struct MicroBatches {
    /// Photos that share batch-norm statistics.
    pub bn_group: usize,
    /// How batch norm behaves.
    pub mode: Mode,
    /// Looked at before every micro-batch.
    pub cancel: CancelToken,
}

/// Which of a step's encoders.
#[derive(Clone, Copy)]
enum Side {
    Query = 0,
    Key = 1,
}

/// A number for each pass of a step: that of a micro-batch of `view` through an encoder.
fn pass(side: Side, view: usize, microbatch: usize) -> u64 {
    (side as u64) << 33 | (view as u64) << 32 | microbatch as u64
}

impl MicroBatches {
    /// Photos in an `order` that go through a network together, in whole micro-batches, and how many of
    /// these they are.
    fn together<'a, B: DeviceOps>(
        &self,
        backend: &B,
        order: &'a [usize],
    ) -> impl Iterator<Item = (&'a [usize], usize)> + use<'a, B> {
        let bn_group = self.bn_group;
        let whole = order.len().is_multiple_of(bn_group);
        let microbatches = if whole {
            backend.microbatches_at_once()
        } else {
            1
        };
        let microbatches = microbatches.clamp(1, order.len().div_ceil(bn_group).max(1));
        let chunks = order.chunks(microbatches * bn_group);
        chunks.map(move |rows| (rows, rows.len().div_ceil(bn_group)))
    }

    /// Unit embeddings (batch, dim) of `view` in the batch's order, computed in micro-batches of another
    /// `order`. No gradient flows.
    ///
    /// # Errors
    /// The views have no pixels, someone has canceled, or the backend's.
    pub(crate) fn encode<B: TrainingBackend>(
        &self,
        encoder: &mut Encoder<B>,
        views: &Views,
        view: usize,
        order: &[usize],
    ) -> Result<B::Buf> {
        let backend = encoder.backend().clone();
        let (mut parts, mut done) = (Vec::new(), 0);
        for (rows, count) in self.together(&backend, order) {
            self.cancel.check()?;
            let images = views.images(&backend, view, rows)?;
            let mode = self.mode.at_pass(pass(Side::Key, view, done), count);
            parts.push(encoder.embed_in(&images, mode)?);
            done += count;
        }
        backend.gather(&parts, order, encoder.output_dim())
    }

    /// Loss of `view` as `encoder` sees it, by `contrast`, added to what was `learned`; its gradient is added to
    /// `encoder.params.grads`. Nothing here waits for a device: it is never without work.
    ///
    /// # Errors
    /// As [`MicroBatches::encode`].
    pub(crate) fn learn<B: TrainingBackend>(
        &self,
        encoder: &mut Encoder<B>,
        views: &Views,
        view: usize,
        contrast: &Contrast<'_, B::Buf, B::Flat>,
        learned: &mut Learned<B>,
    ) -> Result<()> {
        let backend = encoder.backend().clone();
        let order: Vec<usize> = (0..views.photos.len()).collect();
        let mut parts = Vec::new();
        for (rows, count) in self.together(&backend, &order) {
            self.cancel.check()?;
            let images = views.images(&backend, view, rows)?;
            let first = pass(Side::Query, view, rows[0] / self.bn_group);
            let (queries, cache) = encoder.forward(&images, self.mode.at_pass(first, count))?;
            let (grad, found) =
                backend.contrast(&queries, rows[0]..rows[0] + rows.len(), contrast)?;
            encoder.backward(&images, cache, grad)?;
            learned.found.push(found);
            parts.push(queries);
        }
        learned.queries = Some(backend.gather(&parts, &order, encoder.output_dim())?);
        Ok(())
    }
}
