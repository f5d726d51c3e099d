//! Depthwise convolution, 3x3 and 5x5, stride 1 and 2.
//!
//! An image passes row by row through a ring of k padded rows that stays in the cache: each
//! input row is computed from what is stored once, used k times, and forgotten.

mod ring;
mod rows;

use self::ring::Ring;
use self::rows::{convolve_row, scatter, tap_gradients, taps_by_position};
use super::norm::Moments;
use super::sink::{Sink, Ungated};
use super::source::{GradSource, Source};
use super::sums::{MomentSums, merge_moments};
use crate::parallel::{map_parts, pieces, split};
use crate::window::Window;
use crate::workspace::{Buffer, Workspace};

/// z (n, out_height, out_width, c) from x (n, height, width, c) and w (c, 1, k, k); z's moments
/// if asked for.
pub fn forward(
    x: &Source,
    window: &Window,
    w: &[f32],
    z: &mut [f32],
    with_moments: bool,
    workspace: &Workspace,
) -> Option<Moments> {
    let c = window.channels;
    let taps = taps_by_position(w, c, false);
    let out_image = window.out_height * window.out_width * c;
    let images = pieces(z.len() / c, window.out_height * window.out_width);
    let outs = split(z, &images, c);
    let per_image = window.out_height * window.out_width;
    let parts = map_parts(images, outs, |piece, out| {
        let mut sums = MomentSums::new(c);
        let first = piece.start / per_image;
        for (i, out) in out.chunks_exact_mut(out_image).enumerate() {
            let base = (first + i) * window.height * window.width;
            let row_len = window.padded_width() * c;
            let mut ring = Ring::new(window.kernel, row_len, window.height, workspace);
            let inside = window.pad_left * c..(window.pad_left + window.width) * c;
            for (oy, out) in out.chunks_exact_mut(window.out_width * c).enumerate() {
                let top = (oy * window.stride) as isize - window.pad_top as isize;
                let end = (top + window.kernel as isize).max(0) as usize;
                ring.advance(end, inside.clone(), |row, into| {
                    let start = base + row * window.width;
                    x.copy(start..start + window.width, into);
                });
                convolve_row(&ring, top, window.kernel, window.stride, &taps, c, out);
                if with_moments {
                    sums.add(out);
                }
            }
        }
        sums.finish()
    });
    with_moments.then(|| merge_moments(&parts, c))
}

/// Adds the taps' gradient to `dw` and gives the input's gradient, written to `out`, to `sink`.
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
    let c = window.channels;
    let k2 = window.kernel * window.kernel;
    let taps = taps_by_position(w, c, window.stride == 1);
    let per_image = window.height * window.width;
    let pieces = pieces(out.len() / c, per_image);
    let outs = split(out, &pieces, c);
    let parts = map_parts(pieces, outs, |piece, out| {
        let mut lane = Lane {
            grad,
            x,
            window,
            taps: &taps,
            sink: &sink,
            dtaps: workspace.zeros(k2 * c),
            part: sink.new_part(c),
            workspace,
        };
        let first = piece.start / per_image;
        for (i, out) in out.chunks_exact_mut(per_image * c).enumerate() {
            if window.stride == 1 {
                lane.image_stride_1(first + i, out);
            } else {
                lane.image_stride_2(first + i, out);
            }
        }
        (lane.dtaps, lane.part)
    });
    let (taps, parts): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    for part in &taps {
        for ch in 0..c {
            for t in 0..k2 {
                dw[ch * k2 + t] += part[t * c + ch];
            }
        }
    }
    sink.finish(parts, c)
}

/// One piece of a backward pass.
struct Lane<'a, S: Sink> {
    grad: &'a GradSource<'a>,
    x: &'a Source<'a>,
    window: &'a Window,
    taps: &'a [f32],
    sink: &'a S,
    dtaps: Buffer,
    part: S::Part,
    workspace: &'a Workspace,
}

