//! From the host's side of an operation to its kernel: what is bound, how it is read, how many cubes.

use std::ops::Range;

use cubecl::ir::StorageType;
use cubecl::prelude::*;

use super::memory::Numbers;
use super::norm::LayerLaunch;
use super::product::{
    self, EndLaunch, Map, OperandLaunch, SIDE, SizesLaunch, UNITS, WindowsLaunch,
};
use super::sums::{self, SpanLaunch, What};
use super::view::{How, NORM, ViewLaunch};
use super::{
    Gpu, GradSums, Moments, Norm, PerImage, attention, contrast, depthwise, elementwise, max_pool,
    norm, optim, rows,
};
use crate::Result;
use crate::nn::activation::Act;
use crate::nn::backend::{AdamUpdate, Grad, Param, ParamMut, Src, Update};
use crate::nn::cpu::tokens::Resample;
use crate::nn::layer::{BatchNorm, Gate, Heads, LayerNorm, Positions};
use crate::nn::window::Window;

/// Units of a cube whose units have a number each.
const EACH: usize = 256;

/// The most cubes along one dimension.
const CUBES: usize = 65_535;

/// Pieces of the rows that a weight's gradient is summed over, and of a segment's rows.
const PIECES: usize = 256;

/// Rows that a unit sums at least.
const RUN: usize = 16;

/// How many channels a unit takes at once.
fn lanes(channels: usize) -> usize {
    match channels.is_multiple_of(4) {
        true => 4,
        false => 1,
    }
}

/// Cubes of [`EACH`] units for `n` numbers.
fn each(n: usize) -> (CubeCount, CubeDim) {
    (cubes(n.div_ceil(EACH)), CubeDim::new_1d(EACH as u32))
}

/// A cube for each of `n` rows.
fn per_row(n: usize) -> (CubeCount, CubeDim) {
    (cubes(n), CubeDim::new_1d(rows::UNITS as u32))
}

/// `n` cubes or more.
fn cubes(n: usize) -> CubeCount {
    let n = n.max(1);
    let y = n.div_ceil(CUBES);
    CubeCount::Static(n.div_ceil(y) as u32, y as u32, 1)
}

/// A tensor as it is read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    a: &'a Numbers,
    b: Option<&'a Numbers>,
    norm: Option<&'a Numbers>,
    grad: Option<&'a Numbers>,
    gate: Option<&'a Numbers>,
    pool: Option<&'a Numbers>,
    offset: usize,
    channels: usize,
    image_rows: usize,
    group_rows: usize,
    how: How,
    grouped: bool,
}

impl<'a> Reading<'a> {
    fn plain(a: &'a Numbers, channels: usize) -> Reading<'a> {
        Reading {
            a,
            b: None,
            norm: None,
            grad: None,
            gate: None,
            pool: None,
            offset: 0,
            channels,
            image_rows: 1,
            group_rows: 1,
            how: How::Plain,
            grouped: false,
        }
    }

    fn kind(&self) -> StorageType {
        self.a.storage()
    }

    fn normed(self, norm: &'a Norm, how: How) -> Reading<'a> {
        Reading {
            norm: Some(&norm.numbers),
            group_rows: norm.rows.max(1),
            grouped: norm.groups > 1,
            how,
            ..self
        }
    }

    fn view<F: Float, N: Size, R: Runtime>(&self, n: usize) -> ViewLaunch<F, N, R> {
        let some = |numbers: Option<&Numbers>| numbers.map(Numbers::arg).into();
        ViewLaunch::new(
            self.a.arg(),
            self.b.map(|b| b.arg()).into(),
            some(self.norm),
            some(self.grad),
            some(self.gate),
            some(self.pool),
            self.offset,
            self.channels / n,
            self.image_rows,
            self.group_rows,
            self.how,
            self.grouped,
        )
    }
}

/// A [`Src`] as kernels know it.
pub fn reading<'a, R: Runtime>(x: &Src<'a, Gpu<R>>) -> Reading<'a> {
    let plain = Reading::plain(x.z, x.channels);
    match (x.norm, x.gate) {
        (None, _) => plain,
        (Some((norm, act)), None) => plain.normed(norm, How::Normed(act)),
        (Some((norm, act)), Some(gate)) => Reading {
            gate: Some(&gate.numbers),
            image_rows: gate.image_rows,
            ..plain.normed(norm, How::Gated(act))
        },
    }
}

/// Numbers behind an activation.
pub fn activated(x: &Numbers, act: Act) -> Reading<'_> {
    Reading {
        how: How::Activated(act),
        ..Reading::plain(x, 1)
    }
}

