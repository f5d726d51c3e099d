//! A forward pass on the CPU: from a backend's operation to its kernel.

use super::layer_norm::{Normed, RowStats};
use super::norm::{self, Moments, NormState};
use super::rows_linear::{Input, Reading};
use super::source::{PerImage, Source};
use super::squeeze_excite::SqueezeCache;
use super::{
    Cpu, attention, conv, depthwise, l2_normalize, linear, materialize, max_pool, pointwise, pool,
    rows_linear, tokens,
};
use crate::Result;
use crate::activation::Act;
use crate::backend::{Conv, ForwardOps, FusedInput, Output, Param, Read, Rows, Statistics};
use crate::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use crate::window::Window;
use crate::workspace::Buffer;

impl<'a> FusedInput<'a, Cpu> {
    pub(super) fn source(&self) -> Source<'a> {
        Source {
            z: self.z,
            channels: self.channels,
            norm: self.norm,
            gate: self.gate,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.z.len() / self.channels
    }
}

impl<'a> Param<'a, Cpu> {
    fn slice(&self) -> &'a [f32] {
        &self.values[self.range.clone()]
    }
}

impl<'a> Rows<'a, Cpu> {
    pub(super) fn input(&self, values: &'a [f32], dim: usize) -> Input<'a> {
        Input {
            x: self.x,
            dim,
            reading: match self.read {
                Read::Plain => Reading::Plain,
                Read::Act(act) => Reading::Act(act),
                Read::Norm(layer, stats) => Reading::Norm(Normed::new(layer, values, stats)),
            },
        }
    }
}

/// Whether moments are asked for. Micro-batches come one at a time
/// ([`DeviceOps::microbatches_at_once`](crate::backend::DeviceOps::microbatches_at_once)).
fn wants_moments(microbatches: usize) -> bool {
    assert!(microbatches <= 1, "the CPU takes a micro-batch at a time");
    microbatches == 1
}

impl ForwardOps for Cpu {
    type Moments = Moments;
    type Norm = NormState;
    type PerImage = PerImage;
    type Squeezed = SqueezeCache;
    type Argmax = Vec<u8>;
    type RowStats = RowStats;
    /// The rows and 1 / |x|.
    type L2NormCache = (Buffer, Vec<f32>);

    fn conv(
        &self,
        conv: Conv,
        x: &FusedInput<Self>,
        w: Param<Self>,
        microbatches: usize,
    ) -> Result<Output<Self>> {
        let (w, moments, on) = (w.slice(), wants_moments(microbatches), &self.workspace);
        Ok(match conv {
            Conv::Pointwise => {
                let mut z = self.alloc(x.rows() * (w.len() / x.channels));
                let moments = pointwise::forward(&x.source(), w, &mut z, moments, on);
                (z, moments)
            }
            Conv::Dense(window) => {
                let patch = window.kernel * window.kernel * window.channels;
                let mut z = self.alloc(window.outputs(x.rows()) * (w.len() / patch));
                let moments = conv::forward(&x.source(), &window, w, &mut z, moments, on);
                (z, moments)
            }
            Conv::Depthwise(window) => {
                let mut z = self.alloc(window.outputs(x.rows()) * window.channels);
                let moments = depthwise::forward(&x.source(), &window, w, &mut z, moments, on);
                (z, moments)
            }
        })
    }

    fn norm(
        &self,
        layer: &BatchNorm,
        values: &Vec<f32>,
        statistics: Statistics<Self>,
    ) -> Result<NormState> {
        Ok(match statistics {
            Statistics::Batch {
                moments,
                buffers,
                momentum,
            } => layer.state(
                values,
                &moments,
                norm::Statistics::Batch { buffers, momentum },
            ),
            Statistics::Running { buffers } => {
                let none = Moments::zeros(layer.channels);
                layer.state(values, &none, norm::Statistics::Running { buffers })
            }
        })
    }

    fn no_norm(&self, channels: usize) -> Result<NormState> {
        Ok(NormState::none(channels))
    }

    fn materialize(&self, x: &FusedInput<Self>) -> Result<Buffer> {
        let mut y = self.alloc(x.z.len());
        materialize::forward(&x.source(), &mut y);
        Ok(y)
    }

    fn add(&self, x: &FusedInput<Self>, other: &FusedInput<Self>, act: Act) -> Result<Buffer> {
        let mut y = self.alloc(x.z.len());
        let (x, other) = (x.source(), other.source());
        materialize::add(&x, &other, act, &mut y, &self.workspace);
        Ok(y)
    }

