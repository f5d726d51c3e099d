//! A forward pass: from a backend's operation to its launches.

use std::ops::Range;
use std::sync::Arc;

use cubecl::prelude::*;
use seedling_nn::activation::Act;
use seedling_nn::backend::{Conv, ForwardOps, FusedInput, Output, Param, Read, Rows, Statistics};
use seedling_nn::gemm::MatMul;
use seedling_nn::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use seedling_nn::window::Window;

use super::launch::{self, Finish, Reading};
use super::product::OperandLayout;
use super::sums::What;
use super::tensor_product::ColumnSums;
use super::{DeviceBuffer, Gpu, Moments, Norm, PerImage, Squeezed};
use crate::Result;

impl<R: Runtime> Gpu<R> {
    /// y = x w' + b, with the weight (outputs, inputs) at a place of `values`.
    fn affine(
        &self,
        values: &DeviceBuffer,
        (weight, bias): (&Range<usize>, &Range<usize>),
        x: Reading,
        end: Finish,
    ) -> Result<DeviceBuffer> {
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
        let rows = x.len() / inputs;
        let out = self.alloc(rows * outputs)?;
        let end = Finish {
            bias: Some((values, bias.start)),
            ..end
        };
        let a = x.side(OperandLayout::Rows, None);
        let b = launch::weight(values, weight, (outputs, inputs), 1, false);
        self.product(
            MatMul {
                m: rows,
                n: outputs,
                k: inputs,
            },
            (a, b),
            &end,
            &out,
        )?;
        Ok(out)
    }

    fn activated(&self, x: &DeviceBuffer, act: Act) -> Result<DeviceBuffer> {
        let out = self.alloc(x.len())?;
        self.read_into(&launch::activated(x, act, 1), &out);
        Ok(out)
    }

    /// A convolution, and the moments of its output's micro-batches; without a window it is 1x1.
    fn convolve(
        &self,
        x: &FusedInput<Self>,
        window: Option<&Window>,
        w: &Param<Self>,
        microbatches: usize,
    ) -> Result<Output<Self>> {
        let taps = window.map_or(1, |w| w.kernel * w.kernel);
        let (inputs, outputs) = (x.channels, w.range.len() / taps / x.channels);
        let pixels = x.z.len() / inputs;
        let rows = window.map_or(pixels, |w| {
            pixels / (w.height * w.width) * (w.out_height * w.out_width)
        });
        // A dense convolution makes activations of images; without a window, pooled rows stay f32.
        let dtype = window.map_or(x.z.dtype(), |_| self.dtype);
        let z = self.alloc_as(rows * outputs, dtype)?;
        let map = window.map_or(OperandLayout::Rows, |_| OperandLayout::Patches);
        let a = launch::reading(x).side(map, window);
        let b = launch::weight(w.values, w.range, (outputs, inputs), taps, false);
        let sizes = MatMul {
            m: rows,
            n: outputs,
            k: inputs * taps,
        };
        let statistics = match microbatches {
            0 => ColumnSums::None,
            _ => ColumnSums::Moments,
        };
        let end = Finish::default();
        let found =
            self.product_and_sums(sizes, (a, b), &end, &z, (statistics, microbatches.max(1)))?;
        let moments = match found {
            Some((parts, pieces)) => Some(Moments {
                parts,
                pieces: pieces.count,
                rows: rows / microbatches,
            }),
            None => self.moments(&z, outputs, microbatches)?,
        };
        Ok((z, moments))
    }

    /// The moments of each of a convolution's output's micro-batches.
    fn moments(
        &self,
        z: &DeviceBuffer,
        channels: usize,
        microbatches: usize,
    ) -> Result<Option<Moments>> {
        if microbatches == 0 {
            return Ok(None);
        }
        let (parts, pieces) = self.sums(
            &FusedInput::plain(z, channels),
            None,
            What::Moments,
            microbatches,
        )?;
        Ok(Some(Moments {
            parts,
            pieces: pieces.count,
            rows: z.len() / channels / microbatches,
        }))
    }

