//! Depthwise convolution. A unit makes a tile of neighboring results of `N` channels: what it reads is computed
//! once and meets every tap that it lies under. A cube has a block of channels, whose weights its units share,
//! and one piece of the tiles of a segment (a micro-batch of batch norm); the sums over what it stores, that the
//! norm asks for, are taken on the way.

use cubecl::prelude::*;

use super::product::{Windows, clamped};
use super::sums::{Span, UNITS, merge};
use super::tensor_product::ColumnSums;
use super::view::View;

/// Taps whose sums go through shared memory together: 12 KB of the 16 that any GPU has.
const CHUNK: usize = 3;

/// What is known of a window when a kernel is compiled, and how its work is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    pub kernel: usize,
    pub stride: usize,
    pub pad_top: usize,
    pub pad_left: usize,
    /// Rows and columns of a unit's tile; of inputs, multiples of the stride.
    pub rows: usize,
    pub columns: usize,
    /// Vectors of channels of a cube.
    pub lanes: usize,
}

impl Shape {
    fn taps(self) -> usize {
        self.kernel * self.kernel
    }

    /// Units of a cube that have the same channels.
    pub fn deep(self) -> usize {
        UNITS / self.lanes
    }

    /// Inputs along one side, for so many outputs.
    fn reach(self, outputs: usize) -> usize {
        (outputs - 1) * self.stride + self.kernel
    }

    /// How far the first output whose window may hold a pixel lies before that pixel's, both over the stride.
    fn lead(self, pad: usize) -> usize {
        (self.kernel - 1 - pad.min(self.kernel - 1)) / self.stride
    }

    /// Outputs along one side whose windows may hold one of so many pixels.
    fn under(self, pixels: usize, pad: usize) -> usize {
        (pixels - 1 + pad) / self.stride + 1 + self.lead(pad)
    }

    /// The tap under which the `q`-th of those outputs has the `t`-th pixel, if it does.
    fn tap(self, t: usize, q: usize, pad: usize) -> Option<usize> {
        let tap = (t + pad + self.stride * self.lead(pad)).checked_sub(self.stride * q)?;
        (tap < self.kernel).then_some(tap)
    }
}

/// A unit's channels, and its place among those that have the same.
#[derive(CubeType)]
struct Unit {
    /// Counted in vectors.
    c: usize,
    lane: usize,
    depth: usize,
    /// Whether there are such channels.
    here: bool,
    /// Its first tile, and where its cube's end.
    first: usize,
    end: usize,
}

#[cube]
fn unit(channels: usize, span: &Span, #[comptime] shape: Shape) -> Unit {
    let (lane, depth) = (
        UNIT_POS as usize % shape.lanes,
        UNIT_POS as usize / shape.lanes,
    );
    let c = CUBE_POS_X as usize * shape.lanes + lane;
    let piece = CUBE_POS_Y as usize;
    let segment = CUBE_POS_Z as usize * span.segment;
    Unit {
        c,
        lane,
        depth,
        here: c < channels && depth < comptime!(shape.deep()),
        first: segment + piece * span.piece + depth,
        end: segment + min((piece + 1) * span.piece, span.segment),
    }
}

/// The weights of a cube's channels, (taps, lanes); the layer's are (channels, taps).
#[cube]
fn weights<N: Size>(
    w: &Array<f32>,
    at: usize,
    channels: usize,
    #[comptime] shape: Shape,
) -> SharedMemory<Vector<f32, N>> {
    let taps = comptime!(shape.taps());
    let mut shared = SharedMemory::<Vector<f32, N>>::new(comptime!(taps * shape.lanes));
    let mut i = UNIT_POS as usize;
    while i < taps * shape.lanes {
        let (tap, lane) = (i / shape.lanes, i % shape.lanes);
        let c = min(CUBE_POS_X as usize * shape.lanes + lane, channels - 1);
        let mut found = Vector::<f32, N>::empty();
        #[unroll]
        for l in 0..N::value() {
            found[l] = w[at + (c * N::value() + l) * taps + tap];
        }
        shared[i] = found;
        i += UNITS;
    }
    sync_cube();
    shared
}

/// What is stored of the batch norm's sums: unit by unit, then of the cube.
#[derive(CubeType)]
struct Sums<N: Size> {
    count: Array<f32>,
    shift: Array<Vector<f32, N>>,
    totals: Array<Vector<f32, N>>,
}

#[cube]
impl<N: Size> Sums<N> {
    fn new() -> Sums<N> {
        let mut count = Array::<f32>::new(1usize);
        let mut shift = Array::<Vector<f32, N>>::new(1usize);
        let mut totals = Array::<Vector<f32, N>>::new(2usize);
        count[0] = 0.0f32;
        shift[0] = Vector::new(0.0f32);
        totals[0] = Vector::new(0.0f32);
        totals[1] = Vector::new(0.0f32);
        Sums::<N> {
            count,
            shift,
            totals,
        }
    }

