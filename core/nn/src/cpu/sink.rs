//! What becomes of an input's gradient where a convolution's backward writes it, tile by tile,
//! while it is in the cache. How the input was read ([`Source`]) decides which sink takes it.

use std::ops::Range;

use super::channelwise::{GateSums, fold, gate_sums, period};
use super::norm::GradSums;
use super::source::{Source, by_image};
use super::sums::NormSums;
use crate::activation::with_act;
use crate::parallel::{map_pieces, pieces, tile_rows, tiles};

/// A way to take an input's gradient.
pub trait Sink: Sync {
    /// What one piece of the rows sums up.
    type Part: Send;
    /// What all rows have summed.
    type Sums;

    /// Pieces hold a multiple of so many rows.
    fn unit(&self) -> usize {
        1
    }

    /// A gradient of the whole input that comes from elsewhere and is added.
    fn shortcut(&self) -> Option<&[f32]> {
        None
    }

    /// A piece that has seen no row yet.
    fn new_part(&self, channels: usize) -> Self::Part;

    /// Takes the gradient `out` with respect to `rows` of `x` as it is read, in place.
    fn accept(&self, part: &mut Self::Part, x: &Source, rows: Range<usize>, out: &mut [f32]);

    /// Puts the pieces together, in order.
    fn finish(&self, parts: Vec<Self::Part>, channels: usize) -> Self::Sums;
}

/// A sink of an input that is not gated.
pub trait Ungated: Sink {}

/// The input is read as it is stored: dx, plus the gradient that a shortcut brings.
pub struct Plain<'a> {
    pub shortcut: Option<&'a [f32]>,
}

/// The input is act(norm(z)): its dy, and the sums batch norm needs.
pub struct Activated;

/// The input is act(norm(z)) behind a gate: the gradient behind the gate, and sums of each image.
pub struct Gated {
    pub rows_per_image: usize,
}

impl Sink for Plain<'_> {
    type Part = ();
    type Sums = ();

    fn shortcut(&self) -> Option<&[f32]> {
        self.shortcut
    }

    fn new_part(&self, _: usize) {}

    fn accept(&self, _: &mut (), _: &Source, _: Range<usize>, _: &mut [f32]) {}

    fn finish(&self, _: Vec<()>, _: usize) {}
}

impl Ungated for Plain<'_> {}

impl Sink for Activated {
    type Part = NormSums;
    type Sums = GradSums;

    fn new_part(&self, channels: usize) -> NormSums {
        NormSums::new(channels)
    }

    fn accept(&self, part: &mut NormSums, x: &Source, rows: Range<usize>, out: &mut [f32]) {
        let at = rows.start * x.channels..rows.end * x.channels;
        part.through(x, &x.z[at], out);
    }

    fn finish(&self, parts: Vec<NormSums>, channels: usize) -> GradSums {
        let parts = parts.into_iter().map(NormSums::finish);
        parts.fold(GradSums::zeros(channels), |sums, part| sums.merge(&part))
    }
}

impl Ungated for Activated {}

/// Sums of one image behind a gate, per channel (see [`super::squeeze_excite`]).
#[derive(Clone, Debug)]
pub struct ImageSums {
    pub gate: Vec<f64>,
    pub grad: Vec<f64>,
    pub grad_centered: Vec<f64>,
    pub derivative: Vec<f64>,
    pub derivative_centered: Vec<f64>,
}

impl ImageSums {
    fn zeros(channels: usize) -> ImageSums {
        let zeros = || vec![0.0; channels];
        ImageSums {
            gate: zeros(),
            grad: zeros(),
            grad_centered: zeros(),
            derivative: zeros(),
            derivative_centered: zeros(),
        }
    }
}

impl Sink for Gated {
    /// Images in order, each with its index.
    type Part = Vec<(usize, ImageSums)>;
    type Sums = Vec<ImageSums>;

    /// Whole images, so that none's sums are in two pieces.
    fn unit(&self) -> usize {
        self.rows_per_image
    }

    fn new_part(&self, _: usize) -> Self::Part {
        Vec::new()
    }

    fn accept(&self, images: &mut Self::Part, x: &Source, rows: Range<usize>, g: &mut [f32]) {
        self.sum(images, x, rows, g);
    }

    fn finish(&self, parts: Vec<Self::Part>, _: usize) -> Vec<ImageSums> {
        parts.into_iter().flatten().map(|(_, sums)| sums).collect()
    }
}

impl Gated {
    /// The sums of a whole `g` that lies behind the gate of `x`.
    pub fn sums(&self, x: &Source, g: &[f32]) -> Vec<ImageSums> {
        let c = x.channels;
        let tile = tile_rows(2 * c);
        let parts = map_pieces(pieces(g.len() / c, self.rows_per_image), |piece| {
            let mut images = Vec::new();
            for rows in tiles(piece, tile) {
                self.sum(
                    &mut images,
                    x,
                    rows.clone(),
                    &g[rows.start * c..rows.end * c],
                );
            }
            images
        });
        self.finish(parts, c)
    }

    fn sum(&self, images: &mut <Self as Sink>::Part, x: &Source, rows: Range<usize>, g: &[f32]) {
        let Some((norm, act)) = x.norm else { return };
        let c = x.channels;
        let p = period(c);
        let mut sums = [const { Vec::new() }; 5];
        for (image, part) in by_image(rows.clone(), self.rows_per_image) {
            if images.last().is_none_or(|(last, _)| *last != image) {
                images.push((image, ImageSums::zeros(c)));
            }
            for s in &mut sums {
                s.clear();
                s.resize(p, 0.0f32);
            }
            let [s0, s1, s2, s3, s4] = &mut sums;
            let g = &g[(part.start - rows.start) * c..(part.end - rows.start) * c];
            let z = &x.z[part.start * c..part.end * c];
            let mut into = GateSums {
                gate: s0,
                grad: s1,
                grad_centered: s2,
                derivative: s3,
                derivative_centered: s4,
            };
            with_act!(act, A => gate_sums::<A>(
                g, z, &norm.scale, &norm.shift, &norm.mean, &mut into,
            ));
            if let Some((_, total)) = images.last_mut() {
                fold(s0, &mut total.gate);
                fold(s1, &mut total.grad);
                fold(s2, &mut total.grad_centered);
                fold(s3, &mut total.derivative);
                fold(s4, &mut total.derivative_centered);
            }
        }
    }
}
