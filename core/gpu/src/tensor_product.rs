//! The products of [`super::product`] on tensor cores, where a device has them.
//!
//! A cube of 8 warps makes tiles of 16 * `strips` x 16 * `blocks` results, one after another down a piece of
//! the rows. What operands are read through is computed in f32 and rounded on its way into shared memory (to
//! bf16 or f16 as activations are stored, to TF32 where they are f32); a warp has a strip of 16 rows, or, where
//! there are fewer strips than warps, a part of each round's k. Results leave through shared memory, too, where
//! the sums over columns that a batch norm asks for are taken of them: nothing is read again for those.

mod exit;
mod tile;

use cubecl::cmma;
use cubecl::prelude::*;

use self::exit::{Corner, Exit};
pub use self::tile::{ColumnSums, Lines, Tile};
use super::product::{End, Operand, Sizes};
use super::sums::Span;

/// Units of a cube.
pub const UNITS: usize = 256;
/// Of 32 units.
pub const WARPS: usize = 8;
/// Cubes that keep a large GPU busy: six for each of 132 multiprocessors.
pub const CUBES: usize = 792;
/// Bytes of shared memory that a cube may take.
pub const SHARED_BYTES: usize = 72 << 10;
/// Rows and columns of a fragment.
const SIDE: usize = 16;
/// Numbers that are loaded at once.
const WIDE: usize = 8;

/// A tile of an operand into shared memory. Nothing branches, so that all loads are on their way at once: what
/// lies outside is read from the last place inside, and is zero where `zeros` asks for it.
#[cube]
fn fill<F: Float, S: Float, N: Size>(
    x: &Operand<F, N>,
    shared: &mut SharedMemory<Vector<S, Const<WIDE>>>,
    first: usize,
    limit: usize,
    first_k: usize,
    finish: usize,
    #[comptime] side: usize,
    #[comptime] depth: usize,
    #[comptime] tf32: bool,
    #[comptime] zeros: bool,
) {
    let along_k = comptime!(x.map.along_k());
    let vectors = comptime!(if along_k { depth / WIDE } else { side / WIDE });
    let lines = comptime!(if along_k { side } else { depth });
    let at_once = comptime!(UNITS / vectors);
    let pitch = comptime!(vectors + 1);
    let unit = UNIT_POS as usize;
    let v = unit % vectors;
    let line = min(unit / vectors, at_once - 1);
    #[unroll]
    for part in 0..comptime!(lines.div_ceil(at_once)) {
        let mut l = line + part * at_once;
        if comptime!((part + 1) * at_once > lines) {
            // Some units do a line that others do, too.
            l = min(l, lines - 1);
        }
        let found = if comptime!(along_k) {
            eight::<F, N>(x, first + l, limit, first_k + v * WIDE, finish, zeros)
        } else {
            eight::<F, N>(x, first + v * WIDE, limit, first_k + l, finish, zeros)
        };
        shared[l * pitch + v] = rounded::<S>(found, tf32);
    }
}

/// The numbers from (i, k) on, along k or along i as the operand's neighbors lie.
#[cube]
fn eight<F: Float, N: Size>(
    x: &Operand<F, N>,
    i: usize,
    limit: usize,
    k: usize,
    finish: usize,
    #[comptime] zeros: bool,
) -> Vector<f32, Const<WIDE>> {
    let n = N::value();
    let along_k = comptime!(x.map.along_k());
    let mut all = Vector::<f32, Const<WIDE>>::empty();
    #[unroll]
    for part in 0..comptime!(WIDE / n) {
        let (mut i, mut k) = (i, k);
        if comptime!(along_k) {
            k += part * n;
        } else {
            i += part * n;
        }
        let inside = k < finish;
        let (last_i, last_k) = if comptime!(along_k) {
            (limit - 1, finish - n)
        } else {
            (limit - n, finish - 1)
        };
        let mut found = x.at(min(i, last_i), min(k, last_k));
        if comptime!(zeros) {
            found = select(inside, found, Vector::new(0.0f32));
        }
        #[unroll]
        for lane in 0..n {
            all[part * n + lane] = found[lane];
        }
    }
    all
}

/// As shared memory has it. TF32 is f32 with ten bits of mantissa: tensor cores would cut off the others.
#[cube]
fn rounded<S: Float>(
    x: Vector<f32, Const<WIDE>>,
    #[comptime] tf32: bool,
) -> Vector<S, Const<WIDE>> {
    if comptime!(tf32) {
        let bits = Vector::<u32, Const<WIDE>>::reinterpret(x);
        let bits = (bits + Vector::new(0x1000u32)) & Vector::new(0xffff_e000u32);
        Vector::cast_from(Vector::<f32, Const<WIDE>>::reinterpret(bits))
    } else {
        Vector::cast_from(x)
    }
}

