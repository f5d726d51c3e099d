//! Batch norm: of a batch, of running statistics, backward.

use super::*;

/// Cubes for the channels of a norm.
fn norm_grid(of: &BatchNorm) -> (CubeCount, CubeDim) {
    let units = CubeDim::new_1d(sums::UNITS as u32);
    (cubes(of.channels.div_ceil(sums::LANES)), units)
}

impl<R: Runtime> Gpu<R> {
    pub(crate) fn norm_of_batch(
        &self,
        of: &BatchNorm,
        values: &DeviceBuffer,
        buffers: &mut DeviceBuffer,
        moments: &Moments,
        momentum: f32,
    ) -> Result<Norm> {
        let microbatches = moments.parts.len() / (moments.pieces * 3 * of.channels);
        let out = self.alloc(microbatches * NORM * of.channels)?;
        launch!(
            self,
            norm::of_batch,
            norm_grid(of),
            moments.parts.arg(),
            layer(of),
            values.arg(),
            buffers.arg(),
            out.arg(),
            microbatches,
            moments.pieces,
            momentum
        );
        Ok(Norm {
            numbers: out,
            microbatches,
            rows: moments.rows,
        })
    }

    pub(crate) fn norm_of_running(
        &self,
        of: &BatchNorm,
        values: &DeviceBuffer,
        buffers: &DeviceBuffer,
    ) -> Result<Norm> {
        let out = self.alloc(NORM * of.channels)?;
        launch!(
            self,
            norm::of_running,
            elementwise_grid(of.channels),
            layer(of),
            values.arg(),
            buffers.arg(),
            out.arg()
        );
        Ok(Norm {
            numbers: out,
            microbatches: 1,
            rows: 0,
        })
    }

    pub(crate) fn norm_gradient(
        &self,
        of: &BatchNorm,
        norm: &Norm,
        sums: &GradSums,
        grads: &mut DeviceBuffer,
        out: &DeviceBuffer,
    ) {
        launch!(
            self,
            norm::back,
            norm_grid(of),
            sums.parts.arg(),
            norm.numbers.arg(),
            layer(of),
            grads.arg(),
            out.arg(),
            norm.microbatches,
            sums.pieces,
            norm.rows,
            1.0 / self.loss_scale
        );
    }
}
