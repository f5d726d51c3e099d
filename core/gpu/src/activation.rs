//! Activations and their derivatives in kernels: what [`seedling_nn::activation`] says, by the GPU's own
//! functions.

use cubecl::prelude::*;

use seedling_nn::activation::Act;

/// f(u).
#[cube]
pub fn value<N: Size>(u: Vector<f32, N>, #[comptime] act: Act) -> Vector<f32, N> {
    match act {
        Act::Identity => u,
        Act::Relu => max(u, Vector::new(0.0f32)),
        Act::Relu6 => min(max(u, Vector::new(0.0f32)), Vector::new(6.0f32)),
        Act::HardSwish => u * hard_sigmoid::<N>(u),
        Act::Silu => u * sigmoid::<N>(u),
        Act::Gelu => u * below::<N>(u),
    }
}

/// f'(u), with PyTorch's choice at the kinks.
#[cube]
pub fn derivative<N: Size>(u: Vector<f32, N>, #[comptime] act: Act) -> Vector<f32, N> {
    let (zero, one) = (Vector::<f32, N>::new(0.0f32), Vector::<f32, N>::new(1.0f32));
    match act {
        Act::Identity => one,
        Act::Relu => select_many(u.greater_than(zero), one, zero),
        Act::Relu6 => {
            let inside = select_many(u.less_than(Vector::new(6.0f32)), one, zero);
            select_many(u.greater_than(zero), inside, zero)
        }
        Act::HardSwish => {
            let inner = fma(u, Vector::new(1.0f32 / 3.0f32), Vector::new(0.5f32));
            let high = select_many(u.less_than(Vector::new(3.0f32)), inner, one);
            select_many(u.greater_than(Vector::new(-3.0f32)), high, zero)
        }
        Act::Silu => {
            let s = sigmoid::<N>(u);
            fma(u * s, one - s, s)
        }
        Act::Gelu => {
            let density = Vector::new(0.398_942_3f32) * (u * u * Vector::new(-0.5f32)).exp();
            fma(u, density, below::<N>(u))
        }
    }
}

/// 1 / (1 + exp(-u)).
#[cube]
pub fn sigmoid<N: Size>(u: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::<f32, N>::new(1.0f32);
    // Beyond, exp is infinite on some GPUs and undefined on others.
    let u = max(u, Vector::new(-80.0f32));
    one / (one + (Vector::new(0.0f32) - u).exp())
}

/// relu6(u + 3) / 6.
#[cube]
pub fn hard_sigmoid<N: Size>(u: Vector<f32, N>) -> Vector<f32, N> {
    let v = fma(u, Vector::new(1.0f32 / 6.0f32), Vector::new(0.5f32));
    min(max(v, Vector::new(0.0f32)), Vector::new(1.0f32))
}

/// P(N(0, 1) < u): Abramowitz and Stegun 26.2.17's form with the numbers of 7.1.26.
#[cube]
fn below<N: Size>(u: Vector<f32, N>) -> Vector<f32, N> {
    let (zero, one) = (Vector::<f32, N>::new(0.0f32), Vector::<f32, N>::new(1.0f32));
    let x = max(u, zero - u) * Vector::new(std::f32::consts::FRAC_1_SQRT_2);
    let t = one / fma(x, Vector::new(0.327_591_1f32), one);
    let p = fma(t, Vector::new(1.061_405_4f32), Vector::new(-1.453_152f32));
    let p = fma(t, p, Vector::new(1.421_413_8f32));
    let p = fma(t, p, Vector::new(-0.284_496_72f32));
    let p = fma(t, p, Vector::new(0.254_829_6f32));
    let tail = Vector::new(0.5f32) * t * p * (zero - x * x).exp();
    select_many(u.greater_than(zero), one - tail, tail)
}
