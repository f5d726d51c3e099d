//! A backward pass: from a backend's operation to its launches.

use std::ops::Range;
use std::sync::Arc;

use cubecl::prelude::*;
use seedling_nn::activation::Act;
use seedling_nn::backend::{
    BackwardOps, Conv, FusedGrad, FusedInput, InputGrad, Read, Rows, Sink, WeightMut,
};
use seedling_nn::gemm::MatMul;
use seedling_nn::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use seedling_nn::window::Window;

use super::launch::{self, Finish, Pooled, Reading};
use super::product::OperandLayout;
use super::sums::What;
use super::tensor_product::ColumnSums;
use super::{DeviceBuffer, Gpu, GradSums, Norm, NormGrad, PerImage, Squeezed, view};
use crate::Result;

/// Rows that a cube sums by itself.
const MOST_ROWS: usize = 4096;

impl<R: Runtime> Gpu<R> {
    /// What a norm's backward sums of `g`, behind the activation of `x`.
    fn sums_of(&self, g: &DeviceBuffer, x: &FusedInput<Self>) -> Result<GradSums> {
        let Some((norm, _)) = x.norm else {
            return Ok(GradSums {
                parts: self.zeros(2 * x.channels)?,
                pieces: 1,
            });
        };
        let (parts, pieces) = self.sums(x, Some(g), What::Norm, norm.microbatches)?;
        Ok(GradSums {
            parts,
            pieces: pieces.count,
        })
    }

    /// Adds the gradients of weight and bias; dx, which `end` has the last word of.
    fn affine_back(
        &self,
        values: &DeviceBuffer,
        grads: &mut DeviceBuffer,
        (weight, bias): (&Range<usize>, &Range<usize>),
        (x, dy): (Reading, &DeviceBuffer),
        end: Finish,
    ) -> Result<DeviceBuffer> {
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
        let rows = x.len() / inputs;
        self.bias_gradient(dy, outputs, grads, bias.start)?;
        let dy = Reading::plain(dy, outputs);
        let a = dy.side(OperandLayout::Columns, None);
        let b = x.side(OperandLayout::Columns, None);
        self.weight_gradient(
            MatMul {
                m: outputs,
                n: inputs,
                k: rows,
            },
            (a, b),
            grads,
            weight,
            (inputs, 1),
        )?;
        let dx = self.alloc(x.len())?;
        let a = dy.side(OperandLayout::Rows, None);
        let b = launch::weight(values, weight, (outputs, inputs), 1, true);
        self.product(
            MatMul {
                m: rows,
                n: inputs,
                k: outputs,
            },
            (a, b),
            &end,
            &dx,
        )?;
        Ok(dx)
    }

    /// Adds the column sums of dy to a bias' gradient.
    fn bias_gradient(
        &self,
        dy: &DeviceBuffer,
        channels: usize,
        grads: &mut DeviceBuffer,
        at: usize,
    ) -> Result<()> {
        if dy.len() / channels <= MOST_ROWS {
            self.add_columns(dy, channels, grads, at);
            return Ok(());
        }
        let x = FusedInput::plain(dy, channels);
        let (parts, pieces) = self.sums(&x, None, What::Values, 1)?;
        self.add_bias(&parts, grads, at, channels, pieces.count);
        Ok(())
    }

    /// Adds the gradient of a convolution's weight (outputs, inputs, taps); without a window its taps
    /// are one.
    fn convolution_weight_gradient(
        &self,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        window: Option<&Window>,
        weight: &mut WeightMut<Self>,
    ) -> Result<()> {
        let taps = window.map_or(1, |w| w.kernel * w.kernel);
        let (inputs, outputs) = (x.channels, weight.range.len() / taps / x.channels);
        let map = window.map_or(OperandLayout::Columns, |_| OperandLayout::PatchColumns);
        let a = launch::gradient(dz, outputs).side(OperandLayout::Columns, None);
        let b = launch::reading(x).side(map, window);
        let sizes = MatMul {
            m: outputs,
            n: inputs * taps,
            k: dz.z().len() / outputs,
        };
        self.weight_gradient(sizes, (a, b), weight.grads, weight.range, (inputs, taps))
    }

