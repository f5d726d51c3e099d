//! The processor as a backend: fused kernels on channels-last slices, in buffers of a [`Workspace`].
//!
//! One idea carries them all: **normalisation and activation are never stored**. A convolution
//! stores its raw output z; whoever reads it computes act(z * scale + shift) on the way
//! ([`source::Source`]). Backward likewise: what is stored is dy, the gradient behind the
//! activation, and batch norm's backward a * dy + b * z + c is computed where dz is read
//! ([`source::GradSource`]); the two sums it needs come from the kernel that wrote dy.
//! So a layer costs one tensor, and each tensor crosses memory a minimal number of times.

pub mod adamw;
pub mod attention;
pub mod channelwise;
pub mod conv;
pub mod depthwise;
pub mod layer_norm;
pub mod linear;
pub mod materialise;
pub mod max_pool;
pub mod norm;
pub mod normalize;
pub mod pointwise;
pub mod pool;
pub mod rows_linear;
pub mod sgd;
pub mod sink;
pub mod source;
pub mod squeeze_excite;
mod sums;
pub mod tokens;
mod winograd;

use self::layer_norm::{Normed, RowStats};
use self::norm::{GradSums, Moments, NormGrad, NormState, Statistics};
use self::rows_linear::{Gradients, Input, Reading};
use self::sink::{Activated, Gated, ImageSums, Plain};
use self::source::{GradSource, PerImage, Source};
use self::squeeze_excite::Saved;
use super::activation::Act;
use super::backend::{
    AdamUpdate, Backend, Grad, Host, Output, Param, ParamMut, Read, Rows, Src, Update,
};
use super::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use super::parallel::CHUNK;
use super::window::Window;
use super::workspace::{Buffer, Workspace};
use crate::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Kernels for the processor, in memory of its workspace.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    workspace: Workspace,
}

impl Cpu {
    /// On a workspace that others may share, if they do not run at the same time.
    pub fn new(workspace: &Workspace) -> Cpu {
        Cpu {
            workspace: workspace.clone(),
        }
    }

    fn take(&self, len: usize) -> Buffer {
        self.workspace.take(len)
    }
}

impl<'a> Src<'a, Cpu> {
    fn source(&self) -> Source<'a> {
        Source {
            z: self.z,
            channels: self.channels,
            norm: self.norm,
            gate: self.gate,
        }
    }

    fn rows(&self) -> usize {
        self.z.len() / self.channels
    }
}

