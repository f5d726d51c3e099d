//! Updates of flat numbers: from a backend's operation to its launches.

use cubecl::prelude::*;
use seedling_nn::backend::{AdamUpdate, OptimizerOps, Update};

use super::{DeviceBuffer, Gpu};
use crate::Result;

impl<R: Runtime> OptimizerOps for Gpu<R> {
    fn copy(&self, to: &mut DeviceBuffer, from: &DeviceBuffer) -> Result<()> {
        let len = from.len();
        self.copy_runs((from, 0), len, (to, 0), len, (len, len));
        Ok(())
    }

    fn clear(&self, flat: &mut DeviceBuffer) -> Result<()> {
        self.fill(flat, 0.0);
        Ok(())
    }

    fn all_finite(&self, flat: &DeviceBuffer) -> Result<bool> {
        let found = self.not_finite(flat)?;
        let counts = self.receive(&found)?;
        Ok(counts.iter().all(|count| *count == 0.0))
    }

    fn sgd(
        &self,
        update: &Update,
        values: &mut DeviceBuffer,
        grads: &DeviceBuffer,
        velocity: &mut DeviceBuffer,
        base: &DeviceBuffer,
    ) -> Result<()> {
        self.sgd_step(update, values, grads, velocity, base)
    }

    fn adamw(
        &self,
        update: &AdamUpdate,
        values: &mut DeviceBuffer,
        grads: &DeviceBuffer,
        moments: (&mut DeviceBuffer, &mut DeviceBuffer),
    ) -> Result<()> {
        self.adamw_step(update, (values, grads), (moments.0, moments.1))
    }

    fn momentum_update(
        &self,
        own: &mut DeviceBuffer,
        other: &DeviceBuffer,
        momentum: f32,
        from: usize,
    ) -> Result<()> {
        self.ema_update_from(own, other, momentum, from);
        Ok(())
    }
}
