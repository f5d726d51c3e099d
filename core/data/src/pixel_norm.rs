//! From bytes to what a network reads.

use seedling_base::simd::dispatch;

/// Channel statistics that turn bytes into what a network reads: `(byte / 255 - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    /// Mean of R, G and B, in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of R, G and B, in 0..1.
    pub std: [f32; 3],
}

impl Default for Normalize {
    /// ImageNet's statistics.
    fn default() -> Self {
        Normalize {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }
    }
}

impl Normalize {
    /// Writes interleaved bytes `rgb` as floats to `out` of the same length.
    pub fn apply(&self, rgb: &[u8], out: &mut [f32]) {
        // 48 = 16 pixels: whole vectors over which the channels repeat.
        let scale: [f32; 48] = std::array::from_fn(|i| 1.0 / (255.0 * self.std[i % 3]));
        let shift: [f32; 48] = std::array::from_fn(|i| -self.mean[i % 3] / self.std[i % 3]);
        scale_shift(rgb, &scale, &shift, out);
    }
}

dispatch! {
    fn scale_shift(rgb: &[u8], scale: &[f32; 48], shift: &[f32; 48], out: &mut [f32]) {
        let (whole, rest) = rgb.as_chunks::<48>();
        let (whole_out, rest_out) = out.as_chunks_mut::<48>();
        for (bytes, out) in whole.iter().zip(whole_out) {
            for i in 0..48 {
                out[i] = f32::from(bytes[i]) * scale[i] + shift[i];
            }
        }
        for (i, (&byte, out)) in rest.iter().zip(rest_out).enumerate() {
            *out = f32::from(byte) * scale[i] + shift[i];
        }
    }
}
