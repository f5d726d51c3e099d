//! A view of a batch through a network, group by group: the photos of a group share batch-norm
//! statistics, as those on one of MoCo's devices do.
//!
//! Only one group's tensors exist at a time, and gradients of groups add up.

use std::ops::Range;

use crate::cancel::Cancel;
use crate::encoder::{EMBEDDING_DIM, Encoder, Mode};
use crate::error::Result;
use crate::loss::{Contrast, evaluate};
use crate::nn::backend::Backend;
use crate::step::{StepStats, Views, spread};

/// Loss and gradient of `encoder` as it sees `view`, against what `contrast` says of the batch's
/// rows. The gradient is added to `encoder.params.grads`, the rest to `stats`.
///
/// # Errors
/// The views have no pixels, or someone has cancelled.
pub(crate) fn learn<'a, B: Backend>(
    encoder: &Encoder<B>,
    (mode, bn_group, cancel): (Mode, usize, &Cancel),
    (views, view): (&Views, usize),
    contrast: impl Fn(Range<usize>) -> Contrast<'a>,
    stats: &mut StepStats,
) -> Result<()> {
    let order: Vec<usize> = (0..views.photos.len()).collect();
    let mut all = Vec::with_capacity(order.len() * EMBEDDING_DIM);
    for rows in order.chunks(bn_group) {
        cancel.check()?;
        let images = views.images(encoder, view, rows)?;
        let (embeddings, saved) = encoder.forward(&images, mode)?;
        let contrast = contrast(rows[0]..rows[0] + rows.len());
        let result = evaluate(&embeddings, EMBEDDING_DIM, &contrast);
        encoder.backward(&images, saved, &result.grad)?;
        stats.loss += result.loss;
        stats.agreement.positive += result.agreement.positive;
        stats.agreement.accuracy += result.agreement.accuracy;
        all.extend(embeddings);
    }
    stats.spread = spread(&all, EMBEDDING_DIM);
    Ok(())
}