    fn per_image(
        &self,
        values: &[f32],
        channels: usize,
        rows_per_image: usize,
    ) -> Result<PerImage> {
        let each = values
            .iter()
            .flat_map(|x| std::iter::repeat_n(*x, channels));
        let each: Vec<f32> = each.collect();
        Ok(PerImage::new(&each, channels, rows_per_image))
    }

    fn max_pool(&self, x: &FusedInput<Self>, window: &Window) -> Result<(Buffer, Vec<u8>)> {
        let n = x.rows() / (window.height * window.width);
        let len = n * window.out_height * window.out_width * window.channels;
        let (mut y, mut taps) = (self.alloc(len), vec![0; len]);
        max_pool::forward(&x.source(), window, &mut y, &mut taps, &self.workspace);
        Ok((y, taps))
    }

    fn pool(&self, x: &FusedInput<Self>, rows_per_image: usize) -> Result<Buffer> {
        let mut means = self.alloc(x.z.len() / rows_per_image);
        pool::forward(&x.source(), rows_per_image, &mut means);
        Ok(means)
    }

    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &Vec<f32>,
        x: &FusedInput<Self>,
        rows_per_image: usize,
    ) -> Result<(SqueezeCache, PerImage)> {
        let mut pooled = vec![0.0; x.z.len() / rows_per_image];
        pool::forward(&x.source(), rows_per_image, &mut pooled);
        let cache = layer.forward(values, pooled);
        let gate = PerImage::new(&cache.gate, x.channels, rows_per_image);
        Ok((cache, gate))
    }

    fn linear(&self, layer: &Linear, values: &Vec<f32>, x: &Buffer) -> Result<(Buffer, Buffer)> {
        let mut u = self.alloc(x.len() / layer.inputs * layer.outputs);
        let (w, b) = (&values[layer.weight.clone()], &values[layer.bias.clone()]);
        linear::forward(x, w, b, &mut u);
        let mut y = self.alloc(u.len());
        linear::activate(&u, layer.act, &mut y);
        Ok((y, u))
    }

    fn tokens(
        &self,
        layer: &Positions,
        values: &Vec<f32>,
        patches: &Buffer,
        grid: (usize, usize),
    ) -> Result<Buffer> {
        let images = patches.len() / (grid.0 * grid.1 * layer.dim).max(1);
        let mut out = self.alloc(patches.len() + images * layer.dim);
        tokens::forward(layer, values, patches, grid, &mut out);
        Ok(out)
    }

    fn row_stats(&self, x: &Buffer, layer: &LayerNorm) -> Result<RowStats> {
        Ok(RowStats::compute(x, layer.dim, layer.eps))
    }

    fn layer_norm(
        &self,
        layer: &LayerNorm,
        values: &Vec<f32>,
        x: &Buffer,
        stats: &RowStats,
    ) -> Result<Buffer> {
        let mut y = self.alloc(x.len());
        Normed::new(layer, values, stats).forward(x, 0, &mut y);
        Ok(y)
    }

    fn rows_linear(
        &self,
        layer: &Linear,
        values: &Vec<f32>,
        x: &Rows<Self>,
        shortcut: Option<&Buffer>,
    ) -> Result<Buffer> {
        let mut y = self.alloc(x.x.len() / layer.inputs * layer.outputs);
        let (w, b) = (&values[layer.weight.clone()], &values[layer.bias.clone()]);
        let (x, shortcut) = (x.input(values, layer.inputs), shortcut.map(|buf| &buf[..]));
        rows_linear::forward(&x, w, b, shortcut, &mut y, &self.workspace);
        Ok(y)
    }

    fn attention(&self, qkv: &Buffer, heads: &Heads) -> Result<Buffer> {
        let mut out = self.alloc(qkv.len() / 3);
        attention::forward(qkv, heads, &mut out, &self.workspace);
        Ok(out)
    }

    fn first_rows(&self, x: &Buffer, rows_per_image: usize, dim: usize) -> Result<Buffer> {
        let mut out = self.alloc(x.len() / rows_per_image);
        let images = x.chunks_exact(rows_per_image * dim);
        for (out, image) in out.chunks_exact_mut(dim).zip(images) {
            out.copy_from_slice(&image[..dim]);
        }
        Ok(out)
    }

    fn l2_normalize(&self, x: &mut Buffer, dim: usize) -> Result<(Buffer, Vec<f32>)> {
        let inverse = l2_normalize::forward(x, dim);
        let mut y = self.alloc(x.len());
        y.copy_from_slice(x);
        Ok((y, inverse))
    }

    fn multiply(&self, own: &mut Buffer, by: &Buffer) -> Result<()> {
        own.iter_mut().zip(&by[..]).for_each(|(x, y)| *x *= y);
        Ok(())
    }
}
