//! Matrix products, and what is one: 1x1 and dense convolutions, forward and backward, and linear
//! layers.
//!
//! C(i, j) = sum over k of A(i, k) B(j, k). An [`Operand`] says where its numbers lie and through what
//! they are read, so that no activation, gradient or patch is ever stored for a product. Tiles of both
//! go through memory that a cube's units share; each unit keeps `rows` x `columns` results.
//! The weight's gradient sums over all rows of a batch: it is cut into pieces, whose sums are added in
//! order.

use cubecl::prelude::*;

use super::activation::{hard_sigmoid, sigmoid};
use super::sums::lane_total;
use super::view::View;
use seedling_nn::layer::Gate;

/// Units of a cube along each side.
pub const SIDE: usize = 16;
/// Numbers of a tile along k.
const DEPTH: usize = 16;
pub const UNITS: u32 = (SIDE * SIDE) as u32;

/// Where the number (i, k) of an operand lies in its tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperandLayout {
    /// Row i, channel k.
    Rows,
    /// Row k, channel i.
    Columns,
    /// i is an output's pixel, k a tap and a channel of the window before it.
    Patches,
    /// The same with i and k exchanged.
    PatchColumns,
    /// i is an input's pixel, k a tap and a channel of an output whose window has it under that tap.
    Outputs,
    /// A weight (out, in, taps) of several taps: i is out, k a tap and in.
    Weight,
    /// The same: i is in, k a tap and out.
    WeightBack,
}

impl OperandLayout {
    /// Whether neighbors along k lie side by side, and not those along i.
    pub fn along_k(self) -> bool {
        !matches!(
            self,
            OperandLayout::Columns | OperandLayout::PatchColumns | OperandLayout::WeightBack
        )
    }
}

/// A [`seedling_nn::window::Window`] for kernels.
#[derive(CubeType, CubeLaunch, Clone)]
pub struct Windows {
    pub height: usize,
    pub width: usize,
    pub out_height: usize,
    pub out_width: usize,
    pub kernel: usize,
    pub stride: usize,
    pub pad_top: usize,
    pub pad_left: usize,
}

/// The place that lies `before` a place, as long as it is one of so many, or the nearest; and whether it is one.
/// Outside, the nearest is read and left out: no load waits for a branch.
#[cube]
pub fn clamped(place: usize, before: usize, places: usize) -> (usize, bool) {
    let inside = place >= before && place - before < places;
    (min(max(place, before) - before, places - 1), inside)
}

/// One side of a product, of which `N` neighbors are read at once.
#[derive(CubeType, CubeLaunch)]
pub struct Operand<F: Float, N: Size> {
    pub view: View<F, N>,
    pub windows: ComptimeOption<Windows>,
    /// Channels of the tensor (for a weight: of its input).
    pub channels: usize,
    pub taps: usize,
    #[cube(comptime)]
    pub map: OperandLayout,
}

#[cube]
impl<F: Float, N: Size> Operand<F, N> {
    /// The numbers from (i, k) on, along k or along i, as [`OperandLayout::along_k`] says. Both are multiples
    /// of `N` in that direction.
    pub fn at(&self, i: usize, k: usize) -> Vector<f32, N> {
        let n = N::value();
        let map = comptime!(self.map);
        match map {
            OperandLayout::Rows => self.view.read(i, k / n),
            OperandLayout::Columns => self.view.read(k, i / n),
            OperandLayout::Patches => self.patch(i, k),
            OperandLayout::PatchColumns => self.patch(k, i),
            OperandLayout::Outputs => self.output(i, k),
            OperandLayout::Weight => {
                let (tap, c) = (k / self.channels, k % self.channels);
                self.view
                    .stored(0usize, (i * self.channels + c) * self.taps + tap)
            }
            OperandLayout::WeightBack => {
                let outputs = self.view.channels;
                let (tap, out) = (k / outputs, k % outputs);
                let at = (out * self.channels + i) * self.taps + tap;
                self.view.stored(0usize, at)
            }
        }
    }

    /// What lies under a tap of the window before an output's pixel.
    fn patch(&self, pixel: usize, k: usize) -> Vector<f32, N> {
        #[comptime]
        match &self.windows {
            ComptimeOption::Some(w) => {
                let (tap, c) = (k / self.channels, k % self.channels);
                let (row, ox) = (pixel / w.out_width, pixel % w.out_width);
                let (image, oy) = (row / w.out_height, row % w.out_height);
                let y = oy * w.stride + tap / w.kernel;
                let x = ox * w.stride + tap % w.kernel;
                let (y, inside_y) = clamped(y, w.pad_top, w.height);
                let (x, inside_x) = clamped(x, w.pad_left, w.width);
                let row = (image * w.height + y) * w.width + x;
                let found = self.view.read(row, c / N::value());
                select(inside_y && inside_x, found, Vector::new(0.0f32))
            }
            ComptimeOption::None => Vector::new(0.0f32),
        }
    }

