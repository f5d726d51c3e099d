//! 3x3 convolution of stride 1 by 16 products where 36 would be: Winograd's F(2x2, 3x3) (Lavin and Gray,
//! "Fast Algorithms for Convolutional Neural Networks", 2016, section 4).
//!
//! An output tile of 2 x 2 comes from 4 x 4 inputs. Inputs and filters are transformed so that the tile is
//! a transform of their elementwise product, and over channels that is a matrix product for each of the
//! 16 elements. The transforms add and halve only: nothing of f32's precision is lost to speak of.

use std::ops::Range;

use rayon::prelude::*;

use crate::gemm::{Matrix, Packed};
use crate::parallel::{FILTERS, map_parts, pieces, split};
use crate::window::Window;
use crate::workspace::{Buffer, Workspace};
use seedling_base::simd::dispatch;

/// Elements of a tile's transform.
const ELEMENTS: usize = 16;

/// Channels on both sides from which the transforms cost less than they spare.
const WORTH_CHANNELS: usize = 32;

/// Bytes that transforms of a block of tiles and their products may take.
const BLOCK_BYTES: usize = 8 << 20;

/// Tiles of a block, at least: fewer would not be worth packing the filters for.
const LEAST_TILES: usize = 128;

/// Floats between the elements' matrices, so that their rows do not meet in the same lines of a cache.
const APART: usize = 16;

/// Whether a convolution can be done, and is worth being done, in this way.
pub fn serves(window: &Window, out_channels: usize) -> bool {
    let pads = (window.pad_top, window.pad_left) == (1, 1);
    let same = (window.out_height, window.out_width) == (window.height, window.width);
    let wide = window.channels.min(out_channels) >= WORTH_CHANNELS;
    window.kernel == 3 && window.stride == 1 && pads && same && wide
}

/// A convolution's input: rows of pixels.
pub struct Pixels<'a> {
    /// All of them, if they are stored as they are read.
    pub stored: Option<&'a [f32]>,
    /// Computes some otherwise.
    pub compute: &'a (dyn Fn(Range<usize>, &mut [f32]) + Sync),
}

impl Pixels<'_> {
    fn computed(&self, range: &Range<usize>, cin: usize, workspace: &Workspace) -> Buffer {
        let mut computed = workspace.alloc(range.len() * cin);
        let cuts = pieces(range.len(), 1);
        let outs = split(&mut computed, &cuts, cin);
        map_parts(cuts, outs, |cut, out| {
            (self.compute)(range.start + cut.start..range.start + cut.end, out);
        });
        computed
    }
}

/// Which convolution a weight is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The layer's own.
    Forward,
    /// That of the output's gradient, which gives the input's.
    Backward,
}

/// Transformed filters: a matrix (out, in) for each element.
pub struct Filters {
    values: Buffer,
    channels: (usize, usize),
}

impl Filters {
    /// Of w (out, in, 3, 3).
    pub fn new(w: &[f32], cin: usize, workspace: &Workspace) -> Filters {
        let cout = w.len() / (9 * cin);
        let mut values = workspace.alloc(ELEMENTS * cin * cout);
        let mut rows: Vec<Vec<&mut [f32]>> = (0..cout).map(|_| Vec::new()).collect();
        for matrix in values.chunks_exact_mut(cin * cout) {
            for (row, of) in matrix.chunks_exact_mut(cin).zip(&mut rows) {
                of.push(row);
            }
        }
        let w = w.par_chunks_exact(9 * cin);
        w.zip(rows)
            .with_min_len(FILTERS)
            .for_each_init(Vec::new, |taps, (filter, mut rows)| {
                transform_filter(filter, taps, &mut rows);
            });
        Filters {
            values,
            channels: (cin, cout),
        }
    }

