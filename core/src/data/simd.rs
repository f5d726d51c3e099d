//! One function body, compiled once per vector width and chosen at run time.
//!
//! The bodies are plain loops: the compiler vectorises each copy for its instruction set. It
//! never fuses a multiply with an add on its own, so every copy computes the same bits.

/// Wraps a function without return value so that its body also exists for AVX2 and AVX-512.
/// On other machines (NEON is part of arm64's baseline) the plain copy is all there is.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) {
            #[inline(always)]
            fn body($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) {
                    body($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) {
                    body($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                {
                    // SAFETY: the processor has every feature the copy was compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

pub(crate) use vectorised;

/// `value` clipped to 0..255 and truncated, in three instructions a vector. (The standard
/// conversions also give an answer for NaN and infinities, which keeps loops from vectorising.)
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
