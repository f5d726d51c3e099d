//! Cards as a backend: one set of kernels for Vulkan, Metal and CUDA, written in Rust and compiled for
//! the device at hand when first used (cubecl).
//!
//! The same idea as on the processor: normalisation and activation are never stored, see `view`. A
//! kernel gets one stream's order for free; nothing waits for the card but what the host wants to know.

mod activation;
mod attention;
mod contrast;
mod depthwise;
pub mod device;
mod elementwise;
mod launch;
mod max_pool;
mod memory;
mod norm;
mod optim;
mod product;
mod render;
mod rows;
mod sums;
mod view;
mod views;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use cubecl::bytes::Bytes;
use cubecl::future::block_on;
use cubecl::ir::{ElemType, FloatKind, StorageType};
use cubecl::prelude::*;
use cubecl::server::ServerError;
use cubecl::stream_id::StreamId;

use self::device::About;
pub use self::launch::Logits;
use self::launch::{Finish, Pieces};
use self::memory::Memory;
pub use self::memory::Numbers;
use self::product::Map;
use self::sums::What;
pub use cubecl::prelude::Runtime;
pub use seedling_base::{Error, Result};
use seedling_nn::activation::Act;
use seedling_nn::backend::{
    AdamUpdate, Asked, Backend, Grad, Host, Output, Param, ParamMut, Read, Rows, Src, Update,
};
use seedling_nn::layer::{BatchNorm, Heads, LayerNorm, Linear, Positions, SqueezeExcite};
use seedling_nn::window::Window;

/// What gradients are multiplied by where they are kept in f16: numbers of five exponent bits would lose
/// the small ones (Micikevicius et al. 2018).
const LOSS_SCALE: f32 = 1024.0;

/// Kernels for a card, and its memory. Clones share it.
#[derive(Clone)]
pub struct Gpu<R: Runtime> {
    client: ComputeClient<R>,
    memory: Memory,
    /// What convolutions' outputs are stored in; all else is f32.
    kind: FloatKind,
    /// What gradients are multiplied by on their way through activations ([`LOSS_SCALE`]).
    loss_scale: f32,
    /// Groups that go through a network at once.
    at_once: usize,
    /// What the device is known to have, and to have complained of.
    card: About,
    /// Whether nothing is asked of the card: see [`Backend::rehearsal`].
    rehearsed: bool,
}

impl<R: Runtime> fmt::Debug for Gpu<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", R::name(&self.client))
    }
}

/// A card by Vulkan or Metal.
pub type Card = Gpu<cubecl::wgpu::WgpuRuntime>;

/// A card by CUDA.
#[cfg(feature = "cuda")]
pub type CudaCard = Gpu<cubecl::cuda::CudaRuntime>;

/// A batch norm of one forward.
#[derive(Debug)]
pub struct Norm {
    /// (groups, 4, channels).
    numbers: Numbers,
    groups: usize,
    /// Rows of a group; 0 for running statistics.
    rows: usize,
}

/// Moments of a convolution's output.
pub struct Moments {
    /// (groups, pieces, 2, channels).
    parts: Numbers,
    pieces: Pieces,
}

/// Sums of a gradient.
pub struct GradSums {
    /// (groups, pieces, 2, channels).
    parts: Numbers,
    pieces: usize,
}

/// A batch norm's backward.
pub struct NormGrad {
    /// (groups, 3, channels).
    numbers: Numbers,
    groups: usize,
    rows: usize,
}

/// A number for each image and channel.
#[derive(Debug)]
pub struct PerImage {
    numbers: Arc<Numbers>,
    image_rows: usize,
}

/// What squeeze-excite's forward leaves.
#[derive(Debug)]
pub struct Squeezed {
    pooled: Numbers,
    inner: Numbers,
    hidden: Numbers,
    logits: Numbers,
    /// What [`PerImage`] reads, too.
    gate: Arc<Numbers>,
    /// Groups of the norm before.
    groups: usize,
}

impl<R: Runtime> Gpu<R> {
    /// On a device that is there.
    pub fn new(client: ComputeClient<R>) -> Gpu<R> {
        Gpu::on(client, About::default())
    }

    fn on(mut client: ComputeClient<R>, card: About) -> Gpu<R> {
        // Memory is used again in the order of the work: all threads must share a stream.
        // SAFETY: a stream may be used from any thread.
        unsafe { client.set_stream(StreamId::current()) };
        Gpu {
            client,
            memory: Memory::default(),
            kind: FloatKind::F32,
            loss_scale: 1.0,
            at_once: 1,
            card,
            rehearsed: false,
        }
    }

    /// The same card, whose gradients are `scale` times as large on their way through activations.
    #[must_use]
    pub fn with_loss_scale(&self, scale: f32) -> Gpu<R> {
        Gpu {
            loss_scale: scale,
            ..self.clone()
        }
    }

