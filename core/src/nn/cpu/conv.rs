//! Dense convolution of an image with few channels (the stem): patches gathered tile by tile,
//! then the product of [`super::pointwise`]. The image itself gets no gradient.

use std::ops::Range;

use super::norm::Moments;
use super::source::GradSource;
use super::sums::{MomentSums, merge_moments};
use crate::nn::gemm::{Matrix, Packed, outer};
use crate::nn::parallel::{each, over, pieces, split, tile_rows, tiles};
use crate::nn::window::Window;
use crate::nn::workspace::Workspace;

/// z (n, out_height, out_width, out) from an image (n, height, width, in) and w (out, in, k, k);
/// `window.channels` is the number of input channels. z's moments if asked for.
pub fn forward(
    image: &[f32],
    window: &Window,
    w: &[f32],
    z: &mut [f32],
    with_moments: bool,
    workspace: &Workspace,
) -> Option<Moments> {
    let patch = patch_len(window);
    let cout = w.len() / patch;
    let w = reorder(w, window, false);
    let w = Matrix::rows(&w, patch).transposed();
    let w = Packed::new(w, patch, cout, workspace);
    let pieces = pieces(z.len() / cout, 1);
    let outs = split(z, &pieces, cout);
    let tile = tile_rows(patch + cout);
    let parts = over(pieces, outs, |piece, out| {
        let mut patches = workspace.take(tile.min(piece.len()) * patch);
        let mut sums = MomentSums::new(cout);
        let first = piece.start;
        for rows in tiles(piece, tile) {
            let n = rows.len();
            let out = &mut out[(rows.start - first) * cout..(rows.end - first) * cout];
            gather(image, window, rows, &mut patches);
            w.product(n, Matrix::rows(&patches, patch), out, false);
            if with_moments {
                sums.add(out);
            }
        }
        sums.finish()
    });
    with_moments.then(|| merge_moments(&parts, cout))
}

/// Adds the weight's gradient to `dw`; `grad` gives dz.
pub fn backward(
    grad: &GradSource,
    image: &[f32],
    window: &Window,
    dw: &mut [f32],
    workspace: &Workspace,
) {
    let patch = patch_len(window);
    let cout = dw.len() / patch;
    let images = image.len() / (window.height * window.width * window.channels);
    let rows = images * window.out_height * window.out_width;
    let tile = tile_rows(patch + cout);
    let parts = each(pieces(rows, 1), |piece| {
        let most = tile.min(piece.len());
        let mut patches = workspace.take(most * patch);
        let mut dz = workspace.take(most * cout);
        let mut dw = workspace.zeros(patch * cout);
        for rows in tiles(piece, tile) {
            let n = rows.len();
            let dz = &mut dz[..n * cout];
            grad.copy(rows.clone(), cout, dz);
            gather(image, window, rows, &mut patches);
            outer((cout, patch, n), dz, &patches, &mut dw, true);
        }
        dw
    });
    for part in parts {
        for (a, b) in dw.iter_mut().zip(reorder(&part, window, true)) {
            *a += b;
        }
    }
}

fn patch_len(window: &Window) -> usize {
    window.kernel * window.kernel * window.channels
}

/// (out, in, ky, kx) to (out, ky, kx, in), the order in which patches lie in an image; or back.
fn reorder(w: &[f32], window: &Window, back: bool) -> Vec<f32> {
    let (k2, cin) = (window.kernel * window.kernel, window.channels);
    let mut out = vec![0.0; w.len()];
    for (from, to) in w.chunks_exact(k2 * cin).zip(out.chunks_exact_mut(k2 * cin)) {
        for ci in 0..cin {
            for t in 0..k2 {
                let (torch, ours) = (ci * k2 + t, t * cin + ci);
                if back {
                    to[torch] = from[ours];
                } else {
                    to[ours] = from[torch];
                }
            }
        }
    }
    out
}

/// The patches under the output positions `rows` of all images.
fn gather(image: &[f32], window: &Window, rows: Range<usize>, patches: &mut [f32]) {
    let Window {
        height,
        width,
        channels: c,
        kernel,
        stride,
        pad_top,
        pad_left,
        out_height,
        out_width,
    } = *window;
    let run = kernel * c;
    for (row, patch) in rows.zip(patches.chunks_exact_mut(kernel * run)) {
        let (n, y, x) = (
            row / (out_height * out_width),
            row / out_width % out_height,
            row % out_width,
        );
        let left = (x * stride) as isize - pad_left as isize;
        let skip = (-left).max(0) as usize;
        let first = left.max(0) as usize;
        let count = ((left + kernel as isize).max(0) as usize)
            .min(width)
            .saturating_sub(first);
        for (ky, line) in patch.chunks_exact_mut(run).enumerate() {
            let y = (y * stride + ky) as isize - pad_top as isize;
            if y < 0 || y as usize >= height {
                line.fill(0.0);
                continue;
            }
            let from = ((n * height + y as usize) * width + first) * c;
            line[..skip * c].fill(0.0);
            line[skip * c..(skip + count) * c].copy_from_slice(&image[from..from + count * c]);
            line[(skip + count) * c..].fill(0.0);
        }
    }
}
