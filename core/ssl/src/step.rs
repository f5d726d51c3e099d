//! What goes into a training step of either method, and what comes out of it.

use std::any::Any;
use std::fmt::Debug;

use crate::loss::Agreement;
use crate::ops::TrainingBackend;
use seedling_base::error::Result;
use seedling_data::{Batch, Normalize, Photo, ViewParams};
use seedling_nn::encoder::{Encoder, Images};

/// Pixels of a batch's views, turned into floats only when a micro-batch asks for them.
pub trait Pixels: Debug {
    /// Writes `view` (0 or 1) of the photos at `rows` of the batch, photo after photo, normalized:
    /// (rows, height, width, 3).
    fn write(&self, view: usize, rows: &[usize], out: &mut [f32]);

    /// The photos at `rows`, what their `view` is made by, and how it becomes floats, where there are no
    /// pixels yet.
    fn undrawn(&self, view: usize, rows: &[usize]) -> Option<Undrawn<'_>> {
        let _ = (view, rows);
        None
    }

    /// All images of `view`, where they are a buffer ([`seedling_nn::backend::Backend::Buf`]) of a backend
    /// already.
    fn resident(&self, view: usize) -> Option<&dyn Any> {
        let _ = view;
        None
    }
}

/// Photos and the random numbers of a view of each.
pub type Undrawn<'a> = (Vec<(&'a Photo, &'a ViewParams)>, Normalize);

impl Pixels for Batch {
    fn write(&self, view: usize, rows: &[usize], out: &mut [f32]) {
        self.write_view(view, rows, out);
    }

    fn undrawn(&self, view: usize, rows: &[usize]) -> Option<Undrawn<'_>> {
        Some((Batch::undrawn(self, view, rows)?, *self.normalize()))
    }
}

/// Two views that are floats already.
impl Pixels for [&[f32]; 2] {
    fn write(&self, view: usize, rows: &[usize], out: &mut [f32]) {
        let image = out.len() / rows.len().max(1);
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(image)) {
            out.copy_from_slice(&self[view][row * image..(row + 1) * image]);
        }
    }
}

/// Two views that are in memory of a backend already.
impl<B: TrainingBackend> Pixels for Resident<B> {
    fn write(&self, _: usize, _: &[usize], _: &mut [f32]) {
        unreachable!("images that are on a device are read there");
    }

    fn resident(&self, view: usize) -> Option<&dyn Any> {
        Some(&self.0[view])
    }
}

/// Images of two views, (batch, height, width, 3) each.
#[derive(Debug)]
pub struct Resident<B: TrainingBackend>(pub [B::Buf; 2]);

/// Views of a batch of photos.
#[derive(Clone, Copy, Debug)]
pub struct Views<'a> {
    /// Their pixels.
    pub pixels: &'a dyn Pixels,
    /// Height and width.
    pub size: (usize, usize),
    /// Which photo each row shows.
    pub photos: &'a [u32],
}

impl Views<'_> {
    /// One micro-batch of `view` in memory of `backend`: the photos at `rows`.
    pub(crate) fn images<B: TrainingBackend>(
        &self,
        backend: &B,
        view: usize,
        rows: &[usize],
    ) -> Result<Images<B>> {
        if let Some((views, normalize)) = self.pixels.undrawn(view, rows) {
            return Ok(Images {
                pixels: backend.views(&views, self.size.0, &normalize)?,
                n: views.len(),
                size: (self.size.0, self.size.0),
            });
        }
        let resident = self.pixels.resident(view);
        if let Some(all) = resident.and_then(|all| all.downcast_ref::<B::Buf>()) {
            let image = self.size.0 * self.size.1 * 3;
            return Ok(Images {
                pixels: backend.select_rows(all, rows, image)?,
                n: rows.len(),
                size: self.size,
            });
        }
        Images::new(backend, rows.len(), self.size, |out| {
            self.pixels.write(view, rows, out);
        })
    }
}

/// What a step reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepStats {
    /// Mean loss over the batch.
    pub loss: f32,
    /// How queries agree with their positives.
    pub agreement: Agreement,
    /// Spread of the trained embeddings: their standard deviation over the batch, averaged over
    /// dimensions, times sqrt(dim). 1 is uniform on the sphere, 0 is collapse.
    pub spread: f32,
    /// Whether loss and gradient are finite.
    pub finite: bool,
}

/// What a step has found so far, where it was found.
pub(crate) struct Learned<B: TrainingBackend> {
    /// Of each part of a batch.
    pub(crate) found: Vec<B::Found>,
    /// The same, of which only the loss counts.
    beside: Vec<B::Found>,
    /// The embeddings of the view that was learned last, (batch, dim).
    pub(crate) queries: Option<B::Buf>,
}

impl<B: TrainingBackend> Learned<B> {
    pub(crate) fn new() -> Self {
        Learned {
            found: Vec::new(),
            beside: Vec::new(),
            queries: None,
        }
    }

    /// What was found of something else: its loss counts, and nothing else of it.
    pub(crate) fn found_besides(&mut self, other: Learned<B>) {
        self.beside.extend(other.found);
    }

    /// What a step of `encoder` reports. Only here it waits for a device.
    ///
    /// # Errors
    /// The backend's.
    pub(crate) fn stats(self, encoder: &Encoder<B>) -> Result<StepStats> {
        let Some(queries) = &self.queries else {
            return Ok(StepStats::default());
        };
        let grads = &encoder.params.grads;
        let counted = self.found.len();
        let found = self.found.into_iter().chain(self.beside).collect();
        let read = encoder.backend().read_step(found, queries, grads)?;
        let mut stats = StepStats {
            spread: spread(&read.queries, encoder.output_dim()),
            ..StepStats::default()
        };
        for (i, (loss, agreement)) in read.found.into_iter().enumerate() {
            stats.loss += loss;
            if i < counted {
                stats.agreement.positive += agreement.positive;
                stats.agreement.accuracy += agreement.accuracy;
            }
        }
        stats.finite = read.finite && stats.loss.is_finite();
        Ok(stats)
    }
}

/// [`StepStats::spread`] of rows of `dim` numbers.
pub(crate) fn spread(rows: &[f32], dim: usize) -> f32 {
    let n = (rows.len() / dim).max(1) as f64;
    let mut total = 0.0;
    for d in 0..dim {
        let column = || rows.iter().skip(d).step_by(dim).map(|&x| x as f64);
        let mean = column().sum::<f64>() / n;
        total += (column().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    }
    (total / (dim as f64).sqrt()) as f32
}
