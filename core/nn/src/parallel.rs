//! How work is shared out: a fixed cut that depends on sizes alone.
//!
//! Rows are cut into more pieces than there are threads. Threads take them as they become free
//! ([`map_parts`]), so a phone's small cores do not hold up the large ones; partial sums are combined
//! in the order of the pieces. So a result depends neither on timing nor on how many threads
//! there are.

use std::ops::Range;

use rayon::prelude::*;

/// Numbers one thread takes at a time in a pass over flat arrays: large enough to hide the
/// hand-over, small enough that a few arrays' worth stays in its cache.
pub(crate) const CHUNK: usize = 1 << 15;

/// Bytes of a tile that should stay in a core's second-level cache (phones: 512 KiB and up).
const TILE_BYTES: usize = 640 << 10;

/// Pieces at most. More would share the work more evenly, but each needs a weight gradient of its
/// own until they are added up.
const PIECES: usize = 16;

/// Rows that are worth a piece. Except on AVX-512, every piece of a convolution packs the weight again
/// for its product, which with fewer rows costs more than a better share of the work gains.
const WORTH_ROWS: usize = 192;

/// Pieces that are worth fewer rows, so that a phone's large cores all have something to do.
const FEW_PIECES: usize = 4;

/// Rows that are worth one of [`FEW_PIECES`].
const FEW_WORTH_ROWS: usize = 96;

/// Columns that are worth a piece in a product that is cut by columns.
const LEAST_COLUMNS: usize = 32;

/// Filters of a weight that a thread brings into another order at a time, at least.
pub const FILTERS: usize = 16;

/// Cuts `rows` into pieces, each a multiple of `unit` (except the last).
pub fn pieces(rows: usize, unit: usize) -> Vec<Range<usize>> {
    let unit = unit.max(1);
    let units = rows.div_ceil(unit);
    let few = (rows / FEW_WORTH_ROWS).min(FEW_PIECES);
    let worth = (rows / WORTH_ROWS).min(PIECES).max(few);
    cut(units, units.min(count(worth)))
        .map(|piece| (piece.start * unit).min(rows)..(piece.end * unit).min(rows))
        .collect()
}

/// Cuts `width` columns into pieces.
pub fn columns(width: usize) -> Vec<Range<usize>> {
    cut(width, PIECES.min(count(width / LEAST_COLUMNS))).collect()
}

/// The largest power of two up to `most`: it divides evenly among two, four and eight threads.
fn count(most: usize) -> usize {
    1 << most.max(1).ilog2()
}

fn cut(len: usize, n: usize) -> impl Iterator<Item = Range<usize>> {
    let n = n.max(1);
    (0..n).map(move |i| len * i / n..len * (i + 1) / n)
}

/// Does `work` on every piece with its part of what is written, on all threads of the current
/// pool; the results come in the order of the pieces.
pub fn map_parts<P: Send, T: Send>(
    pieces: Vec<Range<usize>>,
    parts: Vec<P>,
    work: impl Fn(Range<usize>, P) -> T + Sync + Send,
) -> Vec<T> {
    pieces
        .into_par_iter()
        .with_max_len(1)
        .zip(parts)
        .map(|(piece, part)| work(piece, part))
        .collect()
}

/// [`map_parts`] pieces that write nothing but their result.
pub fn map_pieces<T: Send>(
    pieces: Vec<Range<usize>>,
    work: impl Fn(Range<usize>) -> T + Sync + Send,
) -> Vec<T> {
    let nothing = vec![(); pieces.len()];
    map_parts(pieces, nothing, |piece, ()| work(piece))
}

/// Adds `parts` to `into`, each number's in their order.
pub fn add_up<P: std::ops::Deref<Target = [f32]> + Sync>(into: &mut [f32], parts: &[P]) {
    into.par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(i, into)| {
            for part in parts {
                for (a, b) in into.iter_mut().zip(&part[i * CHUNK..]) {
                    *a += b;
                }
            }
        });
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
pub fn split<'a, T>(
    mut data: &'a mut [T],
    pieces: &[Range<usize>],
    width: usize,
) -> Vec<&'a mut [T]> {
    pieces
        .iter()
        .map(|piece| {
            let (head, tail) = std::mem::take(&mut data).split_at_mut(piece.len() * width);
            data = tail;
            head
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_all_rows_whatever_the_pool() {
        let cuts = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut cuts = Vec::new();
                for rows in [0, 1, 15, 49, 392, 1568, 100_352] {
                    for unit in [1, 49, 784] {
                        let cut = pieces(rows, unit);
                        assert!(cut.len() <= PIECES);
                        assert_eq!(cut[0].start, 0);
                        assert_eq!(cut.last().unwrap().end, rows);
                        assert!(cut.windows(2).all(|w| w[0].end == w[1].start));
                        assert!(cut.iter().all(|p| p.start % unit == 0));
                        cuts.push(cut);
                    }
                }
                cuts
            })
        };
        assert_eq!(cuts(1), cuts(7));
        // The last stage of a micro-batch of eight photos at 224 px still feeds four threads, the stage
        // before it eight.
        assert_eq!(pieces(8 * 49, 1).len(), 4);
        assert_eq!(pieces(8 * 49, 49).len(), 4);
        assert_eq!(pieces(8 * 196, 1).len(), 8);
    }

    #[test]
    fn parts_add_up() {
        let parts: Vec<Vec<f32>> = (0..5).map(|i| vec![i as f32; 70_000]).collect();
        let mut sum = vec![1.0; 70_000];
        add_up(&mut sum, &parts);
        assert!(sum.iter().all(|&x| x == 11.0));
    }
}
