//! How a product is divided among cubes and warps.

use super::{SIDE, WARPS, WIDE};

/// Shape of a cube's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Of 16 rows.
    pub strips: usize,
    /// Of 16 columns.
    pub blocks: usize,
    /// Fragments along k in a round.
    pub deep: usize,
    /// Numbers of a fragment along k: 16, or 8 of TF32.
    pub step: usize,
    /// Warps that share a strip, each with its part of k.
    pub split: usize,
    pub a_along_k: bool,
    pub b_along_k: bool,
    /// Whether k is one round: then B stays where it is.
    pub once: bool,
    /// Whether cubes along z are pieces of k, and not segments of the rows.
    pub pieces_of_k: bool,
}

impl Tile {
    /// Rows of a tile.
    pub fn tall(self) -> usize {
        SIDE * self.strips
    }

    /// Columns of a tile.
    pub fn wide(self) -> usize {
        SIDE * self.blocks
    }

    /// Numbers of a round along k.
    pub fn depth(self) -> usize {
        self.step * self.deep
    }

    /// Vectors from line to line in shared memory, and lines. One vector more than needed, so that neighboring
    /// lines begin in other banks.
    fn shape(side: usize, depth: usize, along_k: bool) -> (usize, usize) {
        match along_k {
            true => (depth / WIDE + 1, side),
            false => (side / WIDE + 1, depth),
        }
    }

    pub fn shape_a(self) -> (usize, usize) {
        Tile::shape(self.tall(), self.depth(), self.a_along_k)
    }

    pub fn shape_b(self) -> (usize, usize) {
        Tile::shape(self.wide(), self.depth(), self.b_along_k)
    }

    /// Blocks that leave through shared memory at once.
    pub fn pair(self) -> usize {
        if self.blocks.is_multiple_of(2) { 2 } else { 1 }
    }

    #[cfg(test)]
    /// Bytes of shared memory, with operands of so many bytes a number.
    pub fn shared_bytes(self, bytes: usize, column_sums: ColumnSums) -> usize {
        let operand = |(pitch, lines): (usize, usize)| pitch * lines * WIDE * bytes;
        let stage = WARPS * SIDE * (2 * self.pair() + 1) * WIDE * 4;
        let columns = match column_sums {
            ColumnSums::None => 0,
            _ => self.column_parts() * (2 * self.wide() + 1) * 4,
        };
        operand(self.shape_a()) + operand(self.shape_b()) + stage + columns
    }

    /// Units that have a part of a column's rows each.
    pub fn column_parts(self) -> usize {
        WARPS * 2 / self.pair()
    }
}

/// What is summed over the columns of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnSums {
    None,
    /// Mean, squared deviations from it, and rows.
    Moments,
    /// g, and g * (z - mean), where z is what [`End::through`] is of.
    Norm,
}

impl ColumnSums {
    /// How many sums a column has.
    pub fn count(self) -> usize {
        match self {
            ColumnSums::None => 0,
            ColumnSums::Moments => 3,
            ColumnSums::Norm => 2,
        }
    }
}

/// How the numbers of a product's sides lie.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    pub a_along_k: bool,
    pub b_along_k: bool,
    /// Whether A is a gradient, which takes many registers on its way in.
    pub gradient: bool,
}

impl Tile {
    /// For many rows: 128 at a time. `step` is as [`Tile::step`].
    pub fn of_rows((j, k): (usize, usize), step: usize, lines: Lines) -> Tile {
        // Fewer results let two cubes share a multiprocessor.
        let widest = if lines.gradient { 80 } else { 128 };
        // 128 bytes of a row.
        let deepest = 4 * step;
        Tile {
            strips: WARPS,
            blocks: evenly(j, widest, SIDE),
            deep: evenly(k.max(1), deepest, step),
            step,
            split: 1,
            a_along_k: lines.a_along_k,
            b_along_k: lines.b_along_k,
            once: k <= deepest,
            pieces_of_k: false,
        }
    }

    /// For few rows and columns, and much between them, of which cubes have a piece each.
    pub fn of_sums((i, j): (usize, usize), step: usize, lines: Lines) -> Tile {
        let (strips, blocks) = (evenly(i, 128, SIDE), evenly(j, 128, SIDE));
        let split = WARPS / strips;
        // Such that a unit loads three to five vectors a round.
        let deep = (400 / (SIDE * (strips + blocks))).clamp(2, 16);
        Tile {
            strips,
            blocks,
            deep: deep.next_multiple_of(split),
            step,
            split,
            a_along_k: lines.a_along_k,
            b_along_k: lines.b_along_k,
            once: false,
            pieces_of_k: true,
        }
    }
}

/// How many `step`s a part has, if `n` is cut into even parts of `most` at most.
fn evenly(n: usize, most: usize, step: usize) -> usize {
    n.div_ceil(n.div_ceil(most).max(1)).div_ceil(step).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::SHARED_BYTES;
    use super::*;

    #[test]
    fn whatever_the_sizes_tiles_fit_into_shared_memory() {
        let sizes = (1..=300).chain([320, 480, 512, 576, 672, 960, 1280, 4608]);
        let sizes: Vec<usize> = sizes.collect();
        let mut most = 0;
        for &j in &sizes {
            for &k in &sizes {
                for (step, bytes) in [(16, 2), (8, 4)] {
                    for which in 0..8 {
                        let lines = Lines {
                            a_along_k: which & 1 > 0,
                            b_along_k: which & 2 > 0,
                            gradient: which & 4 > 0,
                        };
                        let rows = Tile::of_rows((j, k), step, lines);
                        let sums = Tile::of_sums((k, j), step, lines);
                        assert!(
                            rows.strips * rows.split <= WARPS && sums.strips * sums.split <= WARPS
                        );
                        assert!(sums.deep.is_multiple_of(sums.split));
                        most = most.max(rows.shared_bytes(bytes, ColumnSums::Moments));
                        most = most.max(sums.shared_bytes(bytes, ColumnSums::None));
                    }
                }
            }
        }
        assert!(most <= SHARED_BYTES, "{most}");
    }
}
