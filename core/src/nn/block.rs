//! Blocks: a few operations with a hand-written backward that keeps one tensor per convolution.

use std::ops::Range;

use rayon::prelude::*;

use super::activation::{Act, with_act};
use super::ops::channelwise::{activate, affine_add};
use super::ops::depthwise::{self, Padding, Window};
use super::ops::norm::{BatchNorm, GradSums, Moments, NormState, Statistics};
use super::ops::pointwise::{self, ImageSums, Sink, Sums};
use super::ops::source::{GradSource, PerImage, Source};
use super::ops::squeeze_excite::{self, SqueezeExcite};
use super::ops::{conv, pool};
use super::parallel::{pieces, split};
use super::workspace::{Buffer, Workspace};
use crate::params::{Layout, Role};

/// Height and width of a tensor's images.
pub type Size = (usize, usize);

/// What a forward pass reads and updates.
pub struct Forward<'a> {
    pub values: &'a [f32],
    pub buffers: &'a mut [f32],
    /// Batch statistics (training) or running ones.
    pub train: bool,
    /// How far running statistics move towards the batch's.
    pub norm_momentum: f32,
    pub workspace: &'a Workspace,
}

impl Forward<'_> {
    fn norm(&mut self, norm: &BatchNorm, moments: Option<Moments>) -> NormState {
        match moments {
            Some(moments) => norm.state(
                self.values,
                &moments,
                Statistics::Batch {
                    buffers: self.buffers,
                    momentum: self.norm_momentum,
                },
            ),
            None => norm.state(
                self.values,
                &Moments::zeros(norm.channels),
                Statistics::Running {
                    buffers: self.buffers,
                },
            ),
        }
    }
}

/// What a backward pass reads and adds to.
pub struct Backward<'a> {
    pub values: &'a [f32],
    pub grads: &'a mut [f32],
    pub workspace: &'a Workspace,
}

/// A convolution and its batch norm.
#[derive(Clone, Debug)]
struct ConvNorm {
    weight: Range<usize>,
    norm: BatchNorm,
}

impl ConvNorm {
    fn new(
        layout: &mut Layout,
        (conv, norm): (String, String),
        shape: &[usize],
        eps: f32,
    ) -> ConvNorm {
        ConvNorm {
            weight: layout.add(format!("{conv}.weight"), shape, Role::ConvWeight),
            norm: BatchNorm::new(layout, &norm, shape[0], eps),
        }
    }
}

/// y = act(norm(z)) (+ x), stored.
fn materialise(z: &[f32], norm: &NormState, act: Act, residual: Option<&[f32]>, y: &mut [f32]) {
    let c = norm.channels;
    let pieces = pieces(z.len() / c, 1);
    let outs = split(y, &pieces, c);
    pieces.into_par_iter().zip(outs).for_each(|(rows, y)| {
        let at = rows.start * c..rows.end * c;
        match residual {
            Some(x) => affine_add(&z[at.clone()], &norm.scale, &norm.shift, &x[at], y),
            None => with_act!(act, A => activate::<A>(&z[at], &norm.scale, &norm.shift, y)),
        }
    });
}

/// The stem: dense convolution of the image, batch norm, activation.
#[derive(Clone, Debug)]
pub struct Stem {
    conv: ConvNorm,
    channels_in: usize,
    pub channels: usize,
    stride: usize,
    padding: Padding,
    act: Act,
}

/// What [`Stem::backward`] needs besides the image.
#[derive(Debug)]
pub struct StemSaved {
    z: Buffer,
    norm: NormState,
    window: Window,
}

