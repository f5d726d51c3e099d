//! Tensors that are computed where they are read, as [`seedling_nn::backend::FusedInput`] and
//! [`seedling_nn::backend::FusedGrad`] say: what a kernel loads is the activation or the gradient, whatever
//! is stored.

use cubecl::prelude::*;

use super::activation::{derivative, value};
use seedling_nn::activation::Act;

/// How a tensor is read. Known when a kernel is compiled: each way is a kernel of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoadMode {
    /// As it is stored.
    Plain,
    /// act(a).
    Activated(Act),
    /// act(a * scale + shift).
    Normed(Act),
    /// The same, times the image's gate.
    Gated(Act),
    /// dz = p * a + q * b + r, where a is dy and b is z.
    Gradient,
    /// The same for dy = (a * gate + pool) * act'(u), where a lies behind the gate.
    GatedGradient(Act),
    /// The same for dy = pool * act'(u); a is not read.
    PooledGradient(Act),
}

impl LoadMode {
    /// Whether what is read is the gradient of what is stored, or of z.
    pub fn is_gradient(self) -> bool {
        matches!(
            self,
            LoadMode::Gradient | LoadMode::GatedGradient(_) | LoadMode::PooledGradient(_)
        )
    }
}

/// A tensor (rows, channels), and what it is read through. `N` channels are read at once.
#[derive(CubeType, CubeLaunch)]
pub struct View<F: Float, N: Size> {
    /// What is stored: z itself, or a gradient.
    pub a: Array<Vector<F, N>>,
    /// z, where `a` is a gradient.
    pub b: ComptimeOption<Array<Vector<F, N>>>,
    /// (micro-batches, 4, channels): scale, shift, mean and one over the deviation.
    pub norm: ComptimeOption<Array<Vector<f32, N>>>,
    /// (micro-batches, 3, channels): p, q and r.
    pub grad: ComptimeOption<Array<Vector<f32, N>>>,
    /// (images, channels).
    pub gate: ComptimeOption<Array<Vector<f32, N>>>,
    pub pool: ComptimeOption<Array<Vector<f32, N>>>,
    /// Where in `a` the tensor begins, in vectors.
    pub offset: usize,
    /// Of `N` channels each.
    pub channels: usize,
    pub image_rows: usize,
    pub microbatch_rows: usize,
    #[cube(comptime)]
    pub how: LoadMode,
    /// Whether there is more than one micro-batch.
    #[cube(comptime)]
    pub grouped: bool,
}

/// Places of the coefficients in [`View::norm`] and [`View::grad`].
pub const NORM: usize = 4;
pub const GRAD: usize = 3;

#[cube]
impl<F: Float, N: Size> View<F, N> {
    /// The number at a place, as it is stored.
    pub fn stored(&self, row: usize, c: usize) -> Vector<f32, N> {
        Vector::cast_from(self.a[self.offset + row * self.channels + c])
    }

    /// The number at a place, as it is read.
    pub fn read(&self, row: usize, c: usize) -> Vector<f32, N> {
        let how = comptime!(self.how);
        match how {
            LoadMode::Plain => self.stored(row, c),
            LoadMode::Activated(act) => value::<N>(self.stored(row, c), act),
            LoadMode::Normed(act) => value::<N>(self.before(row, c), act),
            LoadMode::Gated(act) => value::<N>(self.before(row, c), act) * self.of_image(row, c),
            LoadMode::Gradient => self.normed(self.stored(row, c), row, c),
            LoadMode::GatedGradient(act) => {
                let dy = fma(
                    self.stored(row, c),
                    self.of_image(row, c),
                    self.pooled(row, c),
                );
                self.normed(dy * derivative::<N>(self.before(row, c), act), row, c)
            }
            LoadMode::PooledGradient(act) => {
                let dy = self.pooled(row, c) * derivative::<N>(self.before(row, c), act);
                self.normed(dy, row, c)
            }
        }
    }

    /// The derivative of the activation at a place.
    pub fn derivative(&self, row: usize, c: usize) -> Vector<f32, N> {
        let how = comptime!(self.how);
        match how {
            LoadMode::Activated(act) => derivative::<N>(self.stored(row, c), act),
            LoadMode::Normed(act) | LoadMode::Gated(act) => {
                derivative::<N>(self.before(row, c), act)
            }
            _ => Vector::new(1.0f32),
        }
    }

    /// z at a place, whether or not it stands behind a gradient.
    pub fn z(&self, row: usize, c: usize) -> Vector<f32, N> {
        #[comptime]
        match &self.b {
            ComptimeOption::Some(z) => Vector::cast_from(z[row * self.channels + c]),
            ComptimeOption::None => self.stored(row, c),
        }
    }

    /// z off the mean of its micro-batch.
    pub fn centered(&self, row: usize, c: usize) -> Vector<f32, N> {
        let z = self.z(row, c);
        let at = (self.microbatch(row) * NORM + 2) * self.channels + c;
        #[comptime]
        match &self.norm {
            ComptimeOption::Some(norm) => z - norm[at],
            ComptimeOption::None => z,
        }
    }

    /// Behind batch norm, before the activation.
    pub fn before(&self, row: usize, c: usize) -> Vector<f32, N> {
        let z = self.z(row, c);
        let at = self.microbatch(row) * NORM * self.channels + c;
        #[comptime]
        match &self.norm {
            ComptimeOption::Some(norm) => fma(z, norm[at], norm[at + self.channels]),
            ComptimeOption::None => z,
        }
    }

    /// Batch norm's backward.
    fn normed(&self, dy: Vector<f32, N>, row: usize, c: usize) -> Vector<f32, N> {
        let at = self.microbatch(row) * GRAD * self.channels + c;
        #[comptime]
        match &self.grad {
            ComptimeOption::Some(grad) => {
                let (p, q, r) = (
                    grad[at],
                    grad[at + self.channels],
                    grad[at + 2 * self.channels],
                );
                fma(p, dy, fma(q, self.z(row, c), r))
            }
            ComptimeOption::None => dy,
        }
    }

    fn of_image(&self, row: usize, c: usize) -> Vector<f32, N> {
        #[comptime]
        match &self.gate {
            ComptimeOption::Some(gate) => gate[row / self.image_rows * self.channels + c],
            ComptimeOption::None => Vector::new(1.0f32),
        }
    }

    fn pooled(&self, row: usize, c: usize) -> Vector<f32, N> {
        #[comptime]
        match &self.pool {
            ComptimeOption::Some(pool) => pool[row / self.image_rows * self.channels + c],
            ComptimeOption::None => Vector::new(0.0f32),
        }
    }

    fn microbatch(&self, row: usize) -> usize {
        if comptime!(self.grouped) {
            row / self.microbatch_rows
        } else {
            0usize.runtime()
        }
    }
}
