//! A tensor that is stored as it is read: act(norm(z)), or norm(z) plus a shortcut; and back.

use super::channelwise::{activate, affine_add};
use super::norm::GradSums;
use super::pointwise;
use super::source::Source;
use crate::nn::activation::with_act;
use crate::nn::parallel::{over, pieces, split};

/// y = x as it is read, or (where there is no activation) plus `shortcut`.
pub fn forward(x: &Source, shortcut: Option<&[f32]>, y: &mut [f32]) {
    let c = x.channels;
    let pieces = pieces(x.z.len() / c, 1);
    let outs = split(y, &pieces, c);
    over(pieces, outs, |rows, y| {
        let at = rows.start * c..rows.end * c;
        let z = &x.z[at.clone()];
        match (x.norm, shortcut) {
            (Some((norm, _)), Some(x)) => affine_add(z, &norm.scale, &norm.shift, &x[at], y),
            (Some((norm, act)), None) => {
                with_act!(act, A => activate::<A>(z, &norm.scale, &norm.shift, y))
            }
            (None, _) => y.copy_from_slice(z),
        }
    });
}

/// In place: g becomes dy behind the activation of `x`; returns batch norm's sums.
pub fn backward(x: &Source, g: &mut [f32]) -> GradSums {
    let c = x.channels;
    let pieces = pieces(g.len() / c, 1);
    let gs = split(g, &pieces, c);
    let parts = over(pieces, gs, |rows, g| pointwise::through(x, rows, g));
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}