impl Stem {
    /// A 3x3 convolution named `{name}.0` with batch norm `{name}.1`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (channels_in, channels, stride): (usize, usize, usize),
        act: Act,
        padding: Padding,
        eps: f32,
    ) -> Stem {
        let names = (format!("{name}.0"), format!("{name}.1"));
        Stem {
            conv: ConvNorm::new(layout, names, &[channels, channels_in, 3, 3], eps),
            channels_in,
            channels,
            stride,
            padding,
            act,
        }
    }

    /// Where this layer's parameters end in the flat values.
    pub fn parameters_end(&self) -> usize {
        self.conv.norm.parameters_end()
    }

    /// Images (n, height, width, in) to y (n, height / stride, width / stride, channels).
    pub fn forward(
        &self,
        pass: &mut Forward,
        images: &[f32],
        size: Size,
    ) -> (Buffer, Size, StemSaved) {
        let window = Window::new(size, self.channels_in, 3, self.stride, self.padding);
        let n = images.len() / (size.0 * size.1 * self.channels_in);
        let len = n * window.out_height * window.out_width * self.channels;
        let mut z = pass.workspace.take(len);
        let w = &pass.values[self.conv.weight.clone()];
        let moments = conv::forward(images, &window, w, &mut z, pass.train, pass.workspace);
        let norm = pass.norm(&self.conv.norm, moments);
        let mut y = pass.workspace.take(len);
        materialise(&z, &norm, self.act, None, &mut y);
        let size = (window.out_height, window.out_width);
        (y, size, StemSaved { z, norm, window })
    }

    /// From dy, which is used up.
    pub fn backward(&self, pass: &mut Backward, images: &[f32], saved: &StemSaved, mut dy: Buffer) {
        let input = Source::normed(&saved.z, &saved.norm, self.act);
        let sums = through(&input, &mut dy);
        let grad = self.conv.norm.backward(&saved.norm, &sums, pass.grads);
        let source = GradSource::Normed {
            dy: &dy,
            z: &saved.z,
            grad: &grad,
        };
        let dw = &mut pass.grads[self.conv.weight.clone()];
        conv::backward(&source, images, &saved.window, dw, pass.workspace);
    }
}

/// In place: g becomes dy behind the activation of `x`; returns batch norm's sums.
fn through(x: &Source, g: &mut [f32]) -> GradSums {
    let c = x.channels;
    let pieces = pieces(g.len() / c, 1);
    let gs = split(g, &pieces, c);
    let parts: Vec<GradSums> = pieces
        .into_par_iter()
        .zip(gs)
        .map(|(rows, g)| pointwise::through(x, rows, g))
        .collect();
    parts.iter().fold(GradSums::zeros(c), GradSums::merge)
}

/// Sizes and switches of an [`InvertedResidual`].
#[derive(Clone, Copy, Debug)]
pub struct BlockShape {
    pub channels_in: usize,
    pub expanded: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Width of squeeze-excite's hidden layer, where there is one.
    pub squeeze: Option<usize>,
    pub act: Act,
    pub padding: Padding,
    pub eps: f32,
}

/// Names of a block's layers in weight files: (convolution, batch norm).
pub struct BlockNames {
    pub expand: Option<(String, String)>,
    pub depthwise: (String, String),
    pub squeeze_excite: String,
    pub project: (String, String),
}

/// Expand 1x1, depthwise, squeeze-excite, project 1x1, shortcut (Sandler et al. 2018, Howard et
/// al. 2019). Activation before squeeze-excite, as torchvision.
#[derive(Clone, Debug)]
pub struct InvertedResidual {
    shape: BlockShape,
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze_excite: Option<SqueezeExcite>,
    project: ConvNorm,
}

/// What [`InvertedResidual::backward`] needs besides the block's input.
#[derive(Debug)]
pub struct BlockSaved {
    expand: Option<(Buffer, NormState)>,
    depthwise: (Buffer, NormState),
    gate: Option<(squeeze_excite::Saved, PerImage)>,
    project: (Buffer, NormState),
    window: Window,
}

impl InvertedResidual {
    /// Declares the block's parameters in forward order.
    pub fn new(layout: &mut Layout, names: BlockNames, shape: BlockShape) -> InvertedResidual {
        let BlockShape {
            channels_in,
            expanded,
            channels,
            kernel,
            eps,
            ..
        } = shape;
        let expand = names
            .expand
            .map(|names| ConvNorm::new(layout, names, &[expanded, channels_in, 1, 1], eps));
        let taps = [expanded, 1, kernel, kernel];
        InvertedResidual {
            shape,
            expand,
            depthwise: ConvNorm::new(layout, names.depthwise, &taps, eps),
            squeeze_excite: shape
                .squeeze
                .map(|hidden| SqueezeExcite::new(layout, &names.squeeze_excite, expanded, hidden)),
            project: ConvNorm::new(layout, names.project, &[channels, expanded, 1, 1], eps),
        }
    }