    /// dx, plus `shortcut`, or through the activation of x; and its sums, where they are taken on the way.
    fn convolution_input_gradient(
        &self,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        window: Option<&Window>,
        w: &WeightMut<Self>,
        sink: &Sink<Self>,
    ) -> Result<(DeviceBuffer, Option<GradSums>)> {
        let taps = window.map_or(1, |w| w.kernel * w.kernel);
        let (inputs, outputs) = (x.channels, w.range.len() / taps / x.channels);
        let end = match sink {
            Sink::Plain { shortcut } => Finish::adding(*shortcut),
            Sink::Activated => Finish::through(launch::reading(x)),
            Sink::Images | Sink::Gated { .. } => Finish::default(),
        };
        let dx = self.alloc_as(x.z.len(), x.z.dtype())?;
        let map = window.map_or(OperandLayout::Rows, |_| OperandLayout::Outputs);
        let a = launch::gradient(dz, outputs).side(map, window);
        let b = launch::weight(w.values, w.range, (outputs, inputs), taps, true);
        let sizes = MatMul {
            m: x.z.len() / inputs,
            n: inputs,
            k: outputs * taps,
        };
        let statistics = match (sink, x.norm) {
            (Sink::Activated, Some((norm, _))) => (ColumnSums::Norm, norm.microbatches),
            _ => (ColumnSums::None, 1),
        };
        let found = self.product_and_sums(sizes, (a, b), &end, &dx, statistics)?;
        let sums = found.map(|(parts, pieces)| GradSums {
            parts,
            pieces: pieces.count,
        });
        Ok((dx, sums))
    }
}

impl<R: Runtime> BackwardOps for Gpu<R> {
    type GradSums = GradSums;
    type NormGrad = NormGrad;
    /// (images, 5, channels).
    type ImageSums = DeviceBuffer;

    fn conv_back(
        &self,
        conv: Conv,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        mut weight: WeightMut<Self>,
        sink: Sink<Self>,
    ) -> Result<InputGrad<Self>> {
        match conv {
            Conv::Pointwise => self.convolution_weight_gradient(dz, x, None, &mut weight)?,
            Conv::Dense(window) => {
                self.convolution_weight_gradient(dz, x, Some(&window), &mut weight)?;
            }
            Conv::Depthwise(window) => {
                self.depthwise_weight_gradient(dz, x, &window, &mut weight)?;
            }
        }
        if matches!(sink, Sink::Images) {
            return Ok(InputGrad::Images);
        }
        let (dx, sums) = match conv {
            Conv::Pointwise => self.convolution_input_gradient(dz, x, None, &weight, &sink)?,
            Conv::Dense(window) => {
                self.convolution_input_gradient(dz, x, Some(&window), &weight, &sink)?
            }
            Conv::Depthwise(window) => {
                self.depthwise_input_gradient(dz, x, &window, &weight, &sink)?
            }
        };
        Ok(match sink {
            Sink::Images => InputGrad::Images,
            Sink::Plain { .. } => InputGrad::Plain(dx),
            Sink::Activated => {
                let sums = match sums {
                    Some(sums) => sums,
                    None => self.sums_of(&dx, x)?,
                };
                InputGrad::Activated(dx, sums)
            }
            Sink::Gated { rows_per_image } => {
                let sums = self.gate_sums(&dx, x, rows_per_image)?;
                InputGrad::Gated(dx, sums)
            }
        })
    }

    fn norm_back(
        &self,
        layer: &BatchNorm,
        norm: &Norm,
        sums: &GradSums,
        grads: &mut DeviceBuffer,
    ) -> Result<NormGrad> {
        let numbers = self.alloc(norm.microbatches * view::GRAD * layer.channels)?;
        self.norm_gradient(layer, norm, sums, grads, &numbers);
        Ok(NormGrad {
            numbers,
            microbatches: norm.microbatches,
            rows: norm.rows,
        })
    }

    fn norm_sums(&self, g: &DeviceBuffer, x: &FusedInput<Self>) -> Result<GradSums> {
        self.sums_of(g, x)
    }

    fn activation_back(&self, g: &mut DeviceBuffer, x: &FusedInput<Self>) -> Result<GradSums> {
        self.through(g, &launch::reading(x));
        self.sums_of(g, x)
    }

