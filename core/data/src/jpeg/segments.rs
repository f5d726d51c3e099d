//! The segments of a JPEG, found as the standard and libjpeg find them: what stands between two of them is
//! passed over.

/// What the markers say of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Segments<'a> {
    /// Horizontal and vertical sampling factors of each component, in the frame's order.
    pub(super) sampling: Vec<(u8, u8)>,
    /// Whether the frame's coefficients come in several passes.
    pub(super) progressive: bool,
    /// Whether they are coded arithmetically, or otherwise than by Huffman's tables.
    pub(super) arithmetic: bool,
    /// Scans, and bytes of coded pixels in all of them.
    pub(super) scans: usize,
    pub(super) coded: usize,
    /// Whether bytes that belong to no segment were passed over.
    pub(super) untidy: bool,
    /// Whether a scan comes before any Huffman table: the standard's own (annex K.3) are meant.
    pub(super) bare: bool,
    /// Whether the end-of-image marker is there.
    pub(super) ended: bool,
    /// The EXIF block, a TIFF of its own.
    pub(super) exif: Option<&'a [u8]>,
}

const START_OF_IMAGE: u8 = 0xD8;
const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;
const HUFFMAN_TABLES: u8 = 0xC4;
const EXIF: &[u8] = b"Exif\0\0";

impl<'a> Segments<'a> {
    /// Of a file that begins with the start-of-image marker.
    pub(super) fn parse(bytes: &'a [u8]) -> Segments<'a> {
        let mut found = Segments::default();
        let (mut at, mut tables) = (2, false);
        while let Some((marker, behind, skipped)) = next_marker(bytes, at) {
            found.untidy |= skipped;
            at = behind;
            match marker {
                END_OF_IMAGE => {
                    found.ended = true;
                    break;
                }
                // Markers that stand alone.
                0x01 | 0xD0..=START_OF_IMAGE => continue,
                _ => {}
            }
            let Some(&[high, low]) = bytes.get(at..at + 2) else {
                break;
            };
            let end = at + usize::from(u16::from_be_bytes([high, low])).max(2);
            let segment = bytes.get(at + 2..end).unwrap_or_default();
            at = end;
            match marker {
                HUFFMAN_TABLES => tables = true,
                0xC0..=0xCF if marker != 0xC8 && marker != 0xCC => found.frame(marker, segment),
                0xE1 if found.exif.is_none() => found.exif = segment.strip_prefix(EXIF),
                START_OF_SCAN => {
                    found.bare |= !tables && !found.arithmetic;
                    let coded = coded_bytes(bytes.get(at..).unwrap_or_default());
                    found.scans += 1;
                    found.coded += coded;
                    at += coded;
                }
                _ => {}
            }
        }
        found
    }

    /// Precision (1), height (2), width (2), number of components (1); of each name, factors, table.
    fn frame(&mut self, marker: u8, segment: &[u8]) {
        self.progressive = matches!(marker & 3, 2);
        self.arithmetic = marker >= 0xC9;
        let components = segment.get(6..).unwrap_or_default().as_chunks::<3>().0;
        let factors = components
            .iter()
            .map(|[_, factors, _]| (factors >> 4, factors & 15));
        self.sampling = factors.collect();
    }

    /// Whether it is what nearly every file is: no component is sampled more finely than the first, the
    /// others not at all, and all are in one scan (of each pass).
    pub(super) fn is_usual(&self) -> bool {
        let plain = self
            .sampling
            .iter()
            .skip(1)
            .all(|factors| *factors == (1, 1));
        let powers = self
            .sampling
            .iter()
            .all(|(h, v)| h.is_power_of_two() && v.is_power_of_two());
        let whole = self.progressive || self.scans <= 1 || self.sampling.len() == 1;
        !self.untidy && !self.bare && powers && plain && whole
    }

    /// Whether a component lies between the coarsest and the finest, in a scan of its own: neither decoder
    /// counts its blocks right.
    pub(super) fn is_between(&self) -> bool {
        let between = |of: fn(&(u8, u8)) -> u8| {
            let finest = self.sampling.iter().map(of).max().unwrap_or(1);
            self.sampling
                .iter()
                .map(of)
                .any(|factor| factor > 1 && factor < finest)
        };
        (self.progressive || self.scans > 1) && (between(|f| f.0) || between(|f| f.1))
    }
}

/// The next marker from `at` on, where it ends, and whether anything but fill bytes was passed over.
fn next_marker(bytes: &[u8], at: usize) -> Option<(u8, usize, bool)> {
    let rest = bytes.get(at..)?;
    let mut skipped = false;
    let mut i = 0;
    loop {
        let found = rest[i..].iter().position(|byte| *byte == 0xFF)?;
        skipped |= found > 0;
        i += found;
        i += rest[i..].iter().position(|byte| *byte != 0xFF)?;
        match rest[i] {
            // A byte of coded pixels, not a marker.
            0 => skipped = true,
            marker => return Some((marker, at + i + 1, skipped)),
        }
    }
}

/// Bytes of a scan: up to a marker that is neither a stuffed 0xFF nor a restart.
fn coded_bytes(rest: &[u8]) -> usize {
    let inside = |next: u8| next == 0 || (0xD0..=0xD7).contains(&next);
    let end = rest
        .windows(2)
        .position(|pair| pair[0] == 0xFF && pair[1] != 0xFF && !inside(pair[1]));
    end.unwrap_or(rest.len())
}
