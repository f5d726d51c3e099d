//! Dense convolution: patches gathered tile by tile, then a matrix product.
//!
//! An input that is read through its norm is computed once per image, into a few images' worth of
//! scratch, before patches are taken from it k * k times. The weight's gradient comes from the same
//! patches; theirs is a product of the tile's dz, and is added back to where they came from.

use std::ops::Range;

use rayon::prelude::*;

use super::norm::Moments;
use super::sink::Ungated;
use super::source::{GradSource, Source};
use super::sums::{MomentSums, merge_moments};
use super::winograd::{self, Filters, Pixels, Use};
use crate::gemm::{MatMul, Matrix, Packed, gemm_columns, outer};
use crate::parallel::{FILTERS, add_up, map_parts, map_pieces, pieces, split, tile_rows, tiles};
use crate::window::Window;
use crate::workspace::{Buffer, Workspace};

/// Positions that are worth a product's packing: of smaller images several go through it together.
const WORTH_POSITIONS: usize = 256;

/// z (n, out_height, out_width, out) from x (n, height, width, in) and w (out, in, k, k);
/// `window.channels` is the number of input channels. z's moments if asked for.
pub fn forward(
    x: &Source,
    window: &Window,
    w: &[f32],
    z: &mut [f32],
    with_moments: bool,
    workspace: &Workspace,
) -> Option<Moments> {
    let patch = patch_len(window);
    let cout = w.len() / patch;
    if winograd::serves(window, cout) {
        return forward_by_winograd(x, window, w, z, with_moments, workspace);
    }
    let w = reorder(w, window, workspace);
    let w = Matrix::rows(&w, patch).transposed();
    let w = Packed::new(w, patch, cout, workspace);
    let per_image = window.out_height * window.out_width;
    // What is stored as it is read can be cut anywhere.
    let unit = if x.is_plain() { 1 } else { per_image };
    let pieces = pieces(z.len() / cout, unit);
    let outs = split(z, &pieces, cout);
    let tile = tile_rows(patch + cout);
    let parts = map_parts(pieces, outs, |piece, out| {
        let mut patches = workspace.alloc(tile.min(piece.len()) * patch);
        let mut sums = MomentSums::new(cout);
        let first = piece.start;
        for chunk in chunks(piece, per_image) {
            let input = Input::new(x, window, &chunk, workspace);
            for rows in tiles(chunk, tile) {
                let n = rows.len();
                let out = &mut out[(rows.start - first) * cout..(rows.end - first) * cout];
                input.gather(window, rows, &mut patches);
                w.product(n, Matrix::rows(&patches, patch), out, false);
                if with_moments {
                    sums.add(out);
                }
            }
        }
        sums.finish()
    });
    with_moments.then(|| merge_moments(&parts, cout))
}

/// The same by fewer products.
fn forward_by_winograd(
    x: &Source,
    window: &Window,
    w: &[f32],
    z: &mut [f32],
    with_moments: bool,
    workspace: &Workspace,
) -> Option<Moments> {
    let cout = w.len() / patch_len(window);
    let filters = Filters::new(w, window.channels, workspace);
    let pixels = Pixels {
        stored: x.is_plain().then_some(x.z),
        compute: &|rows, out| x.copy(rows, out),
    };
    let take = |sums: &mut MomentSums, _, out: &mut [f32]| {
        if with_moments {
            sums.add(out);
        }
    };
    let straight = (&filters, Use::Forward);
    let sums = (|| MomentSums::new(cout), take);
    let parts = winograd::convolve(&pixels, straight, window, z, sums, workspace);
    let parts: Vec<Moments> = parts.into_iter().map(MomentSums::finish).collect();
    with_moments.then(|| merge_moments(&parts, cout))
}

/// Adds the weight's gradient to `dw` and gives the input's gradient, written to `out`, to `sink`.
/// `grad` gives dz, `x` the forward's input.
pub fn backward<S: Ungated>(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    w: &[f32],
    dw: &mut [f32],
    (out, sink): (&mut [f32], S),
    workspace: &Workspace,
) -> S::Sums {
    weight_gradient(grad, x, window, dw, workspace);
    let (cin, cout) = (window.channels, w.len() / patch_len(window));
    let parts = match winograd::serves(window, cout) {
        true => input_gradient_by_winograd(grad, x, window, w, (out, &sink), workspace),
        false => input_gradient(grad, x, window, w, (out, &sink), workspace),
    };
    sink.finish(parts, cin)
}

