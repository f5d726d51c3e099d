//! Squeeze-excite and pooling.

use super::*;

/// What a sum over images is of.
#[derive(Clone, Copy)]
pub(crate) struct Pooled {
    pub(crate) channels: usize,
    /// All of them.
    pub(crate) images: usize,
    /// Micro-batches of them that have sums of their own.
    pub(crate) microbatches: usize,
}

impl<R: Runtime> Gpu<R> {
    pub(crate) fn gates_back(
        &self,
        sums: &DeviceBuffer,
        gates: &DeviceBuffer,
        out: &DeviceBuffer,
        channels: usize,
        gate: Gate,
    ) {
        launch!(
            self,
            elementwise::gates_back,
            elementwise_grid(out.len()),
            sums.arg(),
            gates.arg(),
            out.arg(),
            channels,
            gate
        );
    }

    /// A norm's two sums from those of images; without a gate only a pooled branch flows back.
    pub(crate) fn image_sums(
        &self,
        sums: &DeviceBuffer,
        (gate, pool): (Option<&DeviceBuffer>, &DeviceBuffer),
        out: &DeviceBuffer,
        pooled: Pooled,
    ) {
        let blocks = pooled.channels.div_ceil(sums::LANES) as u32;
        let count = CubeCount::Static(blocks, pooled.microbatches as u32, 1);
        launch!(
            self,
            elementwise::image_sums,
            (count, CubeDim::new_1d(sums::UNITS as u32)),
            sums.arg(),
            gate.map(|gate| gate.arg()).into(),
            pool.arg(),
            out.arg(),
            pooled.channels,
            pooled.images / pooled.microbatches
        );
    }

    pub(crate) fn max_pool_forward(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
    ) -> Result<(DeviceBuffer, DeviceBuffer)> {
        let images = x.z.len() / (window.height * window.width * window.channels);
        let len = images * window.out_height * window.out_width * window.channels;
        let (y, taps) = (self.alloc_as(len, x.z.dtype())?, self.alloc(len)?);
        launch!(
            self,
            max_pool::forward,
            elementwise_grid(len),
            reading(x).view(1),
            windows(window),
            y.arg(),
            taps.arg(),
            y.storage()
        );
        Ok((y, taps))
    }

    pub(crate) fn max_pool_input_gradient(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
        taps: &DeviceBuffer,
        dy: &DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc_as(x.z.len(), x.z.dtype())?;
        launch!(
            self,
            max_pool::back,
            elementwise_grid(out.len()),
            reading(x).view(1),
            windows(window),
            taps.arg(),
            dy.arg(),
            out.arg(),
            out.storage()
        );
        Ok(out)
    }
}
