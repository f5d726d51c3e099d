//! Where the windows of a convolution lie.

/// Sizes of one depthwise (or dense) convolution over square windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Zeros before the first row; as many as needed follow the last.
    pub pad_top: usize,
    /// Zeros before the first column, likewise.
    pub pad_left: usize,
    pub out_height: usize,
    pub out_width: usize,
}

/// How a convolution pads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// PyTorch's: kernel / 2 on every side.
    #[default]
    Symmetric,
    /// TensorFlow's SAME: what the output size needs, the odd one at the end.
    Same,
}

impl Window {
    /// The window for a (height, width, channels) image.
    pub fn new(
        (height, width): (usize, usize),
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Window {
        let (out_height, out_width) = (height.div_ceil(stride), width.div_ceil(stride));
        // Symmetric padding of k/2 gives the same output sizes, ceil(n / stride), for odd k.
        let pad = |size: usize, out: usize| match padding {
            Padding::Symmetric => kernel / 2,
            Padding::Same => ((out - 1) * stride + kernel).saturating_sub(size) / 2,
        };
        Window {
            height,
            width,
            channels,
            kernel,
            stride,
            pad_top: pad(height, out_height),
            pad_left: pad(width, out_width),
            out_height,
            out_width,
        }
    }

    /// Windows side by side; what is left over at the end is not read.
    pub fn tiles((height, width): (usize, usize), channels: usize, side: usize) -> Window {
        Window {
            height,
            width,
            channels,
            kernel: side,
            stride: side,
            pad_top: 0,
            pad_left: 0,
            out_height: height / side,
            out_width: width / side,
        }
    }

    /// Output pixels of as many images as have `pixels` together.
    pub fn outputs(&self, pixels: usize) -> usize {
        pixels / (self.height * self.width) * self.out_height * self.out_width
    }

    /// Columns of a padded input row: enough for the last window.
    pub(super) fn padded_width(&self) -> usize {
        (self.pad_left + self.width).max((self.out_width - 1) * self.stride + self.kernel)
    }
}
