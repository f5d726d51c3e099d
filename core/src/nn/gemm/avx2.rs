//! The AVX2 kernel of [`super::packed`]: 6 rows x 16 columns of sums in 12 of the 16 registers.
//!
//! Each step loads one row of the panel (two vectors) and multiplies it by one broadcast number per row
//! of the left side: 12 fused multiply-adds for 8 loads. Depth is cut into blocks, so that a panel's
//! block stays in the first-level cache while all rows pass by it.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_ps, _mm256_broadcast_ss, _mm256_cmpgt_epi32, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::Matrix;
use crate::simd::{Isa, isa};

/// Floats in a vector.
pub const LANES: usize = 8;
/// Columns of a panel.
pub const WIDTH: usize = 2 * LANES;
/// Rows of sums at a time.
pub const ROWS: usize = 6;
/// Rows of a panel that are passed by all rows of the left side before the next come.
pub const DEPTH: usize = 384;

/// out (m, columns) = or += lhs (m, k) x panel (k, [`WIDTH`]), which is padded with zeros; out is (data,
/// row stride).
///
/// # Panics
/// If a slice is too short for its shape. Must only be called where [`isa`] says at least AVX2.
pub fn multiply(
    (m, k): (usize, usize),
    lhs: Matrix,
    (panel, columns): (&[f32], usize),
    (out, out_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    if m == 0 || columns == 0 {
        return;
    }
    assert!(columns <= WIDTH && isa() >= Isa::Avx2);
    assert!(lhs.holds(m, k) && k * WIDTH <= panel.len());
    assert!((m - 1) * out_stride + columns <= out.len());
    let call = Call {
        k,
        lhs: lhs.data.as_ptr(),
        row_stride: lhs.row_stride,
        col_stride: lhs.col_stride,
        panel: panel.as_ptr(),
        out: out.as_mut_ptr(),
        out_stride,
        columns,
        accumulate,
    };
    // SAFETY: the asserts above bound every access and the instruction set is there.
    unsafe {
        if columns <= LANES {
            rows::<1>(&call, m);
        } else {
            rows::<2>(&call, m);
        }
    }
}

struct Call {
    k: usize,
    lhs: *const f32,
    row_stride: usize,
    col_stride: usize,
    panel: *const f32,
    out: *mut f32,
    out_stride: usize,
    columns: usize,
    accumulate: bool,
}

/// All rows, six at a time, then the rest.
///
/// # Safety
/// The pointers of `call` must be good for `m` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn rows<const V: usize>(call: &Call, m: usize) {
    let mut i = 0;
    unsafe {
        while i + ROWS <= m {
            block::<ROWS, V>(call, i);
            i += ROWS;
        }
        match m - i {
            1 => block::<1, V>(call, i),
            2 => block::<2, V>(call, i),
            3 => block::<3, V>(call, i),
            4 => block::<4, V>(call, i),
            5 => block::<5, V>(call, i),
            _ => {}
        }
    }
}

/// R rows from row `first` on.
///
/// # Safety
/// As [`rows`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn block<const R: usize, const V: usize>(call: &Call, first: usize) {
    let mut sums = [[_mm256_setzero_ps(); V]; R];
    unsafe {
        let mut a = call.lhs.add(first * call.row_stride);
        let mut b = call.panel;
        for _ in 0..call.k {
            let mut row = [_mm256_setzero_ps(); V];
            for (v, row) in row.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(b.add(LANES * v));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x: __m256 = _mm256_broadcast_ss(&*a.add(r * call.row_stride));
                for (sum, row) in sums.iter_mut().zip(&row) {
                    *sum = _mm256_fmadd_ps(x, *row, *sum);
                }
            }
            a = a.wrapping_add(call.col_stride);
            b = b.wrapping_add(WIDTH);
        }
        let whole = call.columns == V * LANES;
        for (r, sums) in sums.iter().enumerate() {
            let out = call.out.add((first + r) * call.out_stride);
            for (v, sum) in sums.iter().enumerate() {
                let (out, mut sum) = (out.add(LANES * v), *sum);
                if whole || v + 1 < V {
                    if call.accumulate {
                        sum = _mm256_add_ps(sum, _mm256_loadu_ps(out));
                    }
                    _mm256_storeu_ps(out, sum);
                } else {
                    let mask = lanes(call.columns - LANES * v);
                    if call.accumulate {
                        sum = _mm256_add_ps(sum, _mm256_maskload_ps(out, mask));
                    }
                    _mm256_maskstore_ps(out, mask, sum);
                }
            }
        }
    }
}

/// The first `n` lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(n: usize) -> __m256i {
    let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), places)
}
