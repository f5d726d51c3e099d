//! DeiT (Touvron et al. 2021), the vision transformer without its distillation token. Layers carry
//! timm's names.

use super::{Backbone, Shape, Spec};
use crate::block::{ClassToken, Patches, Stage, Tokens, Transformer, TransformerShape};
use crate::layer::{LayerNorm, Positions};
use crate::layout::Layout;

/// Six heads of 32, as the paper has it (timm's default is three of 64; the weights' shapes are the
/// same).
pub(super) const TINY: Spec = Spec {
    name: "deit_tiny",
    title: "DeiT-Tiny",
    twin: "timm's deit_tiny_patch16_224 with num_heads=6, up to norm",
    trained: true,
    norm_eps: 1e-6,
    class_layer: "head.",
    dropout: 0.0,
    drop_connect: 0.0,
    tokens: true,
    build: tiny,
};

const DIM: usize = 192;
const HEADS: usize = 6;
const DEPTH: usize = 12;
const PATCH: usize = 16;
/// Patches along a side of the image that positions are learned for.
const SIDE: usize = 14;

fn tiny(layout: &mut Layout, shape: Shape) -> Backbone {
    // What is never trained comes first: frozen parameters are a prefix.
    let patches = Patches::new(layout, PATCH, DIM);
    let positions = Positions::new(layout, SIDE, DIM, patches.bias());
    let mut trunk: Vec<Stage> = vec![patches.into(), Tokens(positions).into()];
    for i in 0..DEPTH {
        let sizes = TransformerShape {
            dim: DIM,
            heads: HEADS,
            hidden: 4 * DIM,
            eps: shape.norm_eps,
        };
        trunk.push(Transformer::new(layout, &format!("blocks.{i}"), sizes).into());
    }
    let norm = LayerNorm::new(layout, "norm", DIM, shape.norm_eps);
    Backbone::new(trunk, vec![ClassToken(norm).into()], DIM).with_fixed(1)
}
