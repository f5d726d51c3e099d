//! The top of a vision transformer.

use super::{Backward, Block, Forward, Size};
use crate::Result;
use crate::backend::{BackwardOps, ForwardOps};
use crate::layer::LayerNorm;

/// An image's features are its class token's, normed.
#[derive(Clone, Debug)]
pub struct ClassToken(pub LayerNorm);

/// What [`ClassToken`]'s backward needs.
#[derive(Debug)]
pub struct ClassTokenCache<B: ForwardOps> {
    first: B::Buf,
    stats: B::RowStats,
    tokens: usize,
}

impl Block for ClassToken {
    type Cache<B: ForwardOps> = ClassTokenCache<B>;

    /// Tokens (n, tokens, dim) to features (n, dim).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, ClassTokenCache<B>)> {
        let tokens = size.0 * size.1;
        let first = pass.backend.first_rows(x, tokens, self.0.dim)?;
        let stats = pass.backend.row_stats(&first, &self.0)?;
        let y = pass
            .backend
            .layer_norm(&self.0, pass.values, &first, &stats)?;
        let cache = ClassTokenCache {
            first,
            stats,
            tokens,
        };
        Ok((y, (1, 1), cache))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        _: &B::Buf,
        cache: ClassTokenCache<B>,
        mut dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let (values, grads) = (pass.values, &mut *pass.grads);
        let x = (&cache.first, &cache.stats);
        pass.backend
            .layer_norm_back(&self.0, values, grads, x, &mut dy)?;
        pass.backend
            .spread_first(&dy, cache.tokens, self.0.dim)
            .map(Some)
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.0.bias.end)
    }
}
