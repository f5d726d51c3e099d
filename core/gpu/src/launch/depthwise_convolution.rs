//! Depthwise convolution and its two gradients.

use super::*;

impl<R: Runtime> Gpu<R> {
    pub(crate) fn depthwise_forward(
        &self,
        x: &FusedInput<Self>,
        window: &Window,
        w: &Param<Self>,
    ) -> Result<DeviceBuffer> {
        let n = lanes(window.channels);
        let images = x.z.len() / (window.height * window.width * window.channels);
        let len = images * window.out_height * window.out_width * window.channels;
        let z = self.alloc_as(len, x.z.dtype())?;
        let strips = window.out_width.div_ceil(depthwise::STRIP);
        launch!(
            self,
            depthwise::forward,
            elementwise_grid(images * window.out_height * strips * (window.channels / n)),
            n,
            reading(x).view(n),
            w.values.arg(),
            w.range.start,
            windows(window),
            z.arg(),
            images,
            window.kernel,
            window.stride,
            z.storage()
        );
        Ok(z)
    }

    /// dx as `sink` takes it.
    pub(crate) fn depthwise_input_gradient(
        &self,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        window: &Window,
        w: &WeightMut<Self>,
        sink: &Sink<Self>,
    ) -> Result<DeviceBuffer> {
        let n = lanes(window.channels);
        let images = x.z.len() / (window.height * window.width * window.channels);
        let dx = self.alloc_as(x.z.len(), x.z.dtype())?;
        let strips = window.width.div_ceil(depthwise::STRIP);
        let shortcut = match sink {
            Sink::Plain { shortcut } => *shortcut,
            _ => None,
        };
        let through = matches!(sink, Sink::Activated);
        launch!(
            self,
            depthwise::back,
            elementwise_grid(images * window.height * strips * (window.channels / n)),
            n,
            gradient(dz, window.channels).view(n),
            w.values.arg(),
            w.range.start,
            windows(window),
            shortcut.map(|shortcut| shortcut.arg()).into(),
            through.then(|| reading(x).view(n)).into(),
            dx.arg(),
            images,
            window.kernel,
            window.stride,
            dx.storage()
        );
        Ok(dx)
    }

    pub(crate) fn depthwise_weight_gradient(
        &self,
        dz: &FusedGrad<Self>,
        x: &FusedInput<Self>,
        window: &Window,
        weight: &mut WeightMut<Self>,
    ) -> Result<()> {
        let n = lanes(window.channels);
        let (vectors, taps) = (window.channels / n, window.kernel * window.kernel);
        let lanes = block(vectors);
        let rows = dz.z().len() / window.channels;
        let pieces = Pieces::new(rows, sums::UNITS / lanes * RUN);
        let parts = self.alloc(pieces.count * taps * window.channels)?;
        let count = CubeCount::Static(vectors.div_ceil(lanes) as u32, pieces.count as u32, 1);
        launch!(
            self,
            depthwise::weight_gradient,
            (count, CubeDim::new_1d(sums::UNITS as u32)),
            n,
            gradient(dz, window.channels).view(n),
            reading(x).view(n),
            windows(window),
            parts.arg(),
            rows,
            pieces.piece,
            window.kernel,
            lanes,
            x.z.storage(),
        );
        // A weight (1, channels, taps), as it were.
        self.add_parts(&parts, weight.grads, weight.range, (window.channels, taps));
        Ok(())
    }
}
