//! Numbers back to pixels, in a form that vectorizes.

/// `value` clipped to 0..255 and truncated, in three instructions a vector. (The standard
/// conversions also give an answer for NaN and infinities, which keeps loops from vectorizing.)
#[inline(always)]
pub(crate) fn to_byte(value: f32) -> u8 {
    // Comparisons this way round also send NaN to 0.
    let value = if value > 0.0 { value } else { 0.0 };
    let value = if value < 255.0 { value } else { 255.0 };
    truncate(value) as u8
}

/// The integer part of a number that is certainly between -1e9 and 1e9.
#[inline(always)]
pub(crate) fn truncate(value: f32) -> i32 {
    debug_assert!(value.abs() < 1e9);
    // SAFETY: finite and far inside i32's range, as every caller's bounds ensure.
    unsafe { value.to_int_unchecked() }
}
