//! The bottom of a vision transformer: an image becomes tokens (Dosovitskiy et al. 2021).

use std::ops::Range;

use super::{Backward, Block, Forward, Size};
use crate::Result;
use crate::backend::{BackwardOps, Conv, ForwardOps, FusedInput};
use crate::layer::Positions;
use crate::layout::{Layout, Role};
use crate::window::Window;

/// Each patch of the image by itself through one matrix. Never trained: it is what makes
/// contrastive training of these networks unstable (Chen et al. 2021, section 4).
#[derive(Clone, Debug)]
pub struct Patches {
    weight: Range<usize>,
    bias: Range<usize>,
    side: usize,
}

/// Channels of an image.
const RGB: usize = 3;

impl Patches {
    /// Declares `patch_embed.proj`: patches of `side` x `side` pixels to `dim` numbers each.
    pub fn new(layout: &mut Layout, side: usize, dim: usize) -> Patches {
        Patches {
            weight: layout.add(
                "patch_embed.proj.weight",
                &[dim, RGB, side, side],
                Role::ConvWeight,
            ),
            bias: layout.add("patch_embed.proj.bias", &[dim], Role::Bias),
            side,
        }
    }

    /// Where its bias lies. [`Tokens`] adds it, together with the positions.
    pub fn bias(&self) -> Range<usize> {
        self.bias.clone()
    }
}

impl Block for Patches {
    type Cache<B: ForwardOps> = ();

    /// Images (n, height, width, 3) to (n, height / side, width / side, dim).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, ())> {
        let window = Window::tiles(size, RGB, self.side);
        let w = pass.param(&self.weight);
        let images = FusedInput::plain(images, RGB);
        let (z, _) = pass.backend.conv(Conv::Dense(window), &images, w, 0)?;
        Ok((z, (window.out_height, window.out_width), ()))
    }

    fn backward<B: BackwardOps>(
        &self,
        _: &mut Backward<B>,
        _: &B::Buf,
        (): (),
        _: B::Buf,
    ) -> Result<Option<B::Buf>> {
        Ok(None)
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.bias.end)
    }
}

/// Puts the class token before an image's patches, and adds to each its position.
#[derive(Clone, Debug)]
pub struct Tokens(pub Positions);

impl Block for Tokens {
    /// Rows and columns of patches.
    type Cache<B: ForwardOps> = Size;

    /// Patches (n, height, width, dim) to tokens (n, 1 + height * width, dim); their size is one row.
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        patches: &B::Buf,
        grid: Size,
    ) -> Result<(B::Buf, Size, Size)> {
        let tokens = pass.backend.tokens(&self.0, pass.values, patches, grid)?;
        Ok((tokens, (1, 1 + grid.0 * grid.1), grid))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        _: &B::Buf,
        grid: Size,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        pass.backend.tokens_back(&self.0, &dy, grid, pass.grads)?;
        // Below there are only patches, which are not trained.
        Ok(None)
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.0.grid.end)
    }
}