    /// Deviations from a number of their own size lose nothing, however far the mean is from zero.
    fn moment(&mut self, x: Vector<f32, N>) {
        if self.count[0] == 0.0f32 {
            self.shift[0] = x;
        }
        let off = x - self.shift[0];
        self.count[0] += 1.0f32;
        self.totals[0] += off;
        self.totals[1] = fma(off, off, self.totals[1]);
    }

    fn gradient(&mut self, g: Vector<f32, N>, centered: Vector<f32, N>) {
        self.totals[0] += g;
        self.totals[1] = fma(g, centered, self.totals[1]);
    }

    /// Puts the units' together, in order: parts (segments, pieces, sums, channels).
    fn store(
        &mut self,
        parts: &mut Array<Vector<f32, N>>,
        unit: &Unit,
        pieces: usize,
        channels: usize,
        #[comptime] shape: Shape,
        #[comptime] column_sums: ColumnSums,
    ) {
        let mut firsts = SharedMemory::<Vector<f32, N>>::new(UNITS);
        let mut seconds = SharedMemory::<Vector<f32, N>>::new(UNITS);
        let mut counts = SharedMemory::<f32>::new(UNITS);
        let place = UNIT_POS as usize;
        let (mut first, mut second) = (self.totals[0], self.totals[1]);
        if comptime!(column_sums == ColumnSums::Moments) {
            let mean = first / Vector::new(max(self.count[0], 1.0f32));
            second = max(second - first * mean, Vector::new(0.0f32));
            first = self.shift[0] + mean;
        }
        sync_cube();
        firsts[place] = first;
        seconds[place] = second;
        counts[place] = self.count[0];
        sync_cube();
        if unit.depth == 0 && unit.here {
            let mut count = counts[place];
            for depth in 1..comptime!(shape.deep()) {
                let other = depth * shape.lanes + unit.lane;
                if comptime!(column_sums == ColumnSums::Moments) {
                    let rows = counts[other];
                    let all = merge::<N>(count, first, second, rows, firsts[other], seconds[other]);
                    count = all.0;
                    first = all.1;
                    second = all.2;
                } else {
                    first += firsts[other];
                    second += seconds[other];
                }
            }
            let piece = CUBE_POS_Z as usize * pieces + CUBE_POS_Y as usize;
            let at = piece * comptime!(column_sums.count()) * channels + unit.c;
            parts[at] = first;
            parts[at + channels] = second;
            if comptime!(column_sums == ColumnSums::Moments) {
                parts[at + 2 * channels] = Vector::new(count);
            }
        }
    }
}

/// z (images, out_height, out_width, channels), and its moments.
#[cube(launch_unchecked)]
pub fn forward<F: Float, N: Size>(
    x: &View<F, N>,
    w: &Array<f32>,
    at: usize,
    sides: &Windows,
    z: &mut Array<Vector<F, N>>,
    parts: &mut ComptimeOption<Array<Vector<f32, N>>>,
    span: &Span,
    #[comptime] shape: Shape,
    #[define(F)] _type: StorageType,
) {
    let weights = weights::<N>(w, at, x.channels, shape);
    let unit = unit(x.channels, span, shape);
    let mut found = Sums::<N>::new();
    let (across, down) = (
        sides.out_width.div_ceil(shape.columns),
        sides.out_height.div_ceil(shape.rows),
    );
    let mut tile = unit.first;
    while tile < unit.end && unit.here {
        let (row, ox) = (tile / across, tile % across * shape.columns);
        let (image, oy) = (row / down, row % down * shape.rows);
        let mut sums = Array::<Vector<f32, N>>::new(comptime!(shape.rows * shape.columns));
        #[unroll]
        for s in 0..comptime!(shape.rows * shape.columns) {
            sums[s] = Vector::new(0.0f32);
        }
        #[unroll]
        for r in 0..comptime!(shape.reach(shape.rows)) {
            let (y, inside_y) = clamped(oy * shape.stride + r, shape.pad_top, sides.height);
            let from = (image * sides.height + y) * sides.width;
            let mut xs = Array::<Vector<f32, N>>::new(comptime!(shape.reach(shape.columns)));
            #[unroll]
            for t in 0..comptime!(shape.reach(shape.columns)) {
                let (column, inside) = clamped(ox * shape.stride + t, shape.pad_left, sides.width);
                let read = x.read(from + column, unit.c);
                xs[t] = select(inside_y && inside, read, Vector::new(0.0f32));
            }
            #[unroll]
            for s in 0..shape.rows {
                if comptime!(r >= s * shape.stride && r - s * shape.stride < shape.kernel) {
                    #[unroll]
                    for k in 0..shape.kernel {
                        let tap = comptime!((r - s * shape.stride) * shape.kernel + k);
                        let weight = weights[tap * shape.lanes + unit.lane];
                        #[unroll]
                        for o in 0..shape.columns {
                            let to = comptime!(s * shape.columns + o);
                            sums[to] = fma(xs[comptime!(o * shape.stride + k)], weight, sums[to]);
                        }
                    }
                }
            }
        }
        #[unroll]
        for s in 0..shape.rows {
            #[unroll]
            for o in 0..shape.columns {
                if oy + s < sides.out_height && ox + o < sides.out_width {
                    let to = (image * sides.out_height + oy + s) * sides.out_width + ox + o;
                    let stored = Vector::<F, N>::cast_from(sums[comptime!(s * shape.columns + o)]);
                    z[to * x.channels + unit.c] = stored;
                    if comptime!(parts.is_some()) {
                        found.moment(Vector::cast_from(stored));
                    }
                }
            }
        }
        tile += comptime!(shape.deep());
    }
    #[comptime]
    if let ComptimeOption::Some(parts) = parts {
        let sums = comptime!(ColumnSums::Moments);
        found.store(parts, &unit, span.pieces, x.channels, shape, sums);
    }
}

