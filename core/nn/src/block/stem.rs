//! The first layer of a convolutional network.

use super::conv_norm::{ConvNorm, Normed};
use super::{Backward, Block, Forward, Names, Size};
use crate::Result;
use crate::activation::Act;
use crate::backend::{BackwardOps, Conv, ForwardOps, FusedGrad, FusedInput};
use crate::layout::Layout;
use crate::window::{Padding, Window};

/// The stem: dense convolution of the image by stride 2, batch norm, activation.
#[derive(Clone, Debug)]
pub struct Stem {
    conv: ConvNorm,
    kernel: usize,
    padding: Padding,
    act: Act,
}

/// What [`Stem`]'s backward needs besides the image.
#[derive(Debug)]
pub struct StemCache<B: ForwardOps> {
    conv: Normed<B>,
    window: Window,
}

/// Channels of an image.
const RGB: usize = 3;

impl Stem {
    /// A convolution of so many channels by windows of `kernel`.
    pub fn new(
        layout: &mut Layout,
        names: Names,
        (channels, kernel): (usize, usize),
        act: Act,
        padding: Padding,
        eps: f32,
    ) -> Stem {
        Stem {
            conv: ConvNorm::new(layout, names, &[channels, RGB, kernel, kernel], eps),
            kernel,
            padding,
            act,
        }
    }

    fn convolve<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
    ) -> Result<StemCache<B>> {
        let window = Window::new(size, RGB, self.kernel, 2, self.padding);
        let conv = self
            .conv
            .forward(pass, Conv::Dense(window), &FusedInput::plain(images, RGB))?;
        Ok(StemCache { conv, window })
    }

    /// From dy behind the activation, and the sums of its batch norm.
    fn learn<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        images: &B::Buf,
        cache: &StemCache<B>,
        (dy, sums): (B::Buf, B::GradSums),
    ) -> Result<()> {
        let (z, norm) = &cache.conv;
        let grad = pass.norm(&self.conv.norm, norm, &sums)?;
        let dz = FusedGrad::Normed {
            dy: &dy,
            z,
            grad: &grad,
        };
        let images = FusedInput::plain(images, RGB);
        pass.conv_back_images(Conv::Dense(cache.window), &dz, &images, &self.conv.weight)
    }
}

impl Block for Stem {
    type Cache<B: ForwardOps> = StemCache<B>;

    /// Images (n, height, width, 3) to y (n, height / 2, width / 2, channels).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, StemCache<B>)> {
        let cache = self.convolve(pass, images, size)?;
        let read = self.conv.read(&cache.conv, self.act);
        let y = pass.backend.materialize(&read)?;
        let size = (cache.window.out_height, cache.window.out_width);
        Ok((y, size, cache))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        images: &B::Buf,
        cache: StemCache<B>,
        mut dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let read = self.conv.read(&cache.conv, self.act);
        let sums = pass.backend.activation_back(&mut dy, &read)?;
        self.learn(pass, images, &cache, (dy, sums))?;
        Ok(None)
    }

    fn parameters_end(&self) -> Option<usize> {
        Some(self.conv.norm.parameters_end())
    }
}

/// The stem of a ResNet: the same, and the largest of each 3x3 by stride 2, taken where the
/// activation is read.
#[derive(Clone, Debug)]
pub struct PooledStem {
    stem: Stem,
    channels: usize,
}

/// What [`PooledStem`]'s backward needs besides the image.
#[derive(Debug)]
pub struct PooledStemCache<B: ForwardOps> {
    stem: StemCache<B>,
    pool: Window,
    largest: B::Argmax,
}

impl PooledStem {
    /// Of a stem of so many channels.
    pub fn new(stem: Stem, channels: usize) -> PooledStem {
        PooledStem { stem, channels }
    }
}

impl Block for PooledStem {
    type Cache<B: ForwardOps> = PooledStemCache<B>;

    /// Images (n, height, width, 3) to y (n, height / 4, width / 4, channels).
    fn forward<B: ForwardOps>(
        &self,
        pass: &mut Forward<B>,
        images: &B::Buf,
        size: Size,
    ) -> Result<(B::Buf, Size, PooledStemCache<B>)> {
        let stem = self.stem.convolve(pass, images, size)?;
        let size = (stem.window.out_height, stem.window.out_width);
        let pool = Window::new(size, self.channels, 3, 2, self.stem.padding);
        let read = self.stem.conv.read(&stem.conv, self.stem.act);
        let (y, largest) = pass.backend.max_pool(&read, &pool)?;
        let size = (pool.out_height, pool.out_width);
        let cache = PooledStemCache {
            stem,
            pool,
            largest,
        };
        Ok((y, size, cache))
    }

    fn backward<B: BackwardOps>(
        &self,
        pass: &mut Backward<B>,
        images: &B::Buf,
        cache: PooledStemCache<B>,
        dy: B::Buf,
    ) -> Result<Option<B::Buf>> {
        let PooledStemCache {
            stem,
            pool,
            largest,
        } = cache;
        let read = self.stem.conv.read(&stem.conv, self.stem.act);
        let behind = pass.backend.max_pool_back(&read, &pool, &largest, &dy)?;
        drop(dy);
        self.stem.learn(pass, images, &stem, behind)?;
        Ok(None)
    }

    fn parameters_end(&self) -> Option<usize> {
        self.stem.parameters_end()
    }
}
