//! Sums over rows, in pieces, and the pieces' sums.

use super::*;

/// Images that keep a GPU busy with a cube for each.
const IMAGES: usize = 64;

impl<R: Runtime> Gpu<R> {
    /// Parts (segments, pieces, sums, channels).
    pub(crate) fn sums(
        &self,
        x: &FusedInput<Self>,
        g: Option<&DeviceBuffer>,
        what: What,
        segments: usize,
    ) -> Result<(DeviceBuffer, Pieces)> {
        self.scaled_sums((x, g), what, segments, 1.0)
    }

    /// The same; [`What::Values`] are times `factor`.
    pub(crate) fn scaled_sums(
        &self,
        (x, g): (&FusedInput<Self>, Option<&DeviceBuffer>),
        what: What,
        segments: usize,
        factor: f32,
    ) -> Result<(DeviceBuffer, Pieces)> {
        let n = lanes(x.channels);
        let vectors = x.channels / n;
        let lanes = block(vectors);
        let segment = x.z.len() / x.channels / segments.max(1);
        let pieces = match segments {
            0..IMAGES => Pieces::new(segment, sums::UNITS / lanes * RUN),
            _ => Pieces::of(segment, segment.max(1)),
        };
        let parts = self.alloc(segments * pieces.count * what.count() * x.channels)?;
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
            factor,
            what,
            lanes,
            x.z.storage(),
        );
        Ok((parts, pieces))
    }

    /// Adds the sums over the rows of dy (rows, channels) to a bias' gradient.
    pub(crate) fn add_columns(
        &self,
        dy: &DeviceBuffer,
        channels: usize,
        grads: &mut DeviceBuffer,
        at: usize,
    ) {
        let units = CubeDim::new_1d(sums::UNITS as u32);
        launch!(
            self,
            sums::add_columns,
            (cubes(channels.div_ceil(sums::LANES)), units),
            dy.arg(),
            grads.arg(),
            at,
            channels,
            1.0 / self.loss_scale
        );
    }

    pub(crate) fn add_pieces(
        &self,
        parts: &DeviceBuffer,
        out: &DeviceBuffer,
        len: usize,
        pieces: usize,
        factor: f32,
    ) {
        launch!(
            self,
            sums::add_pieces,
            elementwise_grid(out.len()),
            parts.arg(),
            out.arg(),
            len,
            pieces,
            factor
        );
    }

    pub(crate) fn add_bias(
        &self,
        parts: &DeviceBuffer,
        grads: &mut DeviceBuffer,
        at: usize,
        len: usize,
        pieces: usize,
    ) {
        launch!(
            self,
            sums::add_bias,
            elementwise_grid(len),
            parts.arg(),
            grads.arg(),
            at,
            len,
            pieces,
            1.0 / self.loss_scale
        );
    }
}