/// dx (images, height, width, channels), plus `shortcut`, or through the activation of `through`, with the sums
/// of that.
#[cube(launch_unchecked)]
pub fn back<F: Float, N: Size>(
    dz: &View<F, N>,
    w: &Array<f32>,
    at: usize,
    sides: &Windows,
    shortcut: &ComptimeOption<Array<Vector<F, N>>>,
    through: &ComptimeOption<View<F, N>>,
    dx: &mut Array<Vector<F, N>>,
    parts: &mut ComptimeOption<Array<Vector<f32, N>>>,
    span: &Span,
    #[comptime] shape: Shape,
    #[define(F)] _type: StorageType,
) {
    let weights = weights::<N>(w, at, dz.channels, shape);
    let unit = unit(dz.channels, span, shape);
    let mut found = Sums::<N>::new();
    let (lead_y, lead_x) = comptime!((shape.lead(shape.pad_top), shape.lead(shape.pad_left)));
    let across = sides.width.div_ceil(shape.columns);
    let down = sides.height.div_ceil(shape.rows);
    let mut tile = unit.first;
    while tile < unit.end && unit.here {
        let (row, x) = (tile / across, tile % across * shape.columns);
        let (image, y) = (row / down, row % down * shape.rows);
        let mut sums = Array::<Vector<f32, N>>::new(comptime!(shape.rows * shape.columns));
        #[unroll]
        for s in 0..comptime!(shape.rows * shape.columns) {
            sums[s] = Vector::new(0.0f32);
        }
        #[unroll]
        for q in 0..comptime!(shape.under(shape.rows, shape.pad_top)) {
            let (oy, inside_y) = clamped(y / shape.stride + q, lead_y, sides.out_height);
            let from = (image * sides.out_height + oy) * sides.out_width;
            #[unroll]
            for p in 0..comptime!(shape.under(shape.columns, shape.pad_left)) {
                let (ox, inside) = clamped(x / shape.stride + p, lead_x, sides.out_width);
                let read = dz.read(from + ox, unit.c);
                let g = select(inside_y && inside, read, Vector::new(0.0f32));
                #[unroll]
                for s in 0..shape.rows {
                    #[unroll]
                    for o in 0..shape.columns {
                        let tap = comptime!(shape.tap(s, q, shape.pad_top).zip(shape.tap(
                            o,
                            p,
                            shape.pad_left
                        )));
                        if comptime!(tap.is_some()) {
                            let tap = comptime!(tap.map_or(0, |(y, x)| y * shape.kernel + x));
                            let to = comptime!(s * shape.columns + o);
                            sums[to] = fma(g, weights[tap * shape.lanes + unit.lane], sums[to]);
                        }
                    }
                }
            }
        }
        #[unroll]
        for s in 0..shape.rows {
            #[unroll]
            for o in 0..shape.columns {
                if y + s < sides.height && x + o < sides.width {
                    let to = (image * sides.height + y + s) * sides.width + x + o;
                    let mut sum = sums[comptime!(s * shape.columns + o)];
                    #[comptime]
                    if let ComptimeOption::Some(shortcut) = shortcut {
                        sum += Vector::cast_from(shortcut[to * dz.channels + unit.c]);
                    }
                    #[comptime]
                    if let ComptimeOption::Some(x) = through {
                        sum *= x.derivative(to, unit.c);
                    }
                    let stored = Vector::<F, N>::cast_from(sum);
                    dx[to * dz.channels + unit.c] = stored;
                    if comptime!(parts.is_some()) {
                        let g = Vector::<f32, N>::cast_from(stored);
                        #[comptime]
                        if let ComptimeOption::Some(x) = through {
                            found.gradient(g, x.centered(to, unit.c));
                        }
                    }
                }
            }
        }
        tile += comptime!(shape.deep());
    }
    #[comptime]
    if let ComptimeOption::Some(parts) = parts {
        let sums = comptime!(ColumnSums::Norm);
        found.store(parts, &unit, span.pieces, dz.channels, shape, sums);
    }
}