    /// What gradients are multiplied by on their way through activations.
    pub fn loss_scale(&self) -> f32 {
        self.loss_scale
    }

    /// The same card with memory of its own.
    pub fn apart(&self) -> Gpu<R> {
        Gpu {
            memory: Memory::default(),
            ..self.clone()
        }
    }

    /// Bytes that the runtime holds on the card: these and its own.
    ///
    /// # Errors
    /// The device is lost.
    pub fn reserved_bytes(&self) -> Result<usize> {
        let usage = self.client.memory_usage();
        let usage = usage.map_err(|error| self.lost(&error))?;
        Ok(usage.bytes_reserved as usize)
    }

    /// Memory for `len` numbers.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, len: usize) -> Result<Numbers> {
        self.take_as(len, FloatKind::F32)
    }

    fn take_as(&self, len: usize, kind: FloatKind) -> Result<Numbers> {
        self.complaint()?;
        self.memory.take(&self.client, len, kind)
    }

    /// The bytes of what is on the card. Whoever waits for them hears of what went wrong before.
    fn read(&self, numbers: &Numbers) -> Result<Bytes> {
        let read = || self.client.read_one(numbers.handle());
        let bytes = self.card.waiting(read);
        let bytes = bytes.map_err(|error| self.lost(&error))?;
        self.complaint().map(|()| bytes)
    }

    /// What the device has complained of, if it has.
    fn complaint(&self) -> Result<()> {
        match self.card.complaint() {
            None => Ok(()),
            Some(complaint) => Err(refused(&complaint, self.memory.most_bytes())),
        }
    }

    fn lost(&self, error: &ServerError) -> Error {
        let first = self.card.complaint();
        let complaint = first.unwrap_or_else(|| error.to_string());
        refused(&complaint, self.memory.most_bytes())
    }

    /// `x` as convolutions' outputs are stored.
    ///
    /// # Errors
    /// The card's memory is at its end.
    pub fn stored(&self, x: Numbers) -> Result<Numbers> {
        if x.kind() == self.kind {
            return Ok(x);
        }
        let out = self.take_as(x.len(), self.kind)?;
        self.read_into(&launch::activated(&x, Act::Identity), &out);
        Ok(out)
    }

    fn zeros(&self, len: usize) -> Result<Numbers> {
        let out = self.take(len)?;
        self.fill(&out, 0.0);
        Ok(out)
    }

    /// Numbers from the host.
    fn send(&self, numbers: &[f32]) -> Result<Numbers> {
        self.memory
            .send(&self.client, f32::as_bytes(numbers), numbers.len())
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<Numbers> {
        self.memory.send(&self.client, bytes, bytes.len() / 4)
    }

    /// Whole numbers from the host.
    ///
    /// # Errors
    /// The device's.
    pub fn send_whole(&self, numbers: &[u32]) -> Result<Numbers> {
        self.memory
            .send(&self.client, u32::as_bytes(numbers), numbers.len())
    }

    /// Numbers to the host, which waits for them.
    ///
    /// # Errors
    /// The device's.
    pub fn receive(&self, numbers: &Numbers) -> Result<Vec<f32>> {
        if numbers.len() == 0 || self.rehearsed {
            return Ok(vec![0.0; numbers.len()]);
        }
        self.complaint()?;
        if numbers.kind() != FloatKind::F32 {
            let wide = self.take(numbers.len())?;
            self.read_into(&launch::activated(numbers, Act::Identity), &wide);
            return self.receive(&wide);
        }
        let bytes = self.read(numbers)?;
        Ok(f32::from_bytes(&bytes).to_vec())
    }

    /// The sums of each image put together: (images, sums, channels).
    fn whole(&self, parts: Numbers, pieces: &Pieces, len: usize) -> Result<Numbers> {
        if pieces.count == 1 {
            return Ok(parts);
        }
        let out = self.take(parts.len() / pieces.count)?;
        self.add_pieces(&parts, &out, len, pieces.count, 1.0);
        Ok(out)
    }

    /// What a norm's backward sums of `g`, behind the activation of `x`.
    fn sums_of(&self, g: &Numbers, x: &Src<Self>) -> Result<GradSums> {
        let Some((norm, _)) = x.norm else {
            return Ok(GradSums {
                parts: self.zeros(2 * x.channels)?,
                pieces: 1,
            });
        };
        let (parts, pieces) = self.sums(x, Some(g), What::Norm, norm.groups)?;
        Ok(GradSums {
            parts,
            pieces: pieces.count,
        })
    }

    /// y = x w' + b, with the weight (outputs, inputs) at a place of `values`.
    fn affine(
        &self,
        values: &Numbers,
        (weight, bias): (&Range<usize>, &Range<usize>),
        x: &Numbers,
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
        let rows = x.len() / inputs;
        let out = self.take(rows * outputs)?;
        let x = Src::plain(x, inputs);
        let end = Finish {
            bias: Some((values, bias.start)),
            shortcut,
            through: None,
        };
        let a = self.source(&x, Map::Rows, None);
        let b = launch::weight(values, weight, (outputs, inputs), 1, false);
        self.product((rows, outputs, inputs), (a, b), &end, &out);
        Ok(out)
    }

    /// Adds the gradients of weight and bias; dx.
    fn affine_back(
        &self,
        values: &Numbers,
        grads: &mut Numbers,
        (weight, bias): (&Range<usize>, &Range<usize>),
        x: &Numbers,
        dy: &Numbers,
    ) -> Result<Numbers> {
        let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
        let rows = x.len() / inputs;
        let (x, dy) = (Src::plain(x, inputs), Src::plain(dy, outputs));
        self.bias_gradient(dy.z, outputs, grads, bias.start)?;
        let a = self.source(&dy, Map::Columns, None);
        let b = self.source(&x, Map::Columns, None);
        self.weight_gradient((outputs, inputs, rows), (a, b), grads, weight, (inputs, 1))?;
        let dx = self.take(x.z.len())?;
        let a = self.source(&dy, Map::Rows, None);
        let b = launch::weight(values, weight, (outputs, inputs), 1, true);
        self.product((rows, inputs, outputs), (a, b), &Finish::default(), &dx);
        Ok(dx)
    }

    /// Adds the column sums of dy to a bias' gradient.
    fn bias_gradient(
        &self,
        dy: &Numbers,
        channels: usize,
        grads: &mut Numbers,
        at: usize,
    ) -> Result<()> {
        let x = Src::plain(dy, channels);
        let (parts, pieces) = self.sums(&x, None, What::Values, 1)?;
        self.add_bias(&parts, grads, at, channels, pieces.count);
        Ok(())
    }

    fn activated(&self, x: &Numbers, act: Act) -> Result<Numbers> {
        let out = self.take(x.len())?;
        self.read_into(&launch::activated(x, act), &out);
        Ok(out)
    }

    /// A convolution; without a window it is 1x1.
    fn convolve(
        &self,
        x: &Src<Self>,
        window: Option<&Window>,
        w: &Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>> {
        let taps = window.map_or(1, |w| w.kernel * w.kernel);
        let (inputs, outputs) = (x.channels, w.range.len() / taps / x.channels);
        let pixels = x.z.len() / inputs;
        let rows = window.map_or(pixels, |w| {
            pixels / (w.height * w.width) * (w.out_height * w.out_width)
        });
        // A dense convolution makes activations of images; without a window, pooled rows stay f32.
        let kind = window.map_or(x.z.kind(), |_| self.kind);
        let z = self.take_as(rows * outputs, kind)?;
        let map = window.map_or(Map::Rows, |_| Map::Patches);
        let a = self.source(x, map, window);
        let b = launch::weight(w.values, w.range, (outputs, inputs), taps, false);
        let sizes = (rows, outputs, inputs * taps);
        self.product(sizes, (a, b), &Finish::default(), &z);
        let moments = self.moments(&z, outputs, groups)?;
        Ok((z, moments))
    }

    /// Its gradients, of an input that is read as it is stored.
    fn convolve_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: Option<&Window>,
        (w, dw): (&Param<Self>, ParamMut<Self>),
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        self.convolution_weight_gradient(dz, x, window, dw)?;
        self.convolution_input_gradient(dz, x, window, w, &Finish::adding(shortcut))
    }

    /// The same of an input that is read through norm and activation.
    fn convolve_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: Option<&Window>,
        (w, dw): (&Param<Self>, ParamMut<Self>),
    ) -> Result<(Numbers, GradSums)> {
        self.convolution_weight_gradient(dz, x, window, dw)?;
        let dy = self.convolution_input_gradient(dz, x, window, w, &Finish::through(x))?;
        let sums = self.sums_of(&dy, x)?;
        Ok((dy, sums))
    }

    /// Adds the gradient of a convolution's weight (outputs, inputs, taps); without a window its taps
    /// are one.
    fn convolution_weight_gradient(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: Option<&Window>,
        dw: ParamMut<Self>,
    ) -> Result<()> {
        let taps = window.map_or(1, |w| w.kernel * w.kernel);
        let (inputs, outputs) = (x.channels, dw.range.len() / taps / x.channels);
        let map = window.map_or(Map::Columns, |_| Map::PatchColumns);
        let a = self.gradient(dz, outputs, Map::Columns, None);
        let b = self.source(x, map, window);
        let sizes = (outputs, inputs * taps, dz.z().len() / outputs);
        self.weight_gradient(sizes, (a, b), dw.grads, dw.range, (inputs, taps))
    }

    /// dx, plus `shortcut`, or through the activation of x.
    fn convolution_input_gradient(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: Option<&Window>,
        w: &Param<Self>,
        end: &Finish<R>,
    ) -> Result<Numbers> {
        let taps = window.map_or(1, |w| w.kernel * w.kernel);
        let (inputs, outputs) = (x.channels, w.range.len() / taps / x.channels);
        let dx = self.take_as(x.z.len(), x.z.kind())?;
        let map = window.map_or(Map::Rows, |_| Map::Outputs);
        let a = self.gradient(dz, outputs, map, window);
        let b = launch::weight(w.values, w.range, (outputs, inputs), taps, true);
        let sizes = (x.z.len() / inputs, inputs, outputs * taps);
        self.product(sizes, (a, b), end, &dx);
        Ok(dx)
    }

    /// The moments of each of a convolution's output's groups.
    fn moments(&self, z: &Numbers, channels: usize, groups: usize) -> Result<Option<Moments>> {
        if groups == 0 {
            return Ok(None);
        }
        let (parts, pieces) = self.sums(&Src::plain(z, channels), None, What::Moments, groups)?;
        Ok(Some(Moments { parts, pieces }))
    }

    /// Rows read as they are to be, stored.
    fn rows_read(&self, values: &Numbers, x: &Rows<Self>) -> Result<Option<Numbers>> {
        Ok(match x.read {
            Read::Plain => None,
            Read::Act(act) => Some(self.activated(x.x, act)?),
            Read::Norm(layer, stats) => Some(self.layer_norm(layer, values, x.x, stats)?),
        })
    }
}

