//! A backward pass on the CPU: from a backend's operation to its kernel.

use std::ops::Range;

use super::layer_norm::{Normed, RowStats};
use super::norm::{GradSums, NormGrad, NormState};
use super::rows_linear::Gradients;
use super::sink::{self, Activated, Gated, ImageSums, Plain, Ungated};
use super::source::{GradSource, PerImage, Source};
use super::squeeze_excite::SqueezeCache;
use super::{
    Cpu, attention, conv, depthwise, l2_normalize, linear, materialize, max_pool, pointwise, pool,
    rows_linear, tokens,
};
use crate::Result;
use crate::activation::Act;
use crate::backend::{
    BackwardOps, Conv, FusedGrad, FusedInput, InputGrad, Read, Rows, Sink, WeightMut,
};
use crate::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use crate::window::Window;
use crate::workspace::{Buffer, Workspace};

impl<'a> FusedGrad<'a, Cpu> {
    fn source(&self) -> GradSource<'a> {
        match *self {
            FusedGrad::Normed { dy, z, grad } => GradSource::Normed { dy, z, grad },
            FusedGrad::Gated {
                g,
                z,
                norm,
                act,
                gate,
                pool,
                grad,
            } => GradSource::Gated {
                g,
                z,
                norm,
                act,
                gate,
                pool,
                grad,
            },
            FusedGrad::Pooled {
                z,
                norm,
                act,
                pool,
                grad,
            } => GradSource::Pooled {
                z,
                norm,
                act,
                pool,
                grad,
            },
        }
    }
}

/// A weight's place in a flat array, and its bias', which lies right behind it.
fn halves<'a>(
    flat: &'a mut [f32],
    weight: &Range<usize>,
    bias: &Range<usize>,
) -> (&'a mut [f32], &'a mut [f32]) {
    flat[weight.start..bias.end].split_at_mut(weight.len())
}

/// A convolution's backward, but for where its input's gradient goes.
struct ConvBack<'a> {
    conv: Conv,
    dz: GradSource<'a>,
    x: Source<'a>,
    w: &'a [f32],
    dw: &'a mut [f32],
    on: &'a Workspace,
}

impl ConvBack<'_> {
    fn write<S: Ungated>(&mut self, dx: &mut [f32], sink: S) -> S::Sums {
        let (dz, x, w, on) = (&self.dz, &self.x, self.w, self.on);
        match self.conv {
            Conv::Pointwise => self.pointwise(dx, sink),
            Conv::Dense(window) => conv::backward(dz, x, &window, w, self.dw, (dx, sink), on),
            Conv::Depthwise(window) => {
                depthwise::backward(dz, x, &window, w, self.dw, (dx, sink), on)
            }
        }
    }

    fn pointwise<S: sink::Sink>(&mut self, dx: &mut [f32], sink: S) -> S::Sums {
        pointwise::backward(&self.dz, &self.x, self.w, self.dw, (dx, sink), self.on)
    }
}

impl BackwardOps for Cpu {
    type GradSums = GradSums;
    type NormGrad = NormGrad;
    type ImageSums = Vec<ImageSums>;

    fn conv_back(
        &self,
        conv: Conv,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        weight: WeightMut<Self>,
        sink: Sink<Self>,
    ) -> Result<InputGrad<Self>> {
        let WeightMut {
            values,
            grads,
            range,
        } = weight;
        let mut back = ConvBack {
            conv,
            dz: dz.source(),
            x: x.source(),
            w: &values[range.clone()],
            dw: &mut grads[range.clone()],
            on: &self.workspace,
        };
        if let (Conv::Dense(window), Sink::Images) = (conv, &sink) {
            conv::weight_gradient(&back.dz, &back.x, &window, back.dw, back.on);
            return Ok(InputGrad::Images);
        }
        let mut dx = self.alloc(x.z.len());
        Ok(match sink {
            Sink::Images => {
                back.write(&mut dx, Plain { shortcut: None });
                InputGrad::Images
            }
            Sink::Plain { shortcut } => {
                let shortcut = shortcut.map(|buf| &buf[..]);
                back.write(&mut dx, Plain { shortcut });
                InputGrad::Plain(dx)
            }
            Sink::Activated => {
                let sums = back.write(&mut dx, Activated);
                InputGrad::Activated(dx, sums)
            }
            Sink::Gated { rows_per_image } => {
                let gated = Gated { rows_per_image };
                let sums = match conv {
                    Conv::Pointwise => back.pointwise(&mut dx, gated),
                    // Only products write gradients an image at a time.
                    Conv::Dense(_) | Conv::Depthwise(_) => {
                        back.write(&mut dx, Plain { shortcut: None });
                        gated.sums(&x.source(), &dx)
                    }
                };
                InputGrad::Gated(dx, sums)
            }
        })
    }

    fn norm_back(
        &self,
        layer: &BatchNorm,
        norm: &NormState,
        sums: &GradSums,
        grads: &mut Vec<f32>,
    ) -> Result<NormGrad> {
        Ok(layer.backward(norm, sums, grads))
    }

    fn norm_sums(&self, g: &Buffer, x: &FusedInput<Self>) -> Result<GradSums> {
        Ok(match x.norm {
            Some((norm, _)) => pointwise::sums_of(g, x.z, norm),
            None => GradSums::zeros(x.channels),
        })
    }

    fn activation_back(&self, g: &mut Buffer, x: &FusedInput<Self>) -> Result<GradSums> {
        Ok(materialize::backward(&x.source(), g))
    }