    fn add_back(
        &self,
        dy: &mut DeviceBuffer,
        x: &FusedInput<Self>,
        other: &FusedInput<Self>,
        act: Act,
    ) -> Result<()> {
        self.add_through(dy, x, other, act);
        Ok(())
    }

    fn scale_images(
        &self,
        x: &DeviceBuffer,
        factors: &PerImage,
        channels: usize,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc_as(x.len(), x.dtype())?;
        self.times_images(x, factors, channels, &out);
        Ok(out)
    }

    fn max_pool_back(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
        largest: &DeviceBuffer,
        dy: &DeviceBuffer,
    ) -> Result<(DeviceBuffer, GradSums)> {
        let g = self.max_pool_input_gradient(x, window, largest, dy)?;
        let sums = self.sums_of(&g, x)?;
        Ok((g, sums))
    }

    fn pool_back(
        &self,
        x: &FusedInput<Self>,
        dy: &DeviceBuffer,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let numbers = self.alloc(dy.len())?;
        self.spread_rows(dy, &numbers, x.channels, 1, 1.0 / rows_per_image as f32);
        let images = dy.len() / x.channels;
        let sums = match x.norm {
            None => self.zeros(2 * x.channels)?,
            Some((norm, act)) => {
                let (parts, pieces) = self.sums(x, None, What::Derivatives(act), images)?;
                let whole = self.whole(parts, &pieces, 2 * x.channels)?;
                let out = self.alloc(norm.microbatches * 2 * x.channels)?;
                let pooled = Pooled {
                    channels: x.channels,
                    images,
                    microbatches: norm.microbatches,
                };
                self.image_sums(&whole, (None, &numbers), &out, pooled);
                out
            }
        };
        let pool = PerImage {
            numbers: Arc::new(numbers),
            image_rows: rows_per_image,
        };
        let sums = GradSums {
            parts: sums,
            pieces: 1,
        };
        Ok((pool, sums))
    }

    fn spread_means(
        &self,
        dy: &DeviceBuffer,
        channels: usize,
        rows_per_image: usize,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc_as(dy.len() * rows_per_image, self.dtype)?;
        self.spread_rows(
            dy,
            &out,
            channels,
            rows_per_image,
            1.0 / rows_per_image as f32,
        );
        Ok(out)
    }

    fn gate_sums(
        &self,
        g: &DeviceBuffer,
        x: &FusedInput<Self>,
        rows_per_image: usize,
    ) -> Result<DeviceBuffer> {
        let images = x.z.len() / x.channels / rows_per_image;
        let act = x.norm.map_or(Act::Identity, |(_, act)| act);
        let (parts, pieces) = self.sums(x, Some(g), What::Gate(act), images)?;
        self.whole(parts, &pieces, 5 * x.channels)
    }

    fn squeeze_back(
        &self,
        layer: &SqueezeExcite,
        values: &DeviceBuffer,
        squeezed: &Squeezed,
        sums: &DeviceBuffer,
        grads: &mut DeviceBuffer,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let channels = layer.channels;
        let images = squeezed.gate.len() / channels;
        let dlogits = self.alloc(squeezed.gate.len())?;
        self.gates_back(sums, &squeezed.gate, &dlogits, channels, layer.gate);
        let hidden = launch::activated(&squeezed.inner, layer.act, layer.b1.len());
        let second = (&layer.w2, &layer.b2);
        let through = Finish::through(hidden);
        let dinner = self.affine_back(values, grads, second, (hidden, &dlogits), through)?;
        let first = (&layer.w1, &layer.b1);
        let pooled = Reading::plain(&squeezed.pooled, channels);
        // Every row of an image has its part of the mean's gradient.
        let spread = Finish {
            factor: 1.0 / rows_per_image as f32,
            ..Finish::default()
        };
        let pool = self.affine_back(values, grads, first, (pooled, &dinner), spread)?;
        let out = self.alloc(squeezed.microbatches * 2 * channels)?;
        let pooled = Pooled {
            channels,
            images,
            microbatches: squeezed.microbatches,
        };
        self.image_sums(sums, (Some(&squeezed.gate), &pool), &out, pooled);
        let pool = PerImage {
            numbers: Arc::new(pool),
            image_rows: rows_per_image,
        };
        let sums = GradSums {
            parts: out,
            pieces: 1,
        };
        Ok((pool, sums))
    }

