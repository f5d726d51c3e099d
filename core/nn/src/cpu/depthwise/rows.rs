//! The kernels: one row of outputs, of taps' gradients, of scattered gradients.

use super::ring::Ring;
use crate::window::Window;
use seedling_base::simd::{dispatch, fma};

/// The taps (channels, 1, k, k) as (k * k, channels), for kernels that run over channels.
pub(super) fn taps_by_position(w: &[f32], channels: usize, flip: bool) -> Vec<f32> {
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

/// One output row from the kernel's rows of `ring`, the first of them `top`.
pub(super) fn convolve_row(
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

/// N neighboring outputs of L channels: each input vector is loaded once per kernel row.
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

dispatch! {
    /// row[x * stride, c] += dz[x, c] * tap[c]
    pub(super) fn scatter(dz: &[f32], tap: &[f32], stride: usize, row: &mut [f32]) {
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
pub(super) fn tap_gradients(
    ring: &Ring,
    top: isize,
    window: &Window,
    dz: &[f32],
    dtaps: &mut [f32],
) {
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
