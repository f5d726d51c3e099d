//! What becomes of a network's flat numbers.

use super::*;

impl<R: Runtime> Gpu<R> {
    fn spans(&self, spans: &[(Range<usize>, f32)]) -> Result<(DeviceBuffer, DeviceBuffer, usize)> {
        let mut spans: Vec<&(Range<usize>, f32)> = spans.iter().collect();
        spans.sort_by_key(|(range, _)| range.start);
        let bounds = spans
            .iter()
            .flat_map(|(range, _)| [range.start as u32, range.end as u32]);
        let bounds = self.send_whole(&bounds.collect::<Vec<u32>>())?;
        let decays = self.send(&spans.iter().map(|(_, decay)| *decay).collect::<Vec<f32>>())?;
        Ok((bounds, decays, spans.len()))
    }

    pub(crate) fn sgd_step(
        &self,
        update: &Update,
        values: &DeviceBuffer,
        grads: &DeviceBuffer,
        velocity: &DeviceBuffer,
        base: &DeviceBuffer,
    ) -> Result<()> {
        let (bounds, decays, spans) = self.spans(update.spans)?;
        let with_l2_sp = update.l2_sp > 0.0 && base.len() == values.len();
        launch!(
            self,
            optim::sgd,
            elementwise_grid(values.len()),
            bounds.arg(),
            decays.arg(),
            spans,
            values.arg(),
            grads.arg(),
            velocity.arg(),
            with_l2_sp.then(|| base.arg()).into(),
            update.momentum,
            update.l2_sp,
            update.lr
        );
        Ok(())
    }

    pub(crate) fn adamw_step(
        &self,
        update: &AdamUpdate,
        (values, grads): (&DeviceBuffer, &DeviceBuffer),
        (first, second): (&DeviceBuffer, &DeviceBuffer),
    ) -> Result<()> {
        let (bounds, decays, spans) = self.spans(update.spans)?;
        let (beta_1, beta_2) = update.betas;
        // In f64: 1 - 0.999^1 has three digits in f32.
        let correction = |beta: f32| 1.0 - (beta as f64).powf(update.step as f64);
        launch!(
            self,
            optim::adamw,
            elementwise_grid(values.len()),
            bounds.arg(),
            decays.arg(),
            spans,
            values.arg(),
            grads.arg(),
            first.arg(),
            second.arg(),
            beta_1,
            beta_2,
            (update.lr as f64 / correction(beta_1)) as f32,
            correction(beta_2).sqrt() as f32,
            update.eps,
            update.lr
        );
        Ok(())
    }

    pub(crate) fn ema_update_from(
        &self,
        own: &DeviceBuffer,
        other: &DeviceBuffer,
        momentum: f32,
        from: usize,
    ) {
        launch!(
            self,
            optim::ema_update,
            elementwise_grid(own.len()),
            own.arg(),
            other.arg(),
            momentum,
            from
        );
    }

    /// For each cube, how many numbers are not finite.
    ///
    /// # Errors
    /// The device's.
    pub fn not_finite(&self, x: &DeviceBuffer) -> Result<DeviceBuffer> {
        let count = x.len().div_ceil(optim::UNITS * optim::EACH).max(1);
        let found = self.alloc(count)?;
        launch!(
            self,
            optim::not_finite,
            (cubes(count), CubeDim::new_1d(optim::UNITS as u32)),
            x.arg(),
            found.arg(),
        );
        Ok(found)
    }
}
