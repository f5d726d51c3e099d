//! Losses and views on GPUs, by the kernels of `seedling-gpu`.

use std::ops::Range;

use seedling_data::{Normalize, Photo, ViewParams};
use seedling_gpu::{DeviceBuffer, Gpu, Logits, Runtime};

use crate::Result;
use crate::loss::{Agreement, Contrast, Regression, Target};
use crate::ops::{LossOps, StepRead, ViewOps};
use crate::queue::{NO_PHOTO, Queue};

/// Logits that are there at a time: of 256 queries and the method's queue.
const LOGITS: usize = 1 << 24;

impl<R: Runtime> ViewOps for Gpu<R> {
    fn makes_views(&self) -> bool {
        true
    }

    fn rescale(&self, x: &mut DeviceBuffer, channels: &[(f32, f32)]) -> Result<()> {
        let (factors, offsets): (Vec<f32>, Vec<f32>) = channels.iter().copied().unzip();
        let coefficients = self.send(&[factors, offsets].concat())?;
        self.rescale_by(x, &coefficients, channels.len());
        Ok(())
    }

    fn views(
        &self,
        views: &[(&Photo, &ViewParams)],
        size: usize,
        normalize: &Normalize,
    ) -> Result<DeviceBuffer> {
        self.make_views(views, size, normalize)
    }
}

impl<R: Runtime> LossOps for Gpu<R> {
    /// (queries, 3): loss, similarity of the positive, and whether that was nearest; and the batch's queries.
    type Found = (DeviceBuffer, usize);

    fn gather(&self, parts: &[DeviceBuffer], order: &[usize], dim: usize) -> Result<DeviceBuffer> {
        let all = self.alloc(order.len() * dim)?;
        let mut order = order;
        for part in parts {
            let (here, rest) = order.split_at(part.len() / dim);
            let places: Vec<u32> = here.iter().map(|&place| place as u32).collect();
            self.scatter_rows(part, &self.send_whole(&places)?, &all, dim);
            order = rest;
        }
        Ok(all)
    }

    fn select_rows(&self, x: &DeviceBuffer, rows: &[usize], dim: usize) -> Result<DeviceBuffer> {
        let out = self.alloc(rows.len() * dim)?;
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        self.gather_rows(x, &self.send_whole(&rows)?, &out, dim);
        Ok(out)
    }

    fn contrast(
        &self,
        queries: &DeviceBuffer,
        rows: Range<usize>,
        contrast: &Contrast<'_, DeviceBuffer, DeviceBuffer>,
    ) -> Result<(DeviceBuffer, Self::Found)> {
        let (n, dim) = (rows.len(), contrast.queue.dim);
        let at_once = (LOGITS / contrast.queue.size().max(1)).max(1);
        let alone = matches!(contrast.target, Target::Nothing);
        let (grad, found) = if alone {
            (self.alloc(n * dim)?, self.alloc(n * 3)?)
        } else if n <= at_once {
            contrast_rows(self, queries, rows.clone(), contrast)?
        } else {
            let (grad, found) = (self.alloc(n * dim)?, self.alloc(n * 3)?);
            let copy = |from: (&DeviceBuffer, usize), to: (&DeviceBuffer, usize), len| {
                self.copy_runs(from, len, to, len, (len, len));
            };
            for first in (0..n).step_by(at_once) {
                let count = at_once.min(n - first);
                let part = self.alloc(count * dim)?;
                copy((queries, first * dim), (&part, 0), count * dim);
                let at = rows.start + first;
                let (grad_of, found_of) = contrast_rows(self, &part, at..at + count, contrast)?;
                copy((&grad_of, 0), (&grad, first * dim), count * dim);
                copy((&found_of, 0), (&found, first * 3), count * 3);
            }
            (grad, found)
        };
        if let Some(Regression { to, weight }) = &contrast.regression {
            let scale = -2.0 * f64::from(self.loss_scale() * weight) / contrast.batch as f64;
            let how = (*weight, scale as f32, alone);
            self.regression(queries, (to, rows.start), (&grad, &found), dim, how);
        }
        Ok((grad, (found, contrast.batch)))
    }

    fn read_step(
        &self,
        found: Vec<Self::Found>,
        queries: &DeviceBuffer,
        grads: &DeviceBuffer,
    ) -> Result<StepRead> {
        let not_finite = self.not_finite(grads)?;
        let mut buffers: Vec<&DeviceBuffer> = found.iter().map(|(found, _)| found).collect();
        buffers.extend([queries, &not_finite]);
        let mut read = self.receive_all(&buffers)?;
        let (not_finite, queries) = (read.pop(), read.pop().unwrap_or_default());
        let batches = found.iter().map(|(_, batch)| *batch);
        Ok(StepRead {
            found: read.iter().zip(batches).map(mean_of).collect(),
            queries,
            finite: not_finite.is_some_and(|counts| counts.iter().all(|count| *count == 0.0)),
        })
    }

