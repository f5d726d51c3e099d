//! The few rows of an image that a window needs at a time.

use crate::workspace::{Buffer, Workspace};

/// k rows of padded width, addressed by row number; rows outside the image read as zeros.
pub(super) struct Ring {
    rows: Buffer,
    zero: Buffer,
    slots: usize,
    row_len: usize,
    height: usize,
    loaded: usize,
}

impl Ring {
    pub(super) fn new(slots: usize, row_len: usize, height: usize, workspace: &Workspace) -> Ring {
        Ring {
            rows: workspace.zeros(slots * row_len),
            zero: workspace.zeros(row_len),
            slots,
            row_len,
            height,
            loaded: 0,
        }
    }

    pub(super) fn slot(&mut self, row: usize) -> &mut [f32] {
        &mut self.rows[row % self.slots * self.row_len..][..self.row_len]
    }

    /// Loads rows up to and without `end` (clipped to the image) by `read(row, interior)`.
    pub(super) fn advance(
        &mut self,
        end: usize,
        interior: std::ops::Range<usize>,
        mut read: impl FnMut(usize, &mut [f32]),
    ) {
        while self.loaded < end.min(self.height) {
            let row = self.loaded;
            read(row, &mut self.slot(row)[interior.clone()]);
            self.loaded += 1;
        }
    }

    pub(super) fn row(&self, row: isize) -> &[f32] {
        if row < 0 || row as usize >= self.height {
            return &self.zero;
        }
        &self.rows[row as usize % self.slots * self.row_len..][..self.row_len]
    }
}