fn gradient<'a, R: Runtime>(dz: &Grad<'a, Gpu<R>>, channels: usize) -> Reading<'a> {
    match *dz {
        Grad::Normed { dy, z, grad } => Reading {
            b: Some(z),
            grad: Some(&grad.numbers),
            group_rows: grad.rows.max(1),
            grouped: grad.groups > 1,
            how: How::Gradient,
            ..Reading::plain(dy, channels)
        },
        Grad::Gated {
            g,
            z,
            norm,
            act,
            gate,
            pool,
            grad,
        } => Reading {
            b: Some(z),
            grad: Some(&grad.numbers),
            gate: Some(&gate.numbers),
            pool: Some(&pool.numbers),
            image_rows: pool.image_rows,
            ..Reading::plain(g, channels).normed(norm, How::GatedGradient(act))
        },
        Grad::Pooled {
            z,
            norm,
            act,
            pool,
            grad,
        } => Reading {
            grad: Some(&grad.numbers),
            pool: Some(&pool.numbers),
            image_rows: pool.image_rows,
            ..Reading::plain(z, channels).normed(norm, How::PooledGradient(act))
        },
    }
}

/// A side of a product.
pub struct Side<'a> {
    reading: Reading<'a>,
    window: Option<Window>,
    channels: usize,
    taps: usize,
    map: Map,
}

/// A weight (outputs, inputs, taps) at a place of the parameters: the forward's side of a product, or,
/// `back`, that of an input's gradient.
pub fn weight<'a>(
    values: &'a Numbers,
    range: &Range<usize>,
    (outputs, inputs): (usize, usize),
    taps: usize,
    back: bool,
) -> Side<'a> {
    // A single tap is a plain matrix, whose places need no division.
    let (map, channels) = match (taps, back) {
        (1, false) => (Map::Rows, inputs),
        (1, true) => (Map::Columns, inputs),
        (_, false) => (Map::Weight, outputs),
        (_, true) => (Map::WeightBack, outputs),
    };
    Side {
        reading: Reading {
            offset: range.start,
            ..Reading::plain(values, channels)
        },
        window: None,
        channels: inputs,
        taps,
        map,
    }
}

/// What becomes of a product's results.
pub struct Finish<'a, R: Runtime> {
    pub bias: Option<(&'a Numbers, usize)>,
    pub shortcut: Option<&'a Numbers>,
    pub through: Option<&'a Src<'a, Gpu<R>>>,
}

impl<'a, R: Runtime> Finish<'a, R> {
    /// A shortcut's gradient is added, if there is one.
    pub fn adding(shortcut: Option<&'a Numbers>) -> Self {
        Finish {
            shortcut,
            ..Finish::default()
        }
    }

    /// What is found goes through the activation of x.
    pub fn through(x: &'a Src<'a, Gpu<R>>) -> Self {
        Finish {
            through: Some(x),
            ..Finish::default()
        }
    }
}

impl<R: Runtime> Default for Finish<'_, R> {
    fn default() -> Self {
        Finish {
            bias: None,
            shortcut: None,
            through: None,
        }
    }
}

/// How a segment's rows are cut.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    segment: usize,
    piece: usize,
    pub count: usize,
}

impl Pieces {
    fn new(segment: usize, least: usize) -> Pieces {
        let piece = segment.div_ceil(PIECES).max(least).min(segment.max(1));
        Pieces {
            segment,
            piece,
            count: segment.div_ceil(piece).max(1),
        }
    }

    fn arg<R: Runtime>(&self) -> SpanLaunch<R> {
        SpanLaunch::new(self.segment, self.piece, self.count)
    }
}

/// Units of a cube along the channels, for so many vectors of them.
fn block(vectors: usize) -> usize {
    match vectors {
        0..=4 => 4,
        5..=16 => 16,
        _ => 64,
    }
}

/// A unit's results along a side of a product.
fn results(side: usize) -> usize {
    if side <= SIDE { 1 } else { 4 }
}

fn windows<R: Runtime>(w: &Window) -> WindowsLaunch<R> {
    WindowsLaunch::new(
        w.height,
        w.width,
        w.out_height,
        w.out_width,
        w.kernel,
        w.stride,
        w.pad_top,
        w.pad_left,
    )
}

fn layer<R: Runtime>(layer: &BatchNorm) -> LayerLaunch<R> {
    LayerLaunch::new(
        layer.weight.start,
        layer.bias.start,
        layer.running_mean.start,
        layer.running_var.start,
        layer.channels,
        layer.eps,
    )
}

/// Asks for a kernel, on so many cubes of so many units.
macro_rules! launch {
    ($gpu:expr, $($kernel:ident)::+, $cubes:expr, $($argument:expr),+ $(,)?) => {{
        if !$gpu.rehearsed {
            $gpu.card.launched();
            let (count, units) = $cubes;
            // SAFETY: kernels compare each place with the lengths or sizes that they are given, and
            // these are of the tensors that are bound.
            unsafe { $($kernel::)+launch_unchecked(&$gpu.client, count, units, $($argument),+) }
        }
    }};
}

pub(super) use launch;