    /// What reaches an input's pixel through a tap.
    fn output(&self, pixel: usize, k: usize) -> Vector<f32, N> {
        #[comptime]
        match &self.windows {
            ComptimeOption::Some(w) => {
                let (tap, c) = (k / self.channels, k % self.channels);
                let (row, x) = (pixel / w.width, pixel % w.width);
                let (image, y) = (row / w.height, row % w.height);
                let (y, x) = (y + w.pad_top, x + w.pad_left);
                let (down, across) = (tap / w.kernel, tap % w.kernel);
                let (oy, ox) = (
                    (max(y, down) - down) / w.stride,
                    (max(x, across) - across) / w.stride,
                );
                let inside = y == oy * w.stride + down
                    && x == ox * w.stride + across
                    && oy < w.out_height
                    && ox < w.out_width;
                let (oy, ox) = (min(oy, w.out_height - 1), min(ox, w.out_width - 1));
                let row = (image * w.out_height + oy) * w.out_width + ox;
                let found = self.view.read(row, c / N::value());
                select(inside, found, Vector::new(0.0f32))
            }
            ComptimeOption::None => Vector::new(0.0f32),
        }
    }
}

/// What becomes of `N` neighboring results before they are stored.
#[derive(CubeType, CubeLaunch)]
pub struct End<F: Float, N: Size> {
    /// Added to each row, from this place on.
    pub bias: ComptimeOption<Array<f32>>,
    pub bias_at: usize,
    /// Added number by number.
    pub shortcut: ComptimeOption<Array<Vector<F, N>>>,
    /// What the result is the gradient of: it goes through the activation of that.
    pub through: ComptimeOption<View<F, N>>,
    pub factor: f32,
    /// Whether results are logits of gates.
    #[cube(comptime)]
    pub gate: Option<Gate>,
}

#[cube]
impl<F: Float, N: Size> End<F, N> {
    /// `j` and `columns` are counted in vectors.
    pub fn of(&self, sum: Vector<f32, N>, i: usize, j: usize, columns: usize) -> Vector<f32, N> {
        let mut y = sum;
        #[comptime]
        if let ComptimeOption::Some(bias) = &self.bias {
            #[unroll]
            for lane in 0..N::value() {
                y[lane] += bias[self.bias_at + j * N::value() + lane];
            }
        }
        #[comptime]
        if let ComptimeOption::Some(shortcut) = &self.shortcut {
            y += Vector::cast_from(shortcut[i * columns + j]);
        }
        #[comptime]
        if let ComptimeOption::Some(x) = &self.through {
            y *= x.derivative(i, j);
        }
        let gate = comptime!(self.gate);
        match gate {
            None => y * Vector::new(self.factor),
            Some(Gate::HardSigmoid) => hard_sigmoid::<N>(y),
            Some(Gate::Sigmoid) => sigmoid::<N>(y),
        }
    }

    /// z off its mean, where results go through an activation of it.
    pub fn centered(&self, i: usize, j: usize) -> Vector<f32, N> {
        #[comptime]
        match &self.through {
            ComptimeOption::Some(x) => x.centered(i, j),
            ComptimeOption::None => Vector::new(0.0f32),
        }
    }
}

/// Sizes of a product.
#[derive(CubeType, CubeLaunch)]
pub struct Sizes {
    pub i: usize,
    pub j: usize,
    pub k: usize,
    /// How much of k a cube sums; results of several pieces lie behind each other.
    pub piece: usize,
}