    /// The right-hand sides of the products, from input to output channels of that use. A filter that is
    /// turned by 180 degrees has the transform of the other one with its first and last elements changed
    /// over, in both directions.
    fn products(&self, of: Use, workspace: &Workspace) -> Vec<Packed<'_>> {
        let (cin, cout) = self.channels;
        let turned = [3, 1, 2, 0];
        (0..ELEMENTS)
            .map(|e| match of {
                Use::Forward => {
                    let matrix = Matrix::rows(self.matrix(e), cin).transposed();
                    Packed::new(matrix, cin, cout, workspace)
                }
                Use::Backward => {
                    let e = 4 * turned[e / 4] + turned[e % 4];
                    let matrix = Matrix::rows(self.matrix(e), cin);
                    Packed::new(matrix, cout, cin, workspace)
                }
            })
            .collect()
    }

    fn matrix(&self, element: usize) -> &[f32] {
        let len = self.channels.0 * self.channels.1;
        &self.values[element * len..][..len]
    }
}

/// Writes the convolution of `pixels` to `out`. `window` is the layer's. `take` is given rows of `out` as
/// they are written and what `begin` made for the piece they belong to; all pieces, in order.
pub fn convolve<P: Send>(
    pixels: &Pixels,
    (filters, of): (&Filters, Use),
    window: &Window,
    out: &mut [f32],
    (begin, take): (
        impl Fn() -> P + Sync,
        impl Fn(&mut P, Range<usize>, &mut [f32]) + Sync,
    ),
    workspace: &Workspace,
) -> Vec<P> {
    let (cin, cout) = match of {
        Use::Forward => filters.channels,
        Use::Backward => (filters.channels.1, filters.channels.0),
    };
    let grid = Grid::new(window, out.len() / cout);
    let products = filters.products(of, workspace);
    let most = (BLOCK_BYTES / (4 * ELEMENTS * (cin + cout))).max(LEAST_TILES);
    let block = (most / grid.tiles_across).clamp(1, grid.tile_rows.max(1));
    let stride = |channels| block * grid.tiles_across * channels + APART;
    let mut inputs = workspace.alloc(ELEMENTS * stride(cin));
    let mut outputs = workspace.alloc(ELEMENTS * stride(cout));
    let mut parts = Vec::new();
    for start in (0..grid.tile_rows).step_by(block) {
        let rows = start..(start + block).min(grid.tile_rows);
        let tiles = rows.len() * grid.tiles_across;
        let cuts = grid.pieces(&rows);

        let needs = grid.needs(&rows);
        let computed;
        let values = match pixels.stored {
            Some(stored) => &stored[needs.start * cin..needs.end * cin],
            None => {
                computed = pixels.computed(&needs, cin, workspace);
                &computed[..]
            }
        };
        let first = needs.start;
        let image = Image { values, first };
        let places = by_piece(&mut inputs, stride(cin), &cuts, grid.tiles_across * cin);
        map_parts(cuts.clone(), places, |piece, mut places| {
            grid.transform(&image, piece, cin, &mut places);
        });

        inputs
            .par_chunks_exact(stride(cin))
            .zip(outputs.par_chunks_exact_mut(stride(cout)))
            .zip(&products)
            .for_each(|((x, y), product)| {
                product.product(tiles, Matrix::rows(x, cin), &mut y[..tiles * cout], false);
            });

        let written: Vec<Range<usize>> = cuts.iter().map(|cut| grid.pixels(cut)).collect();
        let first = written.first().map_or(0, |rows| rows.start);
        let end = written.last().map_or(0, |rows| rows.end);
        let outs = split(&mut out[first * cout..end * cout], &written, cout);
        let (grid, outputs) = (&grid, &outputs);
        parts.extend(map_parts(cuts, outs, |piece, out| {
            let skipped = (piece.start - start) * grid.tiles_across * cout;
            let elements: [&[f32]; ELEMENTS] =
                std::array::from_fn(|e| &outputs[e * stride(cout) + skipped..]);
            let mut part = begin();
            grid.transform_back(&elements, piece.clone(), cout, out);
            take(&mut part, grid.pixels(&piece), out);
            part
        }));
    }
    parts
}

/// Of each piece of tile rows, its place in the matrix of each element.
fn by_piece<'a>(
    all: &'a mut [f32],
    stride: usize,
    cuts: &[Range<usize>],
    row: usize,
) -> Vec<Vec<&'a mut [f32]>> {
    let mut places: Vec<Vec<&mut [f32]>> = cuts.iter().map(|_| Vec::new()).collect();
    for matrix in all.chunks_exact_mut(stride) {
        for (place, of) in split(matrix, cuts, row).into_iter().zip(&mut places) {
            of.push(place);
        }
    }
    places
}