    fn add_back(
        &self,
        dy: &mut Buffer,
        x: &FusedInput<Self>,
        other: &FusedInput<Self>,
        act: Act,
    ) -> Result<()> {
        let (x, other) = (x.source(), other.source());
        materialize::add_back(&x, &other, act, dy, &self.workspace);
        Ok(())
    }

    fn scale_images(&self, x: &Buffer, factors: &PerImage, channels: usize) -> Result<Buffer> {
        let mut y = self.alloc(x.len());
        materialize::scale_images(x, factors, channels, &mut y);
        Ok(y)
    }

    fn max_pool_back(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
        largest: &Vec<u8>,
        dy: &Buffer,
    ) -> Result<(Buffer, GradSums)> {
        let mut g = self.alloc(x.z.len());
        let sums = max_pool::backward(&x.source(), window, largest, dy, &mut g);
        Ok((g, sums))
    }

    fn pool_back(
        &self,
        x: &FusedInput<Self>,
        dy: &Buffer,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let dpool: Vec<f32> = dy.iter().map(|g| g / rows_per_image as f32).collect();
        let sums = match x.norm {
            Some((norm, act)) => pool::backward_sums(x.z, norm, act, &dpool, rows_per_image),
            None => GradSums::zeros(x.channels),
        };
        Ok((PerImage::new(&dpool, x.channels, rows_per_image), sums))
    }

    fn spread_means(&self, dy: &Buffer, channels: usize, rows_per_image: usize) -> Result<Buffer> {
        let mut dx = self.alloc(dy.len() * rows_per_image);
        pool::spread(dy, channels, rows_per_image, &mut dx);
        Ok(dx)
    }

    fn gate_sums(
        &self,
        g: &Buffer,
        x: &FusedInput<Self>,
        rows_per_image: usize,
    ) -> Result<Vec<ImageSums>> {
        Ok(Gated { rows_per_image }.sums(&x.source(), g))
    }

    fn squeeze_back(
        &self,
        layer: &SqueezeExcite,
        values: &Vec<f32>,
        squeezed: &SqueezeCache,
        sums: &Vec<ImageSums>,
        grads: &mut Vec<f32>,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let (pool, sums) = layer.backward(values, squeezed, sums, rows_per_image, grads);
        Ok((PerImage::new(&pool, layer.channels, rows_per_image), sums))
    }

    fn linear_back(
        &self,
        layer: &Linear,
        values: &Vec<f32>,
        grads: &mut Vec<f32>,
        (x, u): (&Buffer, &Buffer),
        mut dy: Buffer,
    ) -> Result<Buffer> {
        linear::activate_backward(&mut dy, u, layer.act);
        let mut dx = self.alloc(x.len());
        let w = &values[layer.weight.clone()];
        let (dw, db) = halves(grads, &layer.weight, &layer.bias);
        linear::backward(&dy, x, w, dw, db, Some(&mut dx));
        Ok(dx)
    }

    fn tokens_back(
        &self,
        layer: &Positions,
        dy: &Buffer,
        grid: (usize, usize),
        grads: &mut Vec<f32>,
    ) -> Result<()> {
        tokens::backward(layer, dy, grid, grads);
        Ok(())
    }

    fn layer_norm_back(
        &self,
        layer: &LayerNorm,
        values: &Vec<f32>,
        grads: &mut Vec<f32>,
        (x, stats): (&Buffer, &RowStats),
        dy: &mut Buffer,
    ) -> Result<()> {
        let (dweight, dbias) = halves(grads, &layer.weight, &layer.bias);
        Normed::new(layer, values, stats).backward(x, 0, dy, (dweight, dbias));
        Ok(())
    }

    fn rows_linear_back(
        &self,
        layer: &Linear,
        values: &Vec<f32>,
        grads: &mut Vec<f32>,
        x: &Rows<Self>,
        dy: &Buffer,
        shortcut: Option<&Buffer>,
    ) -> Result<Buffer> {
        let mut dx = self.alloc(x.x.len());
        let w = &values[layer.weight.clone()];
        let (weight, bias) = halves(grads, &layer.weight, &layer.bias);
        let into = Gradients { weight, bias };
        let (input, shortcut) = (x.input(values, layer.inputs), shortcut.map(|buf| &buf[..]));
        let workspace = &self.workspace;
        let norm = rows_linear::backward(&input, w, into, dy, shortcut, &mut dx, workspace);
        if let Read::Norm(layer, _) = x.read {
            let (weight, bias) = halves(grads, &layer.weight, &layer.bias);
            for (into, from) in [(weight, &norm.0), (bias, &norm.1)] {
                into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
            }
        }
        Ok(dx)
    }

    fn attention_back(&self, qkv: &Buffer, heads: &Heads, dy: &Buffer) -> Result<Buffer> {
        let mut out = self.alloc(qkv.len());
        attention::backward(qkv, heads, dy, &mut out, &self.workspace);
        Ok(out)
    }

    fn spread_first(&self, dy: &Buffer, rows_per_image: usize, dim: usize) -> Result<Buffer> {
        let mut out = self.workspace.zeros(dy.len() * rows_per_image);
        let images = out.chunks_exact_mut(rows_per_image * dim);
        for (image, dy) in images.zip(dy.chunks_exact(dim)) {
            image[..dim].copy_from_slice(dy);
        }
        Ok(out)
    }

    fn l2_normalize_back(
        &self,
        dy: &mut Buffer,
        (y, inverse): &(Buffer, Vec<f32>),
        dim: usize,
    ) -> Result<()> {
        l2_normalize::backward(dy, y, inverse, dim);
        Ok(())
    }
}
