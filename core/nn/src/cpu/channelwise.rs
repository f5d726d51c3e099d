//! Element-wise kernels over (rows, channels) data with one coefficient per channel.
//!
//! The coefficients are stored repeated over several rows ("a period"), so that each kernel is
//! one flat loop over long, even stretches whatever the number of channels; sums per channel
//! come out with the same period and are folded in f64 at the end.

use crate::activation::Activation;
use seedling_base::simd::{dispatch, fma};

/// Length of the repeated coefficient arrays for `channels`: whole rows, whole vectors.
pub fn period(channels: usize) -> usize {
    let mut rows = 1;
    while !(channels * rows).is_multiple_of(16) || channels * rows < 128 {
        rows += 1;
    }
    channels * rows
}

/// `values` (one per channel) repeated to a full period.
pub fn repeat(values: impl ExactSizeIterator<Item = f32> + Clone) -> Vec<f32> {
    let len = period(values.len());
    values.cycle().take(len).collect()
}

/// Adds sums over a period to sums per channel.
pub fn fold(sums: &[f32], channels: &mut [f64]) {
    for row in sums.chunks_exact(channels.len()) {
        for (total, &x) in channels.iter_mut().zip(row) {
            *total += x as f64;
        }
    }
}

dispatch! {
    /// out = act(z * scale + shift)
    pub fn activate<A: Activation>(z: &[f32], scale: &[f32], shift: &[f32], out: &mut [f32]) {
        let p = scale.len();
        for (z, out) in z.chunks(p).zip(out.chunks_mut(p)) {
            let n = z.len().min(out.len());
            let (z, out, scale, shift) = (&z[..n], &mut out[..n], &scale[..n], &shift[..n]);
            for i in 0..n {
                out[i] = A::value(fma::<FMA>(z[i], scale[i], shift[i]));
            }
        }
    }
}

dispatch! {
    /// out = act(z * scale + shift) * gate
    pub fn activate_gated<A: Activation>(
        z: &[f32], scale: &[f32], shift: &[f32], gate: &[f32], out: &mut [f32],
    ) {
        let p = scale.len();
        for (z, out) in z.chunks(p).zip(out.chunks_mut(p)) {
            let n = z.len().min(out.len());
            let (z, out) = (&z[..n], &mut out[..n]);
            let (scale, shift, gate) = (&scale[..n], &shift[..n], &gate[..n]);
            for i in 0..n {
                out[i] = A::value(fma::<FMA>(z[i], scale[i], shift[i])) * gate[i];
            }
        }
    }
}

dispatch! {
    /// out = z * scale + shift + residual
    pub fn affine_add(
        z: &[f32], scale: &[f32], shift: &[f32], residual: &[f32], out: &mut [f32],
    ) {
        let p = scale.len();
        for ((z, x), out) in z.chunks(p).zip(residual.chunks(p)).zip(out.chunks_mut(p)) {
            let n = z.len().min(x.len()).min(out.len());
            let (z, x, out, scale, shift) =
                (&z[..n], &x[..n], &mut out[..n], &scale[..n], &shift[..n]);
            for i in 0..n {
                out[i] = fma::<FMA>(z[i], scale[i], shift[i]) + x[i];
            }
        }
    }
}

dispatch! {
    /// out = act(u)
    pub fn apply<A: Activation>(u: &[f32], out: &mut [f32]) {
        for (out, u) in out.iter_mut().zip(u) {
            *out = A::value(*u);
        }
    }
}

dispatch! {
    /// g *= act'(u)
    pub fn multiply_derivative<A: Activation>(u: &[f32], g: &mut [f32]) {
        for (g, u) in g.iter_mut().zip(u) {
            *g *= A::derivative(*u);
        }
    }
}

dispatch! {
    /// sum += act(z * scale + shift)
    pub fn activated_sum<A: Activation>(
        z: &[f32], scale: &[f32], shift: &[f32], sum: &mut [f32],
    ) {
        let p = scale.len();
        for z in z.chunks(p) {
            let n = z.len();
            let (scale, shift, sum) = (&scale[..n], &shift[..n], &mut sum[..n]);
            for i in 0..n {
                sum[i] += A::value(fma::<FMA>(z[i], scale[i], shift[i]));
            }
        }
    }
}

