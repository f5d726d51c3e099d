//! The mean over an image, of a tensor that is stored.

use super::{Backward, Block, Forward, Size};
use crate::Result;
use crate::backend::{BackwardOps, ForwardOps, FusedInput};

/// Global mean pooling.
#[derive(Clone, Debug)]
pub struct Pool {
    pub channels: usize,
}

impl Block for Pool {
    /// Rows of an image.
    type Cache<B: ForwardOps> = usize;

    /// x (n, height, width, channels) to features (n, channels).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, usize)> {
        let per_image = size.0 * size.1;
        let features = pass
            .backend
            .pool(&FusedInput::plain(x, self.channels), per_image)?;
        Ok((features, (1, 1), per_image))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        _: &B::Buf,
        per_image: usize,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        pass.backend
            .spread_means(&dy, self.channels, per_image)
            .map(Some)
    }

    fn parameters_end(&self) -> Option<usize> {
        None
    }
}