    /// Where this block's parameters end in the flat values.
    pub fn parameters_end(&self) -> usize {
        self.project.norm.parameters_end()
    }

    fn has_shortcut(&self) -> bool {
        self.shape.stride == 1 && self.shape.channels_in == self.shape.channels
    }

    /// x (n, height, width, in) to y (n, height / stride, width / stride, out).
    pub fn forward(&self, pass: &mut Forward, x: &[f32], size: Size) -> (Buffer, Size, BlockSaved) {
        let s = &self.shape;
        let workspace = pass.workspace;
        let rows = x.len() / s.channels_in;
        let images = rows / (size.0 * size.1);

        let expand = self.expand.as_ref().map(|layer| {
            let mut z = workspace.take(rows * s.expanded);
            let w = &pass.values[layer.weight.clone()];
            let input = Source::plain(x, s.channels_in);
            let moments = pointwise::forward(&input, w, &mut z, pass.train, workspace);
            let norm = pass.norm(&layer.norm, moments);
            (z, norm)
        });

        let window = Window::new(size, s.expanded, s.kernel, s.stride, s.padding);
        let out_size = (window.out_height, window.out_width);
        let out_rows = images * out_size.0 * out_size.1;
        let input = match &expand {
            Some((z, norm)) => Source::normed(z, norm, s.act),
            None => Source::plain(x, s.expanded),
        };
        let mut z = workspace.take(out_rows * s.expanded);
        let w = &pass.values[self.depthwise.weight.clone()];
        let moments = depthwise::forward(&input, &window, w, &mut z, pass.train, workspace);
        let depthwise = (z, pass.norm(&self.depthwise.norm, moments));

        let activated = Source::normed(&depthwise.0, &depthwise.1, s.act);
        let per_image = out_size.0 * out_size.1;
        let gate = self.squeeze_excite.as_ref().map(|layer| {
            let mut pooled = vec![0.0; images * s.expanded];
            pool::forward(&activated, per_image, &mut pooled);
            let saved = layer.forward(pass.values, pooled);
            let gate = PerImage::new(&saved.gate, s.expanded, per_image);
            (saved, gate)
        });

        let gated = Source {
            gate: gate.as_ref().map(|(_, gate)| gate),
            ..activated
        };
        let mut z = workspace.take(out_rows * s.channels);
        let w = &pass.values[self.project.weight.clone()];
        let moments = pointwise::forward(&gated, w, &mut z, pass.train, workspace);
        let project = (z, pass.norm(&self.project.norm, moments));

        let mut y = workspace.take(out_rows * s.channels);
        let residual = self.has_shortcut().then_some(x);
        materialise(&project.0, &project.1, Act::Identity, residual, &mut y);
        let saved = BlockSaved {
            expand,
            depthwise,
            gate,
            project,
            window,
        };
        (y, out_size, saved)
    }