dispatch! {
    /// sum += z - shift, square += (z - shift)^2
    pub fn moments(z: &[f32], shift: &[f32], sum: &mut [f32], square: &mut [f32]) {
        let p = shift.len();
        for z in z.chunks(p) {
            let n = z.len();
            let (shift, sum, square) = (&shift[..n], &mut sum[..n], &mut square[..n]);
            for i in 0..n {
                let d = z[i] - shift[i];
                sum[i] += d;
                square[i] = fma::<FMA>(d, d, square[i]);
            }
        }
    }
}

dispatch! {
    /// The two sums batch norm's backward needs: sum += g, centered += g * (z - mean).
    pub fn grad_sums(
        g: &[f32], z: &[f32], mean: &[f32], sum: &mut [f32], centered: &mut [f32],
    ) {
        let p = mean.len();
        for (g, z) in g.chunks(p).zip(z.chunks(p)) {
            let n = g.len().min(z.len());
            let (g, z, mean) = (&g[..n], &z[..n], &mean[..n]);
            let (sum, centered) = (&mut sum[..n], &mut centered[..n]);
            for i in 0..n {
                sum[i] += g[i];
                centered[i] = fma::<FMA>(g[i], z[i] - mean[i], centered[i]);
            }
        }
    }
}

dispatch! {
    /// In place through the activation, with the two sums of the result:
    /// g *= act'(z * scale + shift); sum += g; centered += g * (z - mean).
    pub fn through_activation<A: Activation>(
        g: &mut [f32], z: &[f32], scale: &[f32], shift: &[f32], mean: &[f32],
        sum: &mut [f32], centered: &mut [f32],
    ) {
        let p = mean.len();
        for (g, z) in g.chunks_mut(p).zip(z.chunks(p)) {
            let n = g.len().min(z.len());
            let (g, z, scale, shift, mean) =
                (&mut g[..n], &z[..n], &scale[..n], &shift[..n], &mean[..n]);
            let (sum, centered) = (&mut sum[..n], &mut centered[..n]);
            for i in 0..n {
                let dy = g[i] * A::derivative(fma::<FMA>(z[i], scale[i], shift[i]));
                g[i] = dy;
                sum[i] += dy;
                centered[i] = fma::<FMA>(dy, z[i] - mean[i], centered[i]);
            }
        }
    }
}

/// Sums per channel of one image that give, once the gate's gradient is known, batch norm's two
/// sums without another pass: see [`super::squeeze_excite`]. Each has the length of a period.
pub struct GateSums<'a> {
    /// g * act(u): the gate's gradient.
    pub gate: &'a mut [f32],
    /// g * act'(u).
    pub grad: &'a mut [f32],
    /// g * act'(u) * (z - mean).
    pub grad_centered: &'a mut [f32],
    /// act'(u).
    pub derivative: &'a mut [f32],
    /// act'(u) * (z - mean).
    pub derivative_centered: &'a mut [f32],
}

dispatch! {
    /// Accumulates [`GateSums`] for u = z * scale + shift.
    pub fn gate_sums<A: Activation>(
        g: &[f32], z: &[f32], scale: &[f32], shift: &[f32], mean: &[f32], sums: &mut GateSums,
    ) {
        let p = mean.len();
        for (g, z) in g.chunks(p).zip(z.chunks(p)) {
            let n = g.len().min(z.len());
            let (g, z, scale, shift, mean) =
                (&g[..n], &z[..n], &scale[..n], &shift[..n], &mean[..n]);
            let (s0, s1, s2) = (
                &mut sums.gate[..n],
                &mut sums.grad[..n],
                &mut sums.grad_centered[..n],
            );
            let (s3, s4) = (&mut sums.derivative[..n], &mut sums.derivative_centered[..n]);
            for i in 0..n {
                let u = fma::<FMA>(z[i], scale[i], shift[i]);
                let derivative = A::derivative(u);
                let centered = z[i] - mean[i];
                let dy = g[i] * derivative;
                s0[i] = fma::<FMA>(g[i], A::value(u), s0[i]);
                s1[i] += dy;
                s2[i] = fma::<FMA>(dy, centered, s2[i]);
                s3[i] += derivative;
                s4[i] = fma::<FMA>(derivative, centered, s4[i]);
            }
        }
    }
}

