//! Losses over [positive, queue], step by step: logits, targets, cross-entropy, gradient.

use super::*;

/// [positive, queue] of each query: similarities, or what stands at the same places (targets, gradients).
#[derive(Debug)]
pub struct Logits {
    /// (n)
    pub positive: DeviceBuffer,
    /// (n, size)
    pub queue: DeviceBuffer,
}

/// A cube for each of `n` queries.
fn per_query(n: usize) -> (CubeCount, CubeDim) {
    (cubes(n), CubeDim::new_1d(contrast::UNITS as u32))
}

impl Logits {
    fn size(&self) -> usize {
        self.queue.len() / self.positive.len().max(1)
    }
}

impl<R: Runtime> Gpu<R> {
    /// Dot products of all `rows` (n, dim) with all `keys` (size, dim): (n, size).
    ///
    /// # Errors
    /// The device's memory is at its end; so of all below.
    pub fn similarities(
        &self,
        rows: &DeviceBuffer,
        keys: &DeviceBuffer,
        dim: usize,
    ) -> Result<DeviceBuffer> {
        let (n, size) = (rows.len() / dim, keys.len() / dim);
        let out = self.alloc(n * size)?;
        let operands = (
            Reading::plain(rows, dim).side(OperandLayout::Rows, None),
            Reading::plain(keys, dim).side(OperandLayout::Rows, None),
        );
        self.product(
            MatMul {
                m: n,
                n: size,
                k: dim,
            },
            operands,
            &Finish::default(),
            &out,
        )?;
        Ok(out)
    }

    /// [x.k, x.Q] of `rows` x (n, dim), whose positives k are those of `positives` from row `first` on.
    ///
    /// # Errors
    /// The device's.
    pub fn logits(
        &self,
        rows: &DeviceBuffer,
        (positives, first): (&DeviceBuffer, usize),
        keys: &DeviceBuffer,
        dim: usize,
    ) -> Result<Logits> {
        let queue = self.similarities(rows, keys, dim)?;
        let positive = self.alloc(rows.len() / dim)?;
        launch!(
            self,
            contrast::dots,
            per_query(positive.len()),
            rows.arg(),
            positives.arg(),
            first * dim,
            positive.arg(),
            dim
        );
        Ok(Logits { positive, queue })
    }

    /// Leaves out keys of the queries' own photos (but of `none`, which is no photo).
    pub fn mask_own(&self, logits: &Logits, own: &DeviceBuffer, queue: &DeviceBuffer, none: u32) {
        launch!(
            self,
            contrast::mask_own,
            elementwise_grid(logits.queue.len()),
            logits.queue.arg(),
            own.arg(),
            queue.arg(),
            none
        );
    }

    /// Rows (n, dim) of `initial` for `photos`, zeros for one that it does not have; and which are known.
    ///
    /// # Errors
    /// The device's.
    pub fn initial_rows(
        &self,
        initial: &DeviceBuffer,
        photos: &DeviceBuffer,
        dim: usize,
    ) -> Result<(DeviceBuffer, DeviceBuffer)> {
        let (out, known) = (self.alloc(photos.len() * dim)?, self.alloc(photos.len())?);
        launch!(
            self,
            contrast::initial_rows,
            per_query(photos.len()),
            initial.arg(),
            photos.arg(),
            out.arg(),
            known.arg(),
            (initial.len() / dim) as u32,
            dim
        );
        Ok((out, known))
    }

    /// Leaves out pairs of photos of which one is not known, or which are one photo.
    pub fn mask_unknown(
        &self,
        similarities: &DeviceBuffer,
        (own, own_known): (&DeviceBuffer, &DeviceBuffer),
        (queue, queue_known): (&DeviceBuffer, &DeviceBuffer),
    ) {
        launch!(
            self,
            contrast::mask_unknown,
            elementwise_grid(similarities.len()),
            similarities.arg(),
            own.arg(),
            queue.arg(),
            own_known.arg(),
            queue_known.arg()
        );
    }

    /// Targets: `weight` of the softmax of `similarities` (n, size) at temperature `t`, the rest the
    /// positive's.
    ///
    /// # Errors
    /// The device's.
    pub fn near_targets(
        &self,
        similarities: DeviceBuffer,
        n: usize,
        t: f32,
        weight: f32,
    ) -> Result<Logits> {
        let positive = self.alloc(n)?;
        launch!(
            self,
            contrast::near_targets,
            per_query(n),
            similarities.arg(),
            positive.arg(),
            similarities.len() / n.max(1),
            t,
            weight
        );
        Ok(Logits {
            positive,
            queue: similarities,
        })
    }

