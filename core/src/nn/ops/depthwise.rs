//! Depthwise convolution, 3x3 and 5x5, stride 1 and 2.
//!
//! An image passes row by row through a ring of k padded rows that stays in the cache: each
//! input row is computed from what is stored once, used k times, and forgotten.

use rayon::prelude::*;

use super::norm::{GradSums, Moments};
use super::pointwise::{MomentSums, NormSums, Sink, Sums, merge_moments};
use super::source::{GradSource, Source};
use crate::nn::parallel::{pieces, split};
use crate::nn::simd::{dispatch, fma};
use crate::nn::workspace::{Buffer, Workspace};

/// Sizes of one depthwise (or dense) convolution over square windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row; as many as needed follow the last.
    pub pad_top: usize,
    /// Zeros before the first column, likewise.
    pub pad_left: usize,
    pub out_height: usize,
    pub out_width: usize,
}

/// How a convolution pads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// PyTorch's: kernel / 2 on every side.
    #[default]
    Symmetric,
    /// TensorFlow's SAME: what the output size needs, the odd one at the end.
    Same,
}

impl Window {
    /// The window for a (height, width, channels) image.
    pub fn new(
        (height, width): (usize, usize),
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Window {
        let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
        // Symmetric padding of k/2 gives the same output sizes, ceil(n / stride), for odd k.
        let pad = |size: usize, out: usize| match padding {
            Padding::Symmetric => kernel / 2,
            Padding::Same => ((out - 1) * stride + kernel).saturating_sub(size) / 2,
        };
        Window {
            height,
            width,
            channels,
            kernel,
            stride,
            pad_top: pad(height, out_height),
            pad_left: pad(width, out_width),
            out_height,
            out_width,
        }
    }

    /// Columns of a padded input row: enough for the last window.
    fn padded_width(&self) -> usize {
        (self.pad_left + self.width).max((self.out_width - 1) * self.stride + self.kernel)
    }
}

/// The taps (channels, 1, k, k) as (k * k, channels), for kernels that run over channels.
fn taps_by_position(w: &[f32], channels: usize, flip: bool) -> Vec<f32> {
    let k2 = w.len() / channels;
    let mut taps = vec![0.0; w.len()];
    for c in 0..channels {
        for t in 0..k2 {
            let to = if flip { k2 - 1 - t } else { t };
            taps[to * channels + c] = w[c * k2 + t];
        }
    }
    taps
}

/// k rows of padded width, addressed by row number; rows outside the image read as zeros.
struct Ring {
    rows: Buffer,
    zero: Buffer,
    slots: usize,
    row_len: usize,
    height: usize,
    loaded: usize,
}

impl Ring {
    fn new(slots: usize, row_len: usize, height: usize, workspace: &Workspace) -> Ring {
        Ring {
            rows: workspace.zeros(slots * row_len),
            zero: workspace.zeros(row_len),
            slots,
            row_len,
            height,
            loaded: 0,
        }
    }

    fn slot(&mut self, row: usize) -> &mut [f32] {
        &mut self.rows[row % self.slots * self.row_len..][..self.row_len]
    }

    /// Loads rows up to and without `end` (clipped to the image) by `read(row, interior)`.
    fn advance(
        &mut self,
        end: usize,
        interior: std::ops::Range<usize>,
        mut read: impl FnMut(usize, &mut [f32]),
    ) {
        while self.loaded < end.min(self.height) {
            let row = self.loaded;
            read(row, &mut self.slot(row)[interior.clone()]);
            self.loaded += 1;
        }
    }

    fn row(&self, row: isize) -> &[f32] {
        if row < 0 || row as usize >= self.height {
            return &self.zero;
        }
        &self.rows[row as usize % self.slots * self.row_len..][..self.row_len]
    }
}

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
    let parts: Vec<Moments> = images
        .into_par_iter()
        .zip(outs)
        .map(|(piece, out)| {
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
        })
        .collect();
    with_moments.then(|| merge_moments(parts, c))
}

fn convolve_row(
    ring: &Ring,
    top: isize,
    kernel: usize,
    stride: usize,
    taps: &[f32],
    c: usize,
    out: &mut [f32],
) {
    let row = |ky: usize| ring.row(top + ky as isize);
    match (kernel, stride) {
        (3, 1) => convolve::<3, 1>(&[row(0), row(1), row(2)], taps, c, out),
        (3, 2) => convolve::<3, 2>(&[row(0), row(1), row(2)], taps, c, out),
        (5, 1) => convolve::<5, 1>(&[row(0), row(1), row(2), row(3), row(4)], taps, c, out),
        (5, 2) => convolve::<5, 2>(&[row(0), row(1), row(2), row(3), row(4)], taps, c, out),
        _ => unreachable!("Window is only made for kernels 3 and 5, strides 1 and 2"),
    }
}