    /// Rows read as they are to be, stored.
    pub(crate) fn rows_read(
        &self,
        values: &DeviceBuffer,
        x: &Rows<Self>,
    ) -> Result<Option<DeviceBuffer>> {
        Ok(match x.read {
            Read::Plain => None,
            Read::Act(act) => Some(self.activated(x.x, act)?),
            Read::Norm(layer, stats) => Some(self.layer_norm(layer, values, x.x, stats)?),
        })
    }
}

impl<R: Runtime> ForwardOps for Gpu<R> {
    type Moments = Moments;
    type Norm = Norm;
    type PerImage = PerImage;
    type Squeezed = Squeezed;
    /// A tap for each number.
    type Argmax = DeviceBuffer;
    /// (rows, 2).
    type RowStats = DeviceBuffer;
    /// The rows and 1 / |x|.
    type L2NormCache = (DeviceBuffer, DeviceBuffer);

    fn conv(
        &self,
        conv: Conv,
        x: &FusedInput<Self>,
        w: Param<Self>,
        microbatches: usize,
    ) -> Result<Output<Self>> {
        match conv {
            Conv::Pointwise => self.convolve(x, None, &w, microbatches),
            Conv::Dense(window) => self.convolve(x, Some(&window), &w, microbatches),
            Conv::Depthwise(window) => self.depthwise_forward(x, &window, &w, microbatches),
        }
    }

    fn norm(
        &self,
        layer: &BatchNorm,
        values: &DeviceBuffer,
        statistics: Statistics<Self>,
    ) -> Result<Norm> {
        match statistics {
            Statistics::Batch {
                moments,
                buffers,
                momentum,
            } => self.norm_of_batch(layer, values, buffers, &moments, momentum),
            Statistics::Running { buffers } => self.norm_of_running(layer, values, buffers),
        }
    }

    fn no_norm(&self, channels: usize) -> Result<Norm> {
        let numbers: Vec<f32> = [1.0, 0.0, 0.0, 1.0]
            .into_iter()
            .flat_map(|x| std::iter::repeat_n(x, channels))
            .collect();
        Ok(Norm {
            numbers: self.send(&numbers)?,
            microbatches: 1,
            rows: 0,
        })
    }

    fn materialize(&self, x: &FusedInput<Self>) -> Result<DeviceBuffer> {
        let out = self.alloc_as(x.z.len(), x.z.dtype())?;
        self.read_into(&launch::reading(x), &out);
        Ok(out)
    }

    fn add(
        &self,
        x: &FusedInput<Self>,
        other: &FusedInput<Self>,
        act: Act,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc_as(x.z.len(), x.z.dtype())?;
        self.add_into(x, other, act, &out);
        Ok(out)
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
        Ok(PerImage {
            numbers: Arc::new(self.send(&each.collect::<Vec<f32>>())?),
            image_rows: rows_per_image,
        })
    }

    fn max_pool(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
    ) -> Result<(DeviceBuffer, DeviceBuffer)> {
        self.max_pool_forward(x, window)
    }

