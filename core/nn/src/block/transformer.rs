//! A layer of a vision transformer.

use super::{Backward, Block, Forward, Size};
use crate::Result;
use crate::activation::Act;
use crate::backend::{BackwardOps, ForwardOps, Read, Rows};
use crate::layer::{Heads, LayerNorm, Linear};
use crate::layout::Layout;

/// Sizes of a transformer block.
#[derive(Clone, Copy, Debug)]
pub struct TransformerShape {
    /// Length of a token.
    pub dim: usize,
    pub heads: usize,
    /// Width between the two layers of the MLP.
    pub hidden: usize,
    pub eps: f32,
}

/// x + attention(norm(x)), then x + mlp(norm(x)) (Vaswani et al. 2017; norms first, as Dosovitskiy et
/// al. 2021). Norms and GELU are computed where they are read, attention's weights where they are
/// used: neither is stored.
#[derive(Clone, Debug)]
pub struct Transformer {
    norm1: LayerNorm,
    qkv: Linear,
    heads: usize,
    out: Linear,
    norm2: LayerNorm,
    up: Linear,
    down: Linear,
}

/// What [`Transformer`]'s backward needs besides its input.
#[derive(Debug)]
pub struct TransformerCache<B: ForwardOps> {
    stats1: B::RowStats,
    qkv: B::Buf,
    attended: B::Buf,
    middle: B::Buf,
    stats2: B::RowStats,
    up: B::Buf,
    heads: Heads,
}

impl Transformer {
    /// Declares `{name}.norm1`, `.attn.qkv`, `.attn.proj`, `.norm2`, `.mlp.fc1` and `.mlp.fc2`.
    pub fn new(layout: &mut Layout, name: &str, shape: TransformerShape) -> Transformer {
        let TransformerShape {
            dim,
            heads,
            hidden,
            eps,
        } = shape;
        let none = Act::Identity;
        let named = |part: &str| format!("{name}.{part}");
        Transformer {
            norm1: LayerNorm::new(layout, &named("norm1"), dim, eps),
            qkv: Linear::projecting(layout, &named("attn.qkv"), (dim, 3 * dim), none),
            heads,
            out: Linear::projecting(layout, &named("attn.proj"), (dim, dim), none),
            norm2: LayerNorm::new(layout, &named("norm2"), dim, eps),
            up: Linear::projecting(layout, &named("mlp.fc1"), (dim, hidden), none),
            down: Linear::projecting(layout, &named("mlp.fc2"), (hidden, dim), none),
        }
    }
}

impl Block for Transformer {
    type Cache<B: ForwardOps> = TransformerCache<B>;

    /// Tokens (n, tokens, dim) to tokens.
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, TransformerCache<B>)> {
        let (backend, values) = (pass.backend, pass.values);
        let heads = Heads {
            tokens: size.0 * size.1,
            heads: self.heads,
            dim: self.out.outputs,
        };
        let stats1 = backend.row_stats(x, &self.norm1)?;
        let normed = Rows::new(x, Read::Norm(&self.norm1, &stats1));
        let qkv = backend.rows_linear(&self.qkv, values, &normed, None)?;
        let attended = backend.attention(&qkv, &heads)?;
        let plain = Rows::new(&attended, Read::Plain);
        let middle = backend.rows_linear(&self.out, values, &plain, Some(x))?;
        let stats2 = backend.row_stats(&middle, &self.norm2)?;
        let normed = Rows::new(&middle, Read::Norm(&self.norm2, &stats2));
        let up = backend.rows_linear(&self.up, values, &normed, None)?;
        let activated = Rows::new(&up, Read::Act(Act::Gelu));
        let y = backend.rows_linear(&self.down, values, &activated, Some(&middle))?;
        let cache = TransformerCache {
            stats1,
            qkv,
            attended,
            middle,
            stats2,
            up,
            heads,
        };
        Ok((y, size, cache))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        cache: TransformerCache<B>,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let (backend, values, grads) = (pass.backend, pass.values, &mut *pass.grads);
        let TransformerCache {
            stats1,
            qkv,
            attended,
            middle,
            stats2,
            up,
            heads,
        } = cache;
        let activated = Rows::new(&up, Read::Act(Act::Gelu));
        let dup = backend.rows_linear_back(&self.down, values, grads, &activated, &dy, None)?;
        drop(up);
        let normed = Rows::new(&middle, Read::Norm(&self.norm2, &stats2));
        let dmiddle =
            backend.rows_linear_back(&self.up, values, grads, &normed, &dup, Some(&dy))?;
        drop((dup, dy, middle));
        let plain = Rows::new(&attended, Read::Plain);
        let dattended =
            backend.rows_linear_back(&self.out, values, grads, &plain, &dmiddle, None)?;
        drop(attended);
        let dqkv = backend.attention_back(&qkv, &heads, &dattended)?;
        drop((qkv, dattended));
        let normed = Rows::new(x, Read::Norm(&self.norm1, &stats1));
        backend
            .rows_linear_back(&self.qkv, values, grads, &normed, &dqkv, Some(&dmiddle))
            .map(Some)
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.down.bias.end)
    }
}
