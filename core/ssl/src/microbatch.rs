//! A view of a batch through a network, group by group: the photos of a group share batch-norm
//! statistics, as those on one of MoCo's devices do.
//!
//! Only as many groups' tensors exist at a time as the engine takes at once, and gradients of groups add
//! up.

use crate::loss::Contrast;
use crate::ops::TrainingBackend;
use crate::step::{StepStats, Views, spread};
use seedling_base::cancel::Cancel;
use seedling_base::error::Result;
use seedling_nn::encoder::{Encoder, Mode};

/// Which of a step's encoders.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Query = 0,
    Key = 1,
}

/// A number for each pass of a step: that of a group's `view` through an encoder.
pub(crate) fn pass(side: Side, view: usize, group: usize) -> u64 {
    (side as u64) << 33 | (view as u64) << 32 | group as u64
}

/// Photos in an `order` that go through a network together, in whole groups of `bn_group`, and how many
/// groups these are.
pub(crate) fn together<'a, B: TrainingBackend>(
    backend: &B,
    order: &'a [usize],
    bn_group: usize,
) -> impl Iterator<Item = (&'a [usize], usize)> + use<'a, B> {
    let whole = order.len().is_multiple_of(bn_group);
    let groups = if whole { backend.groups_at_once() } else { 1 };
    let groups = groups.clamp(1, order.len().div_ceil(bn_group).max(1));
    let chunks = order.chunks(groups * bn_group);
    chunks.map(move |rows| (rows, rows.len().div_ceil(bn_group)))
}

/// Loss and gradient of `encoder` as it sees `view`, by `contrast`. The gradient is added to
/// `encoder.params.grads`, the rest to `stats`.
///
/// # Errors
/// The views have no pixels, someone has cancelled, or the backend's.
pub(crate) fn learn<B: TrainingBackend>(
    encoder: &Encoder<B>,
    (mode, bn_group, cancel): (Mode, usize, &Cancel),
    (views, view): (&Views, usize),
    contrast: &Contrast<'_, B::Buf, B::Flat>,
    stats: &mut StepStats,
) -> Result<()> {
    let backend = encoder.backend();
    let order: Vec<usize> = (0..views.photos.len()).collect();
    let mut groups = Vec::new();
    for (rows, count) in together(backend, &order, bn_group) {
        cancel.check()?;
        let images = views.images(backend, view, rows)?;
        let first = pass(Side::Query, view, rows[0] / bn_group);
        let mode = mode.at_pass(first, count);
        let (queries, saved) = encoder.forward(&images, mode)?;
        let found = backend.contrast(&queries, rows[0]..rows[0] + rows.len(), contrast)?;
        encoder.backward(&images, saved, found.grad)?;
        stats.loss += found.loss;
        stats.agreement.positive += found.agreement.positive;
        stats.agreement.accuracy += found.agreement.accuracy;
        groups.push(queries);
    }
    let dim = encoder.output_dim();
    let queries = backend.gather(&groups, &order, dim)?;
    stats.spread = spread(&backend.download(&queries)?, dim);
    Ok(())
}
