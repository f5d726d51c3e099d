//! Activations and their derivatives, as types for the kernels and as a value for the layers.

/// An element-wise function with its derivative; implemented by the marker types below.
pub trait Activation {
    /// f(u).
    fn value(u: f32) -> f32;
    /// f'(u), with PyTorch's choice at the kinks (0 at ReLU's).
    fn slope(u: f32) -> f32;
}

/// f(u) = u.
pub struct Identity;
/// f(u) = max(u, 0).
pub struct Relu;
/// f(u) = min(max(u, 0), 6).
pub struct Relu6;
/// f(u) = u * relu6(u + 3) / 6.
pub struct HardSwish;

impl Activation for Identity {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        u
    }
    #[inline(always)]
    fn slope(_: f32) -> f32 {
        1.0
    }
}

impl Activation for Relu {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        if u > 0.0 { u } else { 0.0 }
    }
    #[inline(always)]
    fn slope(u: f32) -> f32 {
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
    fn slope(u: f32) -> f32 {
        if u > 0.0 && u < 6.0 { 1.0 } else { 0.0 }
    }
}

impl Activation for HardSwish {
    #[inline(always)]
    fn value(u: f32) -> f32 {
        u * hard_sigmoid(u)
    }
    #[inline(always)]
    fn slope(u: f32) -> f32 {
        let inner = u * (1.0 / 3.0) + 0.5;
        let high = if u >= 3.0 { 1.0 } else { inner };
        if u <= -3.0 { 0.0 } else { high }
    }
}

/// relu6(u + 3) / 6.
#[inline(always)]
pub fn hard_sigmoid(u: f32) -> f32 {
    let v = u * (1.0 / 6.0) + 0.5;
    let v = if v > 0.0 { v } else { 0.0 };
    if v < 1.0 { v } else { 1.0 }
}

/// Which activation a layer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

/// Calls a kernel generic over [`Activation`] with the type that a value of [`Act`] stands for.
macro_rules! with_act {
    ($act:expr, $A:ident => $call:expr) => {
        match $act {
            $crate::nn::activation::Act::Identity => {
                type $A = $crate::nn::activation::Identity;
                $call
            }
            $crate::nn::activation::Act::Relu => {
                type $A = $crate::nn::activation::Relu;
                $call
            }
            $crate::nn::activation::Act::Relu6 => {
                type $A = $crate::nn::activation::Relu6;
                $call
            }
            $crate::nn::activation::Act::HardSwish => {
                type $A = $crate::nn::activation::HardSwish;
                $call
            }
        }
    };
}
pub(crate) use with_act;