/// Where tiles lie: rows of them, one image's after another's.
struct Grid {
    height: usize,
    width: usize,
    tiles_across: usize,
    tiles_down: usize,
    tile_rows: usize,
}

impl Grid {
    /// Of `pixels` pixels of all images.
    fn new(window: &Window, pixels: usize) -> Grid {
        let (height, width) = (window.height, window.width);
        let tiles_down = height.div_ceil(2);
        Grid {
            height,
            width,
            tiles_across: width.div_ceil(2),
            tiles_down,
            tile_rows: pixels / (height * width) * tiles_down,
        }
    }

    /// The row of pixels at which a row of tiles begins.
    fn pixel_row(&self, tile_row: usize) -> usize {
        let (image, down) = (tile_row / self.tiles_down, tile_row % self.tiles_down);
        image * self.height + 2 * down
    }

    /// The pixels that rows of tiles cover.
    fn pixels(&self, rows: &Range<usize>) -> Range<usize> {
        self.pixel_row(rows.start) * self.width..self.pixel_row(rows.end) * self.width
    }

    /// The pixels that they are computed from: a row more at either end, if it is the image's.
    fn needs(&self, rows: &Range<usize>) -> Range<usize> {
        let Range { start, end } = self.pixels(rows);
        let above = usize::from(!rows.start.is_multiple_of(self.tiles_down));
        let below = usize::from(!rows.end.is_multiple_of(self.tiles_down));
        start - above * self.width..end + below * self.width
    }

    /// Cuts rows of tiles for threads.
    fn pieces(&self, rows: &Range<usize>) -> Vec<Range<usize>> {
        let row = 4 * self.tiles_across;
        let cuts = pieces(rows.len() * row, row).into_iter();
        cuts.map(|cut| rows.start + cut.start / row..rows.start + cut.end / row)
            .collect()
    }

    /// Transforms the inputs of rows of tiles, to the place of each element.
    fn transform(&self, image: &Image, rows: Range<usize>, cin: usize, places: &mut [&mut [f32]]) {
        let zeros = vec![0.0; cin];
        let mut at = 0;
        for row in rows {
            let top = self.pixel_row(row);
            let down = 2 * (row % self.tiles_down);
            for across in 0..self.tiles_across {
                let mut pixels = [&zeros[..]; ELEMENTS];
                for (e, pixel) in pixels.iter_mut().enumerate() {
                    let (y, x) = (down + e / 4, 2 * across + e % 4);
                    // Counted from one pixel before the image.
                    if (1..=self.height).contains(&y) && (1..=self.width).contains(&x) {
                        *pixel = image.pixel((top + e / 4 - 1) * self.width + x - 1, cin);
                    }
                }
                transform_input(&pixels, places, at);
                at += cin;
            }
        }
    }

    /// The outputs of rows of tiles from their elements' products.
    fn transform_back(
        &self,
        elements: &[&[f32]; ELEMENTS],
        rows: Range<usize>,
        cout: usize,
        out: &mut [f32],
    ) {
        // Of the tile at an odd end a part lies outside.
        let mut tile = vec![0.0; 4 * cout];
        let (first, mut at) = (self.pixels(&rows).start, 0);
        for row in rows {
            let top = self.pixel_row(row) * self.width - first;
            let down = 2 * (row % self.tiles_down);
            for across in 0..self.tiles_across {
                let from = elements.map(|element| &element[at..at + cout]);
                transform_output(&from, &mut tile);
                for (e, values) in tile.chunks_exact(cout).enumerate() {
                    let (y, x) = (e / 2, 2 * across + e % 2);
                    if down + y < self.height && x < self.width {
                        let pixel = top + y * self.width + x;
                        out[pixel * cout..][..cout].copy_from_slice(values);
                    }
                }
                at += cout;
            }
        }
    }
}

/// Pixels of the input, as they are read.
struct Image<'a> {
    values: &'a [f32],
    /// The pixel they begin with.
    first: usize,
}

impl Image<'_> {
    fn pixel(&self, index: usize, cin: usize) -> &[f32] {
        &self.values[(index - self.first) * cin..][..cin]
    }
}

