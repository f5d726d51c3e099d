//! Depthwise convolution and its two gradients.

use super::*;
use crate::depthwise::Shape;

/// Bytes of shared memory for a cube's weights, beside what its sums take.
const WEIGHTS: usize = 7 << 10;

/// How a depthwise operation is divided, and what it leaves sums for.
struct Work {
    n: usize,
    shape: Shape,
    pieces: Pieces,
    segments: usize,
    blocks: usize,
}

impl Work {
    /// For `images` of so many rows and columns of results, in tiles of `rows` x `columns`, with `n` channels at
    /// once.
    fn new(
        window: &Window,
        (images, height, width): (usize, usize, usize),
        ((rows, columns), n): ((usize, usize), usize),
        segments: usize,
    ) -> Work {
        let vectors = window.channels / n;
        let taps = window.kernel * window.kernel;
        let room = (WEIGHTS / (taps * n * 4)).clamp(1, 32);
        let shape = Shape {
            kernel: window.kernel,
            stride: window.stride,
            pad_top: window.pad_top,
            pad_left: window.pad_left,
            rows,
            columns,
            lanes: lanes_of(vectors, room),
        };
        let tiles = height.div_ceil(rows) * width.div_ceil(columns);
        let segment = images / segments.max(1) * tiles;
        let blocks = vectors.div_ceil(shape.lanes);
        let most = (2048 / (blocks * segments.max(1))).clamp(1, 512);
        let piece = segment.div_ceil(most).max(1);
        Work {
            n,
            shape,
            pieces: Pieces::of(segment, piece.next_multiple_of(shape.deep())),
            segments: segments.max(1),
            blocks,
        }
    }

    fn cubes(&self) -> (CubeCount, CubeDim) {
        let count = CubeCount::Static(
            self.blocks as u32,
            self.pieces.count as u32,
            self.segments as u32,
        );
        (count, CubeDim::new_1d(sums::UNITS as u32))
    }

    fn parts_len(&self, sums: usize, channels: usize) -> usize {
        self.segments * self.pieces.count * sums * channels
    }
}

/// Vectors of channels of a cube: as many as fit, and so that few are left over.
fn lanes_of(vectors: usize, most: usize) -> usize {
    let even = (most.div_ceil(2)..=most)
        .rev()
        .find(|n| vectors.is_multiple_of(*n));
    even.unwrap_or_else(|| vectors.div_ceil(vectors.div_ceil(most)))
}

/// Rows and columns of a unit's tile. More would meet fewer inputs twice, and take the registers of other warps.
const TILE: (usize, usize) = (2, 4);

/// Channels that a unit takes at once: where it holds many inputs, few.
fn channels_at_once(window: &Window) -> usize {
    match (window.kernel, window.stride) {
        (0..=3, 1) => lanes(window.channels),
        _ => lanes(window.channels).min(2),
    }
}

impl<R: Runtime> Gpu<R> {
    /// z, and the moments of so many micro-batches (none: no moments).
    pub(crate) fn depthwise_forward(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
        w: &Param<Self>,
        microbatches: usize,
    ) -> Result<(DeviceBuffer, Option<Moments>)> {
        let n = channels_at_once(window);
        let images = x.z.len() / (window.height * window.width * window.channels);
        let len = images * window.out_height * window.out_width * window.channels;
        let z = self.alloc_as(len, x.z.dtype())?;
        let results = (images, window.out_height, window.out_width);
        let work = Work::new(window, results, (TILE, n), microbatches);
        let parts = match microbatches {
            0 => None,
            _ => Some(self.alloc(work.parts_len(3, window.channels))?),
        };
        launch!(
            self,
            depthwise::forward,
            work.cubes(),
            work.n,
            reading(x).view(n),
            w.values.arg(),
            w.range.start,
            windows(window),
            z.arg(),
            parts.as_ref().map(|parts| parts.arg()).into(),
            work.pieces.arg(),
            work.shape,
            z.storage()
        );
        let moments = parts.map(|parts| Moments {
            parts,
            pieces: work.pieces.count,
            rows: len / window.channels / microbatches,
        });
        Ok((z, moments))
    }

    /// dx as `sink` takes it, and the sums of a norm's backward where it goes through an activation.
    pub(crate) fn depthwise_input_gradient(
        &self,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        window: &Window,
        w: &WeightMut<Self>,
        sink: &Sink<Self>,
    ) -> Result<(DeviceBuffer, Option<GradSums>)> {
        let n = channels_at_once(window);
        let images = x.z.len() / (window.height * window.width * window.channels);
        let dx = self.alloc_as(x.z.len(), x.z.dtype())?;
        let shortcut = match sink {
            Sink::Plain { shortcut } => *shortcut,
            _ => None,
        };
        let through = matches!(sink, Sink::Activated);
        let segments = match (through, x.norm) {
            (true, Some((norm, _))) => norm.microbatches,
            _ => 0,
        };
        let results = (images, window.height, window.width);
        let even = |n: usize| n.next_multiple_of(window.stride);
        let tile = (even(TILE.0), even(TILE.1));
        let work = Work::new(window, results, (tile, n), segments);
        let parts = match segments {
            0 => None,
            _ => Some(self.alloc(work.parts_len(2, window.channels))?),
        };
        launch!(
            self,
            depthwise::back,
            work.cubes(),
            work.n,
            gradient(dz, window.channels).view(n),
            w.values.arg(),
            w.range.start,
            windows(window),
            shortcut.map(|shortcut| shortcut.arg()).into(),
            through.then(|| reading(x).view(n)).into(),
            dx.arg(),
            parts.as_ref().map(|parts| parts.arg()).into(),
            work.pieces.arg(),
            work.shape,
            dx.storage()
        );
        let sums = parts.map(|parts| GradSums {
            parts,
            pieces: work.pieces.count,
        });
        Ok((dx, sums))
    }

    pub(crate) fn depthwise_weight_gradient(
        &self,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        window: &Window,
        weight: &mut WeightMut<Self>,
    ) -> Result<()> {
        let taps = window.kernel * window.kernel;
        // A unit has a sum for each tap.
        let n = lanes(window.channels).min(2);
        let tile = match window.kernel {
            0..=3 => TILE,
            _ => (1, TILE.1),
        };
        let images = x.z.len() / (window.height * window.width * window.channels);
        let results = (images, window.out_height, window.out_width);
        let work = Work::new(window, results, (tile, n), 1);
        let parts = self.alloc(work.parts_len(taps, window.channels))?;
        launch!(
            self,
            depthwise::weight_gradient,
            work.cubes(),
            work.n,
            gradient(dz, window.channels).view(n),
            reading(x).view(n),
            windows(window),
            parts.arg(),
            work.pieces.arg(),
            work.shape,
            x.z.storage(),
        );
        // A weight (1, channels, taps), as it were.
        self.add_parts(&parts, weight.grads, weight.range, (window.channels, taps));
        Ok(())
    }
}