/// Parts (pieces, taps, channels) of the weight's gradient.
#[cube(launch_unchecked)]
pub fn weight_gradient<F: Float, N: Size>(
    dz: &View<F, N>,
    x: &View<F, N>,
    sides: &Windows,
    parts: &mut Array<Vector<f32, N>>,
    span: &Span,
    #[comptime] shape: Shape,
    #[define(F)] _type: StorageType,
) {
    let taps = comptime!(shape.taps());
    let mut shared = SharedMemory::<Vector<f32, N>>::new(comptime!(UNITS * CHUNK));
    let unit = unit(dz.channels, span, shape);
    let mut totals = Array::<Vector<f32, N>>::new(taps);
    #[unroll]
    for tap in 0..taps {
        totals[tap] = Vector::new(0.0f32);
    }
    let (across, down) = (
        sides.out_width.div_ceil(shape.columns),
        sides.out_height.div_ceil(shape.rows),
    );
    let mut tile = unit.first;
    while tile < unit.end && unit.here {
        let (row, ox) = (tile / across, tile % across * shape.columns);
        let (image, oy) = (row / down, row % down * shape.rows);
        let mut gs = Array::<Vector<f32, N>>::new(comptime!(shape.rows * shape.columns));
        #[unroll]
        for s in 0..shape.rows {
            #[unroll]
            for o in 0..shape.columns {
                let inside = oy + s < sides.out_height && ox + o < sides.out_width;
                let (y, x) = (
                    min(oy + s, sides.out_height - 1),
                    min(ox + o, sides.out_width - 1),
                );
                let from = (image * sides.out_height + y) * sides.out_width + x;
                let read = dz.read(from, unit.c);
                gs[comptime!(s * shape.columns + o)] = select(inside, read, Vector::new(0.0f32));
            }
        }
        #[unroll]
        for r in 0..comptime!(shape.reach(shape.rows)) {
            let (y, inside_y) = clamped(oy * shape.stride + r, shape.pad_top, sides.height);
            let from = (image * sides.height + y) * sides.width;
            #[unroll]
            for t in 0..comptime!(shape.reach(shape.columns)) {
                let (column, inside) = clamped(ox * shape.stride + t, shape.pad_left, sides.width);
                let read = x.read(from + column, unit.c);
                let x = select(inside_y && inside, read, Vector::new(0.0f32));
                #[unroll]
                for s in 0..shape.rows {
                    #[unroll]
                    for o in 0..shape.columns {
                        if comptime!(
                            r >= s * shape.stride
                                && r - s * shape.stride < shape.kernel
                                && t >= o * shape.stride
                                && t - o * shape.stride < shape.kernel
                        ) {
                            let tap = comptime!(
                                (r - s * shape.stride) * shape.kernel + t - o * shape.stride
                            );
                            totals[tap] = fma(gs[comptime!(s * shape.columns + o)], x, totals[tap]);
                        }
                    }
                }
            }
        }
        tile += comptime!(shape.deep());
    }
    // Some taps at a time go through what the units share.
    #[unroll]
    for chunk in 0..comptime!(taps.div_ceil(CHUNK)) {
        let first = comptime!(chunk * CHUNK);
        let count = comptime!(CHUNK.min(taps - first));
        #[unroll]
        for t in 0..count {
            shared[t * UNITS + UNIT_POS as usize] = totals[first + t];
        }
        sync_cube();
        if unit.depth == 0 && unit.here {
            for t in 0..count {
                let mut sum = shared[t * UNITS + unit.lane];
                for d in 1..comptime!(shape.deep()) {
                    sum += shared[t * UNITS + d * shape.lanes + unit.lane];
                }
                let tap = first + t;
                parts[(CUBE_POS_Y as usize * taps + tap) * dz.channels + unit.c] = sum;
            }
        }
        sync_cube();
    }
}
