//! The way out of tensor cores: through shared memory, where what batch norm asks for is summed.

use cubecl::cmma;
use cubecl::prelude::*;

use super::super::product::End;
use super::super::sums::merge;
use super::tile::{ColumnSums, Tile};
use super::{SIDE, WARPS, WIDE};

/// Where a tile lies.
#[derive(CubeType)]
pub struct Corner {
    pub i: usize,
    /// The cube's last row, and one more.
    pub end: usize,
    pub j: usize,
    /// Of the whole result.
    pub columns: usize,
    /// Where that begins.
    pub out_at: usize,
    /// Whether it is the cube's first.
    pub begins: bool,
}

/// Waits for the warps that share a strip.
#[cube]
fn meet(#[comptime] tile: Tile) {
    if comptime!(tile.split > 1) {
        sync_cube();
    } else {
        sync_plane();
    }
}

/// What warps share on their way out, and what units have summed.
#[derive(CubeType)]
pub struct Exit {
    stage: SharedMemory<Vector<f32, Const<WIDE>>>,
    /// Rows that a unit has seen of its columns.
    count: Array<f32>,
    /// Of a column in each pair of blocks: what is taken off, and two sums over those rows.
    shift: Array<f32>,
    first: Array<f32>,
    second: Array<f32>,
}

#[cube]
impl Exit {
    pub fn new(#[comptime] tile: Tile, #[comptime] column_sums: ColumnSums) -> Exit {
        let groups = comptime!(tile.blocks / tile.pair());
        let pitch = comptime!(2 * tile.pair() + 1);
        let stage = SharedMemory::<Vector<f32, Const<WIDE>>>::new_aligned(
            comptime!(WARPS * SIDE * pitch),
            128usize,
        );
        let mut count = Array::<f32>::new(1usize);
        let mut shift = Array::<f32>::new(groups);
        let mut first = Array::<f32>::new(groups);
        let mut second = Array::<f32>::new(groups);
        if comptime!(column_sums != ColumnSums::None) {
            count[0] = 0.0f32;
            #[unroll]
            for group in 0..groups {
                shift[group] = 0.0f32;
                first[group] = 0.0f32;
                second[group] = 0.0f32;
            }
        }
        Exit {
            stage,
            count,
            shift,
            first,
            second,
        }
    }

    /// Stores a tile's results.
    pub fn tile<C: Float, NC: Size>(
        &mut self,
        sums: &Sequence<cmma::Matrix<f32>>,
        end: &End<C, NC>,
        out: &mut Array<Vector<C, NC>>,
        corner: &Corner,
        #[comptime] tile: Tile,
        #[comptime] column_sums: ColumnSums,
    ) {
        let pair = comptime!(tile.pair());
        let pitch = comptime!(2 * pair + 1);
        let n = NC::value();
        let unit = UNIT_POS as usize;
        let (warp, lane) = (unit / 32, unit % 32);
        let (strip, part) = (warp % tile.strips, warp / tile.strips);
        #[unroll]
        for group in 0..comptime!(tile.blocks / pair) {
            if part < tile.split {
                #[unroll]
                for p in 0..pair {
                    let at = warp * (SIDE * pitch) + p * 2;
                    cmma::store(
                        &mut self.stage.slice_mut(at, at + 1),
                        sums.index(comptime!(group * pair + p)),
                        comptime!((pitch * WIDE) as u32),
                        cmma::MatrixLayout::RowMajor,
                    );
                }
            }
            meet(tile);
            let mut weighted = Array::<Vector<f32, Const<WIDE>>>::new(pair);
            let v = lane % (2 * pair);
            if part == 0 {
                #[unroll]
                for pass in 0..pair {
                    let down = pass * (SIDE / pair) + lane / (2 * pair);
                    let at = (strip * SIDE + down) * pitch + v;
                    let mut sum = self.stage[at];
                    #[unroll]
                    for s in 1..tile.split {
                        sum += self.stage[((s * tile.strips + strip) * SIDE + down) * pitch + v];
                    }
                    let i = corner.i + strip * SIDE + down;
                    let j = corner.j + (group * pair * 2 + v) * WIDE;
                    let mut kept = Vector::<f32, Const<WIDE>>::new(0.0f32);
                    let mut product = Vector::<f32, Const<WIDE>>::new(0.0f32);
                    #[unroll]
                    for chunk in 0..comptime!(WIDE / n) {
                        let at_j = j + chunk * n;
                        if i < corner.end && at_j < corner.columns {
                            let mut y = Vector::<f32, NC>::empty();
                            #[unroll]
                            for l in 0..n {
                                y[l] = sum[chunk * n + l];
                            }
                            let y = end.of(y, i, at_j / n, corner.columns / n);
                            let stored = Vector::<C, NC>::cast_from(y);
                            out[(corner.out_at + i * corner.columns + at_j) / n] = stored;
                            if comptime!(column_sums == ColumnSums::Norm) {
                                let y = Vector::<f32, NC>::cast_from(stored);
                                let by = y * end.centered(i, at_j / n);
                                #[unroll]
                                for l in 0..n {
                                    kept[chunk * n + l] = y[l];
                                    product[chunk * n + l] = by[l];
                                }
                            }
                        }
                    }
                    if comptime!(column_sums == ColumnSums::Norm) {
                        self.stage[at] = kept;
                        weighted[pass] = product;
                    }
                }
            }
            match column_sums {
                ColumnSums::None => {}
                ColumnSums::Moments => {
                    self.moments::<C>(corner, group, tile);
                }
                ColumnSums::Norm => {
                    sync_plane();
                    let sum = self.sum(tile);
                    self.first[group] += sum;
                    sync_plane();
                    #[unroll]
                    for pass in 0..pair {
                        let down = pass * (SIDE / pair) + lane / (2 * pair);
                        self.stage[(strip * SIDE + down) * pitch + v] = weighted[pass];
                    }
                    sync_plane();
                    let sum = self.sum(tile);
                    self.second[group] += sum;
                }
            }
            meet(tile);
        }
    }

