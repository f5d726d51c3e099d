//! Activations and their derivatives, as types for the kernels and as a value for the layers.

/// An element-wise function with its derivative; implemented by the marker types below.
pub trait Activation {
    /// f(u).
    fn value(u: f32) -> f32;
    /// f'(u), with PyTorch's choice at the kinks (0 at ReLU's).
    fn derivative(u: f32) -> f32;
}

/// f(u) = u.
pub struct Identity;
/// f(u) = max(u, 0).
pub struct Relu;
/// f(u) = min(max(u, 0), 6).
pub struct Relu6;
/// f(u) = u * relu6(u + 3) / 6.
pub struct HardSwish;
/// f(u) = u / (1 + exp(-u)).
pub struct Silu;
/// f(u) = u * P(N(0, 1) < u), exactly (not by a tanh).
pub struct Gelu;

impl Activation for Identity {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        u
    }
    #[inline(always)]
    fn derivative(_: f32) -> f32 {
        1.0
    }
}

impl Activation for Relu {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        if u > 0.0 { u } else { 0.0 }
    }
    #[inline(always)]
    fn derivative(u: f32) -> f32 {
        if u > 0.0 { 1.0 } else { 0.0 }
    }
}

impl Activation for Relu6 {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        let v = if u > 0.0 { u } else { 0.0 };
        if v < 6.0 { v } else { 6.0 }
    }
    #[inline(always)]
    fn derivative(u: f32) -> f32 {
        if u > 0.0 && u < 6.0 { 1.0 } else { 0.0 }
    }
}

impl Activation for HardSwish {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        u * hard_sigmoid(u)
    }
    #[inline(always)]
    fn derivative(u: f32) -> f32 {
        let inner = u * (1.0 / 3.0) + 0.5;
        let high = if u >= 3.0 { 1.0 } else { inner };
        if u <= -3.0 { 0.0 } else { high }
    }
}

impl Activation for Silu {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        u * sigmoid(u)
    }
    #[inline(always)]
    fn derivative(u: f32) -> f32 {
        let s = sigmoid(u);
        s + u * s * (1.0 - s)
    }
}

impl Activation for Gelu {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        u * below(u)
    }
    #[inline(always)]
    fn derivative(u: f32) -> f32 {
        let density = 0.398_942_3 * exp(-0.5 * u * u);
        below(u) + u * density
    }
}

/// 1 / (1 + exp(-u)).
#[inline(always)]
pub fn sigmoid(u: f32) -> f32 {
    1.0 / (1.0 + exp(-u))
}

/// P(N(0, 1) < u): Abramowitz and Stegun 26.2.17's form with the numbers of 7.1.26, off by less than
/// 1e-7.
#[inline(always)]
fn below(u: f32) -> f32 {
    let x = u.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = t
        * (0.254_829_6
            + t * (-0.284_496_72 + t * (1.421_413_8 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * exp(-x * x);
    if u > 0.0 { 1.0 - tail } else { tail }
}

/// e^x, within two units in the last place: 2^n by the exponent's bits and a polynomial between (as
/// Moshier's Cephes), so that a loop over it vectorizes, which a call of the library's would not.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x > -87.3 { x } else { -87.3 };
    let x = if x < 88.0 { x } else { 88.0 };
    // Adding 1.5 * 2^23 leaves the nearest whole number in the lowest bits.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 0.166_666_66;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    f32::from_bits((y.to_bits() as i32).wrapping_add((shifted.to_bits() as i32) << 23) as u32)
}

/// relu6(u + 3) / 6.
#[inline(always)]
pub fn hard_sigmoid(u: f32) -> f32 {
    let v = u * (1.0 / 6.0) + 0.5;
    let v = if v > 0.0 { v } else { 0.0 };
    if v < 1.0 { v } else { 1.0 }
}

/// Which activation a layer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Act {
    /// None.
    #[default]
    Identity,
    /// ReLU.
    Relu,
    /// ReLU clipped at 6.
    Relu6,
    /// Hard-swish.
    HardSwish,
    /// Swish, or SiLU.
    Silu,
    /// GELU.
    Gelu,
}

/// Calls a kernel generic over [`Activation`] with the type that a value of [`Act`] stands for.
macro_rules! with_act {
    ($act:expr, $A:ident => $call:expr) => {
        match $act {
            $crate::activation::Act::Identity => {
                type $A = $crate::activation::Identity;
                $call
            }
            $crate::activation::Act::Relu => {
                type $A = $crate::activation::Relu;
                $call
            }
            $crate::activation::Act::Relu6 => {
                type $A = $crate::activation::Relu6;
                $call
            }
            $crate::activation::Act::HardSwish => {
                type $A = $crate::activation::HardSwish;
                $call
            }
            $crate::activation::Act::Silu => {
                type $A = $crate::activation::Silu;
                $call
            }
            $crate::activation::Act::Gelu => {
                type $A = $crate::activation::Gelu;
                $call
            }
        }
    };
}
pub(crate) use with_act;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooth_ones_are_what_the_library_computes() {
        for i in -40_000..=40_000 {
            let u = i as f32 * 5e-4;
            let exact = (u as f64).exp();
            assert!((exp(u) as f64 - exact).abs() <= 2.5e-7 * exact, "exp {u}");
            let s = 1.0 / (1.0 + (-u as f64).exp());
            assert!((sigmoid(u) as f64 - s).abs() < 2e-7, "sigmoid {u}");
            // The derivative is that of the value.
            let difference = |f: fn(f32) -> f32| {
                let (up, down) = (u + 1e-2, u - 1e-2);
                (f(up) as f64 - f(down) as f64) / (up as f64 - down as f64)
            };
            let (silu, gelu) = (difference(Silu::value), difference(Gelu::value));
            assert!((Silu::derivative(u) as f64 - silu).abs() < 1e-3, "silu {u}");
            assert!((Gelu::derivative(u) as f64 - gelu).abs() < 1e-3, "gelu {u}");
        }
        assert_eq!(exp(f32::NEG_INFINITY), exp(-100.0));
        assert!(exp(-100.0) < 2e-38 && exp(1000.0).is_finite());
        // P(N(0, 1) < u) from tables.
        for (u, p) in [
            (0.0, 0.5),
            (1.0, 0.841_344_7),
            (-1.0, 0.158_655_3),
            (-3.0, 1.349_9e-3),
        ] {
            assert!((below(u) - p).abs() < 2e-7, "{u}");
        }
    }
}
