//! The processor as a backend: fused kernels on channels-last slices, in buffers of a [`Workspace`].
//!
//! One idea carries them all: **normalisation and activation are never stored**. A convolution
//! stores its raw output z; whoever reads it computes act(z * scale + shift) on the way
//! ([`source::Source`]). Backward likewise: what is stored is dy, the gradient behind the
//! activation, and batch norm's backward a * dy + b * z + c is computed where dz is read
//! ([`source::GradSource`]); the two sums it needs come from the kernel that wrote dy.
//! So a layer costs one tensor, and each tensor crosses memory a minimal number of times.

pub mod channelwise;
pub mod conv;
pub mod depthwise;
pub mod linear;
pub mod materialise;
pub mod norm;
pub mod normalize;
pub mod pointwise;
pub mod pool;
pub mod sgd;
pub mod sink;
pub mod source;
pub mod squeeze_excite;
mod sums;

use self::norm::{GradSums, Moments, NormGrad, NormState, Statistics};
use self::sink::{Activated, Gated, ImageSums, Plain};
use self::source::{GradSource, PerImage, Source};
use self::squeeze_excite::Saved;
use super::backend::{Backend, Grad, Host, Output, Param, ParamMut, Src, Update};
use super::layer::{BatchNorm, Linear, SqueezeExcite};
use super::parallel::CHUNK;
use super::window::Window;
use super::workspace::{Buffer, Workspace};
use crate::Result;
use crate::loss::{self, Contrast, Evaluated};
use crate::queue::Queue;
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

    fn conv(
        &self,
        images: &Buffer,
        window: &Window,
        w: Param<Self>,
        moments: bool,
    ) -> Result<Output<Self>> {
        let (w, patch) = (w.slice(), window.kernel * window.kernel * window.channels);
        let n = images.len() / (window.height * window.width * window.channels);
        let mut z = self.take(n * window.out_height * window.out_width * (w.len() / patch));
        let moments = conv::forward(images, window, w, &mut z, moments, &self.workspace);
        Ok((z, moments))
    }

    fn conv_back(
        &self,
        dz: &Grad<Self>,
        images: &Buffer,
        window: &Window,
        dw: ParamMut<Self>,
    ) -> Result<()> {
        conv::backward(&dz.source(), images, window, dw.slice(), &self.workspace);
        Ok(())
    }

    fn pointwise(&self, x: &Src<Self>, w: Param<Self>, moments: bool) -> Result<Output<Self>> {
        let w = w.slice();
        let mut z = self.take(x.rows() * (w.len() / x.channels));
        let moments = pointwise::forward(&x.source(), w, &mut z, moments, &self.workspace);
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
        moments: bool,
    ) -> Result<Output<Self>> {
        let images = x.rows() / (window.height * window.width);
        let mut z = self.take(images * window.out_height * window.out_width * window.channels);
        let (x, w) = (x.source(), w.slice());
        let moments = depthwise::forward(&x, window, w, &mut z, moments, &self.workspace);
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

    fn materialise(&self, x: &Src<Self>, shortcut: Option<&Buffer>) -> Result<Buffer> {
        let mut y = self.take(x.z.len());
        materialise::forward(&x.source(), shortcut.map(|buf| &buf[..]), &mut y);
        Ok(y)
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
        y.copy_from_slice(&u);
        linear::activate(&mut y, layer.act);
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
        // The bias lies right behind its weight in the flat array.
        let (dw, db) = grads[layer.weight.start..layer.bias.end].split_at_mut(layer.weight.len());
        linear::backward(&dy, x, w, dw, db, Some(&mut dx));
        Ok(dx)
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

    fn contrast(
        &self,
        queries: &Buffer,
        rows: Range<usize>,
        contrast: &Contrast<'_, Buffer, Vec<f32>>,
    ) -> Result<Evaluated<Buffer>> {
        let found = loss::evaluate(queries, contrast.queue.dim, &contrast.of(rows));
        let mut grad = self.take(found.grad.len());
        grad.copy_from_slice(&found.grad);
        Ok(Evaluated {
            loss: found.loss,
            grad,
            agreement: found.agreement,
        })
    }

    fn enqueue(&self, queue: &mut Queue, keys: &Buffer, photos: &[u32]) -> Result<()> {
        queue.enqueue(keys, photos);
        Ok(())
    }
}
