//! The losses and what they look at.

use super::*;

impl<R: Runtime> Gpu<R> {
    pub(in crate::nn::gpu) fn dots(
        &self,
        x: &Numbers,
        y: &Numbers,
        y_at: usize,
        out: &Numbers,
        dim: usize,
    ) {
        launch!(
            self,
            contrast::dots,
            per_row(out.len()),
            x.arg(),
            y.arg(),
            y_at,
            out.arg(),
            dim
        );
    }

    pub(in crate::nn::gpu) fn mask_own(
        &self,
        similarities: &Numbers,
        own: &Numbers,
        queue: &Numbers,
        none: u32,
    ) {
        launch!(
            self,
            contrast::mask_own,
            each(similarities.len()),
            similarities.arg(),
            own.arg(),
            queue.arg(),
            none
        );
    }

    pub(in crate::nn::gpu) fn album_rows(
        &self,
        album: &Numbers,
        photos: &Numbers,
        dim: usize,
    ) -> Result<(Numbers, Numbers)> {
        let (out, known) = (self.take(photos.len() * dim)?, self.take(photos.len())?);
        launch!(
            self,
            contrast::album_rows,
            per_row(photos.len()),
            album.arg(),
            photos.arg(),
            out.arg(),
            known.arg(),
            (album.len() / dim) as u32,
            dim
        );
        Ok((out, known))
    }

    pub(in crate::nn::gpu) fn mask_unknown(
        &self,
        similarities: &Numbers,
        (own, own_known): (&Numbers, &Numbers),
        (queue, queue_known): (&Numbers, &Numbers),
    ) {
        launch!(
            self,
            contrast::mask_unknown,
            each(similarities.len()),
            similarities.arg(),
            own.arg(),
            queue.arg(),
            own_known.arg(),
            queue_known.arg()
        );
    }

    pub(in crate::nn::gpu) fn near_targets(
        &self,
        similarities: &Numbers,
        positives: &Numbers,
        size: usize,
        (t, share): (f32, f32),
    ) {
        launch!(
            self,
            contrast::near_targets,
            per_row(positives.len()),
            similarities.arg(),
            positives.arg(),
            size,
            t,
            share
        );
    }

    pub(in crate::nn::gpu) fn nearest_targets(
        &self,
        similarities: &Numbers,
        targets: &Numbers,
        positives: &Numbers,
        (size, count): (usize, usize),
        share: f32,
    ) {
        launch!(
            self,
            contrast::nearest_targets,
            per_row(positives.len()),
            similarities.arg(),
            targets.arg(),
            positives.arg(),
            size,
            count,
            share
        );
    }

    pub(in crate::nn::gpu) fn teacher_targets(
        &self,
        similarities: &Numbers,
        positives: &Numbers,
        size: usize,
        t: f32,
    ) {
        launch!(
            self,
            contrast::teacher_targets,
            per_row(positives.len()),
            similarities.arg(),
            positives.arg(),
            size,
            t
        );
    }

    pub(in crate::nn::gpu) fn losses(
        &self,
        (similarities, positives): (&Numbers, &Numbers),
        targets: Option<&(Numbers, Numbers)>,
        found: &Numbers,
        size: usize,
        t: f32,
    ) {
        launch!(
            self,
            contrast::losses,
            per_row(positives.len()),
            similarities.arg(),
            positives.arg(),
            targets.map(|(queue, _)| queue.arg()).into(),
            targets.map(|(_, positives)| positives.arg()).into(),
            found.arg(),
            size,
            t
        );
    }

    /// From slopes: the queries' gradient.
    pub(in crate::nn::gpu) fn contrast_gradient(
        &self,
        (slopes, own_slopes): (&Numbers, &Numbers),
        (positives, at): (&Numbers, usize),
        keys: &Numbers,
        dim: usize,
        scale: f32,
    ) -> Result<Numbers> {
        let (n, size) = (own_slopes.len(), keys.len() / dim);
        let piece = size.div_ceil(64).max(256);
        let pieces = size.div_ceil(piece);
        let parts = self.take(pieces * n * dim)?;
        let (a, b) = (Src::plain(slopes, size), Src::plain(keys, dim));
        let sides = (
            self.source(&a, Map::Rows, None),
            self.source(&b, Map::Columns, None),
        );
        self.product_in_pieces((n, dim, size), sides, &Finish::default(), &parts, piece);
        let out = self.take(n * dim)?;
        launch!(
            self,
            contrast::gradient,
            each(out.len()),
            parts.arg(),
            own_slopes.arg(),
            positives.arg(),
            at,
            out.arg(),
            dim,
            pieces,
            scale
        );
        Ok(out)
    }
}
