//! Address space that buffers are cut from and go back to, so that memory is used again whatever sizes
//! come next: a layer's tensors have never those of the layer before.
//!
//! Addresses cost nothing, and the system puts memory behind them when they are first written to. The
//! arena counts what it has put there, and gives some of what nobody uses back before it would hold more
//! than was ever on loan at a time, and a thirtieth.

use memmap2::{MmapMut, MmapRaw};
use std::sync::Arc;

/// Floats of a granule, the unit of all cuts: 16 KiB, the pages of Apple's phones and four of other
/// systems'.
const GRANULE: usize = 4096;

/// Bytes of a granule.
const GRANULE_BYTES: usize = GRANULE * size_of::<f32>();

/// Granules of a chunk's addresses, where that is enough and the system grants them: 256 MiB.
const CHUNK: usize = (256 << 20) / GRANULE_BYTES;

/// The part of what was ever on loan that may be held beyond it: what lies between buffers of other sizes
/// would be given back and asked for again and again.
const BETWEEN: usize = 32;

/// The addresses, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    /// Granules on loan.
    lent: usize,
    /// Floats that the heap lends beside them.
    heap: usize,
    /// The most floats on loan at a time.
    most: usize,
    /// Granules with memory behind them, lent or not.
    resident: usize,
}

/// Addresses in a row.
#[derive(Debug)]
struct Chunk {
    map: Arc<MmapRaw>,
    /// Cuts that nobody has, by their place, none next to another.
    free: Vec<Cut>,
    /// Of each granule, whether there is memory behind it.
    resident: Vec<bool>,
    /// From here on there has never been any.
    reach: usize,
}

/// Granules in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cut {
    start: usize,
    count: usize,
}

/// Floats on loan from an arena: nobody else has them until they are taken back.
#[derive(Debug)]
pub(super) struct Range {
    map: Arc<MmapRaw>,
    cut: Cut,
    len: usize,
}

impl Arena {
    /// `len` floats; none where the system has no addresses left.
    pub(super) fn lend(&mut self, len: usize) -> Option<Range> {
        let count = len.div_ceil(GRANULE);
        let (chunk, at) = match self.best(count) {
            Some(place) => place,
            None => {
                self.chunks.push(Chunk::new(count)?);
                (self.chunks.len() - 1, 0)
            }
        };
        self.lent += count;
        let cut = self.chunks[chunk].cut(at, count);
        let new = count - self.chunks[chunk].resident_in(cut);
        self.note_most();
        self.make_room(new);
        self.chunks[chunk].inhabit(cut);
        self.resident += new;
        Some(Range {
            map: self.chunks[chunk].map.clone(),
            cut,
            len,
        })
    }

    pub(super) fn take_back(&mut self, range: Range) {
        self.lent -= range.cut.count;
        let home = |chunk: &&mut Chunk| Arc::ptr_eq(&chunk.map, &range.map);
        if let Some(chunk) = self.chunks.iter_mut().find(home) {
            chunk.join(range.cut);
        }
    }

    /// Counts what the heap lends.
    pub(super) fn heap_grows(&mut self, len: usize) {
        self.heap += len;
        self.note_most();
    }

    pub(super) fn heap_shrinks(&mut self, len: usize) {
        self.heap -= len;
    }

    pub(super) fn most_bytes(&self) -> usize {
        self.most * size_of::<f32>()
    }

    /// Gives back all that is not on loan.
    pub(super) fn release(&mut self) {
        self.most = self.floats_lent();
        self.leave(usize::MAX);
        self.chunks.retain(|chunk| !chunk.is_free());
    }

    fn floats_lent(&self) -> usize {
        self.lent * GRANULE + self.heap
    }

    fn note_most(&mut self) {
        self.most = self.most.max(self.floats_lent());
    }

    /// The free cut that loses least by giving `count`: its chunk and its place there.
    fn best(&self, count: usize) -> Option<(usize, usize)> {
        let free = self.chunks.iter().enumerate().flat_map(|(chunk, of)| {
            let cuts = of.free.iter().enumerate();
            cuts.map(move |(at, cut)| (cut.count, (chunk, at)))
        });
        free.filter(|(has, _)| *has >= count)
            .min()
            .map(|(_, place)| place)
    }

    /// Gives back what nobody uses until `new` more granules make hardly more than were ever on loan.
    fn make_room(&mut self, new: usize) {
        let held = (self.resident + new) * GRANULE + self.heap;
        let most = self.most + self.most / BETWEEN;
        self.leave(held.saturating_sub(most).div_ceil(GRANULE));
    }

    /// Gives back up to `count` granules that nobody uses: the last addresses first, for which the best
    /// cuts were not needed.
    fn leave(&mut self, mut count: usize) {
        for chunk in self.chunks.iter_mut().rev() {
            let left = chunk.leave(count);
            self.resident -= left;
            count -= left;
        }
    }
}