/// Lanes of the transforms.
const LANES: usize = 8;

dispatch! {
/// B' d B of an input tile, to `at` of each element's place.
fn transform_input(pixels: &[&[f32]; ELEMENTS], places: &mut [&mut [f32]], at: usize) {
    let channels = pixels[0].len();
    let whole = channels / LANES * LANES;
    for c in (0..whole).step_by(LANES) {
        input_lanes::<LANES>(pixels, c, places, at);
    }
    for c in whole..channels {
        input_lanes::<1>(pixels, c, places, at);
    }
}
}

#[inline(always)]
fn input_lanes<const L: usize>(
    pixels: &[&[f32]; ELEMENTS],
    c: usize,
    places: &mut [&mut [f32]],
    at: usize,
) {
    let mut d = [[[0.0; L]; 4]; 4];
    for (e, pixel) in pixels.iter().enumerate() {
        d[e / 4][e % 4] = lanes(pixel, c);
    }
    let v = both_ways(&d, |[a, b, c, d]| [a - c, b + c, c - b, b - d]);
    for (place, values) in places.iter_mut().zip(v.as_flattened()) {
        place[at + c..at + c + L].copy_from_slice(values);
    }
}

dispatch! {
/// A' m A of a tile's products: four outputs, one after another.
fn transform_output(elements: &[&[f32]; ELEMENTS], tile: &mut [f32]) {
    let channels = elements[0].len();
    let whole = channels / LANES * LANES;
    for c in (0..whole).step_by(LANES) {
        output_lanes::<LANES>(elements, c, tile);
    }
    for c in whole..channels {
        output_lanes::<1>(elements, c, tile);
    }
}
}

#[inline(always)]
fn output_lanes<const L: usize>(elements: &[&[f32]; ELEMENTS], c: usize, tile: &mut [f32]) {
    let mut m = [[[0.0; L]; 4]; 4];
    for (e, element) in elements.iter().enumerate() {
        m[e / 4][e % 4] = lanes(element, c);
    }
    let y = both_ways(&m, |[a, b, c, d]| [a + b + c, b - c - d]);
    let pixels = tile.chunks_exact_mut(elements[0].len());
    for (pixel, values) in pixels.zip(y.as_flattened()) {
        pixel[c..c + L].copy_from_slice(values);
    }
}

dispatch! {
/// G g G' of a filter (in, 3, 3), to the row of each element. `taps` is scratch.
fn transform_filter(filter: &[f32], taps: &mut Vec<f32>, rows: &mut [&mut [f32]]) {
    let cin = filter.len() / 9;
    taps.resize(9 * cin, 0.0);
    for (tap, row) in taps.chunks_exact_mut(cin).enumerate() {
        for (to, from) in row.iter_mut().zip(filter[tap..].iter().step_by(9)) {
            *to = *from;
        }
    }
    let whole = cin / LANES * LANES;
    for c in (0..whole).step_by(LANES) {
        filter_lanes::<LANES>(taps, c, rows);
    }
    for c in whole..cin {
        filter_lanes::<1>(taps, c, rows);
    }
}
}

#[inline(always)]
fn filter_lanes<const L: usize>(taps: &[f32], c: usize, rows: &mut [&mut [f32]]) {
    let mut g = [[[0.0; L]; 3]; 3];
    for (tap, row) in taps.chunks_exact(taps.len() / 9).enumerate() {
        g[tap / 3][tap % 3] = lanes(row, c);
    }
    let u = both_ways(&g, |[a, b, c]| [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c]);
    for (row, values) in rows.iter_mut().zip(u.as_flattened()) {
        row[c..c + L].copy_from_slice(values);
    }
}

#[inline(always)]
fn lanes<const L: usize>(from: &[f32], c: usize) -> [f32; L] {
    let mut out = [0.0; L];
    out.copy_from_slice(&from[c..c + L]);
    out
}