    fn enqueue(
        &self,
        queue: &mut Queue<DeviceBuffer>,
        keys: &DeviceBuffer,
        photos: &[u32],
    ) -> Result<()> {
        let mut places: Vec<u32> = photos
            .iter()
            .map(|&photo| queue.replace_oldest(photo) as u32)
            .collect();
        // More keys than rows: the last of a place stays.
        let late = places.len().saturating_sub(queue.size());
        places[..late].fill(u32::MAX);
        self.scatter_rows(keys, &self.send_whole(&places)?, &queue.keys, queue.dim);
        Ok(())
    }
}

/// Loss and agreement of the queries of a batch of so many, of what a kernel found of each.
fn mean_of((found, batch): (&Vec<f32>, usize)) -> (f32, Agreement) {
    let mean = |which: usize| {
        let column = found.iter().skip(which).step_by(3);
        let sum: f64 = column.map(|&x| x as f64).sum();
        (sum / batch as f64) as f32
    };
    let agreement = match mean(1) {
        // There was none.
        positive if positive < -1.5 => Agreement::default(),
        positive => Agreement {
            positive,
            accuracy: mean(2),
        },
    };
    (mean(0), agreement)
}

/// Gradient (n, dim), and loss and agreement (n, 3), of queries that are the batch's at `rows`.
fn contrast_rows<R: Runtime>(
    gpu: &Gpu<R>,
    queries: &DeviceBuffer,
    rows: Range<usize>,
    contrast: &Contrast<'_, DeviceBuffer, DeviceBuffer>,
) -> Result<(DeviceBuffer, DeviceBuffer)> {
    let (keys, dim) = (&contrast.queue.keys, contrast.queue.dim);
    let positives = (contrast.positives, rows.start);
    let logits = gpu.logits(queries, positives, keys, dim)?;
    match contrast.target {
        // Queues of which nobody knows the photos.
        Target::TeacherQueue(_) => gpu.without_positive(&logits),
        _ => leave_out(gpu, &logits, &rows, contrast)?,
    }
    let targets = targets(gpu, &logits, &rows, contrast)?;
    let found = gpu.soft_cross_entropy(&logits, targets.as_ref(), contrast.temperature)?;
    let scale = gpu.loss_scale() as f64 / (contrast.batch as f64 * contrast.temperature as f64);
    let grad = gpu.logits_back(&logits, positives, keys, dim, scale as f32)?;
    Ok((grad, found))
}

/// Leaves out what the queue shows of the queries' own photos, if it is to be.
fn leave_out<R: Runtime>(
    gpu: &Gpu<R>,
    logits: &Logits,
    rows: &Range<usize>,
    contrast: &Contrast<'_, DeviceBuffer, DeviceBuffer>,
) -> Result<()> {
    if contrast.mask_own_photo {
        let own = gpu.send_whole(&contrast.photos[rows.clone()])?;
        let queue = gpu.send_whole(&contrast.queue.photos)?;
        gpu.mask_own(logits, &own, &queue, NO_PHOTO);
    }
    Ok(())
}

/// What queries are pulled towards; `None` is their positive alone.
fn targets<R: Runtime>(
    gpu: &Gpu<R>,
    logits: &Logits,
    rows: &Range<usize>,
    contrast: &Contrast<'_, DeviceBuffer, DeviceBuffer>,
) -> Result<Option<Logits>> {
    let (n, dim) = (rows.len(), contrast.queue.dim);
    Ok(match contrast.target {
        Target::Positive | Target::Nothing => None,
        Target::TeacherQueue(teacher) => {
            let own = gpu.alloc(n * dim)?;
            let from = (contrast.positives, rows.start * dim);
            gpu.copy_runs(from, dim, (&own, 0), dim, (dim, n * dim));
            let logits = gpu.logits(&own, (&own, 0), &teacher.queue.keys, dim)?;
            gpu.without_positive(&logits);
            Some(gpu.teacher_targets(logits, teacher.temperature))
        }
        &Target::Teacher { temperature } => {
            let own = gpu.alloc(n * dim)?;
            let from = (contrast.positives, rows.start * dim);
            gpu.copy_runs(from, dim, (&own, 0), dim, (dim, n * dim));
            let teacher = gpu.logits(&own, (&own, 0), &contrast.queue.keys, dim)?;
            leave_out(gpu, &teacher, rows, contrast)?;
            Some(gpu.teacher_targets(teacher, temperature))
        }
        &Target::Nearest { weight, count } => Some(gpu.nearest_targets(logits, count, weight)?),
        Target::Neighbors(neighbors) => {
            let own = gpu.send_whole(&contrast.photos[rows.clone()])?;
            let queue = gpu.send_whole(&contrast.queue.photos)?;
            let (own_rows, own_known) = gpu.initial_rows(&neighbors.initial, &own, dim)?;
            let (queue_rows, queue_known) = gpu.initial_rows(&neighbors.initial, &queue, dim)?;
            let near = gpu.similarities(&own_rows, &queue_rows, dim)?;
            gpu.mask_unknown(&near, (&own, &own_known), (&queue, &queue_known));
            Some(gpu.near_targets(near, n, neighbors.temperature, neighbors.weight)?)
        }
    })
}