/// Cubes are (tiles, pieces of k), where tiles, those of j first, may continue in a second dimension and past
/// the last; a unit has `rows` x `columns` results.
#[cube(launch_unchecked)]
pub fn product<A: Float, B: Float, C: Float>(
    a: &Operand<A, Const<1>>,
    b: &Operand<B, Const<1>>,
    end: &End<C, Const<1>>,
    out: &mut Array<C>,
    sizes: &Sizes,
    #[comptime] rows: usize,
    #[comptime] columns: usize,
    #[define(A, B, C)] _types: [StorageType; 3],
) {
    let (tall, wide) = comptime!((SIDE * rows, SIDE * columns));
    // One more than needed, so that units which store along k do not all meet in one bank.
    let (stride_a, stride_b) = comptime!((tall + 1, wide + 1));
    let mut tile_a = SharedMemory::<f32>::new(comptime!(DEPTH * stride_a));
    let mut tile_b = SharedMemory::<f32>::new(comptime!(DEPTH * stride_b));
    let mut sums = Array::<f32>::new(comptime!(rows * columns));
    #[unroll]
    for s in 0..rows * columns {
        sums[s] = 0.0f32;
    }

    let unit = UNIT_POS as usize;
    let (down, across) = (unit / SIDE, unit % SIDE);
    let tile = CUBE_POS_X as usize + CUBE_POS_Y as usize * CUBE_COUNT_X as usize;
    let across_j = sizes.j.div_ceil(wide);
    let first_i = tile / across_j * tall;
    let first_j = tile % across_j * wide;
    let begin = CUBE_POS_Z as usize * sizes.piece;
    let finish = min(begin + sizes.piece, sizes.k);
    let mut first_k = begin;
    while first_k < finish {
        for part in 0..tall * DEPTH / (SIDE * SIDE) {
            let place = unit + part * SIDE * SIDE;
            let (i, k) = tile_place(place, tall, comptime!(a.map.along_k()));
            let mut x = 0.0f32;
            if first_i + i < sizes.i && first_k + k < finish {
                x = a.at(first_i + i, first_k + k)[0];
            }
            tile_a[k * stride_a + i] = x;
        }
        for part in 0..wide * DEPTH / (SIDE * SIDE) {
            let place = unit + part * SIDE * SIDE;
            let (j, k) = tile_place(place, wide, comptime!(b.map.along_k()));
            let mut x = 0.0f32;
            if first_j + j < sizes.j && first_k + k < finish {
                x = b.at(first_j + j, first_k + k)[0];
            }
            tile_b[k * stride_b + j] = x;
        }
        sync_cube();
        for k in 0..DEPTH {
            let mut ys = Array::<f32>::new(columns);
            #[unroll]
            for c in 0..columns {
                ys[c] = tile_b[k * stride_b + across + c * SIDE];
            }
            #[unroll]
            for r in 0..rows {
                let x = tile_a[k * stride_a + down + r * SIDE];
                #[unroll]
                for c in 0..columns {
                    sums[r * columns + c] = fma(x, ys[c], sums[r * columns + c]);
                }
            }
        }
        sync_cube();
        first_k += DEPTH;
    }

    let out_at = CUBE_POS_Z as usize * sizes.i * sizes.j;
    #[unroll]
    for r in 0..rows {
        let i = first_i + down + r * SIDE;
        #[unroll]
        for c in 0..columns {
            let j = first_j + across + c * SIDE;
            if i < sizes.i && j < sizes.j {
                let y = end.of(Vector::new(sums[r * columns + c]), i, j, sizes.j);
                out[out_at + i * sizes.j + j] = C::cast_from(y[0]);
            }
        }
    }
}

/// (i, k) of a tile's number: neighboring units take neighbors in memory.
#[cube]
fn tile_place(place: usize, #[comptime] side: usize, #[comptime] along_k: bool) -> (usize, usize) {
    if comptime!(along_k) {
        (place / DEPTH, place % DEPTH)
    } else {
        (place % side, place / side)
    }
}

/// Numbers of a cube that adds parts; its other units share their parts.
pub const LANES: usize = 32;

/// Adds the sums of `pieces` parts, times `factor`, to the gradient of a weight (out, in, taps), from
/// place `at` on.
/// A part has the numbers (out, tap, in): with one tap, in the weight's own order.
#[cube(launch_unchecked)]
pub fn add_parts(
    parts: &Array<f32>,
    grads: &mut Array<f32>,
    at: usize,
    len: usize,
    pieces: usize,
    channels: usize,
    taps: usize,
    factor: f32,
    #[comptime] in_order: bool,
) {
    let deep = comptime!(UNITS as usize / LANES);
    let mut shared = SharedMemory::<f32>::new(comptime!(UNITS as usize));
    let unit = UNIT_POS as usize;
    let (lane, depth) = (unit % LANES, unit / LANES);
    let i = CUBE_POS * LANES + lane;
    let mut sum = 0.0f32;
    if i < len {
        let mut piece = depth;
        while piece < pieces {
            sum += parts[piece * len + i];
            piece += deep;
        }
    }
    let sum = lane_total(sum, &mut shared, LANES) * factor;
    if depth == 0 && i < len {
        if comptime!(in_order) {
            grads[at + i] += sum;
        } else {
            let (out, rest) = (i / (channels * taps), i % (channels * taps));
            let (tap, c) = (rest / channels, rest % channels);
            grads[at + (out * channels + c) * taps + tap] += sum;
        }
    }
}