impl<'a> Grad<'a, Cpu> {
    fn source(&self) -> GradSource<'a> {
        match *self {
            Grad::Normed { dy, z, grad } => GradSource::Normed { dy, z, grad },
            Grad::Gated {
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
            Grad::Pooled {
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

impl<'a> Param<'a, Cpu> {
    fn slice(&self) -> &'a [f32] {
        &self.values[self.range.clone()]
    }
}

impl<'a> ParamMut<'a, Cpu> {
    fn slice(self) -> &'a mut [f32] {
        &mut self.grads[self.range.clone()]
    }
}

impl<'a> Rows<'a, Cpu> {
    fn input(&self, values: &'a [f32], dim: usize) -> Input<'a> {
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

/// A weight's place in a flat array, and its bias', which lies right behind it.
fn halves<'a>(
    flat: &'a mut [f32],
    weight: &Range<usize>,
    bias: &Range<usize>,
) -> (&'a mut [f32], &'a mut [f32]) {
    flat[weight.start..bias.end].split_at_mut(weight.len())
}

/// Whether moments are asked for. Groups come one at a time ([`Backend::groups_at_once`]).
fn one(groups: usize) -> bool {
    assert!(groups <= 1, "the processor takes a group at a time");
    groups == 1
}

impl Backend for Cpu {
    type Buf = Buffer;
    type Flat = Vec<f32>;
    type Moments = Moments;
    type Norm = NormState;
    type GradSums = GradSums;
    type NormGrad = NormGrad;
    type PerImage = PerImage;
    type ImageSums = Vec<ImageSums>;
    type Squeezed = Saved;
    type Largest = Vec<u8>;
    type RowStats = RowStats;
    /// The rows and 1 / |x|.
    type Unit = (Buffer, Vec<f32>);

    fn release(&self) {
        self.workspace.release();
    }

    fn upload(&self, len: usize, fill: impl FnOnce(&mut [f32])) -> Result<Buffer> {
        let mut buf = self.take(len);
        fill(&mut buf);
        Ok(buf)
    }

    fn download(&self, buf: &Buffer) -> Result<Vec<f32>> {
        Ok(buf.to_vec())
    }

    fn rescale(&self, x: &mut Buffer, channels: &[(f32, f32)]) -> Result<()> {
        for row in x.chunks_exact_mut(channels.len()) {
            for (x, (factor, offset)) in row.iter_mut().zip(channels) {
                *x = *x * factor + offset;
            }
        }
        Ok(())
    }

    fn gather(&self, parts: &[Buffer], order: &[usize], dim: usize) -> Result<Buffer> {
        let mut all = self.take(order.len() * dim);
        let rows = parts.iter().flat_map(|part| part.chunks_exact(dim));
        for (row, &place) in rows.zip(order) {
            all[place * dim..(place + 1) * dim].copy_from_slice(row);
        }
        Ok(all)
    }

    fn flat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        Ok(numbers)
    }

    fn host<'a>(&self, flat: &'a Vec<f32>) -> Result<Host<'a>> {
        Ok(Host::Borrowed(flat))
    }

    fn edit(&self, flat: &mut Vec<f32>, change: impl FnOnce(&mut [f32])) -> Result<()> {
        change(flat);
        Ok(())
    }

    fn copy(&self, to: &mut Vec<f32>, from: &Vec<f32>) -> Result<()> {
        to.copy_from_slice(from);
        Ok(())
    }

    fn clear(&self, flat: &mut Vec<f32>) -> Result<()> {
        flat.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
        Ok(())
    }

    fn all_finite(&self, flat: &Vec<f32>) -> Result<bool> {
        // Without stopping at the first that is not: so the loop vectorises.
        let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, x| all & x.is_finite());
        Ok(flat.par_chunks(CHUNK).all(finite))
    }

    fn sgd(
        &self,
        update: &Update,
        values: &mut Vec<f32>,
        grads: &Vec<f32>,
        velocity: &mut Vec<f32>,
        base: &Vec<f32>,
    ) -> Result<()> {
        sgd::step(update, values, grads, velocity, base);
        Ok(())
    }

    fn adamw(
        &self,
        update: &AdamUpdate,
        values: &mut Vec<f32>,
        grads: &Vec<f32>,
        (first, second): (&mut Vec<f32>, &mut Vec<f32>),
    ) -> Result<()> {
        adamw::step(update, values, grads, first, second);
        Ok(())
    }

    fn follow(
        &self,
        own: &mut Vec<f32>,
        other: &Vec<f32>,
        momentum: f32,
        from: usize,
    ) -> Result<()> {
        let (Some(own), Some(other)) = (own.get_mut(from..), other.get(from..)) else {
            return Ok(());
        };
        own.par_chunks_mut(CHUNK)
            .zip(other.par_chunks(CHUNK))
            .for_each(|(own, other)| {
                for (key, query) in own.iter_mut().zip(other) {
                    *key = momentum * *key + (1.0 - momentum) * query;
                }
            });
        Ok(())
    }

    fn multiply(&self, own: &mut Buffer, by: &Buffer) -> Result<()> {
        own.iter_mut().zip(&by[..]).for_each(|(x, y)| *x *= y);
        Ok(())
    }