impl<R: Runtime> Backend for Gpu<R> {
    type Buf = Numbers;
    type Flat = Numbers;
    type Moments = Moments;
    type Norm = Norm;
    type GradSums = GradSums;
    type NormGrad = NormGrad;
    type PerImage = PerImage;
    /// (images, 5, channels).
    type ImageSums = Numbers;
    type Squeezed = Squeezed;
    /// A tap for each number.
    type Largest = Numbers;
    /// (rows, 2).
    type RowStats = Numbers;
    /// The rows and 1 / |x|.
    type Unit = (Numbers, Numbers);

    fn release(&self) {
        self.memory.release(&self.client);
    }

    fn rehearsal(&self) -> Option<Self> {
        Some(Gpu {
            memory: Memory::counted(),
            rehearsed: true,
            ..self.clone()
        })
    }

    fn most_bytes(&self) -> usize {
        self.memory.most_bytes()
    }

    fn memory_bytes(&self) -> Option<usize> {
        self.card.bytes
    }

    fn wait(&self) -> Result<()> {
        let done = self.card.waiting(|| block_on(self.client.sync()));
        done.map_err(|error| self.lost(&error))?;
        self.complaint()
    }

    fn asked(&self) -> Option<Asked> {
        Some(self.card.asked())
    }

    fn taking(&self, groups: usize) -> Self {
        Gpu {
            at_once: groups.max(1),
            ..self.clone()
        }
    }

