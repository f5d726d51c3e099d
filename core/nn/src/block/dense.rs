//! A fully connected layer of features.

use super::{Backward, Block, Forward, Size};
use crate::Result;
use crate::backend::{BackwardOps, ForwardOps};
use crate::layer::Linear;

/// A fully connected layer with its activation.
#[derive(Clone, Debug)]
pub struct Dense(pub Linear);

impl Block for Dense {
    /// The value before the activation.
    type Cache<B: ForwardOps> = B::Buf;

    /// x (n, in) to y (n, out).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, B::Buf)> {
        let (y, u) = pass.backend.linear(&self.0, pass.values, x)?;
        Ok((y, size, u))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        u: B::Buf,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let (values, grads) = (pass.values, &mut *pass.grads);
        let dx = pass
            .backend
            .linear_back(&self.0, values, grads, (x, &u), dy)?;
        Ok(Some(dx))
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.0.bias.end)
    }
}