/// Adds the weight's gradient to `dw`; `grad` gives dz.
pub fn weight_gradient(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    dw: &mut [f32],
    workspace: &Workspace,
) {
    let patch = patch_len(window);
    let cout = dw.len() / patch;
    let per_image = window.out_height * window.out_width;
    let rows = x.z.len() / (window.height * window.width * window.channels) * per_image;
    let unit = if x.is_plain() { 1 } else { per_image };
    let pieces = pieces(rows, unit);
    // All patches, where they are less than a copy of the weight for each piece would be.
    let sum = match rows <= pieces.len() * cout {
        true => weight_gradient_at_once(grad, x, window, pieces, cout, workspace),
        false => weight_gradient_by_pieces(grad, x, window, pieces, cout, workspace),
    };
    add_reordered(dw, &sum, window);
}

/// One product of all patches.
fn weight_gradient_at_once(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    pieces: Vec<Range<usize>>,
    cout: usize,
    workspace: &Workspace,
) -> Buffer {
    let patch = patch_len(window);
    let per_image = window.out_height * window.out_width;
    let rows = pieces.last().map_or(0, |piece| piece.end);
    let mut patches = workspace.alloc(rows * patch);
    let mut dz = workspace.alloc(rows * cout);
    let outs = split(&mut patches, &pieces, patch).into_iter();
    let outs = outs.zip(split(&mut dz, &pieces, cout)).collect();
    map_parts(
        pieces,
        outs,
        |piece, (patches, dz): (&mut [f32], &mut [f32])| {
            grad.copy(piece.clone(), cout, dz);
            let first = piece.start;
            for rows in chunks(piece, per_image) {
                let input = Input::new(x, window, &rows, workspace);
                let at = (rows.start - first) * patch..(rows.end - first) * patch;
                input.gather(window, rows, &mut patches[at]);
            }
        },
    );
    let dz = Matrix::rows(&dz, cout).transposed();
    let patches = Matrix::rows(&patches, patch);
    let mut sum = workspace.alloc(cout * patch);
    gemm_columns(
        MatMul {
            m: cout,
            n: patch,
            k: rows,
        },
        dz,
        patches,
        &mut sum,
        false,
    );
    sum
}

/// Products of tiles, with a gradient for each piece of the rows.
fn weight_gradient_by_pieces(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    pieces: Vec<Range<usize>>,
    cout: usize,
    workspace: &Workspace,
) -> Buffer {
    let patch = patch_len(window);
    let per_image = window.out_height * window.out_width;
    let tile = tile_rows(patch + cout);
    let parts = map_pieces(pieces, |piece| {
        let most = tile.min(piece.len());
        let mut patches = workspace.alloc(most * patch);
        let mut dz = workspace.alloc(most * cout);
        let mut dw = workspace.zeros(patch * cout);
        for chunk in chunks(piece, per_image) {
            let input = Input::new(x, window, &chunk, workspace);
            for rows in tiles(chunk, tile) {
                let n = rows.len();
                let dz = &mut dz[..n * cout];
                grad.copy(rows.clone(), cout, dz);
                input.gather(window, rows, &mut patches);
                outer(
                    MatMul {
                        m: cout,
                        n: patch,
                        k: n,
                    },
                    dz,
                    &patches,
                    &mut dw,
                    true,
                );
            }
        }
        dw
    });
    let mut sum = workspace.zeros(cout * patch);
    add_up(&mut sum, &parts);
    sum
}

