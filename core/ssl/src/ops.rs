//! What a backend must do to train without labels, besides a network's operations: losses, and views of
//! photos.

use std::ops::Range;

use seedling_data::{Normalize, Photo, Scratch, ViewParams};
use seedling_nn::backend::{Backend, BackwardOps, DeviceOps, OptimizerOps};
use seedling_nn::cpu::Cpu;

use crate::Result;
use crate::loss::{self, Agreement, Contrast};
use crate::queue::Queue;

/// Losses over a queue of keys.
pub trait LossOps: Backend {
    /// Loss and agreement of some queries, where they have been computed.
    type Found;

    /// The rows of `parts`, end to end, in another order: the i-th becomes row `order[i]`. `order`
    /// is a permutation; rows have `dim` numbers.
    ///
    /// # Errors
    /// The backend's.
    fn gather(&self, parts: &[Self::Buf], order: &[usize], dim: usize) -> Result<Self::Buf>;

    /// Rows of `x` (n, dim), in the order of `rows`.
    ///
    /// # Errors
    /// The backend's.
    fn select_rows(&self, x: &Self::Buf, rows: &[usize], dim: usize) -> Result<Self::Buf>;

    /// The gradient of `queries`, which are the batch's at `rows` (see [`crate::loss`]), and what else was found.
    ///
    /// # Errors
    /// The backend's.
    fn contrast(
        &self,
        queries: &Self::Buf,
        rows: Range<usize>,
        contrast: &Contrast<'_, Self::Buf, Self::Flat>,
    ) -> Result<(Self::Buf, Self::Found)>;

    /// What was found, some `queries`, and whether every one of `grads` is finite, on the host: a device is waited
    /// for once.
    ///
    /// # Errors
    /// The backend's.
    fn read_step(
        &self,
        found: Vec<Self::Found>,
        queries: &Self::Buf,
        grads: &Self::Flat,
    ) -> Result<StepRead>;

    /// Overwrites the oldest rows of `queue` with `keys` (n, dim) of `photos` (n).
    ///
    /// # Errors
    /// The backend's.
    fn enqueue(
        &self,
        queue: &mut Queue<Self::Flat>,
        keys: &Self::Buf,
        photos: &[u32],
    ) -> Result<()>;
}

/// What a step leaves, on the host.
#[derive(Debug)]
pub struct StepRead {
    pub found: Vec<(f32, Agreement)>,
    pub queries: Vec<f32>,
    /// Whether the gradient is.
    pub finite: bool,
}

/// Views of photos, where a backend makes them itself.
pub trait ViewOps: Backend {
    /// Whether photos are better made into views here ([`ViewOps::views`]) than on the host beforehand.
    fn makes_views(&self) -> bool {
        false
    }

    /// x * factor + offset for each channel (factor, offset) of rows of channels, in place.
    ///
    /// # Errors
    /// The backend's.
    fn rescale(&self, x: &mut Self::Buf, channels: &[(f32, f32)]) -> Result<()>;

    /// Views of photos, (views, size, size, 3), normalized: what [`ViewParams::apply`] writes, but for
    /// single levels that rounding puts on either side.
    ///
    /// # Errors
    /// The backend's.
    fn views(
        &self,
        views: &[(&Photo, &ViewParams)],
        size: usize,
        normalize: &Normalize,
    ) -> Result<Self::Buf> {
        let image = size * size * 3;
        self.upload(views.len() * image, |out| {
            let mut scratch = Scratch::default();
            for ((photo, params), out) in views.iter().zip(out.chunks_exact_mut(image)) {
                params.apply(photo, size, normalize, &mut scratch, out);
            }
        })
    }
}

/// All that training asks of a backend.
pub trait TrainingBackend: BackwardOps + OptimizerOps + DeviceOps + LossOps + ViewOps {}

impl<B: BackwardOps + OptimizerOps + DeviceOps + LossOps + ViewOps> TrainingBackend for B {}

impl ViewOps for Cpu {
    fn rescale(&self, x: &mut Self::Buf, channels: &[(f32, f32)]) -> Result<()> {
        for row in x.chunks_exact_mut(channels.len()) {
            for (x, (factor, offset)) in row.iter_mut().zip(channels) {
                *x = *x * factor + offset;
            }
        }
        Ok(())
    }
}

impl LossOps for Cpu {
    type Found = (f32, Agreement);

    fn gather(&self, parts: &[Self::Buf], order: &[usize], dim: usize) -> Result<Self::Buf> {
        self.upload(order.len() * dim, |all| {
            let rows = parts.iter().flat_map(|part| part.chunks_exact(dim));
            for (row, &place) in rows.zip(order) {
                all[place * dim..(place + 1) * dim].copy_from_slice(row);
            }
        })
    }

    fn select_rows(&self, x: &Self::Buf, rows: &[usize], dim: usize) -> Result<Self::Buf> {
        self.upload(rows.len() * dim, |all| {
            for (&row, out) in rows.iter().zip(all.chunks_exact_mut(dim)) {
                out.copy_from_slice(&x[row * dim..(row + 1) * dim]);
            }
        })
    }

    fn contrast(
        &self,
        queries: &Self::Buf,
        rows: Range<usize>,
        contrast: &Contrast<'_, Self::Buf, Vec<f32>>,
    ) -> Result<(Self::Buf, Self::Found)> {
        let found = loss::evaluate(queries, &contrast.select_rows(rows));
        let grad = self.upload(found.grad.len(), |grad| grad.copy_from_slice(&found.grad))?;
        Ok((grad, (found.loss, found.agreement)))
    }

    fn read_step(
        &self,
        found: Vec<(f32, Agreement)>,
        queries: &Self::Buf,
        grads: &Vec<f32>,
    ) -> Result<StepRead> {
        Ok(StepRead {
            found,
            queries: queries.to_vec(),
            finite: self.all_finite(grads)?,
        })
    }

    fn enqueue(&self, queue: &mut Queue, keys: &Self::Buf, photos: &[u32]) -> Result<()> {
        queue.enqueue(keys, photos);
        Ok(())
    }
}