/// Cubes are (tiles of columns, pieces of rows, segments of rows or pieces of k). Column sums' parts are
/// (segments, pieces, sums, columns).
#[cube(launch_unchecked)]
pub fn product<A: Float, B: Float, C: Float, S: Float, E: Float, NA: Size, NB: Size, NC: Size>(
    a: &Operand<A, NA>,
    b: &Operand<B, NB>,
    end: &End<C, NC>,
    out: &mut Array<Vector<C, NC>>,
    parts: &mut ComptimeOption<Array<f32>>,
    sizes: &Sizes,
    rows: &Span,
    #[comptime] tile: Tile,
    #[comptime] column_sums: ColumnSums,
    #[define(A, B, C, S, E)] _types: [StorageType; 5],
) {
    let (tall, wide, depth) = comptime!((tile.tall(), tile.wide(), tile.depth()));
    let tf32 = comptime!(tile.step == 8);
    let (pitch_a, lines_a) = comptime!(tile.shape_a());
    let (pitch_b, lines_b) = comptime!(tile.shape_b());
    let mut shared_a =
        SharedMemory::<Vector<S, Const<WIDE>>>::new_aligned(comptime!(lines_a * pitch_a), 128usize);
    let mut shared_b =
        SharedMemory::<Vector<S, Const<WIDE>>>::new_aligned(comptime!(lines_b * pitch_b), 128usize);
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..tile.blocks {
        sums.push(cmma::Matrix::<f32>::from_value(
            cmma::MatrixIdent::Accumulator,
            SIDE,
            SIDE,
            tile.step,
            cmma::MatrixLayout::Undefined,
            0.0f32,
        ));
    }
    let mut exit = Exit::new(tile, column_sums);

    let first_j = CUBE_POS_X as usize * wide;
    let z = CUBE_POS_Z as usize;
    let mut segment = z;
    let mut begin = 0usize.runtime();
    let mut finish = sizes.k;
    let mut out_at = 0usize.runtime();
    if comptime!(tile.pieces_of_k) {
        segment = 0usize.runtime();
        begin = z * sizes.piece;
        finish = min(begin + sizes.piece, sizes.k);
        out_at = z * sizes.i * sizes.j;
    }
    let piece = CUBE_POS_Y as usize;
    let first_row = segment * rows.segment + piece * rows.piece;
    let end_row = segment * rows.segment + min((piece + 1) * rows.piece, rows.segment);

    if comptime!(tile.once) {
        fill::<B, S, NB>(
            b,
            &mut shared_b,
            first_j,
            sizes.j,
            begin,
            finish,
            wide,
            depth,
            tf32,
            true,
        );
    }
    let mut first_i = first_row;
    while first_i < end_row {
        #[unroll]
        for block in 0..tile.blocks {
            cmma::fill(sums.index(block), 0.0f32);
        }
        let mut first_k = begin;
        while first_k < finish {
            fill::<A, S, NA>(
                a,
                &mut shared_a,
                first_i,
                sizes.i,
                first_k,
                finish,
                tall,
                depth,
                tf32,
                false,
            );
            if comptime!(!tile.once) {
                fill::<B, S, NB>(
                    b,
                    &mut shared_b,
                    first_j,
                    sizes.j,
                    first_k,
                    finish,
                    wide,
                    depth,
                    tf32,
                    true,
                );
            }
            sync_cube();
            multiply::<S, E>(&shared_a, &shared_b, &sums, tile);
            sync_cube();
            first_k += depth;
        }
        let corner = Corner {
            i: first_i,
            end: end_row,
            j: first_j,
            columns: sizes.j,
            out_at,
            begins: first_i == first_row,
        };
        exit.tile::<C, NC>(&sums, end, out, &corner, tile, column_sums);
        first_i += tall;
    }
    #[comptime]
    if let ComptimeOption::Some(parts) = parts {
        let at = (segment * rows.pieces + piece) * comptime!(column_sums.count()) * sizes.j;
        exit.put_together(parts, at, first_j, sizes.j, tile, column_sums);
    }
}

/// Adds a round to the results.
#[cube]
fn multiply<S: Float, E: Float>(
    shared_a: &SharedMemory<Vector<S, Const<WIDE>>>,
    shared_b: &SharedMemory<Vector<S, Const<WIDE>>>,
    sums: &Sequence<cmma::Matrix<f32>>,
    #[comptime] tile: Tile,
) {
    let (pitch_a, _) = comptime!(tile.shape_a());
    let (pitch_b, _) = comptime!(tile.shape_b());
    let layout_a = comptime!(if tile.a_along_k {
        cmma::MatrixLayout::RowMajor
    } else {
        cmma::MatrixLayout::ColMajor
    });
    let layout_b = comptime!(if tile.b_along_k {
        cmma::MatrixLayout::ColMajor
    } else {
        cmma::MatrixLayout::RowMajor
    });
    let warp = UNIT_POS as usize / 32;
    let (strip, part) = (warp % tile.strips, warp / tile.strips);
    let steps = comptime!(tile.deep / tile.split);
    if part < tile.split {
        #[unroll]
        for step in 0..steps {
            let k = (part * steps + step) * tile.step;
            let mut at_a = k * pitch_a + strip * 2;
            if comptime!(tile.a_along_k) {
                at_a = strip * (SIDE * pitch_a) + k / WIDE;
            }
            // SAFETY: it is loaded before it is used.
            let x = unsafe {
                cmma::Matrix::<E>::uninitialized(
                    cmma::MatrixIdent::A,
                    SIDE,
                    SIDE,
                    tile.step,
                    layout_a,
                )
            };
            let from = shared_a.slice(at_a, at_a + 1);
            cmma::load(&x, &from, comptime!((pitch_a * WIDE) as u32));
            #[unroll]
            for block in 0..tile.blocks {
                let mut at_b = k * pitch_b + block * 2;
                if comptime!(tile.b_along_k) {
                    at_b = block * (SIDE * pitch_b) + k / WIDE;
                }
                // SAFETY: as above.
                let y = unsafe {
                    cmma::Matrix::<E>::uninitialized(
                        cmma::MatrixIdent::B,
                        SIDE,
                        SIDE,
                        tile.step,
                        layout_b,
                    )
                };
                let from = shared_b.slice(at_b, at_b + 1);
                cmma::load(&y, &from, comptime!((pitch_b * WIDE) as u32));
                cmma::execute(&x, &y, sums.index(block), sums.index(block));
            }
        }
    }
}