impl Chunk {
    /// Addresses for `count` granules and more; fewer more where the system is stingy with them.
    fn new(count: usize) -> Option<Chunk> {
        let mut all = CHUNK.max(count);
        loop {
            if let Ok(map) = MmapMut::map_anon(all * GRANULE_BYTES) {
                return Some(Chunk::reserve(MmapRaw::from(map), all));
            }
            if all == count {
                return None;
            }
            all = (all / 2).max(count);
        }
    }

    fn reserve(map: MmapRaw, count: usize) -> Chunk {
        // With pages of 2 MB there would be more behind an address than is counted.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::NoHugePage);
        Chunk {
            map: Arc::new(map),
            free: vec![Cut { start: 0, count }],
            resident: vec![false; count],
            reach: 0,
        }
    }

    /// Nobody has any of it.
    fn is_free(&self) -> bool {
        self.free.iter().map(|cut| cut.count).sum::<usize>() == self.resident.len()
    }

    /// The first `count` granules of a free cut.
    fn cut(&mut self, at: usize, count: usize) -> Cut {
        let from = self.free[at];
        match from.count == count {
            true => drop(self.free.remove(at)),
            false => {
                self.free[at] = Cut {
                    start: from.start + count,
                    count: from.count - count,
                }
            }
        }
        Cut {
            start: from.start,
            count,
        }
    }

    /// Makes a cut free, and one with its free neighbors.
    fn join(&mut self, cut: Cut) {
        let mut at = self.free.partition_point(|free| free.start < cut.start);
        self.free.insert(at, cut);
        if at > 0 && self.free[at - 1].end() == cut.start {
            at -= 1;
            self.free[at].count += self.free.remove(at + 1).count;
        }
        if at + 1 < self.free.len() && self.free[at].end() == self.free[at + 1].start {
            self.free[at].count += self.free.remove(at + 1).count;
        }
    }

    fn resident_in(&self, cut: Cut) -> usize {
        let granules = &self.resident[cut.start..cut.end()];
        granules.iter().filter(|resident| **resident).count()
    }

    /// A cut is about to be written to.
    fn inhabit(&mut self, cut: Cut) {
        // What was given back to Apple's systems has to be asked for again, or it is not counted.
        #[cfg(target_vendor = "apple")]
        for run in runs(&self.resident, cut, false) {
            // SAFETY: nobody has the cut; what is behind it is arbitrary before and after.
            let _ = unsafe { self.advise(memmap2::UncheckedAdvice::FreeReuse, run) };
        }
        self.resident[cut.start..cut.end()].fill(true);
        self.reach = self.reach.max(cut.end());
    }

    /// Gives back up to `count` granules of free cuts, the last first; how many.
    fn leave(&mut self, count: usize) -> usize {
        let mut left = 0;
        for at in (0..self.free.len()).rev() {
            let within = self.free[at].before(self.reach);
            for mut run in runs(&self.resident, within, true).into_iter().rev() {
                let more = run.count.min(count - left);
                if more == 0 {
                    return left;
                }
                run.start += run.count - more;
                run.count = more;
                #[cfg(target_vendor = "apple")]
                let advice = memmap2::UncheckedAdvice::FreeReusable;
                #[cfg(all(unix, not(target_vendor = "apple")))]
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // Where the system refuses, which it has no reason to, a little more is held.
                // SAFETY: the cut is free, so nobody has a reference to what is behind it.
                #[cfg(unix)]
                let _ = unsafe { self.advise(advice, run) };
                self.resident[run.start..run.end()].fill(false);
                left += more;
            }
        }
        left
    }

    /// # Safety
    /// Nobody may have a reference to what is behind the cut.
    #[cfg(unix)]
    unsafe fn advise(&self, advice: memmap2::UncheckedAdvice, cut: Cut) -> std::io::Result<()> {
        let (start, bytes) = (cut.start * GRANULE_BYTES, cut.count * GRANULE_BYTES);
        // SAFETY: as this function asks.
        unsafe { self.map.unchecked_advise_range(advice, start, bytes) }
    }
}

impl Cut {
    fn end(self) -> usize {
        self.start + self.count
    }

    /// Its part before a granule.
    fn before(self, granule: usize) -> Cut {
        Cut {
            start: self.start,
            count: self.count.min(granule.saturating_sub(self.start)),
        }
    }
}

/// The granules of a cut that have memory behind them, or have none, as cuts.
fn runs(resident: &[bool], cut: Cut, wanted: bool) -> Vec<Cut> {
    let mut found: Vec<Cut> = Vec::new();
    let granules = &resident[cut.start..cut.end()];
    for (at, _) in granules.iter().enumerate().filter(|(_, is)| **is == wanted) {
        let start = cut.start + at;
        match found.last_mut() {
            Some(last) if last.end() == start => last.count += 1,
            _ => found.push(Cut { start, count: 1 }),
        }
    }
    found
}

