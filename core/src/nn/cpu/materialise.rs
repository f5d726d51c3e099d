//! A tensor that is stored as it is read: act(norm(z)), or norm(z) plus a shortcut; and back.

use super::channelwise::affine_add;
use super::norm::GradSums;
use super::source::Source;
use super::sums::NormSums;
use crate::nn::parallel::{over, pieces, split, tile_rows, tiles};

/// y = x as it is read, or (where there is no activation) plus `shortcut`.
pub fn forward(x: &Source, shortcut: Option<&[f32]>, y: &mut [f32]) {
    let c = x.channels;
    let pieces = pieces(x.z.len() / c, 1);
    let outs = split(y, &pieces, c);
    over(pieces, outs, |rows, y| {
        let at = rows.start * c..rows.end * c;
        match (x.norm, shortcut) {
            (Some((norm, _)), Some(shortcut)) => {
                let z = &x.z[at.clone()];
                affine_add(z, &norm.scale, &norm.shift, &shortcut[at], y);
            }
            _ => x.copy(rows, y),
        }
    });
}

/// In place: g becomes dy behind the activation of `x`; returns batch norm's sums.
pub fn backward(x: &Source, g: &mut [f32]) -> GradSums {
    let c = x.channels;
    let pieces = pieces(g.len() / c, 1);
    let gs = split(g, &pieces, c);
    let tile = tile_rows(2 * c);
    let parts = over(pieces, gs, |piece, g| {
        let first = piece.start;
        let mut sums = NormSums::new(c);
        for rows in tiles(piece, tile) {
            let g = &mut g[(rows.start - first) * c..(rows.end - first) * c];
            sums.through(x, &x.z[rows.start * c..rows.end * c], g);
        }
        sums.finish()
    });
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}
