//! Sums over rows, in pieces, and the pieces' sums.

use super::*;

impl<R: Runtime> Gpu<R> {
    /// Parts (segments, pieces, sums, channels).
    pub(crate) fn sums(
        &self,
        x: &FusedInput<Self>,
        g: Option<&DeviceBuffer>,
        what: What,
        segments: usize,
    ) -> Result<(DeviceBuffer, Pieces)> {
        let n = lanes(x.channels);
        let vectors = x.channels / n;
        let lanes = block(vectors);
        let rows = x.z.len() / x.channels;
        let pieces = Pieces::new(rows / segments.max(1), sums::UNITS / lanes * RUN);
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
            what,
            lanes,
            x.z.storage(),
        );
        Ok((parts, pieces))
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