    /// The unit's number of its column in its warp's stage.
    fn staged(&self, row: usize, #[comptime] tile: Tile) -> f32 {
        let (across, rows) = comptime!((SIDE * tile.pair(), SIDE / 2 * tile.pair()));
        let pitch = comptime!((2 * tile.pair() + 1) * WIDE);
        let lane = UNIT_POS as usize % 32;
        let down = UNIT_POS as usize / 32 * SIDE + lane / across * rows + row;
        let numbers = self.stage.to_slice().with_vector_size::<Const<1>>();
        numbers[down * pitch + lane % across][0]
    }

    /// The sum of a unit's column over its rows.
    fn sum(&self, #[comptime] tile: Tile) -> f32 {
        let mut sum = 0.0f32;
        #[unroll]
        for row in 0..comptime!(SIDE / 2 * tile.pair()) {
            sum += self.staged(row, tile);
        }
        sum
    }

    /// Adds the stage of a pair of blocks, as it is stored, to the moments.
    fn moments<C: Float>(
        &mut self,
        corner: &Corner,
        #[comptime] group: usize,
        #[comptime] tile: Tile,
    ) {
        let (across, rows) = comptime!((SIDE * tile.pair(), SIDE / 2 * tile.pair()));
        let unit = UNIT_POS as usize;
        let first_i = corner.i + unit / 32 * SIDE + unit % 32 / across * rows;
        #[unroll]
        for row in 0..rows {
            let x = f32::cast_from(C::cast_from(self.staged(row, tile)));
            if comptime!(row == 0) {
                // Deviations from a number of their own size lose nothing, however far the mean is from zero.
                if corner.begins {
                    self.shift[group] = x;
                }
            }
            if first_i + row < corner.end {
                let off = x - self.shift[group];
                self.first[group] += off;
                self.second[group] = fma(off, off, self.second[group]);
                if comptime!(group == 0) {
                    self.count[0] += 1.0f32;
                }
            }
        }
    }

    /// Puts the units' sums together, in order.
    pub fn put_together(
        &mut self,
        parts: &mut Array<f32>,
        at: usize,
        first_j: usize,
        columns: usize,
        #[comptime] tile: Tile,
        #[comptime] column_sums: ColumnSums,
    ) {
        let (across, wide) = comptime!((SIDE * tile.pair(), tile.wide()));
        let units = comptime!(tile.column_parts());
        let mut counts = SharedMemory::<f32>::new(units);
        let mut firsts = SharedMemory::<Vector<f32, Const<1>>>::new(comptime!(units * wide));
        let mut seconds = SharedMemory::<Vector<f32, Const<1>>>::new(comptime!(units * wide));
        let unit = UNIT_POS as usize;
        let lane = unit % 32;
        let place = unit / 32 * comptime!(32 / across) + lane / across;
        // Other warps may still be on their way out.
        sync_cube();
        if lane.is_multiple_of(across) {
            counts[place] = self.count[0];
        }
        let rows = max(self.count[0], 1.0f32);
        #[unroll]
        for group in 0..comptime!(tile.blocks / tile.pair()) {
            let to = place * wide + group * across + lane % across;
            let (first, second) = (self.first[group], self.second[group]);
            if comptime!(column_sums == ColumnSums::Moments) {
                let mean = first / rows;
                firsts[to] = Vector::new(self.shift[group] + mean);
                seconds[to] = Vector::new(max(second - first * mean, 0.0f32));
            } else {
                firsts[to] = Vector::new(first);
                seconds[to] = Vector::new(second);
            }
        }
        sync_cube();
        let j = first_j + unit;
        if unit < wide && j < columns {
            let mut first = Vector::<f32, Const<1>>::new(0.0f32);
            let mut second = Vector::<f32, Const<1>>::new(0.0f32);
            let mut count = 0.0f32;
            for place in 0..units {
                let (a, b) = (firsts[place * wide + unit], seconds[place * wide + unit]);
                if comptime!(column_sums == ColumnSums::Moments) {
                    let all = merge::<Const<1>>(count, first, second, counts[place], a, b);
                    count = all.0;
                    first = all.1;
                    second = all.2;
                } else {
                    first += a;
                    second += b;
                }
            }
            parts[at + j] = first[0];
            parts[at + columns + j] = second[0];
            if comptime!(column_sums == ColumnSums::Moments) {
                parts[at + 2 * columns + j] = count;
            }
        }
    }
}