impl<S: Sink> Lane<'_, S> {
    /// Stride 1: dx is dz convolved with the flipped taps, as soon as the rows below are there.
    fn image_stride_1(&mut self, image: usize, out: &mut [f32]) {
        let Window {
            height,
            width,
            channels: c,
            kernel,
            pad_top: pad,
            ..
        } = *self.window;
        // At stride 1 every padding is symmetric.
        let after = kernel - 1 - pad;
        let row_len = (width + kernel - 1) * c;
        let mut inputs = Ring::new(kernel, row_len, height, self.workspace);
        let mut grads = Ring::new(kernel, row_len, height, self.workspace);
        let base = image * height * width;
        // The row of dz that completes input row `y` is y + pad.
        for t in 0..height + pad {
            if t < height {
                self.load_inputs(&mut inputs, base, t + kernel - pad);
                let grad = self.grad;
                grads.advance(t + 1, after * c..(after + width) * c, |row, into| {
                    let start = base + row * width;
                    grad.copy(start..start + width, c, into);
                });
                let dz = &grads.row(t as isize)[after * c..(after + width) * c];
                tap_gradients(
                    &inputs,
                    t as isize - pad as isize,
                    self.window,
                    dz,
                    &mut self.dtaps,
                );
            }
            if t >= pad {
                let y = t - pad;
                let dx = &mut out[y * width * c..(y + 1) * width * c];
                convolve_row(
                    &grads,
                    y as isize - after as isize,
                    kernel,
                    1,
                    self.taps,
                    c,
                    dx,
                );
                self.emit(base + y * width, dx);
            }
        }
    }

    /// Stride 2: every row of dz is scattered over the k rows of dx it touches; a row of dx
    /// leaves when no later window reaches it.
    fn image_stride_2(&mut self, image: usize, out: &mut [f32]) {
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
        } = *self.window;
        let row_len = self.window.padded_width() * c;
        let mut inputs = Ring::new(kernel, row_len, height, self.workspace);
        let mut dx_rows = Ring::new(kernel, row_len, height, self.workspace);
        let mut dz = self.workspace.alloc(out_width * c);
        let base = image * height * width;
        let out_base = image * out_height * out_width;
        let mut done = 0;
        for oy in 0..out_height {
            let top = (oy * stride) as isize - pad_top as isize;
            self.load_inputs(&mut inputs, base, (top + kernel as isize).max(0) as usize);
            let start = out_base + oy * out_width;
            self.grad.copy(start..start + out_width, c, &mut dz);
            tap_gradients(&inputs, top, self.window, &dz, &mut self.dtaps);
            for ky in 0..kernel {
                let y = top + ky as isize;
                if y < 0 || y as usize >= height {
                    continue;
                }
                let row = dx_rows.slot(y as usize);
                for kx in 0..kernel {
                    let tap = &self.taps[(ky * kernel + kx) * c..][..c];
                    scatter(&dz, tap, stride, &mut row[kx * c..]);
                }
            }
            let end = if oy + 1 == out_height {
                height
            } else {
                ((top + stride as isize).max(0) as usize).min(height)
            };
            while done < end {
                let dx = &mut out[done * width * c..(done + 1) * width * c];
                let row = dx_rows.slot(done);
                dx.copy_from_slice(&row[pad_left * c..(pad_left + width) * c]);
                row.fill(0.0);
                self.emit(base + done * width, dx);
                done += 1;
            }
        }
    }

    fn load_inputs(&self, ring: &mut Ring, base: usize, end: usize) {
        let Window {
            width,
            channels: c,
            pad_left,
            ..
        } = *self.window;
        ring.advance(end, pad_left * c..(pad_left + width) * c, |row, into| {
            let start = base + row * width;
            self.x.copy(start..start + width, into);
        });
    }

    /// Finishes a row of dx in place.
    fn emit(&mut self, first_row: usize, dx: &mut [f32]) {
        let c = self.window.channels;
        if let Some(shortcut) = self.sink.shortcut() {
            for (a, b) in dx.iter_mut().zip(&shortcut[first_row * c..]) {
                *a += b;
            }
        }
        let rows = first_row..first_row + dx.len() / c;
        self.sink.accept(&mut self.part, self.x, rows, dx);
    }
}