impl<R: Runtime> Gpu<R> {
    // Products.

    pub(super) fn source<'a>(
        &self,
        x: &Src<'a, Self>,
        map: Map,
        window: Option<&Window>,
    ) -> Side<'a> {
        Side {
            reading: reading(x),
            window: window.copied(),
            channels: x.channels,
            taps: 1,
            map,
        }
    }

    pub(super) fn gradient<'a>(
        &self,
        dz: &Grad<'a, Self>,
        channels: usize,
        map: Map,
        window: Option<&Window>,
    ) -> Side<'a> {
        Side {
            reading: gradient(dz, channels),
            window: window.copied(),
            channels,
            taps: 1,
            map,
        }
    }

    fn operand<F: Float>(&self, side: &Side) -> OperandLaunch<F, R> {
        OperandLaunch::new(
            side.reading.view(1),
            side.window.as_ref().map(windows).into(),
            side.channels,
            side.taps,
            side.map,
        )
    }

    /// out (i, j) = sum over k.
    pub(super) fn product(
        &self,
        sizes: (usize, usize, usize),
        (a, b): (Side, Side),
        end: &Finish<R>,
        out: &Numbers,
    ) {
        self.product_in_pieces(sizes, (a, b), end, out, sizes.2.max(1));
    }

    fn product_in_pieces(
        &self,
        (i, j, k): (usize, usize, usize),
        (a, b): (Side, Side),
        end: &Finish<R>,
        out: &Numbers,
        piece: usize,
    ) {
        if i == 0 || j == 0 || self.rehearsed {
            return;
        }
        let (rows, columns) = (results(i), results(j));
        let kinds = [a.reading.kind(), b.reading.kind(), out.storage()];
        let count = CubeCount::Static(
            j.div_ceil(SIDE * columns) as u32,
            i.div_ceil(SIDE * rows) as u32,
            k.div_ceil(piece).max(1) as u32,
        );
        let end = EndLaunch::new(
            end.bias.map(|(bias, _)| bias.arg()).into(),
            end.bias.map_or(0, |(_, at)| at),
            end.shortcut.map(|shortcut| shortcut.arg()).into(),
            end.through.map(|x| reading(x).view(1)).into(),
        );
        launch!(
            self,
            product::product,
            (count, CubeDim::new_1d(UNITS)),
            self.operand(&a),
            self.operand(&b),
            end,
            out.arg(),
            SizesLaunch::new(i, j, k, piece),
            rows,
            columns,
            kinds,
        );
    }

    /// Adds the product over `k` rows to the gradient of a weight (outputs, inputs, taps).
    pub(super) fn weight_gradient(
        &self,
        (i, j, k): (usize, usize, usize),
        sides: (Side, Side),
        grads: &mut Numbers,
        range: &Range<usize>,
        (inputs, taps): (usize, usize),
    ) -> Result<()> {
        // Enough cubes for a large card, and parts that are no larger than what they are summed of.
        let tiles = i.div_ceil(SIDE * results(i)) * j.div_ceil(SIDE * results(j));
        let pieces = (1024 / tiles).clamp(1, k.div_ceil(256).max(1));
        let piece = k.div_ceil(pieces).max(1);
        let pieces = k.div_ceil(piece).max(1);
        let parts = self.take(pieces * i * j)?;
        self.product_in_pieces((i, j, k), sides, &Finish::default(), &parts, piece);
        self.add_parts(&parts, grads, range, (inputs, taps));
        Ok(())
    }

    /// Adds parts (pieces, out, tap, in) to the gradient of a weight (out, in, taps).
    fn add_parts(
        &self,
        parts: &Numbers,
        grads: &Numbers,
        range: &Range<usize>,
        (inputs, taps): (usize, usize),
    ) {
        let len = range.len();
        launch!(
            self,
            product::add_parts,
            each(len),
            parts.arg(),
            grads.arg(),
            range.start,
            len,
            parts.len() / len,
            inputs,
            taps,
            1.0 / self.loss_scale,
            taps == 1
        );
    }

    // Sums.

    /// Parts (segments, pieces, sums, channels).
    pub(super) fn sums(
        &self,
        x: &Src<Self>,
        g: Option<&Numbers>,
        what: What,
        segments: usize,
    ) -> Result<(Numbers, Pieces)> {
        let n = lanes(x.channels);
        let vectors = x.channels / n;
        let lanes = block(vectors);
        let rows = x.z.len() / x.channels;
        let pieces = Pieces::new(rows / segments.max(1), sums::UNITS / lanes * RUN);
        let parts = self.take(segments * pieces.count * what.count() * x.channels)?;
        let count = CubeCount::Static(
            vectors.div_ceil(lanes) as u32,
            pieces.count as u32,
            segments as u32,
        );
        launch!(
            self,
            sums::sums,
            (count, CubeDim::new_1d(sums::UNITS as u32)),
            n,
            reading(x).view(n),
            g.map(|g| g.arg()).into(),
            parts.arg(),
            pieces.arg(),
            what,
            lanes,
            x.z.storage(),
        );
        Ok((parts, pieces))
    }

    pub(super) fn add_pieces(
        &self,
        parts: &Numbers,
        out: &Numbers,
        len: usize,
        pieces: usize,
        factor: f32,
    ) {
        launch!(
            self,
            sums::add_pieces,
            each(out.len()),
            parts.arg(),
            out.arg(),
            len,
            pieces,
            factor
        );
    }

    pub(super) fn add_bias(
        &self,
        parts: &Numbers,
        grads: &mut Numbers,
        at: usize,
        len: usize,
        pieces: usize,
    ) {
        launch!(
            self,
            sums::add_bias,
            each(len),
            parts.arg(),
            grads.arg(),
            at,
            len,
            pieces,
            1.0 / self.loss_scale
        );
    }

    // Batch norm.

    pub(super) fn norm_of_batch(
        &self,
        of: &BatchNorm,
        values: &Numbers,
        buffers: &mut Numbers,
        moments: &Moments,
        momentum: f32,
    ) -> Result<Norm> {
        let Pieces { segment, count, .. } = moments.pieces;
        let groups = moments.parts.len() / (count * 2 * of.channels);
        let out = self.take(groups * NORM * of.channels)?;
        launch!(
            self,
            norm::of_batch,
            each(of.channels),
            moments.parts.arg(),
            moments.pieces.arg(),
            layer(of),
            values.arg(),
            buffers.arg(),
            out.arg(),
            groups,
            momentum
        );
        Ok(Norm {
            numbers: out,
            groups,
            rows: segment,
        })
    }

    pub(super) fn norm_of_running(
        &self,
        of: &BatchNorm,
        values: &Numbers,
        buffers: &Numbers,
    ) -> Result<Norm> {
        let out = self.take(NORM * of.channels)?;
        launch!(
            self,
            norm::of_running,
            each(of.channels),
            layer(of),
            values.arg(),
            buffers.arg(),
            out.arg()
        );
        Ok(Norm {
            numbers: out,
            groups: 1,
            rows: 0,
        })
    }

    pub(super) fn norm_gradient(
        &self,
        of: &BatchNorm,
        norm: &Norm,
        sums: &GradSums,
        grads: &mut Numbers,
        out: &Numbers,
    ) {
        launch!(
            self,
            norm::back,
            each(of.channels),
            sums.parts.arg(),
            norm.numbers.arg(),
            layer(of),
            grads.arg(),
            out.arg(),
            norm.groups,
            sums.pieces,
            norm.rows,
            1.0 / self.loss_scale
        );
    }

    // Depthwise convolution.

    pub(super) fn depthwise_forward(
        &self,
        x: &Src<Self>,
        window: &Window,
        w: &Param<Self>,
    ) -> Result<Numbers> {
        let n = lanes(window.channels);
        let images = x.z.len() / (window.height * window.width * window.channels);
        let len = images * window.out_height * window.out_width * window.channels;
        let z = self.take_as(len, x.z.kind())?;
        let strips = window.out_width.div_ceil(depthwise::STRIP);
        launch!(
            self,
            depthwise::forward,
            each(images * window.out_height * strips * (window.channels / n)),
            n,
            reading(x).view(n),
            w.values.arg(),
            w.range.start,
            windows(window),
            z.arg(),
            images,
            window.kernel,
            window.stride,
            z.storage()
        );
        Ok(z)
    }

    /// dx, plus `shortcut`, or through the activation of x.
    pub(super) fn depthwise_input_gradient(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        w: &Param<Self>,
        shortcut: Option<&Numbers>,
        through: bool,
    ) -> Result<Numbers> {
        let n = lanes(window.channels);
        let images = x.z.len() / (window.height * window.width * window.channels);
        let dx = self.take_as(x.z.len(), x.z.kind())?;
        let strips = window.width.div_ceil(depthwise::STRIP);
        launch!(
            self,
            depthwise::back,
            each(images * window.height * strips * (window.channels / n)),
            n,
            gradient(dz, window.channels).view(n),
            w.values.arg(),
            w.range.start,
            windows(window),
            shortcut.map(|shortcut| shortcut.arg()).into(),
            through.then(|| reading(x).view(n)).into(),
            dx.arg(),
            images,
            window.kernel,
            window.stride,
            dx.storage()
        );
        Ok(dx)
    }

    pub(super) fn depthwise_weight_gradient(
        &self,
        dz: &Grad<Self>,
        x: &Src<Self>,
        window: &Window,
        dw: ParamMut<Self>,
    ) -> Result<()> {
        let n = lanes(window.channels);
        let (vectors, taps) = (window.channels / n, window.kernel * window.kernel);
        let lanes = block(vectors);
        let rows = dz.z().len() / window.channels;
        let pieces = Pieces::new(rows, sums::UNITS / lanes * RUN);
        let parts = self.take(pieces.count * taps * window.channels)?;
        let count = CubeCount::Static(vectors.div_ceil(lanes) as u32, pieces.count as u32, 1);
        launch!(
            self,
            depthwise::weight_gradient,
            (count, CubeDim::new_1d(sums::UNITS as u32)),
            n,
            gradient(dz, window.channels).view(n),
            reading(x).view(n),
            windows(window),
            parts.arg(),
            rows,
            pieces.piece,
            window.kernel,
            lanes,
            x.z.storage(),
        );
        // A weight (1, channels, taps), as it were.
        self.add_parts(&parts, dw.grads, dw.range, (window.channels, taps));
        Ok(())
    }

    // Number by number.

    pub(super) fn read_into(&self, x: &Reading, out: &Numbers) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::materialise,
            each(out.len() / n),
            n,
            x.view(n),
            out.arg(),
            [x.kind(), out.storage()]
        );
    }

    pub(super) fn add_into(&self, x: &Src<Self>, other: &Src<Self>, act: Act, out: &Numbers) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::add,
            each(out.len() / n),
            n,
            reading(x).view(n),
            reading(other).view(n),
            out.arg(),
            act,
            out.storage()
        );
    }

    pub(super) fn add_through(&self, dy: &Numbers, x: &Src<Self>, other: &Src<Self>, act: Act) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::add_back,
            each(dy.len() / n),
            n,
            dy.arg(),
            reading(x).view(n),
            reading(other).view(n),
            act,
            dy.storage()
        );
    }

    /// g through the activation of x, in place.
    pub(super) fn through(&self, g: &Numbers, x: &Reading) {
        let n = lanes(x.channels);
        launch!(
            self,
            elementwise::through,
            each(g.len() / n),
            n,
            g.arg(),
            x.view(n),
            g.storage()
        );
    }

    pub(super) fn times_images(
        &self,
        x: &Numbers,
        factors: &PerImage,
        channels: usize,
        out: &Numbers,
    ) {
        launch!(
            self,
            elementwise::scale_images,
            each(out.len()),
            x.arg(),
            factors.numbers.arg(),
            out.arg(),
            channels,
            factors.image_rows,
            out.storage()
        );
    }

    pub(super) fn spread_rows(
        &self,
        x: &Numbers,
        out: &Numbers,
        channels: usize,
        rows: usize,
        factor: f32,
    ) {
        launch!(
            self,
            elementwise::spread,
            each(out.len()),
            x.arg(),
            out.arg(),
            channels,
            rows,
            factor,
            out.storage()
        );
    }

    pub(super) fn rescale_by(&self, x: &Numbers, coefficients: &Numbers, channels: usize) {
        launch!(
            self,
            elementwise::rescale,
            each(x.len()),
            x.arg(),
            coefficients.arg(),
            channels,
            x.storage()
        );
    }

    pub(super) fn times(&self, own: &Numbers, by: &Numbers) {
        launch!(
            self,
            elementwise::multiply,
            each(own.len()),
            own.arg(),
            by.arg(),
            own.storage()
        );
    }

    pub(super) fn plus(&self, own: &Numbers, by: &Numbers) {
        launch!(
            self,
            elementwise::plus,
            each(own.len()),
            own.arg(),
            by.arg(),
            own.storage()
        );
    }

    pub(super) fn add_to(
        &self,
        own: &Numbers,
        at: usize,
        (by, from): (&Numbers, usize),
        len: usize,
    ) {
        launch!(
            self,
            elementwise::add_to,
            each(len),
            own.arg(),
            at,
            by.arg(),
            from,
            len
        );
    }

    pub(super) fn fill(&self, out: &Numbers, x: f32) {
        launch!(self, elementwise::fill, each(out.len()), out.arg(), x);
    }

    /// `len` numbers in runs of `run`: the i-th from place i * from_step goes to place i * to_step.
    pub(super) fn copy_runs(
        &self,
        (from, from_at): (&Numbers, usize),
        from_step: usize,
        (to, to_at): (&Numbers, usize),
        to_step: usize,
        (run, len): (usize, usize),
    ) {
        if len == 0 {
            return;
        }
        launch!(
            self,
            elementwise::copy_runs,
            each(len),
            from.arg(),
            from_at,
            from_step,
            to.arg(),
            to_at,
            to_step,
            run,
            len
        );
    }

    pub(super) fn scatter_rows(&self, from: &Numbers, places: &Numbers, to: &Numbers, dim: usize) {
        launch!(
            self,
            elementwise::scatter_rows,
            each(from.len()),
            from.arg(),
            places.arg(),
            to.arg(),
            dim
        );
    }

    // Squeeze-excite and pooling.

    pub(super) fn gates(&self, logits: &Numbers, out: &Numbers, gate: Gate) {
        launch!(
            self,
            elementwise::gates,
            each(out.len()),
            logits.arg(),
            out.arg(),
            gate
        );
    }

    pub(super) fn gates_back(
        &self,
        sums: &Numbers,
        logits: &Numbers,
        out: &Numbers,
        channels: usize,
        gate: Gate,
    ) {
        launch!(
            self,
            elementwise::gates_back,
            each(out.len()),
            sums.arg(),
            logits.arg(),
            out.arg(),
            channels,
            gate
        );
    }

    /// `images` are all of them.
    pub(super) fn gated_sums(
        &self,
        sums: &Numbers,
        (gate, pool): (&Numbers, &Numbers),
        out: &Numbers,
        (channels, images, groups): (usize, usize, usize),
    ) {
        launch!(
            self,
            elementwise::gated_sums,
            each(groups * channels),
            sums.arg(),
            gate.arg(),
            pool.arg(),
            out.arg(),
            channels,
            images / groups,
            groups
        );
    }

    pub(super) fn pooled_sums(
        &self,
        sums: &Numbers,
        pool: &Numbers,
        out: &Numbers,
        (channels, images, groups): (usize, usize, usize),
    ) {
        launch!(
            self,
            elementwise::pooled_sums,
            each(groups * channels),
            sums.arg(),
            pool.arg(),
            out.arg(),
            channels,
            images / groups,
            groups
        );
    }

    pub(super) fn max_pool_forward(
        &self,
        x: &Src<Self>,
        window: &Window,
    ) -> Result<(Numbers, Numbers)> {
        let images = x.z.len() / (window.height * window.width * window.channels);
        let len = images * window.out_height * window.out_width * window.channels;
        let (y, taps) = (self.take_as(len, x.z.kind())?, self.take(len)?);
        launch!(
            self,
            max_pool::forward,
            each(len),
            reading(x).view(1),
            windows(window),
            y.arg(),
            taps.arg(),
            y.storage()
        );
        Ok((y, taps))
    }

    pub(super) fn max_pool_input_gradient(
        &self,
        x: &Src<Self>,
        window: &Window,
        taps: &Numbers,
        dy: &Numbers,
    ) -> Result<Numbers> {
        let out = self.take_as(x.z.len(), x.z.kind())?;
        launch!(
            self,
            max_pool::back,
            each(out.len()),
            reading(x).view(1),
            windows(window),
            taps.arg(),
            dy.arg(),
            out.arg(),
            out.storage()
        );
        Ok(out)
    }

    // Rows.

    pub(super) fn normalize_rows(
        &self,
        x: &Numbers,
        kept: &Numbers,
        inverse: &Numbers,
        dim: usize,
    ) {
        launch!(
            self,
            rows::normalize,
            per_row(inverse.len()),
            x.arg(),
            kept.arg(),
            inverse.arg(),
            dim
        );
    }

    pub(super) fn normalize_gradient(
        &self,
        dy: &Numbers,
        y: &Numbers,
        inverse: &Numbers,
        dim: usize,
    ) {
        launch!(
            self,
            rows::normalize_back,
            per_row(inverse.len()),
            dy.arg(),
            y.arg(),
            inverse.arg(),
            dim
        );
    }

    pub(super) fn row_stats_of(&self, x: &Numbers, layer: &LayerNorm) -> Result<Numbers> {
        let rows = x.len() / layer.dim;
        let out = self.take(rows * 2)?;
        launch!(
            self,
            rows::row_stats,
            per_row(rows),
            x.arg(),
            out.arg(),
            layer.dim,
            layer.eps
        );
        Ok(out)
    }

    pub(super) fn layer_norm_forward(
        &self,
        layer: &LayerNorm,
        values: &Numbers,
        x: &Numbers,
        stats: &Numbers,
    ) -> Result<Numbers> {
        let out = self.take(x.len())?;
        launch!(
            self,
            rows::layer_norm,
            each(out.len()),
            x.arg(),
            stats.arg(),
            values.arg(),
            layer.weight.start,
            layer.bias.start,
            layer.dim,
            out.arg()
        );
        Ok(out)
    }

    /// dx in place of dy; dy times the normed input.
    pub(super) fn layer_norm_gradient(
        &self,
        layer: &LayerNorm,
        values: &Numbers,
        (x, stats): (&Numbers, &Numbers),
        dy: &Numbers,
    ) -> Result<Numbers> {
        let normed = self.take(x.len())?;
        launch!(
            self,
            rows::layer_norm_back,
            per_row(x.len() / layer.dim),
            x.arg(),
            stats.arg(),
            values.arg(),
            layer.weight.start,
            layer.dim,
            dy.arg(),
            normed.arg()
        );
        Ok(normed)
    }

    // Transformers.

    pub(super) fn attention_forward(&self, qkv: &Numbers, heads: &Heads) -> Result<Numbers> {
        let out = self.take(qkv.len() / 3)?;
        let count = qkv.len() / (3 * heads.dim) * heads.heads;
        launch!(
            self,
            attention::forward,
            per_row(count),
            qkv.arg(),
            out.arg(),
            attention::ShapeLaunch::new(heads.heads, heads.head()),
            count,
            heads.tokens
        );
        Ok(out)
    }

    pub(super) fn attention_gradient(
        &self,
        qkv: &Numbers,
        heads: &Heads,
        dy: &Numbers,
    ) -> Result<Numbers> {
        let out = self.take(qkv.len())?;
        let count = qkv.len() / (3 * heads.dim) * heads.heads;
        let (ps, ds) = (
            self.take(count * heads.tokens)?,
            self.take(count * heads.tokens)?,
        );
        let shape = || attention::ShapeLaunch::new(heads.heads, heads.head());
        launch!(
            self,
            attention::back_queries,
            per_row(count),
            qkv.arg(),
            dy.arg(),
            out.arg(),
            ps.arg(),
            ds.arg(),
            shape(),
            count,
            heads.tokens
        );
        launch!(
            self,
            attention::back_keys,
            per_row(count),
            qkv.arg(),
            dy.arg(),
            out.arg(),
            ps.arg(),
            ds.arg(),
            shape(),
            count,
            heads.tokens
        );
        Ok(out)
    }

    /// Positions (places, dim) for another grid, or (by [`Map::Columns`]) their gradient for the own
    /// one; nothing where the grids are the same.
    pub(super) fn resample(
        &self,
        layer: &Positions,
        positions: &Numbers,
        grid: (usize, usize),
        map: Map,
    ) -> Result<Option<Numbers>> {
        if grid == (layer.side, layer.side) {
            return Ok(None);
        }
        let (here, there) = (layer.side * layer.side, grid.0 * grid.1);
        let matrix = self.send(&Resample::new(layer.side, grid).matrix())?;
        let (to, from) = match map {
            Map::Columns => (here, there),
            _ => (there, here),
        };
        let out = self.take(to * layer.dim)?;
        let (a, b) = (Src::plain(&matrix, here), Src::plain(positions, layer.dim));
        let sides = (
            self.source(&a, map, None),
            self.source(&b, Map::Columns, None),
        );
        self.product((to, layer.dim, from), sides, &Finish::default(), &out);
        Ok(Some(out))
    }

    // The losses.

    pub(super) fn dots(&self, x: &Numbers, y: &Numbers, y_at: usize, out: &Numbers, dim: usize) {
        launch!(
            self,
            contrast::dots,
            per_row(out.len()),
            x.arg(),
            y.arg(),
            y_at,
            out.arg(),
            dim
        );
    }

    pub(super) fn mask_own(
        &self,
        similarities: &Numbers,
        own: &Numbers,
        queue: &Numbers,
        none: u32,
    ) {
        launch!(
            self,
            contrast::mask_own,
            each(similarities.len()),
            similarities.arg(),
            own.arg(),
            queue.arg(),
            none
        );
    }

    pub(super) fn album_rows(
        &self,
        album: &Numbers,
        photos: &Numbers,
        dim: usize,
    ) -> Result<(Numbers, Numbers)> {
        let (out, known) = (self.take(photos.len() * dim)?, self.take(photos.len())?);
        launch!(
            self,
            contrast::album_rows,
            per_row(photos.len()),
            album.arg(),
            photos.arg(),
            out.arg(),
            known.arg(),
            (album.len() / dim) as u32,
            dim
        );
        Ok((out, known))
    }

    pub(super) fn mask_unknown(
        &self,
        similarities: &Numbers,
        (own, own_known): (&Numbers, &Numbers),
        (queue, queue_known): (&Numbers, &Numbers),
    ) {
        launch!(
            self,
            contrast::mask_unknown,
            each(similarities.len()),
            similarities.arg(),
            own.arg(),
            queue.arg(),
            own_known.arg(),
            queue_known.arg()
        );
    }

    pub(super) fn near_targets(
        &self,
        similarities: &Numbers,
        positives: &Numbers,
        size: usize,
        (t, share): (f32, f32),
    ) {
        launch!(
            self,
            contrast::near_targets,
            per_row(positives.len()),
            similarities.arg(),
            positives.arg(),
            size,
            t,
            share
        );
    }

    pub(super) fn nearest_targets(
        &self,
        similarities: &Numbers,
        targets: &Numbers,
        positives: &Numbers,
        (size, count): (usize, usize),
        share: f32,
    ) {
        launch!(
            self,
            contrast::nearest_targets,
            per_row(positives.len()),
            similarities.arg(),
            targets.arg(),
            positives.arg(),
            size,
            count,
            share
        );
    }

    pub(super) fn teacher_targets(
        &self,
        similarities: &Numbers,
        positives: &Numbers,
        size: usize,
        t: f32,
    ) {
        launch!(
            self,
            contrast::teacher_targets,
            per_row(positives.len()),
            similarities.arg(),
            positives.arg(),
            size,
            t
        );
    }

    pub(super) fn losses(
        &self,
        (similarities, positives): (&Numbers, &Numbers),
        targets: Option<&(Numbers, Numbers)>,
        found: &Numbers,
        size: usize,
        t: f32,
    ) {
        launch!(
            self,
            contrast::losses,
            per_row(positives.len()),
            similarities.arg(),
            positives.arg(),
            targets.map(|(queue, _)| queue.arg()).into(),
            targets.map(|(_, positives)| positives.arg()).into(),
            found.arg(),
            size,
            t
        );
    }

    /// From slopes: the queries' gradient.
    pub(super) fn contrast_gradient(
        &self,
        (slopes, own_slopes): (&Numbers, &Numbers),
        (positives, at): (&Numbers, usize),
        keys: &Numbers,
        dim: usize,
        scale: f32,
    ) -> Result<Numbers> {
        let (n, size) = (own_slopes.len(), keys.len() / dim);
        let piece = size.div_ceil(64).max(256);
        let pieces = size.div_ceil(piece);
        let parts = self.take(pieces * n * dim)?;
        let (a, b) = (Src::plain(slopes, size), Src::plain(keys, dim));
        let sides = (
            self.source(&a, Map::Rows, None),
            self.source(&b, Map::Columns, None),
        );
        self.product_in_pieces((n, dim, size), sides, &Finish::default(), &parts, piece);
        let out = self.take(n * dim)?;
        launch!(
            self,
            contrast::gradient,
            each(out.len()),
            parts.arg(),
            own_slopes.arg(),
            positives.arg(),
            at,
            out.arg(),
            dim,
            pieces,
            scale
        );
        Ok(out)
    }

    // The optimizers.

    fn spans(&self, spans: &[(Range<usize>, f32)]) -> Result<(Numbers, Numbers, usize)> {
        let mut spans: Vec<&(Range<usize>, f32)> = spans.iter().collect();
        spans.sort_by_key(|(range, _)| range.start);
        let bounds = spans
            .iter()
            .flat_map(|(range, _)| [range.start as u32, range.end as u32]);
        let bounds = self.send_whole(&bounds.collect::<Vec<u32>>())?;
        let decays = self.send(&spans.iter().map(|(_, decay)| *decay).collect::<Vec<f32>>())?;
        Ok((bounds, decays, spans.len()))
    }

    pub(super) fn sgd_step(
        &self,
        update: &Update,
        (values, grads, velocity): (&Numbers, &Numbers, &Numbers),
        base: &Numbers,
    ) -> Result<()> {
        let (bounds, decays, spans) = self.spans(update.spans)?;
        let anchored = update.anchor > 0.0 && base.len() == values.len();
        launch!(
            self,
            optim::sgd,
            each(values.len()),
            bounds.arg(),
            decays.arg(),
            spans,
            values.arg(),
            grads.arg(),
            velocity.arg(),
            anchored.then(|| base.arg()).into(),
            update.momentum,
            update.anchor,
            update.lr
        );
        Ok(())
    }

    pub(super) fn adamw_step(
        &self,
        update: &AdamUpdate,
        (values, grads): (&Numbers, &Numbers),
        (first, second): (&Numbers, &Numbers),
    ) -> Result<()> {
        let (bounds, decays, spans) = self.spans(update.spans)?;
        let (beta_1, beta_2) = update.betas;
        // In f64: 1 - 0.999^1 has three digits in f32.
        let correction = |beta: f32| 1.0 - (beta as f64).powf(update.step as f64);
        launch!(
            self,
            optim::adamw,
            each(values.len()),
            bounds.arg(),
            decays.arg(),
            spans,
            values.arg(),
            grads.arg(),
            first.arg(),
            second.arg(),
            beta_1,
            beta_2,
            (update.lr as f64 / correction(beta_1)) as f32,
            correction(beta_2).sqrt() as f32,
            update.eps,
            update.lr
        );
        Ok(())
    }

    pub(super) fn follow_from(&self, own: &Numbers, other: &Numbers, momentum: f32, from: usize) {
        launch!(
            self,
            optim::follow,
            each(own.len()),
            own.arg(),
            other.arg(),
            momentum,
            from
        );
    }

    /// For each cube, how many numbers are not finite.
    pub(super) fn not_finite(&self, x: &Numbers) -> Result<Numbers> {
        let count = x.len().div_ceil(optim::UNITS * optim::EACH).max(1);
        let found = self.take(count)?;
        launch!(
            self,
            optim::not_finite,
            (cubes(count), CubeDim::new_1d(optim::UNITS as u32)),
            x.arg(),
            found.arg(),
        );
        Ok(found)
    }
}
