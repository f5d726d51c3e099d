//! The AVX-512 kernel of [`super::packed`]: 8 rows x 48 columns of sums in 24 registers.
//!
//! Each step loads one row of the panel (three vectors) and multiplies it by one broadcast number
//! per row of the left side, which is read where it lies: 24 fused multiply-adds for 11 loads.

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};

use super::Matrix;
use seedling_base::simd::{Isa, isa};

/// Up to 48 columns of the right side: row k lies at `k * row_stride`.
pub struct Panel<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub columns: usize,
}

/// out (m, columns) = or += lhs (m, k) x panel; out is (data, row stride).
///
/// # Panics
/// If a slice is too short for its shape. Must only be called where [`isa`] says
/// AVX-512.
pub fn multiply(
    (m, k): (usize, usize),
    lhs: Matrix,
    panel: Panel,
    (out, out_stride): (&mut [f32], usize),
    accumulate: bool,
) {
    if m == 0 || k == 0 || panel.columns == 0 {
        return;
    }
    assert!(panel.columns <= 48 && isa() == Isa::Avx512);
    assert!(lhs.holds(m, k));
    assert!((k - 1) * panel.row_stride + panel.columns <= panel.data.len());
    assert!((m - 1) * out_stride + panel.columns <= out.len());
    let vectors = panel.columns.div_ceil(16);
    let run = match vectors {
        1 => rows::<1>,
        2 => rows::<2>,
        _ => rows::<3>,
    };
    let call = Call {
        k,
        lhs: lhs.data.as_ptr(),
        row_stride: lhs.row_stride,
        col_stride: lhs.col_stride,
        panel: panel.data.as_ptr(),
        panel_stride: panel.row_stride,
        out: out.as_mut_ptr(),
        out_stride,
        last: (0xffff_u32 >> (vectors * 16 - panel.columns)) as __mmask16,
        accumulate,
    };
    // SAFETY: the asserts above bound every access and the instruction set is there.
    unsafe { run(&call, m) }
}

struct Call {
    k: usize,
    lhs: *const f32,
    row_stride: usize,
    col_stride: usize,
    panel: *const f32,
    panel_stride: usize,
    out: *mut f32,
    out_stride: usize,
    /// Which lanes of the last vector are columns.
    last: __mmask16,
    accumulate: bool,
}

/// All rows, eight at a time, then the rest.
///
/// # Safety
/// The pointers of `call` must be good for `m` rows.
#[target_feature(enable = "avx512f")]
unsafe fn rows<const V: usize>(call: &Call, m: usize) {
    let mut i = 0;
    unsafe {
        while i + 8 <= m {
            block::<8, V>(call, i);
            i += 8;
        }
        if i + 4 <= m {
            block::<4, V>(call, i);
            i += 4;
        }
        if i + 2 <= m {
            block::<2, V>(call, i);
            i += 2;
        }
        if i < m {
            block::<1, V>(call, i);
        }
    }
}

/// R rows from row `first` on.
///
/// # Safety
/// As [`rows`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn block<const R: usize, const V: usize>(call: &Call, first: usize) {
    let mask = |v: usize| if v + 1 == V { call.last } else { 0xffff };
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    unsafe {
        let mut a = call.lhs.add(first * call.row_stride);
        let mut b = call.panel;
        for _ in 0..call.k {
            let mut row = [_mm512_setzero_ps(); V];
            for (v, row) in row.iter_mut().enumerate() {
                *row = _mm512_maskz_loadu_ps(mask(v), b.add(16 * v));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x: __m512 = _mm512_set1_ps(*a.add(r * call.row_stride));
                for (sum, row) in sums.iter_mut().zip(&row) {
                    *sum = _mm512_fmadd_ps(x, *row, *sum);
                }
            }
            a = a.wrapping_add(call.col_stride);
            b = b.wrapping_add(call.panel_stride);
        }
        for (r, sums) in sums.iter().enumerate() {
            let out = call.out.add((first + r) * call.out_stride);
            for (v, sum) in sums.iter().enumerate() {
                let mut sum = *sum;
                if call.accumulate {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask(v), out.add(16 * v)));
                }
                _mm512_mask_storeu_ps(out.add(16 * v), mask(v), sum);
            }
        }
    }
}