    /// dx from dy; parameter gradients are added to `pass.grads`.
    pub fn backward(
        &self,
        pass: &mut Backward,
        x: &[f32],
        saved: &BlockSaved,
        dy: Buffer,
    ) -> Buffer {
        let s = &self.shape;
        let workspace = pass.workspace;
        let per_image = saved.window.out_height * saved.window.out_width;

        // Projection: its batch norm has no activation behind it, so dy is what flows in.
        let (z3, norm3) = &saved.project;
        let sums = pointwise::sums_of(&dy, z3, norm3);
        let grad3 = self.project.norm.backward(norm3, &sums, pass.grads);
        let dz3 = GradSource::Normed {
            dy: &dy,
            z: z3,
            grad: &grad3,
        };
        let (z2, norm2) = &saved.depthwise;
        let mut g2 = workspace.take(z2.len());
        let gate = saved.gate.as_ref().map(|(_, gate)| gate);
        let input = Source {
            gate,
            ..Source::normed(z2, norm2, s.act)
        };
        let sink = match gate {
            Some(_) => Sink::Gate { g: &mut g2 },
            None => Sink::Activation { dy: &mut g2 },
        };
        let (w, dw) = weights(pass.values, pass.grads, &self.project.weight);
        let sums = pointwise::backward(&dz3, &input, w, dw, sink, per_image, workspace);

        // Squeeze-excite: its share of batch norm's sums, and the pooled branch's gradient.
        let (sums2, pooled) = self.gate_backward(pass, saved, sums, per_image);
        let grad2 = self.depthwise.norm.backward(norm2, &sums2, pass.grads);
        let dz2 = match (gate, &pooled) {
            (Some(gate), Some(pool)) => GradSource::Gated {
                g: &g2,
                z: z2,
                norm: norm2,
                act: s.act,
                gate,
                pool,
                grad: &grad2,
            },
            _ => GradSource::Normed {
                dy: &g2,
                z: z2,
                grad: &grad2,
            },
        };

        // Depthwise, then expansion; the shortcut's gradient joins where x's is written.
        let mut dx = workspace.take(x.len());
        let shortcut = self.has_shortcut().then_some(&dy[..]);
        let (w, dw) = weights(pass.values, pass.grads, &self.depthwise.weight);
        let (Some(layer), Some((z1, norm1))) = (&self.expand, &saved.expand) else {
            let sink = Sink::Plain {
                dx: &mut dx,
                shortcut,
            };
            let input = Source::plain(x, s.expanded);
            depthwise::backward(&dz2, &input, &saved.window, w, dw, sink, workspace);
            return dx;
        };
        let mut dy1 = workspace.take(z1.len());
        let sink = Sink::Activation { dy: &mut dy1 };
        let input = Source::normed(z1, norm1, s.act);
        let sums = depthwise::backward(&dz2, &input, &saved.window, w, dw, sink, workspace);
        drop(g2);
        let grad1 = layer
            .norm
            .backward(norm1, &norm_sums(sums, s.expanded), pass.grads);
        let dz1 = GradSource::Normed {
            dy: &dy1,
            z: z1,
            grad: &grad1,
        };
        let (w, dw) = weights(pass.values, pass.grads, &layer.weight);
        let sink = Sink::Plain {
            dx: &mut dx,
            shortcut,
        };
        let input = Source::plain(x, s.channels_in);
        pointwise::backward(&dz1, &input, w, dw, sink, per_image, workspace);
        dx
    }

    fn gate_backward(
        &self,
        pass: &mut Backward,
        saved: &BlockSaved,
        sums: Sums,
        per_image: usize,
    ) -> (GradSums, Option<PerImage>) {
        match (&self.squeeze_excite, &saved.gate, sums) {
            (Some(layer), Some((saved, _)), Sums::Gate(images)) => {
                let images: &[ImageSums] = &images;
                let (pool, sums) =
                    layer.backward(pass.values, saved, images, per_image, pass.grads);
                let pool = PerImage::new(&pool, self.shape.expanded, per_image);
                (sums, Some(pool))
            }
            (_, _, sums) => (norm_sums(sums, self.shape.expanded), None),
        }
    }
}

fn norm_sums(sums: Sums, channels: usize) -> GradSums {
    match sums {
        Sums::Norm(sums) => sums,
        Sums::None | Sums::Gate(_) => GradSums::zeros(channels),
    }
}

fn weights<'a>(
    values: &'a [f32],
    grads: &'a mut [f32],
    range: &Range<usize>,
) -> (&'a [f32], &'a mut [f32]) {
    (&values[range.clone()], &mut grads[range.clone()])
}

/// The last convolution: 1x1, batch norm, activation, global mean. The widest activation is
/// pooled where it is read and never stored.
#[derive(Clone, Debug)]
pub struct PooledConv {
    conv: ConvNorm,
    channels_in: usize,
    pub channels: usize,
    act: Act,
}

/// What [`PooledConv::backward`] needs besides its input.
#[derive(Debug)]
pub struct PooledSaved {
    z: Buffer,
    norm: NormState,
    per_image: usize,
}

