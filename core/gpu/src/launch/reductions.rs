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
        let lanes = block(x.channels / lanes(x.channels));
        let rows = x.z.len() / x.channels;
        let segment = rows / segments.max(1);
        let pieces = match segments {
            0..IMAGES => Pieces::new(segment, sums::UNITS / lanes * RUN),
            _ => Pieces::of(segment, segment.max(1)),
        };
        let parts = self.alloc(segments * pieces.count * what.count() * x.channels)?;
        self.sum_pieces((x, g), what, &parts, (segments, pieces), 1.0);
        Ok((parts, pieces))
    }

    /// The sums of x over each image, times `factor`, where there are images enough for a cube to have one whole.
    pub(crate) fn image_means(
        &self,
        x: &FusedInput<Self>,
        images: usize,
        factor: f32,
    ) -> Result<Option<DeviceBuffer>> {
        if images < IMAGES {
            return Ok(None);
        }
        let rows = x.z.len() / x.channels / images;
        let means = self.alloc(images * x.channels)?;
        let whole = (images, Pieces::of(rows, rows.max(1)));
        self.sum_pieces((x, None), What::Values, &means, whole, factor);
        Ok(Some(means))
    }

    fn sum_pieces(
        &self,
        (x, g): (&FusedInput<Self>, Option<&DeviceBuffer>),
        what: What,
        parts: &DeviceBuffer,
        (segments, pieces): (usize, Pieces),
        factor: f32,
    ) {
        let n = lanes(x.channels);
        let vectors = x.channels / n;
        let lanes = block(vectors);
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
            (cubes(channels.div_ceil(sums::COLUMNS)), units),
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
