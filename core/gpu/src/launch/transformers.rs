//! Attention and positions.

use super::*;

impl<R: Runtime> Gpu<R> {
    pub(crate) fn attention_forward(
        &self,
        qkv: &DeviceBuffer,
        heads: &Heads,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc(qkv.len() / 3)?;
        let count = qkv.len() / (3 * heads.dim) * heads.heads;
        launch!(
            self,
            attention::forward,
            per_row(count),
            qkv.arg(),
            out.arg(),
            attention::ShapeLaunch::new(heads.heads, heads.head()),
            count,
            heads.tokens
        );
        Ok(out)
    }

    pub(crate) fn attention_gradient(
        &self,
        qkv: &DeviceBuffer,
        heads: &Heads,
        dy: &DeviceBuffer,
    ) -> Result<DeviceBuffer> {
        let out = self.alloc(qkv.len())?;
        let count = qkv.len() / (3 * heads.dim) * heads.heads;
        let (ps, ds) = (
            self.alloc(count * heads.tokens)?,
            self.alloc(count * heads.tokens)?,
        );
        let shape = || attention::ShapeLaunch::new(heads.heads, heads.head());
        launch!(
            self,
            attention::back_queries,
            per_row(count),
            qkv.arg(),
            dy.arg(),
            out.arg(),
            ps.arg(),
            ds.arg(),
            shape(),
            count,
            heads.tokens
        );
        launch!(
            self,
            attention::back_keys,
            per_row(count),
            qkv.arg(),
            dy.arg(),
            out.arg(),
            ps.arg(),
            ds.arg(),
            shape(),
            count,
            heads.tokens
        );
        Ok(out)
    }

    /// Positions (places, dim) for another grid, or (by [`OperandLayout::Columns`]) their gradient for the own
    /// one; nothing where the grids are the same.
    pub(crate) fn resample(
        &self,
        layer: &Positions,
        positions: &DeviceBuffer,
        grid: (usize, usize),
        map: OperandLayout,
    ) -> Result<Option<DeviceBuffer>> {
        if grid == (layer.side, layer.side) {
            return Ok(None);
        }
        let (here, there) = (layer.side * layer.side, grid.0 * grid.1);
        let matrix = self.send(&Resample::new(layer.side, grid).matrix())?;
        let (to, from) = match map {
            OperandLayout::Columns => (here, there),
            _ => (there, here),
        };
        let out = self.alloc(to * layer.dim)?;
        let sides = (
            Reading::plain(&matrix, here).side(map, None),
            Reading::plain(positions, layer.dim).side(OperandLayout::Columns, None),
        );
        self.product(
            MatMul {
                m: to,
                n: layer.dim,
                k: from,
            },
            sides,
            &Finish::default(),
            &out,
        )?;
        Ok(Some(out))
    }
}