impl PooledConv {
    /// Declares `{name}.0` and `{name}.1`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (channels_in, channels): (usize, usize),
        act: Act,
        eps: f32,
    ) -> PooledConv {
        let names = (format!("{name}.0"), format!("{name}.1"));
        PooledConv {
            conv: ConvNorm::new(layout, names, &[channels, channels_in, 1, 1], eps),
            channels_in,
            channels,
            act,
        }
    }

    /// x (n, height, width, in) to features (n, channels).
    pub fn forward(&self, pass: &mut Forward, x: &[f32], size: Size) -> (Buffer, PooledSaved) {
        let rows = x.len() / self.channels_in;
        let per_image = size.0 * size.1;
        let mut z = pass.workspace.take(rows * self.channels);
        let w = &pass.values[self.conv.weight.clone()];
        let input = Source::plain(x, self.channels_in);
        let moments = pointwise::forward(&input, w, &mut z, pass.train, pass.workspace);
        let norm = pass.norm(&self.conv.norm, moments);
        let mut out = pass.workspace.take(rows / per_image * self.channels);
        pool::forward(&Source::normed(&z, &norm, self.act), per_image, &mut out);
        let saved = PooledSaved { z, norm, per_image };
        (out, saved)
    }

    /// dx from the features' gradient.
    pub fn backward(
        &self,
        pass: &mut Backward,
        x: &[f32],
        saved: &PooledSaved,
        dy: &[f32],
    ) -> Buffer {
        let PooledSaved { z, norm, per_image } = saved;
        let dpool: Vec<f32> = dy.iter().map(|g| g / *per_image as f32).collect();
        let sums = pool::backward_sums(z, norm, self.act, &dpool, *per_image);
        let grad = self.conv.norm.backward(norm, &sums, pass.grads);
        let pool = PerImage::new(&dpool, self.channels, *per_image);
        let dz = GradSource::Pooled {
            z,
            norm,
            act: self.act,
            pool: &pool,
            grad: &grad,
        };
        let mut dx = pass.workspace.take(x.len());
        let (w, dw) = weights(pass.values, pass.grads, &self.conv.weight);
        let sink = Sink::Plain {
            dx: &mut dx,
            shortcut: None,
        };
        let input = Source::plain(x, self.channels_in);
        pointwise::backward(&dz, &input, w, dw, sink, *per_image, pass.workspace);
        dx
    }
}

/// Fully connected layer with bias and activation.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Range<usize>,
    bias: Range<usize>,
    pub inputs: usize,
    pub outputs: usize,
    act: Act,
}

impl Linear {
    /// Declares `{name}.weight` (outputs, inputs) and `{name}.bias`.
    pub fn new(
        layout: &mut Layout,
        name: &str,
        (inputs, outputs): (usize, usize),
        act: Act,
    ) -> Linear {
        Linear {
            weight: layout.add(
                format!("{name}.weight"),
                &[outputs, inputs],
                Role::LinearWeight,
            ),
            bias: layout.add(format!("{name}.bias"), &[outputs], Role::Bias),
            inputs,
            outputs,
            act,
        }
    }

    /// x (n, inputs) to y (n, outputs) and, for the backward pass, the value before the activation.
    pub fn forward(&self, pass: &mut Forward, x: &[f32]) -> (Buffer, Buffer) {
        use super::ops::linear;
        let mut u = pass.workspace.take(x.len() / self.inputs * self.outputs);
        let (w, b) = (
            &pass.values[self.weight.clone()],
            &pass.values[self.bias.clone()],
        );
        linear::forward(x, w, b, &mut u);
        let mut y = pass.workspace.take(u.len());
        y.copy_from_slice(&u);
        linear::activate(&mut y, self.act);
        (y, u)
    }

    /// dx from dy, which is used up.
    pub fn backward(&self, pass: &mut Backward, x: &[f32], u: &[f32], mut dy: Buffer) -> Buffer {
        use super::ops::linear;
        linear::activate_backward(&mut dy, u, self.act);
        let mut dx = pass.workspace.take(x.len());
        let w = &pass.values[self.weight.clone()];
        // The bias lies right behind its weight in the flat array.
        let (dw, db) = pass.grads[self.weight.start..self.bias.end].split_at_mut(self.weight.len());
        linear::backward(&dy, x, w, dw, db, Some(&mut dx));
        dx
    }
}
