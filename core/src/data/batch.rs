//! What the loader hands out.

use super::normalise::Normalise;

/// Views of some photos. They are kept as bytes, a quarter of what the floats would take;
/// [`write_view`](Self::write_view) turns as many as are needed at a time into floats.
#[derive(Debug)]
pub struct Batch {
    /// Epoch it belongs to.
    pub epoch: u64,
    /// Its number in that epoch.
    pub step: u64,
    /// Index of each photo in the source; no photo is in a batch twice.
    pub photos: Vec<u32>,
    pub(super) views: usize,
    pub(super) normalise: Normalise,
    /// One per photo: its views one after another, rows of R, G, B.
    pub(super) pixels: Vec<Vec<u8>>,
}

impl Batch {
    /// The bytes of one view (0 or 1) of the photo at `row`: rows of R, G, B.
    pub fn bytes(&self, view: usize, row: usize) -> &[u8] {
        let both = &self.pixels[row];
        let len = both.len() / self.views;
        &both[view * len..(view + 1) * len]
    }

    /// Writes `view` (0 or 1) of the photos at `rows` as normalised floats, photo after photo:
    /// `out` takes `rows.len() * size * size * 3` numbers (N, H, W, C).
    pub fn write_view(&self, view: usize, rows: &[usize], out: &mut [f32]) {
        let Some(&first) = rows.first() else { return };
        let len = self.bytes(view, first).len();
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(len)) {
            self.normalise.apply(self.bytes(view, row), out);
        }
    }

    /// All of `view` (0 or 1) as normalised floats (N, H, W, C).
    pub fn view(&self, view: usize) -> Vec<f32> {
        let rows: Vec<usize> = (0..self.photos.len()).collect();
        let numbers = self.pixels.iter().map(|both| both.len() / self.views).sum();
        let mut out = vec![0.0; numbers];
        self.write_view(view, &rows, &mut out);
        out
    }
}
