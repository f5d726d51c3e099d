//! A convolution with its batch norm, and how the blocks pass through both.

use std::ops::Range;

use crate::nn::activation::{Act, with_act};
use crate::nn::ops::channelwise::{activate, affine_add};
use crate::nn::ops::norm::{BatchNorm, GradSums, NormState};
use crate::nn::ops::pointwise;
use crate::nn::ops::source::Source;
use crate::nn::parallel::{over, pieces, split};
use crate::params::{Layout, Role};

/// A convolution and its batch norm.
#[derive(Clone, Debug)]
pub(super) struct ConvNorm {
    pub(super) weight: Range<usize>,
    pub(super) norm: BatchNorm,
}

impl ConvNorm {
    pub(super) fn new(
        layout: &mut Layout,
        (conv, norm): (String, String),
        shape: &[usize],
        eps: f32,
    ) -> ConvNorm {
        ConvNorm {
            weight: layout.add(format!("{conv}.weight"), shape, Role::ConvWeight),
            norm: BatchNorm::new(layout, &norm, shape[0], eps),
        }
    }
}

/// y = act(norm(z)) (+ x), stored.
pub(super) fn materialise(
    z: &[f32],
    norm: &NormState,
    act: Act,
    residual: Option<&[f32]>,
    y: &mut [f32],
) {
    let c = norm.channels;
    let pieces = pieces(z.len() / c, 1);
    let outs = split(y, &pieces, c);
    over(pieces, outs, |rows, y| {
        let at = rows.start * c..rows.end * c;
        match residual {
            Some(x) => affine_add(&z[at.clone()], &norm.scale, &norm.shift, &x[at], y),
            None => with_act!(act, A => activate::<A>(&z[at], &norm.scale, &norm.shift, y)),
        }
    });
}

/// In place: g becomes dy behind the activation of `x`; returns batch norm's sums.
pub(super) fn through(x: &Source, g: &mut [f32]) -> GradSums {
    let c = x.channels;
    let pieces = pieces(g.len() / c, 1);
    let gs = split(g, &pieces, c);
    let parts = over(pieces, gs, |rows, g| pointwise::through(x, rows, g));
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}

/// A layer's weight, and where its gradient goes.
pub(super) fn weights<'a>(
    values: &'a [f32],
    grads: &'a mut [f32],
    range: &Range<usize>,
) -> (&'a [f32], &'a mut [f32]) {
    (&values[range.clone()], &mut grads[range.clone()])
}
