//! Data structures against simple models.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;

use crate::proto::limits::SEGMENT_OVERHEAD_BYTES;
use crate::proto::range_set::RangeSet;
use crate::proto::{Assembler, InsertError};

/// A set of ranges against an array of flags.
pub(crate) fn range_set(data: &[u8]) {
    let mut set = RangeSet::new();
    let mut model = [false; 512];
    for op in data.chunks_exact(3).take(64) {
        let start = usize::from(op[0]);
        let end = start + usize::from(op[1] % 200);
        let range = start as u64..end as u64;
        let before = model.iter().filter(|there| **there).count() as u64;
        match op[2] % 4 {
            0 | 1 => {
                model[start..end].fill(true);
                let after = model.iter().filter(|there| **there).count() as u64;
                assert_eq!(set.insert(range), after - before);
            }
            2 => {
                model[start..end].fill(false);
                let after = model.iter().filter(|there| **there).count() as u64;
                assert_eq!(set.remove(range), before - after);
            }
            _ => {
                model[..start].fill(false);
                set.remove_below(start as u64);
            }
        }
        is_the_set(&set, &model);
        compare_parts(&set, &model, start, end);
    }
}

fn is_the_set(set: &RangeSet, model: &[bool]) {
    let there: Vec<u64> = (0..).zip(model).filter(|(_, there)| **there).map(|(n, _)| n).collect();
    assert_eq!(set.len(), there.len() as u64);
    assert_eq!(set.is_empty(), there.is_empty());
    assert!(set.iter().flatten().eq(there.iter().copied()));
    assert_eq!(set.iter().count(), set.range_count());
    assert_eq!(set.first(), set.iter().next());
    let ranges: Vec<_> = set.iter().collect();
    assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?} touch");
    let nth = model.len() / 7;
    let chunk = set.nth_chunk(nth as u64, 3);
    assert_eq!(chunk.as_ref().map(|chunk| chunk.start), there.get(nth).copied());
    assert!(chunk.into_iter().flatten().all(|n| there.contains(&n)));
}

fn compare_parts(set: &RangeSet, model: &[bool], start: usize, end: usize) {
    assert_eq!(set.contains(start as u64), model[start]);
    let gaps = set.gaps_in(start as u64..end as u64);
    assert!(gaps.windows(2).all(|pair| pair[0].end < pair[1].start), "{gaps:?} touch");
    let absent = (start..end).filter(|&n| !model[n]).map(|n| n as u64);
    assert!(gaps.into_iter().flatten().eq(absent));
}

/// Bytes in any order, overlapping and contradicting each other: the first for an offset counts.
pub(crate) fn assembler(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut run = Assembling { assembler: Assembler::default(), model: Vec::new(), read: 0 };
    for _ in 0..200 {
        if u.is_empty() || run.step(&mut u).is_err() {
            break;
        }
        run.compare();
    }
}

struct Assembling {
    assembler: Assembler,
    /// What arrived, by offset.
    model: Vec<Option<u8>>,
    read: usize,
}

impl Assembling {
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=7)? {
            0..=4 => {
                let offset = u.int_in_range(0..=8191)?;
                self.insert(offset, u.int_in_range(0..=255)?, u.arbitrary()?);
            }
            // Longer than pieces that are joined to a neighbour.
            5 => {
                let offset = u.int_in_range(0..=8191)?;
                self.insert(offset, u.int_in_range(2000..=4000)?, u.arbitrary()?);
            }
            6 => self.read(u.int_in_range(1..=3000)?),
            _ if u.ratio(1, 8)? => {
                self.read = self.prefix();
                self.assembler.clear();
                self.model.truncate(self.read);
            }
            _ => {
                let refused = self.assembler.insert(u64::MAX, Bytes::from_static(b"x"));
                assert_eq!(refused, Err(InsertError::OffsetOverflow));
            }
        }
        Ok(())
    }

    fn insert(&mut self, offset: usize, len: usize, seed: u8) {
        let bytes: Bytes = (0..len).map(|n| seed.wrapping_add(n as u8)).collect();
        let end = offset + len;
        if self.model.len() < end {
            self.model.resize(end, None);
        }
        let mut new = 0;
        for (place, &byte) in self.model[offset..end].iter_mut().zip(&bytes) {
            new += u64::from(place.is_none());
            place.get_or_insert(byte);
        }
        assert_eq!(self.assembler.insert(offset as u64, bytes), Ok(new));
    }

    fn read(&mut self, max: usize) {
        let ready = self.prefix() - self.read;
        let Some(bytes) = self.assembler.read(max) else { return assert_eq!(ready, 0) };
        assert!(!bytes.is_empty() && bytes.len() <= max.min(ready));
        let expected = self.model[self.read..].iter().take(bytes.len());
        assert!(expected.copied().eq(bytes.iter().copied().map(Some)), "other bytes");
        self.read += bytes.len();
    }

    /// Bytes present from the start without a gap.
    fn prefix(&self) -> usize {
        let missing = self.model[self.read..].iter().position(Option::is_none);
        missing.map_or(self.model.len(), |at| self.read + at)
    }

    fn compare(&self) {
        let prefix = self.prefix();
        assert_eq!(self.assembler.read_offset(), self.read as u64);
        assert_eq!(self.assembler.ready_bytes(), (prefix - self.read) as u64);
        let beyond = self.model[prefix..].iter().filter(|byte| byte.is_some()).count() as u64;
        let cost = self.assembler.reorder_cost();
        assert!(cost >= beyond && (beyond > 0 || cost == 0), "{cost} for {beyond} bytes");
        assert!(cost <= beyond * (1 + SEGMENT_OVERHEAD_BYTES), "{cost} for {beyond} bytes");
    }
}