    /// Targets: `weight` evenly for the `count` largest logits of the queue, the rest the positive's.
    ///
    /// # Errors
    /// The device's.
    pub fn nearest_targets(&self, logits: &Logits, count: usize, weight: f32) -> Result<Logits> {
        let targets = Logits {
            positive: self.alloc(logits.positive.len())?,
            queue: self.alloc(logits.queue.len())?,
        };
        launch!(
            self,
            contrast::nearest_targets,
            per_query(logits.positive.len()),
            logits.queue.arg(),
            targets.queue.arg(),
            targets.positive.arg(),
            logits.size(),
            count,
            weight
        );
        Ok(targets)
    }

    /// Targets: the softmax of a teacher's logits at temperature `t`.
    pub fn teacher_targets(&self, logits: Logits, t: f32) -> Logits {
        launch!(
            self,
            contrast::teacher_targets,
            per_query(logits.positive.len()),
            logits.queue.arg(),
            logits.positive.arg(),
            logits.size(),
            t
        );
        logits
    }

    /// Cross-entropy of the softmax of `logits` at temperature `t` to `targets` (`None`: to the
    /// positive), after which `logits` are its gradient. Returns (n, 3): loss, similarity of the positive,
    /// and whether that was nearer than every negative.
    ///
    /// # Errors
    /// The device's.
    pub fn soft_cross_entropy(
        &self,
        logits: &Logits,
        targets: Option<&Logits>,
        t: f32,
    ) -> Result<DeviceBuffer> {
        let found = self.alloc(3 * logits.positive.len())?;
        launch!(
            self,
            contrast::soft_cross_entropy,
            per_query(logits.positive.len()),
            logits.queue.arg(),
            logits.positive.arg(),
            targets.map(|targets| targets.queue.arg()).into(),
            targets.map(|targets| targets.positive.arg()).into(),
            found.arg(),
            logits.size(),
            t
        );
        Ok(found)
    }

    /// Leaves out the positive: it counts nowhere.
    pub fn without_positive(&self, logits: &Logits) {
        self.fill(&logits.positive, contrast::NOWHERE);
    }

    /// Adds weight * |x - y|^2 of unit rows x (n, dim), and of those of `to` from row `first` on, to what a loss has
    /// `found` (n, 3), and `scale` times y to its gradient; or, `alone`, sets both.
    pub fn regression(
        &self,
        x: &DeviceBuffer,
        (to, first): (&DeviceBuffer, usize),
        (grad, found): (&DeviceBuffer, &DeviceBuffer),
        dim: usize,
        (weight, scale, alone): (f32, f32, bool),
    ) {
        launch!(
            self,
            contrast::regression,
            per_query(found.len() / 3),
            x.arg(),
            to.arg(),
            first * dim,
            grad.arg(),
            found.arg(),
            dim,
            weight,
            scale,
            alone
        );
    }

    /// From the logits' gradient to the queries' (n, dim), times `scale`; operands as [`Gpu::logits`].
    ///
    /// # Errors
    /// The device's.
    pub fn logits_back(
        &self,
        dlogits: &Logits,
        (positives, first): (&DeviceBuffer, usize),
        keys: &DeviceBuffer,
        dim: usize,
        scale: f32,
    ) -> Result<DeviceBuffer> {
        let (n, size) = (dlogits.positive.len(), keys.len() / dim);
        let piece = size.div_ceil(64).max(256).next_multiple_of(8);
        let pieces = size.div_ceil(piece);
        let parts = self.alloc(pieces * n * dim)?;
        let sides = (
            Reading::plain(&dlogits.queue, size).side(OperandLayout::Rows, None),
            Reading::plain(keys, dim).side(OperandLayout::Columns, None),
        );
        self.product_in_pieces(
            MatMul {
                m: n,
                n: dim,
                k: size,
            },
            sides,
            &Finish::default(),
            &parts,
            piece,
        );
        let out = self.alloc(n * dim)?;
        launch!(
            self,
            contrast::gradient,
            elementwise_grid(out.len()),
            parts.arg(),
            dlogits.positive.arg(),
            positives.arg(),
            first * dim,
            out.arg(),
            dim,
            pieces,
            scale
        );
        Ok(out)
    }
}
