//! Run-time choice of the vector width, so that one binary is fast on every machine.
//!
//! A kernel, of pixels or of activations, is written once, as plain loops that the compiler
//! vectorizes. `dispatch!` compiles it three times on x86-64 (AVX-512, AVX2 with FMA, baseline)
//! and picks at run time; on arm64 NEON is the baseline and there is nothing to pick. Matrix
//! products are apart (`nn::gemm`): the `gemm` crate, which chooses for itself, and a kernel of our
//! own for AVX-512.

use std::sync::OnceLock;

/// `a * b + c`, in one rounding where the instruction set has it. Without the hardware
/// instruction `f32::mul_add` would be a library call, tens of times slower than the two steps.
#[inline(always)]
pub fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// An instruction set, the narrower the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// SSE2 on x86-64, NEON on arm64.
    Baseline,
    /// x86-64-v3.
    Avx2,
    /// x86-64-v4.
    Avx512,
}

/// Environment variable with the widest instruction set to use: `avx512`, `avx2` or `baseline`.
/// For tests of the narrower kernels; any other value is ignored. It does not reach the
/// `gemm` crate's products, so it does not make different machines agree to the bit.
pub const LIMIT: &str = "SEEDLING_ISA";

/// What the kernels use: the widest this machine has, within [`LIMIT`]. Found once.
#[inline]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        let limit = match std::env::var(LIMIT).as_deref() {
            Ok("baseline") => Isa::Baseline,
            Ok("avx2") => Isa::Avx2,
            _ => Isa::Avx512,
        };
        widest().min(limit)
    })
}

fn widest() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
        {
            return Isa::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Isa::Avx2;
        }
    }
    Isa::Baseline
}

/// Defines a function whose body is compiled for several instruction sets. Inside the body the
/// constant `FMA` says whether fused multiply-add is an instruction; helpers that the body calls
/// must be `#[inline(always)]`, or they are compiled for the baseline. Generic parameters are
/// either one type (`<A: Trait>`) or constants (`<const K: usize, ...>`).
#[macro_export]
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident ($($args:tt)*) $body:block) => {
        $crate::simd::dispatch! { @ [$(#[$meta])*] [$vis] $name [] [] ($($args)*) $body }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident <$g:ident: $bound:path> ($($args:tt)*) $body:block) => {
        $crate::simd::dispatch! {
            @ [$(#[$meta])*] [$vis] $name [$g: $bound,] [$g,] ($($args)*) $body
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident <$(const $k:ident: $kt:ty),+> ($($args:tt)*) $body:block) => {
        $crate::simd::dispatch! {
            @ [$(#[$meta])*] [$vis] $name [$(const $k: $kt,)+] [$($k,)+] ($($args)*) $body
        }
    };
    (@ [$(#[$meta:meta])*] [$vis:vis] $name:ident [$($decl:tt)*] [$($use:tt)*]
        ($($arg:ident: $ty:ty),* $(,)?) $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name <$($decl)*> ($($arg: $ty),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$($decl)* const FMA: bool>($($arg: $ty),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 <$($decl)*> ($($arg: $ty),*) {
                    body::<$($use)* true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 <$($decl)*> ($($arg: $ty),*) {
                    body::<$($use)* true>($($arg),*)
                }
                match $crate::simd::isa() {
                    // SAFETY: `isa` has just seen these features on this machine.
                    $crate::simd::Isa::Avx512 => unsafe { avx512::<$($use)*>($($arg),*) },
                    // SAFETY: likewise.
                    $crate::simd::Isa::Avx2 => unsafe { avx2::<$($use)*>($($arg),*) },
                    $crate::simd::Isa::Baseline => body::<$($use)* false>($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            body::<$($use)* { cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub use dispatch;
