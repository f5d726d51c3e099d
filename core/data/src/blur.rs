//! Gaussian blur of 8-bit planes: torchvision's kernel and reflected borders, as two passes.
//!
//! torchvision's kernel is a true Gaussian cut off at its width (23 for 224 pixels). Taps beyond
//! four standard deviations weigh less than a hundredth of a level together and are left out.

use super::byte::to_byte;
use seedling_base::simd::dispatch;

/// Buffers of one blur, reused from call to call.
#[derive(Debug, Default)]
pub struct BlurScratch {
    padded: Vec<f32>,
    across: Vec<f32>,
}

/// Kernel width for pictures of `size` pixels: about a tenth, odd (23 for 224).
pub fn kernel_size(size: usize) -> usize {
    (size / 10) | 1
}

/// The weights from the middle outwards of a Gaussian of `kernel` taps, normalized like
/// torchvision's over all of them.
fn half_kernel(sigma: f32, kernel: usize, limit: usize) -> Vec<f32> {
    let reach = kernel / 2;
    let pdf: Vec<f64> = (0..=reach)
        .map(|x| (-0.5 * (x as f64 / f64::from(sigma)).powi(2)).exp())
        .collect();
    let kept = reach.min((4.0 * sigma).ceil() as usize).min(limit);
    let total = |taps: &[f64]| 2.0 * taps.iter().sum::<f64>() - pdf[0];
    let sum = total(&pdf[..=kept]);
    pdf[..=kept].iter().map(|x| (x / sum) as f32).collect()
}

/// The weights, from the middle outwards, by which square pictures of `size` pixels are blurred.
pub fn blur_kernel(sigma: f32, size: usize) -> Vec<f32> {
    half_kernel(sigma, kernel_size(size), size.saturating_sub(1))
}

/// Blurs `planes` (each `height` rows of `width`) in place with a Gaussian of `sigma` pixels and
/// `kernel` taps.
pub fn gaussian(
    planes: &mut [u8],
    width: usize,
    height: usize,
    sigma: f32,
    kernel: usize,
    scratch: &mut BlurScratch,
) {
    // A reflection can't reach further than the picture.
    let weights = half_kernel(sigma, kernel, width.min(height).saturating_sub(1));
    let reach = weights.len() - 1;
    if reach == 0 {
        return;
    }
    scratch.padded.resize(width + 2 * reach, 0.0);
    scratch.across.resize(width * height, 0.0);
    for plane in planes.chunks_exact_mut(width * height) {
        let rows = plane.chunks_exact(width);
        for (row, out) in rows.zip(scratch.across.chunks_exact_mut(width)) {
            pad(row, reach, &mut scratch.padded);
            blur_row(&scratch.padded, &weights, out);
        }
        for (y, out) in plane.chunks_exact_mut(width).enumerate() {
            blur_column(&scratch.across, y, &weights, out);
        }
    }
}

dispatch! {
    fn pad(row: &[u8], reach: usize, padded: &mut [f32]) {
        let width = row.len();
        for (slot, &value) in padded[reach..reach + width].iter_mut().zip(row) {
            *slot = f32::from(value);
        }
        for k in 1..=reach {
            padded[reach - k] = f32::from(row[k]);
            padded[reach + width - 1 + k] = f32::from(row[width - 1 - k]);
        }
    }
}

dispatch! {
    fn blur_row(padded: &[f32], weights: &[f32], out: &mut [f32]) {
        let reach = weights.len() - 1;
        let mut x = reach;
        for chunk in out.chunks_mut(64) {
            let n = chunk.len();
            let mut sums = [0.0f32; 64];
            for (sum, &value) in sums.iter_mut().zip(&padded[x..x + n]) {
                *sum = value * weights[0];
            }
            for (k, &weight) in weights.iter().enumerate().skip(1) {
                add_pair(&mut sums, &padded[x - k..x - k + n], &padded[x + k..x + k + n], weight);
            }
            chunk.copy_from_slice(&sums[..n]);
            x += n;
        }
    }
}

#[inline(always)]
fn add_pair(sums: &mut [f32; 64], before: &[f32], after: &[f32], weight: f32) {
    // The whole-chunk case apart, so that the sums stay in registers.
    if let (Ok(before), Ok(after)) = (
        <&[f32; 64]>::try_from(before),
        <&[f32; 64]>::try_from(after),
    ) {
        for i in 0..64 {
            sums[i] += (before[i] + after[i]) * weight;
        }
    } else {
        for ((sum, b), a) in sums.iter_mut().zip(before).zip(after) {
            *sum += (b + a) * weight;
        }
    }
}

dispatch! {
    fn blur_column(across: &[f32], y: usize, weights: &[f32], out: &mut [u8]) {
        let width = out.len();
        let height = across.len() / width;
        let mut x = 0;
        for chunk in out.chunks_mut(64) {
            let n = chunk.len();
            let part = |row: usize| &across[row * width + x..row * width + x + n];
            let mut sums = [0.0f32; 64];
            for (sum, &value) in sums.iter_mut().zip(part(y)) {
                *sum = value * weights[0];
            }
            for (k, &weight) in weights.iter().enumerate().skip(1) {
                let above = y.abs_diff(k);
                let below = if y + k < height { y + k } else { 2 * (height - 1) - y - k };
                add_pair(&mut sums, part(above), part(below), weight);
            }
            for (slot, sum) in chunk.iter_mut().zip(sums) {
                *slot = to_byte(sum.round_ties_even());
            }
            x += n;
        }
    }
}