dispatch! {
    /// derivative += act'(u), derivative_centered += act'(u) * (z - mean): [`gate_sums`] without a gradient.
    pub fn derivative_sums<A: Activation>(
        z: &[f32], scale: &[f32], shift: &[f32], mean: &[f32],
        derivative: &mut [f32], derivative_centered: &mut [f32],
    ) {
        let p = mean.len();
        for z in z.chunks(p) {
            let n = z.len();
            let (scale, shift, mean) = (&scale[..n], &shift[..n], &mean[..n]);
            let (s3, s4) = (&mut derivative[..n], &mut derivative_centered[..n]);
            for i in 0..n {
                let derivative = A::derivative(fma::<FMA>(z[i], scale[i], shift[i]));
                s3[i] += derivative;
                s4[i] = fma::<FMA>(derivative, z[i] - mean[i], s4[i]);
            }
        }
    }
}

dispatch! {
    /// Batch norm's backward: out = a * g + b * z + c.
    pub fn norm_grad(
        g: &[f32], z: &[f32], a: &[f32], b: &[f32], c: &[f32], out: &mut [f32],
    ) {
        let p = a.len();
        for ((g, z), out) in g.chunks(p).zip(z.chunks(p)).zip(out.chunks_mut(p)) {
            let n = g.len().min(z.len()).min(out.len());
            let (g, z, out) = (&g[..n], &z[..n], &mut out[..n]);
            let (a, b, c) = (&a[..n], &b[..n], &c[..n]);
            for i in 0..n {
                out[i] = fma::<FMA>(a[i], g[i], fma::<FMA>(b[i], z[i], c[i]));
            }
        }
    }
}

/// Per-channel coefficients for [`gated_norm_grad`], each with the length of a period.
pub struct GatedNorm<'a> {
    /// Batch norm's scale and shift.
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    /// Squeeze-excite's gate of this image.
    pub gate: &'a [f32],
    /// What flows back through the pooled branch to every position of this image.
    pub pool: &'a [f32],
    /// Batch norm's backward coefficients.
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub c: &'a [f32],
}

dispatch! {
    /// Backward through gate, activation and batch norm at once:
    /// out = a * (g * gate + pool) * act'(z * scale + shift) + b * z + c.
    pub fn gated_norm_grad<A: Activation>(
        g: &[f32], z: &[f32], k: &GatedNorm, out: &mut [f32],
    ) {
        let p = k.a.len();
        for ((g, z), out) in g.chunks(p).zip(z.chunks(p)).zip(out.chunks_mut(p)) {
            let n = g.len().min(z.len()).min(out.len());
            let (g, z, out) = (&g[..n], &z[..n], &mut out[..n]);
            let (scale, shift, gate, pool) =
                (&k.scale[..n], &k.shift[..n], &k.gate[..n], &k.pool[..n]);
            let (a, b, c) = (&k.a[..n], &k.b[..n], &k.c[..n]);
            for i in 0..n {
                let derivative = A::derivative(fma::<FMA>(z[i], scale[i], shift[i]));
                let dy = fma::<FMA>(g[i], gate[i], pool[i]) * derivative;
                out[i] = fma::<FMA>(a[i], dy, fma::<FMA>(b[i], z[i], c[i]));
            }
        }
    }
}

dispatch! {
    /// The same where nothing but the pooled branch flows back (global pooling):
    /// out = a * pool * act'(z * scale + shift) + b * z + c.
    pub fn pooled_norm_grad<A: Activation>(z: &[f32], k: &GatedNorm, out: &mut [f32]) {
        let p = k.a.len();
        for (z, out) in z.chunks(p).zip(out.chunks_mut(p)) {
            let n = z.len().min(out.len());
            let (z, out) = (&z[..n], &mut out[..n]);
            let (scale, shift, pool) = (&k.scale[..n], &k.shift[..n], &k.pool[..n]);
            let (a, b, c) = (&k.a[..n], &k.b[..n], &k.c[..n]);
            for i in 0..n {
                let derivative = A::derivative(fma::<FMA>(z[i], scale[i], shift[i]));
                out[i] = fma::<FMA>(a[i] * pool[i], derivative, fma::<FMA>(b[i], z[i], c[i]));
            }
        }
    }
}
