//! Matrix products, forward and as a weight's gradient.

use super::*;

impl<R: Runtime> Gpu<R> {
    pub(crate) fn source<'a>(
        &self,
        x: &FusedInput<'a, Self>,
        map: OperandLayout,
        window: Option<&Window>,
    ) -> Side<'a> {
        Side {
            reading: reading(x),
            window: window.copied(),
            channels: x.channels,
            taps: 1,
            map,
        }
    }

    pub(crate) fn gradient<'a>(
        &self,
        dz: &FusedGrad<'a, Self>,
        channels: usize,
        map: OperandLayout,
        window: Option<&Window>,
    ) -> Side<'a> {
        Side {
            reading: gradient(dz, channels),
            window: window.copied(),
            channels,
            taps: 1,
            map,
        }
    }

    fn operand<F: Float>(&self, side: &Side) -> OperandLaunch<F, R> {
        OperandLaunch::new(
            side.reading.view(1),
            side.window.as_ref().map(windows).into(),
            side.channels,
            side.taps,
            side.map,
        )
    }

    /// out (i, j) = sum over k.
    pub(crate) fn product(
        &self,
        sizes: MatMul,
        (a, b): (Side, Side),
        end: &Finish<R>,
        out: &DeviceBuffer,
    ) {
        self.product_in_pieces(sizes, (a, b), end, out, sizes.k.max(1));
    }

    pub(crate) fn product_in_pieces(
        &self,
        MatMul { m: i, n: j, k }: MatMul,
        (a, b): (Side, Side),
        end: &Finish<R>,
        out: &DeviceBuffer,
        piece: usize,
    ) {
        if i == 0 || j == 0 || self.dry_run {
            return;
        }
        let (rows, columns) = (results(i), results(j));
        let dtypes = [a.reading.dtype(), b.reading.dtype(), out.storage()];
        let tiles = j.div_ceil(SIDE * columns) * i.div_ceil(SIDE * rows);
        let count = cubes_of_pieces(tiles, k.div_ceil(piece).max(1));
        let end = EndLaunch::new(
            end.bias.map(|(bias, _)| bias.arg()).into(),
            end.bias.map_or(0, |(_, at)| at),
            end.shortcut.map(|shortcut| shortcut.arg()).into(),
            end.through.map(|x| reading(x).view(1)).into(),
        );
        launch!(
            self,
            product::product,
            (count, CubeDim::new_1d(UNITS)),
            self.operand(&a),
            self.operand(&b),
            end,
            out.arg(),
            SizesLaunch::new(i, j, k, piece),
            rows,
            columns,
            dtypes,
        );
    }

    /// Adds the product over `k` rows to the gradient of a weight (outputs, inputs, taps).
    pub(crate) fn weight_gradient(
        &self,
        MatMul { m: i, n: j, k }: MatMul,
        sides: (Side, Side),
        grads: &mut DeviceBuffer,
        range: &Range<usize>,
        (inputs, taps): (usize, usize),
    ) -> Result<()> {
        // Enough cubes for a large GPU, and parts that are no larger than what they are summed of.
        let tiles = i.div_ceil(SIDE * results(i)) * j.div_ceil(SIDE * results(j));
        let pieces = (1024 / tiles).clamp(1, k.div_ceil(256).max(1));
        let piece = k.div_ceil(pieces).max(1);
        let pieces = k.div_ceil(piece).max(1);
        let parts = self.alloc(pieces * i * j)?;
        self.product_in_pieces(
            MatMul { m: i, n: j, k },
            sides,
            &Finish::default(),
            &parts,
            piece,
        );
        self.add_parts(&parts, grads, range, (inputs, taps));
        Ok(())
    }

    /// Adds parts (pieces, out, tap, in) to the gradient of a weight (out, in, taps).
    pub(crate) fn add_parts(
        &self,
        parts: &DeviceBuffer,
        grads: &DeviceBuffer,
        range: &Range<usize>,
        (inputs, taps): (usize, usize),
    ) {
        let len = range.len();
        launch!(
            self,
            product::add_parts,
            elementwise_grid(len),
            parts.arg(),
            grads.arg(),
            range.start,
            len,
            parts.len() / len,
            inputs,
            taps,
            1.0 / self.loss_scale,
            taps == 1
        );
    }
}