    fn halved(&self) -> Result<Self> {
        let known = |kind: &FloatKind| {
            let kind = StorageType::Scalar(ElemType::Float(*kind));
            self.client.properties().supports_type(kind)
        };
        let kind = [FloatKind::BF16, FloatKind::F16].into_iter().find(known);
        let Some(kind) = kind else {
            return Err(Error::Device(
                "precision = bf16: this device has neither bf16 nor f16".into(),
            ));
        };
        Ok(Gpu {
            kind,
            loss_scale: match kind {
                FloatKind::F16 => LOSS_SCALE,
                _ => 1.0,
            },
            ..self.clone()
        })
    }

    fn in_f32(&self) -> Self {
        Gpu {
            kind: FloatKind::F32,
            loss_scale: 1.0,
            ..self.clone()
        }
    }

    fn groups_at_once(&self) -> usize {
        self.at_once
    }

    fn upload(&self, len: usize, fill: impl FnOnce(&mut [f32])) -> Result<Numbers> {
        let mut numbers = vec![0.0; len];
        // Nobody looks at the numbers of a rehearsal, which are never even written.
        if !self.rehearsed {
            fill(&mut numbers);
        }
        self.send(&numbers)
    }

    fn download(&self, buf: &Numbers) -> Result<Vec<f32>> {
        self.receive(buf)
    }

    fn rescale(&self, x: &mut Numbers, channels: &[(f32, f32)]) -> Result<()> {
        let (factors, offsets): (Vec<f32>, Vec<f32>) = channels.iter().copied().unzip();
        let coefficients = self.send(&[factors, offsets].concat())?;
        self.rescale_by(x, &coefficients, channels.len());
        Ok(())
    }

    fn gather(&self, parts: &[Numbers], order: &[usize], dim: usize) -> Result<Numbers> {
        let all = self.take(order.len() * dim)?;
        let mut order = order;
        for part in parts {
            let (here, rest) = order.split_at(part.len() / dim);
            let places: Vec<u32> = here.iter().map(|&place| place as u32).collect();
            self.scatter_rows(part, &self.send_whole(&places)?, &all, dim);
            order = rest;
        }
        Ok(all)
    }

