//! What the loader hands out.

use std::sync::Arc;

use super::photo::Photo;
use super::pixel_norm::Normalize;
use super::views::ViewParams;

/// Views of some photos.
#[derive(Debug)]
pub struct Batch {
    /// Epoch it belongs to.
    pub epoch: u64,
    /// Its number in that epoch.
    pub step: u64,
    /// Index of each photo in the source; no photo is in a batch twice.
    pub photos: Vec<u32>,
    pub(super) normalize: Normalize,
    /// What there is of each photo.
    pub(super) views: BatchViews,
}

/// A batch's views: made, or what they are to be made of.
#[derive(Debug)]
pub(super) enum BatchViews {
    /// Kept as bytes, a quarter of what the floats would take: those of a photo one after another, rows of
    /// R, G, B. [`Batch::write_view`] turns as many as are needed at a time into floats.
    Pixels { each: usize, photos: Vec<Vec<u8>> },
    /// For a backend that makes views itself.
    Undrawn(Vec<Undrawn>),
}

/// A photo and the random numbers of its views.
#[derive(Debug)]
pub struct Undrawn {
    /// The photo, as large as its views need it.
    pub photo: Arc<Photo>,
    /// Its views.
    pub views: Vec<ViewParams>,
}

/// What a worker has made of a photo.
#[derive(Debug)]
pub(super) enum Made {
    /// Its views' bytes.
    Pixels(Vec<u8>),
    /// What they would be made of.
    Undrawn(Undrawn),
}

impl BatchViews {
    /// Of photos with `each` views; workers make all of one kind.
    pub(super) fn new(each: usize, undrawn: bool, made: impl Iterator<Item = Made>) -> BatchViews {
        match undrawn {
            false => BatchViews::Pixels {
                each,
                photos: made.filter_map(Made::pixels).collect(),
            },
            true => BatchViews::Undrawn(made.filter_map(Made::undrawn).collect()),
        }
    }
}

impl Made {
    fn pixels(self) -> Option<Vec<u8>> {
        match self {
            Made::Pixels(pixels) => Some(pixels),
            Made::Undrawn(_) => None,
        }
    }

    fn undrawn(self) -> Option<Undrawn> {
        match self {
            Made::Pixels(_) => None,
            Made::Undrawn(undrawn) => Some(undrawn),
        }
    }
}

impl Batch {
    /// The bytes of one view (0 or 1) of the photo at `row`: rows of R, G, B; none where views are not made
    /// yet.
    pub fn bytes(&self, view: usize, row: usize) -> &[u8] {
        match &self.views {
            BatchViews::Pixels { each, photos } => {
                let len = photos[row].len() / each;
                &photos[row][view * len..(view + 1) * len]
            }
            BatchViews::Undrawn(_) => &[],
        }
    }

    /// The photos at `rows` and the random numbers of their `view` (0 or 1), where views are not made yet.
    pub fn undrawn(&self, view: usize, rows: &[usize]) -> Option<Vec<(&Photo, &ViewParams)>> {
        let BatchViews::Undrawn(photos) = &self.views else {
            return None;
        };
        let one = |&row: &usize| {
            let undrawn = photos.get(row)?;
            Some((&*undrawn.photo, undrawn.views.get(view)?))
        };
        rows.iter().map(one).collect()
    }

    /// How views become floats.
    pub fn normalize(&self) -> &Normalize {
        &self.normalize
    }

    /// Writes `view` (0 or 1) of the photos at `rows` as normalized floats, photo after photo:
    /// `out` takes `rows.len() * size * size * 3` numbers (N, H, W, C).
    pub fn write_view(&self, view: usize, rows: &[usize], out: &mut [f32]) {
        let Some(&first) = rows.first() else { return };
        let len = self.bytes(view, first).len().max(1);
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(len)) {
            self.normalize.apply(self.bytes(view, row), out);
        }
    }

    /// All of `view` (0 or 1) as normalized floats (N, H, W, C).
    pub fn view(&self, view: usize) -> Vec<f32> {
        let rows: Vec<usize> = (0..self.photos.len()).collect();
        let numbers = rows.iter().map(|&row| self.bytes(view, row).len()).sum();
        let mut out = vec![0.0; numbers];
        self.write_view(view, &rows, &mut out);
        out
    }
}
