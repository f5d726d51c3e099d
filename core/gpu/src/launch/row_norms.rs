//! Norms of rows.

use super::*;

impl<R: Runtime> Gpu<R> {
    pub(crate) fn normalize_rows(
        &self,
        x: &DeviceBuffer,
        kept: &DeviceBuffer,
        inverse: &DeviceBuffer,
        dim: usize,
    ) {
        launch!(
            self,
            rows::l2_normalize,
            per_row(inverse.len()),
            x.arg(),
            kept.arg(),
            inverse.arg(),
            dim
        );
    }

    pub(crate) fn normalize_gradient(
        &self,
        dy: &DeviceBuffer,
        y: &DeviceBuffer,
        inverse: &DeviceBuffer,
        dim: usize,
    ) {
        launch!(
            self,
            rows::l2_normalize_back,
            per_row(inverse.len()),
            dy.arg(),
            y.arg(),
            inverse.arg(),
            dim
        );
    }

    pub(crate) fn row_stats_of(&self, x: &DeviceBuffer, layer: &LayerNorm) -> Result<DeviceBuffer> {
        let rows = x.len() / layer.dim;
        let out = self.alloc(rows * 2)?;
        launch!(
            self,
            rows::row_stats,
            per_row(rows),
            x.arg(),
            out.arg(),
            layer.dim,
            layer.eps
        );
        Ok(out)
    }

    pub(crate) fn layer_norm_forward(
        &self,
        layer: &LayerNorm,
        values: &DeviceBuffer,
        x: &DeviceBuffer,
        stats: &DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc(x.len())?;
        launch!(
            self,
            rows::layer_norm,
            elementwise_grid(out.len()),
            x.arg(),
            stats.arg(),
            values.arg(),
            layer.weight.start,
            layer.bias.start,
            layer.dim,
            out.arg()
        );
        Ok(out)
    }

    /// dx in place of dy; dy times the normed input.
    pub(crate) fn layer_norm_gradient(
        &self,
        layer: &LayerNorm,
        values: &DeviceBuffer,
        (x, stats): (&DeviceBuffer, &DeviceBuffer),
        dy: &DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        let normed = self.alloc(x.len())?;
        launch!(
            self,
            rows::layer_norm_back,
            per_row(x.len() / layer.dim),
            x.arg(),
            stats.arg(),
            values.arg(),
            layer.weight.start,
            layer.dim,
            dy.arg(),
            normed.arg()
        );
        Ok(normed)
    }
}