    fn flat(&self, numbers: Vec<f32>) -> Result<Numbers> {
        self.send(&numbers)
    }

    fn host<'a>(&self, flat: &'a Numbers) -> Result<Host<'a>> {
        Ok(Host::Owned(self.receive(flat)?))
    }

    fn edit(&self, flat: &mut Numbers, change: impl FnOnce(&mut [f32])) -> Result<()> {
        let mut numbers = self.receive(flat)?;
        change(&mut numbers);
        *flat = self.send(&numbers)?;
        Ok(())
    }

    fn copy(&self, to: &mut Numbers, from: &Numbers) -> Result<()> {
        let len = from.len();
        self.copy_runs((from, 0), len, (to, 0), len, (len, len));
        Ok(())
    }

    fn clear(&self, flat: &mut Numbers) -> Result<()> {
        self.fill(flat, 0.0);
        Ok(())
    }

    fn all_finite(&self, flat: &Numbers) -> Result<bool> {
        let found = self.not_finite(flat)?;
        if self.rehearsed {
            return Ok(true);
        }
        let bytes = self.read(&found)?;
        Ok(u32::from_bytes(&bytes).iter().all(|count| *count == 0))
    }

    fn sgd(
        &self,
        update: &Update,
        values: &mut Numbers,
        grads: &Numbers,
        velocity: &mut Numbers,
        base: &Numbers,
    ) -> Result<()> {
        self.sgd_step(update, (values, grads, velocity), base)
    }

    fn adamw(
        &self,
        update: &AdamUpdate,
        values: &mut Numbers,
        grads: &Numbers,
        moments: (&mut Numbers, &mut Numbers),
    ) -> Result<()> {
        self.adamw_step(update, (values, grads), (moments.0, moments.1))
    }

    fn follow(&self, own: &mut Numbers, other: &Numbers, momentum: f32, from: usize) -> Result<()> {
        self.follow_from(own, other, momentum, from);
        Ok(())
    }

    fn multiply(&self, own: &mut Numbers, by: &Numbers) -> Result<()> {
        self.times(own, by);
        Ok(())
    }

    fn conv(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>> {
        self.convolve(x, Some(window), &w, groups)
    }

    fn conv_back_images(
        &self,
        dz: &Grad<Self>,
        images: &Src<Self>,
        window: &Window,
        dw: ParamMut<Self>,
    ) -> Result<()> {
        self.convolution_weight_gradient(dz, images, Some(window), dw)
    }

    fn conv_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        self.convolve_back(dz, x, Some(window), (&w, dw), shortcut)
    }

    fn conv_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Numbers, GradSums)> {
        self.convolve_back_activated(dz, x, Some(window), (&w, dw))
    }

    fn pointwise(&self, x: &Src<Self>, w: Param<Self>, groups: usize) -> Result<Output<Self>> {
        self.convolve(x, None, &w, groups)
    }

    fn pointwise_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        self.convolve_back(dz, x, None, (&w, dw), shortcut)
    }

    fn pointwise_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Numbers, GradSums)> {
        self.convolve_back_activated(dz, x, None, (&w, dw))
    }

    fn pointwise_back_gated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        w: Param<Self>,
        dw: ParamMut<Self>,
        rows_per_image: usize,
    ) -> Result<(Numbers, Numbers)> {
        self.convolution_weight_gradient(dz, x, None, dw)?;
        let g = self.convolution_input_gradient(dz, x, None, &w, &Finish::default())?;
        let sums = self.gate_sums(&g, x, rows_per_image)?;
        Ok((g, sums))
    }

    fn depthwise(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        groups: usize,
    ) -> Result<Output<Self>> {
        let z = self.depthwise_forward(x, window, &w)?;
        let moments = self.moments(&z, window.channels, groups)?;
        Ok((z, moments))
    }

    fn depthwise_back(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        self.depthwise_weight_gradient(dz, x, window, dw)?;
        self.depthwise_input_gradient(dz, x, window, &w, shortcut, false)
    }

    fn depthwise_back_activated(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: Param<Self>,
        dw: ParamMut<Self>,
    ) -> Result<(Numbers, GradSums)> {
        self.depthwise_weight_gradient(dz, x, window, dw)?;
        let dy = self.depthwise_input_gradient(dz, x, window, &w, None, true)?;
        let sums = self.sums_of(&dy, x)?;
        Ok((dy, sums))
    }

    fn norm(
        &self,
        layer: &BatchNorm,
        values: &Numbers,
        buffers: &mut Numbers,
        moments: Option<(Moments, f32)>,
    ) -> Result<Norm> {
        match moments {
            Some((moments, momentum)) => {
                self.norm_of_batch(layer, values, buffers, &moments, momentum)
            }
            None => self.norm_of_running(layer, values, buffers),
        }
    }

    fn no_norm(&self, channels: usize) -> Result<Norm> {
        let numbers: Vec<f32> = [1.0, 0.0, 0.0, 1.0]
            .into_iter()
            .flat_map(|x| std::iter::repeat_n(x, channels))
            .collect();
        Ok(Norm {
            numbers: self.send(&numbers)?,
            groups: 1,
            rows: 0,
        })
    }

    fn norm_back(
        &self,
        layer: &BatchNorm,
        norm: &Norm,
        sums: &GradSums,
        grads: &mut Numbers,
    ) -> Result<NormGrad> {
        let numbers = self.take(norm.groups * view::GRAD * layer.channels)?;
        self.norm_gradient(layer, norm, sums, grads, &numbers);
        Ok(NormGrad {
            numbers,
            groups: norm.groups,
            rows: norm.rows,
        })
    }

    fn norm_sums(&self, g: &Numbers, x: &Src<Self>) -> Result<GradSums> {
        self.sums_of(g, x)
    }

    fn activation_back(&self, g: &mut Numbers, x: &Src<Self>) -> Result<GradSums> {
        self.through(g, &launch::reading(x));
        self.sums_of(g, x)
    }

    fn materialise(&self, x: &Src<Self>) -> Result<Numbers> {
        let out = self.take_as(x.z.len(), x.z.kind())?;
        self.read_into(&launch::reading(x), &out);
        Ok(out)
    }

    fn add(&self, x: &Src<Self>, other: &Src<Self>, act: Act) -> Result<Numbers> {
        let out = self.take_as(x.z.len(), x.z.kind())?;
        self.add_into(x, other, act, &out);
        Ok(out)
    }

    fn add_back(&self, dy: &mut Numbers, x: &Src<Self>, other: &Src<Self>, act: Act) -> Result<()> {
        self.add_through(dy, x, other, act);
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
        Ok(PerImage {
            numbers: Arc::new(self.send(&each.collect::<Vec<f32>>())?),
            image_rows: rows_per_image,
        })
    }

    fn scale_images(&self, x: &Numbers, factors: &PerImage, channels: usize) -> Result<Numbers> {
        let out = self.take_as(x.len(), x.kind())?;
        self.times_images(x, factors, channels, &out);
        Ok(out)
    }

    fn max_pool(&self, x: &Src<Self>, window: &Window) -> Result<(Numbers, Numbers)> {
        self.max_pool_forward(x, window)
    }

    fn max_pool_back(
        &self,
        x: &Src<Self>,
        window: &Window,
        largest: &Numbers,
        dy: &Numbers,
    ) -> Result<(Numbers, GradSums)> {
        let g = self.max_pool_input_gradient(x, window, largest, dy)?;
        let sums = self.sums_of(&g, x)?;
        Ok((g, sums))
    }

    fn pool(&self, x: &Src<Self>, rows_per_image: usize) -> Result<Numbers> {
        let images = x.z.len() / x.channels / rows_per_image;
        let (parts, pieces) = self.sums(x, None, What::Values, images)?;
        let means = self.take(images * x.channels)?;
        let share = 1.0 / rows_per_image as f32;
        self.add_pieces(&parts, &means, x.channels, pieces.count, share);
        Ok(means)
    }

    fn pool_back(
        &self,
        x: &Src<Self>,
        dy: &Numbers,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let numbers = self.take(dy.len())?;
        self.spread_rows(dy, &numbers, x.channels, 1, 1.0 / rows_per_image as f32);
        let images = dy.len() / x.channels;
        let sums = match x.norm {
            None => self.zeros(2 * x.channels)?,
            Some((norm, act)) => {
                let (parts, pieces) = self.sums(x, None, What::Slopes(act), images)?;
                let whole = self.whole(parts, &pieces, 2 * x.channels)?;
                let out = self.take(norm.groups * 2 * x.channels)?;
                self.pooled_sums(&whole, &numbers, &out, (x.channels, images, norm.groups));
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
        dy: &Numbers,
        channels: usize,
        rows_per_image: usize,
    ) -> Result<Numbers> {
        let out = self.take_as(dy.len() * rows_per_image, self.kind)?;
        self.spread_rows(
            dy,
            &out,
            channels,
            rows_per_image,
            1.0 / rows_per_image as f32,
        );
        Ok(out)
    }

    fn squeeze(
        &self,
        layer: &SqueezeExcite,
        values: &Numbers,
        x: &Src<Self>,
        rows_per_image: usize,
    ) -> Result<(Squeezed, PerImage)> {
        let pooled = self.pool(x, rows_per_image)?;
        let inner = self.affine(values, (&layer.w1, &layer.b1), &pooled, None)?;
        let hidden = self.activated(&inner, layer.act)?;
        let logits = self.affine(values, (&layer.w2, &layer.b2), &hidden, None)?;
        let gate = self.take(logits.len())?;
        self.gates(&logits, &gate, layer.gate);
        let gate = Arc::new(gate);
        let squeezed = Squeezed {
            pooled,
            inner,
            hidden,
            logits,
            gate: gate.clone(),
            groups: x.norm.map_or(1, |(norm, _)| norm.groups),
        };
        let gate = PerImage {
            numbers: gate,
            image_rows: rows_per_image,
        };
        Ok((squeezed, gate))
    }

    fn gate_sums(&self, g: &Numbers, x: &Src<Self>, rows_per_image: usize) -> Result<Numbers> {
        let images = x.z.len() / x.channels / rows_per_image;
        let act = x.norm.map_or(Act::Identity, |(_, act)| act);
        let (parts, pieces) = self.sums(x, Some(g), What::Gate(act), images)?;
        self.whole(parts, &pieces, 5 * x.channels)
    }

    fn squeeze_back(
        &self,
        layer: &SqueezeExcite,
        values: &Numbers,
        squeezed: &Squeezed,
        sums: &Numbers,
        grads: &mut Numbers,
        rows_per_image: usize,
    ) -> Result<(PerImage, GradSums)> {
        let channels = layer.channels;
        let images = squeezed.gate.len() / channels;
        let dlogits = self.take(squeezed.logits.len())?;
        self.gates_back(sums, &squeezed.logits, &dlogits, channels, layer.gate);
        let second = (&layer.w2, &layer.b2);
        let dhidden = self.affine_back(values, grads, second, &squeezed.hidden, &dlogits)?;
        self.through(&dhidden, &launch::activated(&squeezed.inner, layer.act));
        let first = (&layer.w1, &layer.b1);
        let dpooled = self.affine_back(values, grads, first, &squeezed.pooled, &dhidden)?;
        let pool = self.take(dpooled.len())?;
        self.spread_rows(&dpooled, &pool, channels, 1, 1.0 / rows_per_image as f32);
        let out = self.take(squeezed.groups * 2 * channels)?;
        let sizes = (channels, images, squeezed.groups);
        self.gated_sums(sums, (&squeezed.gate, &pool), &out, sizes);
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

    fn linear(&self, layer: &Linear, values: &Numbers, x: &Numbers) -> Result<(Numbers, Numbers)> {
        let u = self.affine(values, (&layer.weight, &layer.bias), x, None)?;
        Ok((self.activated(&u, layer.act)?, u))
    }

    fn linear_back(
        &self,
        layer: &Linear,
        values: &Numbers,
        grads: &mut Numbers,
        (x, u): (&Numbers, &Numbers),
        dy: Numbers,
    ) -> Result<Numbers> {
        self.through(&dy, &launch::activated(u, layer.act));
        self.affine_back(values, grads, (&layer.weight, &layer.bias), x, &dy)
    }

    fn tokens(
        &self,
        layer: &Positions,
        values: &Numbers,
        patches: &Numbers,
        grid: (usize, usize),
    ) -> Result<Numbers> {
        let dim = layer.dim;
        let count = grid.0 * grid.1;
        let images = patches.len() / (count * dim).max(1);
        // What is added to every image: the first token whole, then the patches' positions and bias.
        let added = self.zeros((1 + count) * dim)?;
        self.add_to(&added, 0, (values, layer.class.start), dim);
        self.add_to(&added, 0, (values, layer.grid.start), dim);
        let positions = self.take(layer.side * layer.side * dim)?;
        let len = positions.len();
        let from = (values, layer.grid.start + dim);
        self.copy_runs(from, len, (&positions, 0), len, (len, len));
        let resampled = self.resample(layer, &positions, grid, Map::Rows)?;
        let resampled = resampled.as_ref().unwrap_or(&positions);
        self.copy_runs(
            (resampled, 0),
            count * dim,
            (&added, dim),
            count * dim,
            (count * dim, count * dim),
        );
        let bias = self.take(count * dim)?;
        self.copy_runs(
            (values, layer.patch_bias.start),
            0,
            (&bias, 0),
            dim,
            (dim, count * dim),
        );
        self.add_to(&added, dim, (&bias, 0), count * dim);

        let out = self.take(images * (1 + count) * dim)?;
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

    fn tokens_back(
        &self,
        layer: &Positions,
        dy: &Numbers,
        grid: (usize, usize),
        grads: &mut Numbers,
    ) -> Result<()> {
        let (dim, count) = (layer.dim, grid.0 * grid.1);
        let token = (1 + count) * dim;
        let (parts, pieces) = self.sums(&Src::plain(dy, token), None, What::Values, 1)?;
        let sum = self.whole(parts, &pieces, token)?;
        self.add_to(grads, layer.class.start, (&sum, 0), dim);
        self.add_to(grads, layer.grid.start, (&sum, 0), dim);
        let rest = self.take(count * dim)?;
        self.copy_runs(
            (&sum, dim),
            count * dim,
            (&rest, 0),
            count * dim,
            (count * dim, count * dim),
        );
        let resampled = self.resample(layer, &rest, grid, Map::Columns)?;
        let resampled = resampled.as_ref().unwrap_or(&rest);
        self.add_to(
            grads,
            layer.grid.start + dim,
            (resampled, 0),
            resampled.len(),
        );
        Ok(())
    }

    fn row_stats(&self, x: &Numbers, layer: &LayerNorm) -> Result<Numbers> {
        self.row_stats_of(x, layer)
    }

    fn layer_norm(
        &self,
        layer: &LayerNorm,
        values: &Numbers,
        x: &Numbers,
        stats: &Numbers,
    ) -> Result<Numbers> {
        self.layer_norm_forward(layer, values, x, stats)
    }

    fn layer_norm_back(
        &self,
        layer: &LayerNorm,
        values: &Numbers,
        grads: &mut Numbers,
        (x, stats): (&Numbers, &Numbers),
        dy: &mut Numbers,
    ) -> Result<()> {
        self.bias_gradient(dy, layer.dim, grads, layer.bias.start)?;
        let normed = self.layer_norm_gradient(layer, values, (x, stats), dy)?;
        self.bias_gradient(&normed, layer.dim, grads, layer.weight.start)
    }

    fn rows_linear(
        &self,
        layer: &Linear,
        values: &Numbers,
        x: &Rows<Self>,
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        let read = self.rows_read(values, x)?;
        let x = read.as_ref().unwrap_or(x.x);
        self.affine(values, (&layer.weight, &layer.bias), x, shortcut)
    }

    fn rows_linear_back(
        &self,
        layer: &Linear,
        values: &Numbers,
        grads: &mut Numbers,
        x: &Rows<Self>,
        dy: &Numbers,
        shortcut: Option<&Numbers>,
    ) -> Result<Numbers> {
        let read = self.rows_read(values, x)?;
        let input = read.as_ref().unwrap_or(x.x);
        let mut dx = self.affine_back(values, grads, (&layer.weight, &layer.bias), input, dy)?;
        match x.read {
            Read::Plain => {}
            Read::Act(act) => self.through(&dx, &launch::activated(x.x, act)),
            Read::Norm(layer, stats) => {
                self.layer_norm_back(layer, values, grads, (x.x, stats), &mut dx)?;
            }
        }
        if let Some(shortcut) = shortcut {
            self.plus(&dx, shortcut);
        }
        Ok(dx)
    }

    fn attention(&self, qkv: &Numbers, heads: &Heads) -> Result<Numbers> {
        self.attention_forward(qkv, heads)
    }

    fn attention_back(&self, qkv: &Numbers, heads: &Heads, dy: &Numbers) -> Result<Numbers> {
        self.attention_gradient(qkv, heads, dy)
    }

    fn first_rows(&self, x: &Numbers, rows_per_image: usize, dim: usize) -> Result<Numbers> {
        let out = self.take(x.len() / rows_per_image)?;
        self.copy_runs(
            (x, 0),
            rows_per_image * dim,
            (&out, 0),
            dim,
            (dim, out.len()),
        );
        Ok(out)
    }

    fn spread_first(&self, dy: &Numbers, rows_per_image: usize, dim: usize) -> Result<Numbers> {
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

    fn normalize(&self, x: &mut Numbers, dim: usize) -> Result<(Numbers, Numbers)> {
        let (kept, inverse) = (self.take(x.len())?, self.take(x.len() / dim)?);
        self.normalize_rows(x, &kept, &inverse, dim);
        Ok((kept, inverse))
    }

    fn normalize_back(
        &self,
        dy: &mut Numbers,
        (y, inverse): &(Numbers, Numbers),
        dim: usize,
    ) -> Result<()> {
        self.normalize_gradient(dy, y, inverse, dim);
        Ok(())
    }
}

/// How drivers and the runtime say that memory is at its end.
const AT_ITS_END: [&str; 4] = [
    "out of memory",
    "out_of_memory",
    "out-of-memory",
    "can't allocate",
];

/// What the device says of itself where it can't go on: memory at its end, with `held` bytes taken, or
/// worse.
fn refused(complaint: &str, held: usize) -> Error {
    let lower = complaint.to_lowercase();
    if AT_ITS_END.iter().any(|words| lower.contains(words)) {
        return Error::DeviceMemory { held };
    }
    let mut lines = complaint.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty());
    Error::Device(format!(
        "the device is lost: {}",
        line.unwrap_or("it says no more")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_at_its_end_is_told_from_a_lost_device() {
        for complaint in [
            "Out of Memory",
            "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
            "An out-of-memory error happened during launch\nCaused by:\n  page",
            "can't allocate buffer of size: 8000000",
        ] {
            let held = match refused(complaint, 7) {
                Error::DeviceMemory { held } => held,
                other => panic!("{other}"),
            };
            assert_eq!(held, 7);
        }
        let lost = refused("\n  Parent device is lost\nBacktrace:\n  0: main", 7);
        assert_eq!(
            lost.to_string(),
            "the device is lost: Parent device is lost"
        );
    }
}