/// Gives the input's gradient to `sink`: of each piece, what it sums up.
fn input_gradient<S: Ungated>(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    w: &[f32],
    (out, sink): (&mut [f32], &S),
    workspace: &Workspace,
) -> Vec<S::Part> {
    let patch = patch_len(window);
    let (cin, cout) = (window.channels, w.len() / patch);
    let per_image = window.out_height * window.out_width;
    let in_image = window.height * window.width;
    let images = out.len() / (in_image * cin);
    let w = reorder(w, window, workspace);
    let packed = Packed::new(Matrix::rows(&w, patch), cout, patch, workspace);
    let pieces = pieces(images * in_image, in_image);
    let outs = split(out, &pieces, cin);
    let tile = tile_rows(patch + cout);
    map_parts(pieces, outs, |piece, out| {
        let piece = piece.start / in_image..piece.end / in_image;
        let most = tile.min(piece.len() * per_image);
        let mut patches = workspace.alloc(most * patch);
        let mut dz = workspace.alloc(most * cout);
        let mut part = sink.new_part(cin);
        let first = piece.start;
        for chunk in chunks(piece.start * per_image..piece.end * per_image, per_image) {
            let images = chunk.start / per_image..chunk.end.div_ceil(per_image);
            let rows_in = images.start * in_image..images.end * in_image;
            let dx = &mut out[(images.start - first) * in_image * cin..]
                [..images.len() * in_image * cin];
            match sink.shortcut() {
                Some(shortcut) => {
                    dx.copy_from_slice(&shortcut[rows_in.start * cin..rows_in.end * cin]);
                }
                None => dx.fill(0.0),
            }
            for rows in tiles(chunk, tile) {
                let n = rows.len();
                let dz = &mut dz[..n * cout];
                grad.copy(rows.clone(), cout, dz);
                packed.product(n, Matrix::rows(dz, cout), &mut patches, false);
                scatter(&patches, window, rows, images.start, dx);
            }
            sink.accept(&mut part, x, rows_in, dx);
        }
        part
    })
}

/// The same by fewer products.
fn input_gradient_by_winograd<S: Ungated>(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    w: &[f32],
    (out, sink): (&mut [f32], &S),
    workspace: &Workspace,
) -> Vec<S::Part> {
    let (cin, cout) = (window.channels, w.len() / patch_len(window));
    let filters = Filters::new(w, cin, workspace);
    let pixels = Pixels {
        stored: None,
        compute: &|rows, out| grad.copy(rows, cout, out),
    };
    let take = |part: &mut S::Part, rows: Range<usize>, out: &mut [f32]| {
        if let Some(shortcut) = sink.shortcut() {
            let shortcut = &shortcut[rows.start * cin..rows.end * cin];
            out.iter_mut()
                .zip(shortcut)
                .for_each(|(x, more)| *x += more);
        }
        sink.accept(part, x, rows, out);
    };
    let turned = (&filters, Use::Backward);
    winograd::convolve(
        &pixels,
        turned,
        window,
        out,
        (|| sink.new_part(cin), take),
        workspace,
    )
}

fn patch_len(window: &Window) -> usize {
    window.kernel * window.kernel * window.channels
}

/// Cuts output positions at image boundaries, into one image each or as many as are worth a product.
fn chunks(piece: Range<usize>, per_image: usize) -> impl Iterator<Item = Range<usize>> {
    let chunk = per_image * (WORTH_POSITIONS / per_image.max(1)).max(1);
    let (mut start, end) = (piece.start, piece.end);
    std::iter::from_fn(move || {
        (start < end).then(|| {
            let next = ((start / per_image) * per_image + chunk).min(end);
            let part = start..next;
            start = next;
            part
        })
    })
}

/// A convolution's input, as it is read, for some images.
enum Input<'a> {
    /// All images.
    Stored(&'a [f32]),
    /// Those from the one given.
    Computed(Buffer, usize),
}

impl<'a> Input<'a> {
    /// For the images of output positions `rows`.
    fn new(x: &Source<'a>, window: &Window, rows: &Range<usize>, workspace: &Workspace) -> Self {
        if x.is_plain() {
            return Input::Stored(x.z);
        }
        let (per_image, in_image) = (
            window.out_height * window.out_width,
            window.height * window.width,
        );
        let (first, end) = (rows.start / per_image, rows.end.div_ceil(per_image));
        let mut computed = workspace.alloc((end - first) * in_image * window.channels);
        x.copy(first * in_image..end * in_image, &mut computed);
        Input::Computed(computed, first)
    }