impl Range {
    pub(super) fn floats(&self) -> &[f32] {
        // SAFETY: the cut lies within the map, which lives as long as this; granules are aligned for
        // floats, of which all bits are some; only this range has the cut.
        unsafe { std::slice::from_raw_parts(self.first(), self.len) }
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above, and this is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.first(), self.len) }
    }

    fn first(&self) -> *mut f32 {
        let bytes = self.cut.start * GRANULE_BYTES;
        self.map.as_mut_ptr().wrapping_add(bytes).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedling_base::rng::{Purpose, Rng};

    /// Granules that are free, resident and lent, counted anew.
    fn check(arena: &Arena, lent: &[Range]) {
        let of = |cuts: &mut dyn Iterator<Item = &Cut>| cuts.map(|cut| cut.count).sum::<usize>();
        assert_eq!(arena.lent, of(&mut lent.iter().map(|range| &range.cut)));
        let mut resident = 0;
        for chunk in &arena.chunks {
            let mine = lent.iter().filter(|r| Arc::ptr_eq(&r.map, &chunk.map));
            let mut all: Vec<Cut> = mine.map(|range| range.cut).collect();
            assert!(all.iter().all(|cut| chunk.resident_in(*cut) == cut.count));
            let between = |pair: &[Cut]| pair[0].end() < pair[1].start;
            assert!(chunk.free.windows(2).all(between), "{:?}", chunk.free);
            all.extend(&chunk.free);
            all.sort_by_key(|cut| cut.start);
            assert!(all.windows(2).all(|pair| pair[0].end() == pair[1].start));
            assert_eq!(of(&mut all.iter()), chunk.resident.len());
            resident += chunk.resident.iter().filter(|r| **r).count();
        }
        assert_eq!(arena.resident, resident);
        assert!(resident * GRANULE + arena.heap <= arena.most + arena.most / BETWEEN);
    }

    #[test]
    fn never_more_is_held_than_was_lent_and_nothing_is_lost() {
        let mut rng = Rng::new(7, Purpose::Measure, 0, 0);
        let (mut arena, mut lent) = (Arena::default(), Vec::new());
        for round in 0..2000 {
            let most = [5.0, 40.0][round / 50 % 2];
            if rng.range(0.0, 1.0) < 0.5 || lent.is_empty() {
                let len = rng.range(1.0, most * GRANULE as f32) as usize;
                let mut range = arena.lend(len).unwrap();
                range.floats_mut()[len - 1] = 1.0;
                lent.push(range);
            } else {
                let at = rng.range(0.0, lent.len() as f32) as usize;
                arena.take_back(lent.swap_remove(at.min(lent.len() - 1)));
            }
            if round % 300 == 299 {
                arena.release();
                assert_eq!(arena.resident, arena.lent);
            }
            check(&arena, &lent);
        }
        lent.drain(..).for_each(|range| arena.take_back(range));
        arena.release();
        assert_eq!((arena.chunks.len(), arena.most), (0, 0));
    }

    #[test]
    fn the_second_pass_asks_for_nothing() {
        let mut arena = Arena::default();
        // Of layers: a wide tensor from a narrow one, then a narrow one from it.
        let pass = |arena: &mut Arena| {
            let mut asked = 0;
            let mut x = arena.lend(90 * GRANULE).unwrap();
            for n in [80, 60, 55, 40, 33, 20, 17, 9] {
                for count in [4 * n, n] {
                    let before = arena.resident;
                    let y = arena.lend(count * GRANULE).unwrap();
                    asked += arena.resident - before;
                    arena.take_back(std::mem::replace(&mut x, y));
                }
            }
            arena.take_back(x);
            asked
        };
        assert!(pass(&mut arena) > 300);
        assert_eq!(pass(&mut arena), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_given_back_is_the_systems() {
        let mut arena = Arena::default();
        let mut range = arena.lend(64 * GRANULE).unwrap();
        let small = arena.lend(GRANULE).unwrap();
        range.floats_mut().fill(1.0);
        arena.take_back(range);
        let again = arena.lend(64 * GRANULE).unwrap();
        assert!(again.floats().iter().all(|&x| x == 1.0));
        arena.take_back(again);
        arena.release();
        // Linux puts zeros where there was nothing.
        let new = arena.lend(64 * GRANULE).unwrap();
        assert!(new.floats().iter().all(|&x| x == 0.0));
        arena.take_back(new);
        arena.take_back(small);
    }

    #[test]
    fn more_than_a_chunk_is_a_chunk_of_its_own() {
        let mut arena = Arena::default();
        let large = arena.lend((CHUNK + 3) * GRANULE).unwrap();
        let other = arena.lend(GRANULE).unwrap();
        assert_eq!(arena.chunks.len(), 2);
        arena.take_back(large);
        assert_eq!(arena.best(CHUNK + 3), Some((0, 0)));
        arena.take_back(other);
        // More addresses than there are.
        assert!(arena.lend(1 << 60).is_none());
    }
}