dispatch! {
    /// One output row: out[x, c] = sum over ky, kx of rows[ky][x * S + kx, c] * taps[ky, kx, c].
    fn convolve<const K: usize, const S: usize>(
        rows: &[&[f32]; K], taps: &[f32], c: usize, out: &mut [f32],
    ) {
        let width = out.len() / c;
        assert!(taps.len() == K * K * c && out.len() == width * c);
        assert!(rows.iter().all(|r| r.len() >= ((width - 1) * S + K) * c));
        let mut at = 0;
        while at + 16 <= c {
            convolve_columns::<FMA, K, S, 16>(rows, taps, c, at, width, out);
            at += 16;
        }
        while at + 8 <= c {
            convolve_columns::<FMA, K, S, 8>(rows, taps, c, at, width, out);
            at += 8;
        }
        while at < c {
            convolve_columns::<FMA, K, S, 1>(rows, taps, c, at, width, out);
            at += 1;
        }
    }
}

/// A block of L channels of a row, in runs of 8, 4 or 1 outputs. A last run that would stick out
/// starts earlier and computes some outputs again: cheaper than a tail.
#[inline(always)]
fn convolve_columns<const FMA: bool, const K: usize, const S: usize, const L: usize>(
    rows: &[&[f32]; K],
    taps: &[f32],
    c: usize,
    at: usize,
    width: usize,
    out: &mut [f32],
) {
    let mut x = 0;
    if width >= 8 {
        while x < width {
            convolve_run::<FMA, K, S, L, 8>(rows, taps, c, at, x.min(width - 8), out);
            x += 8;
        }
    } else if width >= 4 {
        while x < width {
            convolve_run::<FMA, K, S, L, 4>(rows, taps, c, at, x.min(width - 4), out);
            x += 4;
        }
    } else {
        while x < width {
            convolve_run::<FMA, K, S, L, 1>(rows, taps, c, at, x, out);
            x += 1;
        }
    }
}

/// N neighbouring outputs of L channels: each input vector is loaded once per kernel row.
#[inline(always)]
// A constant range is what the compiler unrolls, and `ky` numbers the taps as well as the rows.
#[allow(clippy::needless_range_loop)]
fn convolve_run<const FMA: bool, const K: usize, const S: usize, const L: usize, const N: usize>(
    rows: &[&[f32]; K],
    taps: &[f32],
    c: usize,
    at: usize,
    x: usize,
    out: &mut [f32],
) {
    let mut acc = [[0.0f32; L]; N];
    for ky in 0..K {
        // SAFETY: `convolve` has checked that rows hold ((width - 1) * S + K) * c numbers and
        // taps K * K * c; x + N <= width and at + L <= c.
        let tap: [[f32; L]; K] =
            std::array::from_fn(|kx| unsafe { load::<L>(taps, (ky * K + kx) * c + at) });
        for j in 0..(N - 1) * S + K {
            let v: [f32; L] = unsafe { load::<L>(rows[ky], (x * S + j) * c + at) };
            for n in 0..N {
                if j >= n * S && j < n * S + K {
                    let t = &tap[j - n * S];
                    for l in 0..L {
                        acc[n][l] = fma::<FMA>(v[l], t[l], acc[n][l]);
                    }
                }
            }
        }
    }
    for (n, acc) in acc.iter().enumerate() {
        out[(x + n) * c + at..][..L].copy_from_slice(acc);
    }
}

/// L numbers from `start` on.
///
/// # Safety
/// `start + L <= from.len()`.
#[inline(always)]
unsafe fn load<const L: usize>(from: &[f32], start: usize) -> [f32; L] {
    debug_assert!(start + L <= from.len());
    unsafe { from.as_ptr().add(start).cast::<[f32; L]>().read_unaligned() }
}

/// Adds the taps' gradient to `dw` and sends the input's gradient to `sink` (not
/// [`Sink::Gate`]: a depthwise input is never gated). `grad` gives dz.
pub fn backward(
    grad: &GradSource,
    x: &Source,
    window: &Window,
    w: &[f32],
    dw: &mut [f32],
    sink: Sink,
    workspace: &Workspace,
) -> Sums {
    let c = window.channels;
    let k2 = window.kernel * window.kernel;
    let taps = taps_by_position(w, c, window.stride == 1);
    let per_image = window.height * window.width;
    let (out, shortcut, normed) = match sink {
        Sink::Plain { dx, shortcut } => (dx, shortcut, false),
        Sink::Activation { dy } => (dy, None, true),
        Sink::Gate { g } => (g, None, false),
    };
    let pieces = pieces(out.len() / c, per_image);
    let outs = split(out, &pieces, c);
    let parts: Vec<_> = pieces
        .into_par_iter()
        .zip(outs)
        .map(|(piece, out)| {
            let mut lane = Lane {
                grad,
                x,
                window,
                taps: &taps,
                shortcut,
                dtaps: workspace.zeros(k2 * c),
                sums: NormSums::new(if normed { c } else { 0 }),
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
            (lane.dtaps, lane.sums.finish())
        })
        .collect();
    let mut norm = GradSums::zeros(if normed { c } else { 0 });
    for (part, sums) in parts {
        for ch in 0..c {
            for t in 0..k2 {
                dw[ch * k2 + t] += part[t * c + ch];
            }
        }
        norm = norm.merge(&sums);
    }
    if normed { Sums::Norm(norm) } else { Sums::None }
}

/// One thread's share of a backward pass.
struct Lane<'a> {
    grad: &'a GradSource<'a>,
    x: &'a Source<'a>,
    window: &'a Window,
    taps: &'a [f32],
    shortcut: Option<&'a [f32]>,
    dtaps: Buffer,
    sums: NormSums,
    workspace: &'a Workspace,
}