    fn linear_back(
        &self,
        layer: &Linear,
        values: &DeviceBuffer,
        grads: &mut DeviceBuffer,
        (x, u): (&DeviceBuffer, &DeviceBuffer),
        dy: DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        self.through(&dy, &launch::activated(u, layer.act, 1));
        let weight = (&layer.weight, &layer.bias);
        let x = Reading::plain(x, layer.weight.len() / layer.bias.len());
        self.affine_back(values, grads, weight, (x, &dy), Finish::default())
    }

    fn tokens_back(
        &self,
        layer: &Positions,
        dy: &DeviceBuffer,
        grid: (usize, usize),
        grads: &mut DeviceBuffer,
    ) -> Result<()> {
        let (dim, count) = (layer.dim, grid.0 * grid.1);
        let token = (1 + count) * dim;
        let (parts, pieces) = self.sums(&FusedInput::plain(dy, token), None, What::Values, 1)?;
        let sum = self.whole(parts, &pieces, token)?;
        self.add_to(grads, layer.class.start, (&sum, 0), dim);
        self.add_to(grads, layer.grid.start, (&sum, 0), dim);
        let rest = self.alloc(count * dim)?;
        self.copy_runs(
            (&sum, dim),
            count * dim,
            (&rest, 0),
            count * dim,
            (count * dim, count * dim),
        );
        let resampled = self.resample(layer, &rest, grid, OperandLayout::Columns)?;
        let resampled = resampled.as_ref().unwrap_or(&rest);
        self.add_to(
            grads,
            layer.grid.start + dim,
            (resampled, 0),
            resampled.len(),
        );
        Ok(())
    }

    fn layer_norm_back(
        &self,
        layer: &LayerNorm,
        values: &DeviceBuffer,
        grads: &mut DeviceBuffer,
        (x, stats): (&DeviceBuffer, &DeviceBuffer),
        dy: &mut DeviceBuffer,
    ) -> Result<()> {
        self.bias_gradient(dy, layer.dim, grads, layer.bias.start)?;
        let normed = self.layer_norm_gradient(layer, values, (x, stats), dy)?;
        self.bias_gradient(&normed, layer.dim, grads, layer.weight.start)
    }

    fn rows_linear_back(
        &self,
        layer: &Linear,
        values: &DeviceBuffer,
        grads: &mut DeviceBuffer,
        x: &Rows<Self>,
        dy: &DeviceBuffer,
        shortcut: Option<&DeviceBuffer>,
    ) -> Result<DeviceBuffer> {
        let read = self.rows_read(values, x)?;
        let input = read.as_ref().unwrap_or(x.x);
        let weight = (&layer.weight, &layer.bias);
        let input = Reading::plain(input, layer.weight.len() / layer.bias.len());
        let end = match x.read {
            Read::Act(act) => Finish::through(launch::activated(x.x, act, input.channels())),
            _ => Finish::default(),
        };
        let mut dx = self.affine_back(values, grads, weight, (input, dy), end)?;
        match x.read {
            Read::Plain | Read::Act(_) => {}
            Read::Norm(layer, stats) => {
                self.layer_norm_back(layer, values, grads, (x.x, stats), &mut dx)?;
            }
        }
        if let Some(shortcut) = shortcut {
            self.plus(&dx, shortcut);
        }
        Ok(dx)
    }

    fn attention_back(
        &self,
        qkv: &DeviceBuffer,
        heads: &Heads,
        dy: &DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        self.attention_gradient(qkv, heads, dy)
    }

    fn spread_first(
        &self,
        dy: &DeviceBuffer,
        rows_per_image: usize,
        dim: usize,
    ) -> Result<DeviceBuffer> {
        let out = self.zeros(dy.len() * rows_per_image)?;
        self.copy_runs(
            (dy, 0),
            dim,
            (&out, 0),
            rows_per_image * dim,
            (dim, dy.len()),
        );
        Ok(out)
    }

    fn l2_normalize_back(
        &self,
        dy: &mut DeviceBuffer,
        (y, inverse): &(DeviceBuffer, DeviceBuffer),
        dim: usize,
    ) -> Result<()> {
        self.normalize_gradient(dy, y, inverse, dim);
        Ok(())
    }
}