    fn pool(&self, x: &FusedInput<Self>, rows_per_image: usize) -> Result<DeviceBuffer> {
        let images = x.z.len() / x.channels / rows_per_image;
        let scale = 1.0 / rows_per_image as f32;
        let (parts, pieces) = self.scaled_sums((x, None), What::Values, images, scale)?;
        self.whole(parts, &pieces, x.channels)
    }

    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &DeviceBuffer,
        x: &FusedInput<Self>,
        rows_per_image: usize,
    ) -> Result<(Squeezed, PerImage)> {
        let pooled = self.pool(x, rows_per_image)?;
        let x1 = Reading::plain(&pooled, layer.channels);
        let inner = self.affine(values, (&layer.w1, &layer.b1), x1, Finish::default())?;
        let x2 = launch::activated(&inner, layer.act, layer.b1.len());
        let end = Finish {
            gate: Some(layer.gate),
            ..Finish::default()
        };
        let gate = Arc::new(self.affine(values, (&layer.w2, &layer.b2), x2, end)?);
        let squeezed = Squeezed {
            pooled,
            inner,
            gate: gate.clone(),
            microbatches: x.norm.map_or(1, |(norm, _)| norm.microbatches),
        };
        let gate = PerImage {
            numbers: gate,
            image_rows: rows_per_image,
        };
        Ok((squeezed, gate))
    }

    fn linear(
        &self,
        layer: &Linear,
        values: &DeviceBuffer,
        x: &DeviceBuffer,
    ) -> Result<(DeviceBuffer, DeviceBuffer)> {
        let rows = Reading::plain(x, layer.weight.len() / layer.bias.len());
        let weight = (&layer.weight, &layer.bias);
        let u = self.affine(values, weight, rows, Finish::default())?;
        Ok((self.activated(&u, layer.act)?, u))
    }

    fn tokens(
        &self,
        layer: &Positions,
        values: &DeviceBuffer,
        patches: &DeviceBuffer,
        grid: (usize, usize),
    ) -> Result<DeviceBuffer> {
        let dim = layer.dim;
        let count = grid.0 * grid.1;
        let images = patches.len() / (count * dim).max(1);
        // What is added to every image: the first token whole, then the patches' positions and bias.
        let added = self.zeros((1 + count) * dim)?;
        self.add_to(&added, 0, (values, layer.class.start), dim);
        self.add_to(&added, 0, (values, layer.grid.start), dim);
        let positions = self.alloc(layer.side * layer.side * dim)?;
        let len = positions.len();
        let from = (values, layer.grid.start + dim);
        self.copy_runs(from, len, (&positions, 0), len, (len, len));
        let resampled = self.resample(layer, &positions, grid, OperandLayout::Rows)?;
        let resampled = resampled.as_ref().unwrap_or(&positions);
        self.copy_runs(
            (resampled, 0),
            count * dim,
            (&added, dim),
            count * dim,
            (count * dim, count * dim),
        );
        let bias = self.alloc(count * dim)?;
        self.copy_runs(
            (values, layer.patch_bias.start),
            0,
            (&bias, 0),
            dim,
            (dim, count * dim),
        );
        self.add_to(&added, dim, (&bias, 0), count * dim);

        let out = self.alloc(images * (1 + count) * dim)?;
        let token = (1 + count) * dim;
        self.copy_runs((&added, 0), 0, (&out, 0), token, (token, out.len()));
        let spread = self.zeros(out.len())?;
        self.copy_runs(
            (patches, 0),
            count * dim,
            (&spread, dim),
            token,
            (count * dim, patches.len()),
        );
        self.plus(&out, &spread);
        Ok(out)
    }

    fn row_stats(&self, x: &DeviceBuffer, layer: &LayerNorm) -> Result<DeviceBuffer> {
        self.row_stats_of(x, layer)
    }

    fn layer_norm(
        &self,
        layer: &LayerNorm,
        values: &DeviceBuffer,
        x: &DeviceBuffer,
        stats: &DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        self.layer_norm_forward(layer, values, x, stats)
    }

    fn rows_linear(
        &self,
        layer: &Linear,
        values: &DeviceBuffer,
        x: &Rows<Self>,
        shortcut: Option<&DeviceBuffer>,
    ) -> Result<DeviceBuffer> {
        let read = self.rows_read(values, x)?;
        let x = read.as_ref().unwrap_or(x.x);
        let rows = Reading::plain(x, layer.weight.len() / layer.bias.len());
        let end = Finish::adding(shortcut);
        self.affine(values, (&layer.weight, &layer.bias), rows, end)
    }

    fn attention(&self, qkv: &DeviceBuffer, heads: &Heads) -> Result<DeviceBuffer> {
        self.attention_forward(qkv, heads)
    }

    fn first_rows(
        &self,
        x: &DeviceBuffer,
        rows_per_image: usize,
        dim: usize,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc(x.len() / rows_per_image)?;
        self.copy_runs(
            (x, 0),
            rows_per_image * dim,
            (&out, 0),
            dim,
            (dim, out.len()),
        );
        Ok(out)
    }

    fn l2_normalize(
        &self,
        x: &mut DeviceBuffer,
        dim: usize,
    ) -> Result<(DeviceBuffer, DeviceBuffer)> {
        let (kept, inverse) = (self.alloc(x.len())?, self.alloc(x.len() / dim)?);
        self.normalize_rows(x, &kept, &inverse, dim);
        Ok((kept, inverse))
    }

    fn multiply(&self, own: &mut DeviceBuffer, by: &DeviceBuffer) -> Result<()> {
        self.times(own, by);
        Ok(())
    }
}