impl Lane<'_> {
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
        let mut dz = self.workspace.take(out_width * c);
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

    /// Finishes a row of dx in place: through the activation, or plus the shortcut's gradient.
    fn emit(&mut self, first_row: usize, dx: &mut [f32]) {
        let at = first_row * self.window.channels;
        if self.x.norm.is_some() {
            self.sums.through(self.x, &self.x.z[at..at + dx.len()], dx);
        } else if let Some(shortcut) = self.shortcut {
            for (a, b) in dx.iter_mut().zip(&shortcut[at..]) {
                *a += b;
            }
        }
    }
}

dispatch! {
    /// row[x * stride, c] += dz[x, c] * tap[c]
    fn scatter(dz: &[f32], tap: &[f32], stride: usize, row: &mut [f32]) {
        let c = tap.len();
        for (dz, row) in dz.chunks_exact(c).zip(row.chunks_mut(stride * c)) {
            let row = &mut row[..c];
            for i in 0..c {
                row[i] = fma::<FMA>(dz[i], tap[i], row[i]);
            }
        }
    }
}

/// dtaps[ky, kx, c] += sum over x of dz[x, c] * rows[ky][x * stride + kx, c]
fn tap_gradients(ring: &Ring, top: isize, window: &Window, dz: &[f32], dtaps: &mut [f32]) {
    let c = window.channels;
    let k = window.kernel;
    for ky in 0..k {
        let y = top + ky as isize;
        if y < 0 || y as usize >= window.height {
            continue;
        }
        let row = ring.row(y);
        let dtaps = &mut dtaps[ky * k * c..(ky + 1) * k * c];
        match (k, window.stride) {
            (3, 1) => tap_row::<3, 1>(row, dz, c, dtaps),
            (3, 2) => tap_row::<3, 2>(row, dz, c, dtaps),
            (5, 1) => tap_row::<5, 1>(row, dz, c, dtaps),
            (5, 2) => tap_row::<5, 2>(row, dz, c, dtaps),
            _ => unreachable!("Window is only made for kernels 3 and 5, strides 1 and 2"),
        }
    }
}

dispatch! {
    /// One kernel row of [`tap_gradients`].
    fn tap_row<const K: usize, const S: usize>(
        row: &[f32], dz: &[f32], c: usize, dtaps: &mut [f32],
    ) {
        let width = dz.len() / c;
        assert!(dtaps.len() == K * c && row.len() >= ((width - 1) * S + K) * c);
        let mut at = 0;
        while at + 16 <= c {
            tap_columns::<FMA, K, S, 16>(row, dz, c, at, width, dtaps);
            at += 16;
        }
        while at + 8 <= c {
            tap_columns::<FMA, K, S, 8>(row, dz, c, at, width, dtaps);
            at += 8;
        }
        while at < c {
            tap_columns::<FMA, K, S, 1>(row, dz, c, at, width, dtaps);
            at += 1;
        }
    }
}

/// A block of L channels; two sets of sums hide the latency of the additions.
#[inline(always)]
fn tap_columns<const FMA: bool, const K: usize, const S: usize, const L: usize>(
    row: &[f32],
    dz: &[f32],
    c: usize,
    at: usize,
    width: usize,
    dtaps: &mut [f32],
) {
    let mut acc = [[[0.0f32; L]; K]; 2];
    let mut x = 0;
    while x + 2 <= width {
        // SAFETY: `tap_row` has checked the lengths; x + 2 <= width and at + L <= c.
        let g: [[f32; L]; 2] = std::array::from_fn(|n| unsafe { load::<L>(dz, (x + n) * c + at) });
        for j in 0..S + K {
            let v: [f32; L] = unsafe { load::<L>(row, (x * S + j) * c + at) };
            for n in 0..2 {
                if j >= n * S && j < n * S + K {
                    let sum = &mut acc[n][j - n * S];
                    for l in 0..L {
                        sum[l] = fma::<FMA>(v[l], g[n][l], sum[l]);
                    }
                }
            }
        }
        x += 2;
    }
    if x < width {
        // SAFETY: as above, with x + 1 <= width.
        let g: [f32; L] = unsafe { load::<L>(dz, x * c + at) };
        for (kx, sum) in acc[0].iter_mut().enumerate() {
            let v: [f32; L] = unsafe { load::<L>(row, (x * S + kx) * c + at) };
            for l in 0..L {
                sum[l] = fma::<FMA>(v[l], g[l], sum[l]);
            }
        }
    }
    for kx in 0..K {
        let into = &mut dtaps[kx * c + at..][..L];
        for l in 0..L {
            into[l] += acc[0][kx][l] + acc[1][kx][l];
        }
    }
}