    /// The patches under the output positions `rows` of all images.
    fn gather(&self, window: &Window, rows: Range<usize>, patches: &mut [f32]) {
        let (image, first) = match self {
            Input::Stored(all) => (*all, 0),
            Input::Computed(some, first) => (&some[..], *first),
        };
        let run = window.kernel * window.channels;
        for (row, patch) in rows.zip(patches.chunks_exact_mut(window.kernel * run)) {
            let place = Place::locate(row, window, first);
            for (ky, line) in patch.chunks_exact_mut(run).enumerate() {
                let Some(from) = place.line(ky, window) else {
                    line.fill(0.0);
                    continue;
                };
                let (start, len) = (place.skip, from.len());
                line[..start].fill(0.0);
                line[start..start + len].copy_from_slice(&image[from]);
                line[start + len..].fill(0.0);
            }
        }
    }
}

/// Adds the gradient of patches to that of the images from `first` on, from which they were taken.
fn scatter(patches: &[f32], window: &Window, rows: Range<usize>, first: usize, images: &mut [f32]) {
    let run = window.kernel * window.channels;
    for (row, patch) in rows.zip(patches.chunks_exact(window.kernel * run)) {
        let place = Place::locate(row, window, first);
        for (ky, line) in patch.chunks_exact(run).enumerate() {
            if let Some(to) = place.line(ky, window) {
                let line = &line[place.skip..];
                for (a, b) in images[to].iter_mut().zip(line) {
                    *a += b;
                }
            }
        }
    }
}

/// Where a patch lies.
struct Place {
    /// Row of the first image's pixels at which its image begins.
    image: usize,
    top: isize,
    /// First column inside the image, and how many are.
    left: usize,
    columns: usize,
    /// Numbers of a line that lie before the image.
    skip: usize,
}

impl Place {
    /// Of output position `row`, in images counted from `first`.
    fn locate(row: usize, window: &Window, first: usize) -> Place {
        let (y, x) = (
            row / window.out_width % window.out_height,
            row % window.out_width,
        );
        let left = (x * window.stride) as isize - window.pad_left as isize;
        let skip = (-left).max(0) as usize;
        let end = ((left + window.kernel as isize).max(0) as usize).min(window.width);
        let left = left.max(0) as usize;
        Place {
            image: (row / (window.out_height * window.out_width) - first) * window.height,
            top: (y * window.stride) as isize - window.pad_top as isize,
            left,
            columns: end.saturating_sub(left),
            skip: skip * window.channels,
        }
    }

    /// The numbers of the images under line `ky`, if it lies inside.
    fn line(&self, ky: usize, window: &Window) -> Option<Range<usize>> {
        let y = self.top + ky as isize;
        if y < 0 || y as usize >= window.height {
            return None;
        }
        let start = ((self.image + y as usize) * window.width + self.left) * window.channels;
        Some(start..start + self.columns * window.channels)
    }
}

/// (out, in, ky, kx) to (out, ky, kx, in), the order in which patches lie in an image.
fn reorder(w: &[f32], window: &Window, workspace: &Workspace) -> Buffer {
    let (k2, cin) = (window.kernel * window.kernel, window.channels);
    let mut out = workspace.alloc(w.len());
    let (from, to) = (
        w.par_chunks_exact(k2 * cin),
        out.par_chunks_exact_mut(k2 * cin),
    );
    from.zip(to).with_min_len(FILTERS).for_each(|(from, to)| {
        for (t, to) in to.chunks_exact_mut(cin).enumerate() {
            for (to, from) in to.iter_mut().zip(from[t..].iter().step_by(k2)) {
                *to = *from;
            }
        }
    });
    out
}

/// Adds `sum`, in that order of a weight's numbers, to `dw` in PyTorch's.
fn add_reordered(dw: &mut [f32], sum: &[f32], window: &Window) {
    let (k2, cin) = (window.kernel * window.kernel, window.channels);
    let (to, from) = (
        dw.par_chunks_exact_mut(k2 * cin),
        sum.par_chunks_exact(k2 * cin),
    );
    to.zip(from).with_min_len(FILTERS).for_each(|(to, from)| {
        for (t, from) in from.chunks_exact(cin).enumerate() {
            for (to, from) in to[t..].iter_mut().step_by(k2).zip(from) {
                *to += from;
            }
        }
    });
}