/// T x T', where `line` is T of a line: of the columns, and then of their rows.
#[inline(always)]
fn both_ways<const L: usize, const N: usize, const M: usize>(
    x: &[[[f32; L]; N]; N],
    line: impl Fn([f32; N]) -> [f32; M],
) -> [[[f32; L]; M]; M] {
    let mut half = [[[0.0; L]; N]; M];
    for column in 0..N {
        for l in 0..L {
            let mut from = [0.0; N];
            for row in 0..N {
                from[row] = x[row][column][l];
            }
            let to = line(from);
            for row in 0..M {
                half[row][column][l] = to[row];
            }
        }
    }
    let mut out = [[[0.0; L]; M]; M];
    for row in 0..M {
        for l in 0..L {
            let mut from = [0.0; N];
            for column in 0..N {
                from[column] = half[row][column][l];
            }
            let to = line(from);
            for column in 0..M {
                out[row][column][l] = to[column];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Padding;
    use seedling_base::rng::{Purpose, Rng};

    fn numbers(n: usize, stream: u64) -> Vec<f32> {
        let mut rng = Rng::new(0, Purpose::Measure, 2, stream);
        (0..n).map(|_| rng.normal()).collect()
    }

    /// The plain sum over windows, of w (out, in, 3, 3).
    fn plain(x: &[f32], (height, width): (usize, usize), cin: usize, w: &[f32]) -> Vec<f64> {
        let cout = w.len() / (9 * cin);
        let images = x.len() / (height * width * cin);
        let mut out = Vec::new();
        for pixel in 0..images * height * width {
            let (row, column) = (pixel / width, pixel % width);
            for o in 0..cout {
                let mut sum = 0.0;
                for tap in 0..9 {
                    let (y, x_) = (row % height + tap / 3, column + tap % 3);
                    if (1..=height).contains(&y) && (1..=width).contains(&x_) {
                        let from = ((row + tap / 3 - 1) * width + x_ - 1) * cin;
                        sum += (0..cin)
                            .map(|i| x[from + i] as f64 * w[(o * cin + i) * 9 + tap] as f64)
                            .sum::<f64>();
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    #[test]
    fn it_is_the_plain_convolution_in_both_directions() {
        let workspace = Workspace::default();
        // The last one is more than a block.
        let sizes = [
            (4, 4),
            (1, 1),
            (2, 3),
            (5, 4),
            (1, 6),
            (7, 7),
            (9, 14),
            (70, 66),
        ];
        for (size, images) in sizes.into_iter().zip([0, 1, 3, 2, 2, 5, 3, 3]) {
            let (cin, cout) = (35, 33);
            let window = Window::new(size, cin, 3, 1, Padding::Symmetric);
            assert!(serves(&window, cout));
            let pixels = images * size.0 * size.1;
            let w = numbers(cout * cin * 9, 1);
            // Turned, and input and output changed over.
            let back: Vec<f32> = (0..cin * cout * 9)
                .map(|n| w[(n / 9 % cout * cin + n / 9 / cout) * 9 + 8 - n % 9])
                .collect();
            let filters = Filters::new(&w, cin, &workspace);
            for (of, w, cin, cout) in [
                (Use::Forward, &w, cin, cout),
                (Use::Backward, &back, cout, cin),
            ] {
                let x = numbers(pixels * cin, 3);
                let expected = plain(&x, size, cin, w);
                for stored in [Some(&x[..]), None] {
                    let compute = |rows: Range<usize>, out: &mut [f32]| {
                        out.copy_from_slice(&x[rows.start * cin..rows.end * cin]);
                    };
                    let input = Pixels {
                        stored,
                        compute: &compute,
                    };
                    let mut out = vec![f32::NAN; pixels * cout];
                    let sums = (
                        || 0,
                        |seen: &mut usize, rows: Range<usize>, out: &mut [f32]| {
                            assert_eq!(rows.len() * cout, out.len());
                            *seen += rows.len();
                        },
                    );
                    let seen =
                        convolve(&input, (&filters, of), &window, &mut out, sums, &workspace);
                    assert_eq!(seen.iter().sum::<usize>(), pixels);
                    for (got, expected) in out.iter().zip(&expected) {
                        let off = (*got as f64 - expected).abs();
                        assert!(
                            off < 2e-5 * (1.0 + expected.abs()),
                            "{size:?}: {got} {expected}"
                        );
                    }
                }
            }
        }
    }
}
