//! How rows are shared out: a fixed cut that depends on sizes and the number of threads only.
//!
//! Each thread gets one contiguous piece and its partial sums are combined in order, so a result
//! never depends on timing: the same number of threads gives the same bits.

use std::ops::Range;

/// Bytes of a tile that should stay in a core's second-level cache (phones: 512 KiB and up).
const TILE_BYTES: usize = 640 << 10;

/// Cuts `rows` into one piece per thread of the current rayon pool, each a multiple of `unit`
/// (except the last) and at least 16 rows where there are as many.
pub fn pieces(rows: usize, unit: usize) -> Vec<Range<usize>> {
    let unit = unit.max(1);
    let units = rows.div_ceil(unit);
    let worth_it = rows.div_ceil(16);
    let n = rayon::current_num_threads().min(units).min(worth_it).max(1);
    (0..n)
        .map(|i| (units * i / n * unit).min(rows)..(units * (i + 1) / n * unit).min(rows))
        .collect()
}

/// Rows per tile for an operation that touches `floats` numbers a row.
pub fn tile_rows(floats: usize) -> usize {
    (TILE_BYTES / 4 / floats.max(1)).clamp(256, 2048) / 16 * 16
}

/// The tiles of a piece.
pub fn tiles(piece: Range<usize>, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let end = piece.end;
    piece
        .step_by(rows)
        .map(move |start| start..(start + rows).min(end))
}

/// Cuts a (rows, width) slice into the given consecutive pieces.
pub fn split<'a>(
    mut data: &'a mut [f32],
    pieces: &[Range<usize>],
    width: usize,
) -> Vec<&'a mut [f32]> {
    pieces
        .iter()
        .map(|piece| {
            let (head, tail) = std::mem::take(&mut data).split_at_mut(piece.len() * width);
            data = tail;
            head
        })
        .collect()
}
