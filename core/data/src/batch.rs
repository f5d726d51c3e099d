//! What the loader hands out.

use std::sync::Arc;

use super::normalise::Normalise;
use super::photo::Photo;
use super::views::ViewParams;

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
    /// One per photo instead, where views are made elsewhere.
    pub(super) undrawn: Vec<Undrawn>,
}

/// A photo and the random numbers of its views.
#[derive(Debug)]
pub struct Undrawn {
    /// The photo, as large as its views need it.
    pub photo: Arc<Photo>,
    /// Its views.
    pub views: Vec<ViewParams>,
}

/// What a batch has of a photo.
#[derive(Debug)]
pub(super) enum Made {
    /// Its views' bytes.
    Pixels(Vec<u8>),
    /// What they would be made of.
    Undrawn(Undrawn),
}

impl Batch {
    /// Adds a photo's views; a batch has one kind of them.
    pub(super) fn push(&mut self, made: Made) {
        match made {
            Made::Pixels(pixels) => self.pixels.push(pixels),
            Made::Undrawn(undrawn) => self.undrawn.push(undrawn),
        }
    }

    pub(super) fn replace(&mut self, row: usize, made: Made) {
        match made {
            Made::Pixels(pixels) => self.pixels[row] = pixels,
            Made::Undrawn(undrawn) => self.undrawn[row] = undrawn,
        }
    }

    pub(super) fn remove(&mut self, row: usize) {
        self.photos.remove(row);
        match self.undrawn.is_empty() {
            true => drop(self.pixels.remove(row)),
            false => drop(self.undrawn.remove(row)),
        }
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.photos.truncate(rows);
        self.pixels.truncate(rows);
        self.undrawn.truncate(rows);
    }

    /// The bytes of one view (0 or 1) of the photo at `row`: rows of R, G, B.
    pub fn bytes(&self, view: usize, row: usize) -> &[u8] {
        let both = &self.pixels[row];
        let len = both.len() / self.views;
        &both[view * len..(view + 1) * len]
    }

    /// The photos at `rows` and the random numbers of their `view` (0 or 1), where the batch has no
    /// pixels.
    pub fn undrawn(&self, view: usize, rows: &[usize]) -> Option<Vec<(&Photo, &ViewParams)>> {
        if self.undrawn.is_empty() {
            return None;
        }
        let one = |&row: &usize| {
            let undrawn = self.undrawn.get(row)?;
            Some((&*undrawn.photo, undrawn.views.get(view)?))
        };
        rows.iter().map(one).collect()
    }

    /// How views become floats.
    pub fn normalise(&self) -> &Normalise {
        &self.normalise
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
