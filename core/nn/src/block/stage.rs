//! Any block, as one of a chain.

use super::{Backward, Forward, Size};
use crate::Result;
use crate::backend::{BackwardOps, ForwardOps};

/// A few operations with their backward: shapes and order only.
pub trait Block {
    /// What the backward needs besides the block's input.
    type Cache<B: ForwardOps>;

    /// y and the size of its images, from x of images of `size`.
    ///
    /// # Errors
    /// The backend's.
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        x: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, Self::Cache<B>)>;

    /// dx from dy, which is used up; nothing where x are images. Parameter gradients are added to
    /// `pass.grads`.
    ///
    /// # Errors
    /// The backend's.
    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        x: &B::Buf,
        cache: Self::Cache<B>,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>>;

    /// Where this block's parameters end in the flat values, if it has any.
    fn parameters_end(&self) -> Option<usize>;
}

/// Writes [`Stage`] and [`StageCache`] from one list of blocks.
macro_rules! stages {
    ($($block:ident),+ $(,)?) => {
        /// A stage of a network.
        #[derive(Clone, Debug)]
        #[allow(missing_docs)]
        pub enum Stage {
            $($block(super::$block),)+
        }

        /// What a stage's backward needs besides its input.
        #[derive(Debug)]
        #[allow(missing_docs)]
        pub enum StageCache<B: ForwardOps> {
            $($block(<super::$block as Block>::Cache<B>),)+
        }

        $(
            impl From<super::$block> for Stage {
                fn from(block: super::$block) -> Stage {
                    Stage::$block(block)
                }
            }
        )+

        impl Stage {
            /// [`Block::forward`].
            ///
            /// # Errors
            /// The backend's.
            pub fn forward<B: ForwardOps>(
                &self,
                pass: &mut Forward<B>,
                x: &B::Buf,
                size: Size,
            ) -> Result<(B::Buf, Size, StageCache<B>)> {
                match self {
                    $(Stage::$block(block) => {
                        let (y, size, cache) = block.forward(pass, x, size)?;
                        Ok((y, size, StageCache::$block(cache)))
                    })+
                }
            }

            /// [`Block::backward`] of the stage that left `cache`.
            ///
            /// # Errors
            /// The backend's.
            pub fn backward<B: BackwardOps>(
                &self,
                pass: &mut Backward<B>,
                x: &B::Buf,
                cache: StageCache<B>,
                dy: B::Buf,
            ) -> Result<Option<B::Buf>> {
                match (self, cache) {
                    $((Stage::$block(block), StageCache::$block(cache)) => {
                        block.backward(pass, x, cache, dy)
                    })+
                    _ => Ok(None),
                }
            }

            /// [`Block::parameters_end`].
            pub fn parameters_end(&self) -> Option<usize> {
                match self {
                    $(Stage::$block(block) => block.parameters_end(),)+
                }
            }
        }
    };
}

stages! {
    Stem, PooledStem, InvertedResidual, Residual, PooledConv, Pool, Dense, Patches, Tokens,
    Transformer, ClassToken,
}