    fn conv(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>> {
        let (w, patch) = (w.slice(), window.kernel * window.kernel * window.channels);
        let n = x.rows() / (window.height * window.width);
        let mut z = self.take(n * window.out_height * window.out_width * (w.len() / patch));
        let moments = conv::forward(&x.source(), window, w, &mut z, one(groups), &self.workspace);
        Ok((z, moments))
    }

    fn conv_back_images(
        &self,
        dz: &Grad<Self>,
        images: &Src<Self>,
        window: &Window,
        dw: ParamMut<Self>,
    ) -> Result<()> {
        let (dz, images) = (dz.source(), images.source());
        conv::weight_gradient(&dz, &images, window, dw.slice(), &self.workspace);
        Ok(())
    }

    fn conv_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Buffer>,
    ) -> Result<Buffer> {
        let mut dx = self.take(x.z.len());
        let shortcut = shortcut.map(|buf| &buf[..]);
        let sink = (&mut dx[..], Plain { shortcut });
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        conv::backward(&dz, &x, window, w.slice(), dw, sink, &self.workspace);
        Ok(dx)
    }

    fn conv_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Buffer, GradSums)> {
        let mut dy = self.take(x.z.len());
        let sink = (&mut dy[..], Activated);
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        let sums = conv::backward(&dz, &x, window, w.slice(), dw, sink, &self.workspace);
        Ok((dy, sums))
    }

    fn pointwise(&self, x: &Src<Self>, w: Param<Self>, groups: usize) -> Result<Output<Self>> {
        let w = w.slice();
        let mut z = self.take(x.rows() * (w.len() / x.channels));
        let moments = pointwise::forward(&x.source(), w, &mut z, one(groups), &self.workspace);
        Ok((z, moments))
    }

    fn pointwise_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Buffer>,
    ) -> Result<Buffer> {
        let mut dx = self.take(x.z.len());
        let shortcut = shortcut.map(|buf| &buf[..]);
        let sink = (&mut dx[..], Plain { shortcut });
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        pointwise::backward(&dz, &x, w.slice(), dw, sink, &self.workspace);
        Ok(dx)
    }

    fn pointwise_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Buffer, GradSums)> {
        let mut dy = self.take(x.z.len());
        let sink = (&mut dy[..], Activated);
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        let sums = pointwise::backward(&dz, &x, w.slice(), dw, sink, &self.workspace);
        Ok((dy, sums))
    }

    fn pointwise_back_gated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
        rows_per_image: usize,
    ) -> Result<(Buffer, Vec<ImageSums>)> {
        let mut g = self.take(x.z.len());
        let sink = (&mut g[..], Gated { rows_per_image });
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        let sums = pointwise::backward(&dz, &x, w.slice(), dw, sink, &self.workspace);
        Ok((g, sums))
    }

    fn depthwise(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>> {
        let images = x.rows() / (window.height * window.width);
        let mut z = self.take(images * window.out_height * window.out_width * window.channels);
        let (x, w) = (x.source(), w.slice());
        let moments = depthwise::forward(&x, window, w, &mut z, one(groups), &self.workspace);
        Ok((z, moments))
    }

    fn depthwise_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Buffer>,
    ) -> Result<Buffer> {
        let mut dx = self.take(x.z.len());
        let shortcut = shortcut.map(|buf| &buf[..]);
        let sink = (&mut dx[..], Plain { shortcut });
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        depthwise::backward(&dz, &x, window, w.slice(), dw, sink, &self.workspace);
        Ok(dx)
    }

    fn depthwise_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Buffer, GradSums)> {
        let mut dy = self.take(x.z.len());
        let sink = (&mut dy[..], Activated);
        let (dz, x, dw) = (dz.source(), x.source(), dw.slice());
        let sums = depthwise::backward(&dz, &x, window, w.slice(), dw, sink, &self.workspace);
        Ok((dy, sums))
    }

    fn norm(
        &self,
        layer: &BatchNorm,
        values: &Vec<f32>,
        buffers: &mut Vec<f32>,
        moments: Option<(Moments, f32)>,
    ) -> Result<NormState> {
        Ok(match moments {
            Some((moments, momentum)) => {
                layer.state(values, &moments, Statistics::Batch { buffers, momentum })
            }
            None => {
                let none = Moments::zeros(layer.channels);
                layer.state(values, &none, Statistics::Running { buffers })
            }
        })
    }

    fn no_norm(&self, channels: usize) -> Result<NormState> {
        Ok(NormState::none(channels))
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

    fn norm_sums(&self, g: &Buffer, x: &Src<Self>) -> Result<GradSums> {
        Ok(match x.norm {
            Some((norm, _)) => pointwise::sums_of(g, x.z, norm),
            None => GradSums::zeros(x.channels),
        })
    }

    fn activation_back(&self, g: &mut Buffer, x: &Src<Self>) -> Result<GradSums> {
        Ok(materialise::backward(&x.source(), g))
    }

    fn materialise(&self, x: &Src<Self>) -> Result<Buffer> {
        let mut y = self.take(x.z.len());
        materialise::forward(&x.source(), &mut y);
        Ok(y)
    }

    fn add(&self, x: &Src<Self>, other: &Src<Self>, act: Act) -> Result<Buffer> {
        let mut y = self.take(x.z.len());
        let (x, other) = (x.source(), other.source());
        materialise::add(&x, &other, act, &mut y, &self.workspace);
        Ok(y)
    }

    fn add_back(&self, dy: &mut Buffer, x: &Src<Self>, other: &Src<Self>, act: Act) -> Result<()> {
        let (x, other) = (x.source(), other.source());
        materialise::add_back(&x, &other, act, dy, &self.workspace);
        Ok(())
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

    fn scale_images(&self, x: &Buffer, factors: &PerImage, channels: usize) -> Result<Buffer> {
        let mut y = self.take(x.len());
        materialise::scale_images(x, factors, channels, &mut y);
        Ok(y)
    }

    fn max_pool(&self, x: &Src<Self>, window: &Window) -> Result<(Buffer, Vec<u8>)> {
        let n = x.rows() / (window.height * window.width);
        let len = n * window.out_height * window.out_width * window.channels;
        let (mut y, mut taps) = (self.take(len), vec![0; len]);
        max_pool::forward(&x.source(), window, &mut y, &mut taps, &self.workspace);
        Ok((y, taps))
    }

    fn max_pool_back(
        &self,
        x: &Src<Self>,
        window: &Window,
        largest: &Vec<u8>,
        dy: &Buffer,
    ) -> Result<(Buffer, GradSums)> {
        let mut g = self.take(x.z.len());
        let sums = max_pool::backward(&x.source(), window, largest, dy, &mut g);
        Ok((g, sums))
    }

    fn pool(&self, x: &Src<Self>, rows_per_image: usize) -> Result<Buffer> {
        let mut means = self.take(x.z.len() / rows_per_image);
        pool::forward(&x.source(), rows_per_image, &mut means);
        Ok(means)
    }

    fn pool_back(
        &self,
        x: &Src<Self>,
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
        let mut dx = self.take(dy.len() * rows_per_image);
        pool::spread(dy, channels, rows_per_image, &mut dx);
        Ok(dx)
    }

    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &Vec<f32>,
        x: &Src<Self>,
        rows_per_image: usize,
    ) -> Result<(Saved, PerImage)> {
        let mut pooled = vec![0.0; x.z.len() / rows_per_image];
        pool::forward(&x.source(), rows_per_image, &mut pooled);
        let saved = layer.forward(values, pooled);
        let gate = PerImage::new(&saved.gate, x.channels, rows_per_image);
        Ok((saved, gate))
    }

    fn gate_sums(
        &self,
        g: &Buffer,
        x: &Src<Self>,
        rows_per_image: usize,
    ) -> Result<Vec<ImageSums>> {
        Ok(Gated { rows_per_image }.sums(&x.source(), g))
    }

    fn squeeze_back(
        &self,
        layer: &SqueezeExcite,
        values: &Vec<f32>,
        squeezed: &Saved,
        sums: &Vec<ImageSums>,
        grads: &mut Vec<f32>,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let (pool, sums) = layer.backward(values, squeezed, sums, rows_per_image, grads);
        Ok((PerImage::new(&pool, layer.channels, rows_per_image), sums))
    }

    fn linear(&self, layer: &Linear, values: &Vec<f32>, x: &Buffer) -> Result<(Buffer, Buffer)> {
        let mut u = self.take(x.len() / layer.inputs * layer.outputs);
        let (w, b) = (&values[layer.weight.clone()], &values[layer.bias.clone()]);
        linear::forward(x, w, b, &mut u);
        let mut y = self.take(u.len());
        linear::activate(&u, layer.act, &mut y);
        Ok((y, u))
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
        let mut dx = self.take(x.len());
        let w = &values[layer.weight.clone()];
        let (dw, db) = halves(grads, &layer.weight, &layer.bias);
        linear::backward(&dy, x, w, dw, db, Some(&mut dx));
        Ok(dx)
    }

    fn tokens(
        &self,
        layer: &Positions,
        values: &Vec<f32>,
        patches: &Buffer,
        grid: (usize, usize),
    ) -> Result<Buffer> {
        let images = patches.len() / (grid.0 * grid.1 * layer.dim).max(1);
        let mut out = self.take(patches.len() + images * layer.dim);
        tokens::forward(layer, values, patches, grid, &mut out);
        Ok(out)
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

    fn row_stats(&self, x: &Buffer, layer: &LayerNorm) -> Result<RowStats> {
        Ok(RowStats::of(x, layer.dim, layer.eps))
    }

    fn layer_norm(
        &self,
        layer: &LayerNorm,
        values: &Vec<f32>,
        x: &Buffer,
        stats: &RowStats,
    ) -> Result<Buffer> {
        let mut y = self.take(x.len());
        Normed::new(layer, values, stats).forward(x, 0, &mut y);
        Ok(y)
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

    fn rows_linear(
        &self,
        layer: &Linear,
        values: &Vec<f32>,
        x: &Rows<Self>,
        shortcut: Option<&Buffer>,
    ) -> Result<Buffer> {
        let mut y = self.take(x.x.len() / layer.inputs * layer.outputs);
        let (w, b) = (&values[layer.weight.clone()], &values[layer.bias.clone()]);
        let (x, shortcut) = (x.input(values, layer.inputs), shortcut.map(|buf| &buf[..]));
        rows_linear::forward(&x, w, b, shortcut, &mut y, &self.workspace);
        Ok(y)
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
        let mut dx = self.take(x.x.len());
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

    fn attention(&self, qkv: &Buffer, heads: &Heads) -> Result<Buffer> {
        let mut out = self.take(qkv.len() / 3);
        attention::forward(qkv, heads, &mut out, &self.workspace);
        Ok(out)
    }

    fn attention_back(&self, qkv: &Buffer, heads: &Heads, dy: &Buffer) -> Result<Buffer> {
        let mut out = self.take(qkv.len());
        attention::backward(qkv, heads, dy, &mut out, &self.workspace);
        Ok(out)
    }

    fn first_rows(&self, x: &Buffer, rows_per_image: usize, dim: usize) -> Result<Buffer> {
        let mut out = self.take(x.len() / rows_per_image);
        let images = x.chunks_exact(rows_per_image * dim);
        for (out, image) in out.chunks_exact_mut(dim).zip(images) {
            out.copy_from_slice(&image[..dim]);
        }
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

    fn normalize(&self, x: &mut Buffer, dim: usize) -> Result<(Buffer, Vec<f32>)> {
        let inverse = normalize::forward(x, dim);
        let mut y = self.take(x.len());
        y.copy_from_slice(x);
        Ok((y, inverse))
    }

    fn normalize_back(
        &self,
        dy: &mut Buffer,
        (y, inverse): &(Buffer, Vec<f32>),
        dim: usize,
    ) -> Result<()> {
        normalize::backward(dy, y, inverse, dim);
        Ok(())
    }
}
