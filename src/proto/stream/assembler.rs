//! Puts arriving bytes in order, each once.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::proto::count::{Count, end_of, span};
use crate::proto::limits::{SEGMENT_OVERHEAD_BYTES, STREAM_GAPS_MAX};

/// Segments shorter than this are joined to a neighbour they touch.
const JOIN_BYTES: usize = 2048;

/// The receiving buffer of one stream.
///
/// Each byte is kept once; memory is counted as allocated: payload plus an allowance for every
/// separate segment.
#[derive(Debug, Default)]
pub struct Assembler {
    /// In order, ready to be read, none empty.
    ready: VecDeque<Bytes>,
    /// Offset of the first ready byte or, if none is ready, of the next expected one.
    read: u64,
    /// Everything below has arrived. read <= contiguous.
    contiguous: u64,
    /// Out of order: start to bytes; disjoint, all above `contiguous`.
    segments: BTreeMap<u64, Bytes>,
    /// Payload bytes in `segments`.
    segment_bytes: Count,
    /// Runs of segments that touch: as many as there are gaps before them.
    gaps: Count,
}

/// Why data was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// More separate gaps than one stream may have.
    TooManyGaps,
    /// The data would end beyond the largest possible offset.
    OffsetOverflow,
}

impl Assembler {
    /// Takes `data` at `offset`; drops bytes already there. Returns how many bytes were new.
    pub fn insert(&mut self, offset: u64, mut data: Bytes) -> Result<u64, InsertError> {
        let end = offset.checked_add(data.len() as u64).ok_or(InsertError::OffsetOverflow)?;
        if end <= self.contiguous {
            return Ok(0);
        }
        let mut start = offset;
        if start < self.contiguous {
            // In bounds: start < contiguous < end.
            let _ = data.split_to(span(start, self.contiguous) as usize);
            start = self.contiguous;
        }
        if start == self.contiguous && self.segments.is_empty() {
            let new = data.len() as u64;
            self.push_ready(data);
            return Ok(new);
        }
        let new = self.insert_segments(start, data);
        self.promote();
        if self.gaps.get() > STREAM_GAPS_MAX as u64 {
            return Err(InsertError::TooManyGaps);
        }
        Ok(new)
    }

    /// Takes up to `max` bytes from the front, as one piece.
    pub fn read(&mut self, max: usize) -> Option<Bytes> {
        let mut front = self.ready.pop_front()?;
        if front.len() > max {
            let rest = front.split_off(max);
            self.ready.push_front(rest);
        }
        self.read = end_of(self.read, front.len() as u64);
        Some(front)
    }

    /// Offset of the next byte that will be read.
    pub fn read_offset(&self) -> u64 {
        self.read
    }

    /// Bytes ready to be read.
    pub fn ready_bytes(&self) -> u64 {
        span(self.read, self.contiguous)
    }

    /// Memory cost of out-of-order data in bytes, including bookkeeping.
    pub fn reorder_cost(&self) -> u64 {
        let overhead = (self.segments.len() as u64).saturating_mul(SEGMENT_OVERHEAD_BYTES);
        end_of(self.segment_bytes.get(), overhead)
    }

    /// Stream bytes in that data.
    pub fn reorder_bytes(&self) -> u64 {
        self.segment_bytes.get()
    }

    /// Forgets out-of-order data.
    pub(super) fn clear_segments(&mut self) {
        self.segments.clear();
        self.segment_bytes = Count::ZERO;
        self.gaps = Count::ZERO;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { read: self.contiguous, contiguous: self.contiguous, ..Self::default() };
    }

    fn push_ready(&mut self, data: Bytes) {
        self.contiguous = end_of(self.contiguous, data.len() as u64);
        match self.ready.pop_back() {
            None => self.ready.push_back(data),
            Some(last) => {
                for piece in join(last, data).into_iter().flatten() {
                    self.ready.push_back(piece);
                }
            }
        }
    }

    /// Stores the parts of `data` that are not stored yet.
    fn insert_segments(&mut self, mut start: u64, mut data: Bytes) -> u64 {
        let mut new = 0u64;
        while !data.is_empty() {
            // What a segment starting at or before `start` already covers.
            if let Some((&at, stored)) = self.segments.range(..=start).next_back() {
                let stored_end = end_of(at, stored.len() as u64);
                let covered = stored_end.saturating_sub(start).min(data.len() as u64);
                if covered > 0 {
                    let _ = data.split_to(covered as usize);
                    start = end_of(start, covered);
                    continue;
                }
            }
            let room = self
                .segments
                .range(start..)
                .next()
                .map_or(u64::MAX, |(&next, _)| span(start, next));
            let piece = data.split_to((data.len() as u64).min(room) as usize);
            let len = piece.len() as u64;
            self.store(start, piece);
            new = end_of(new, len);
            start = end_of(start, len);
        }
        new
    }

    /// Stores a piece that overlaps nothing, joined to the segment before it if both are short.
    fn store(&mut self, start: u64, piece: Bytes) {
        self.segment_bytes.add(piece.len() as u64);
        let before = self
            .segments
            .range(..start)
            .next_back()
            .filter(|(at, stored)| end_of(**at, stored.len() as u64) == start)
            .map(|(&at, _)| at);
        let touches_next = self.segments.contains_key(&end_of(start, piece.len() as u64));
        self.gaps.add(1);
        self.gaps.take(u64::from(before.is_some()));
        self.gaps.take(u64::from(touches_next));
        if let Some(at) = before
            && let Some(stored) = self.segments.remove(&at)
        {
            let [first, second] = join(stored, piece);
            if let Some(first) = first {
                self.segments.insert(at, first);
            }
            if let Some(second) = second {
                self.segments.insert(start, second);
            }
            return;
        }
        self.segments.insert(start, piece);
    }

    /// Moves what has become contiguous to `ready`.
    fn promote(&mut self) {
        let before = self.segments.len();
        while let Some((&at, _)) = self.segments.first_key_value()
            && at <= self.contiguous
            && let Some((_, piece)) = self.segments.pop_first()
        {
            debug_assert_eq!(at, self.contiguous, "segments are disjoint and above");
            self.segment_bytes.take(piece.len() as u64);
            self.push_ready(piece);
        }
        // What became contiguous was one run: the gap before it is filled.
        self.gaps.take(u64::from(self.segments.len() < before));
    }
}

/// Joins two adjacent pieces if both are short; otherwise returns them unchanged.
fn join(first: Bytes, second: Bytes) -> [Option<Bytes>; 2] {
    if first.len() >= JOIN_BYTES || second.len() >= JOIN_BYTES {
        return [Some(first), Some(second)];
    }
    let mut joined = first.try_into_mut().unwrap_or_else(|first| {
        let mut copy = BytesMut::with_capacity(JOIN_BYTES.saturating_mul(2));
        copy.extend_from_slice(&first);
        copy
    });
    joined.extend_from_slice(&second);
    [Some(joined.freeze()), None]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn byte_at(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    fn bytes_at(offset: u64, len: usize) -> Bytes {
        (offset..offset + len as u64).map(byte_at).collect()
    }

    proptest! {
        #[test]
        fn every_byte_once_and_in_order(
            pieces in prop::collection::vec((0u64..5000, 1usize..900), 1..80),
            reads in prop::collection::vec(1usize..700, 1..80),
        ) {
            let mut assembler = Assembler::default();
            let mut model = vec![false; 6000];
            let mut read = 0u64;
            let mut reads = reads.into_iter().cycle();
            for (offset, len) in pieces {
                let expected_new = (offset..offset + len as u64)
                    .filter(|&o| !std::mem::replace(&mut model[o as usize], true))
                    .count() as u64;
                prop_assert_eq!(assembler.insert(offset, bytes_at(offset, len)), Ok(expected_new));
                let prefix = model.iter().take_while(|&&there| there).count() as u64;
                prop_assert_eq!(assembler.read_offset() + assembler.ready_bytes(), prefix);
                if let Some(piece) = assembler.read(reads.next().unwrap()) {
                    prop_assert_eq!(&piece, &bytes_at(read, piece.len()));
                    read += piece.len() as u64;
                }
                let beyond = model.iter().skip(prefix as usize).filter(|&&there| there).count() as u64;
                prop_assert!(assembler.reorder_cost() >= beyond);
                let begins = |&o: &usize| o as u64 >= prefix && model[o] && (o == 0 || !model[o - 1]);
                let gaps = (0..model.len()).filter(begins).count() as u64;
                prop_assert_eq!(assembler.gaps.get(), gaps);
            }
        }
    }

    #[test]
    fn touching_pieces_are_no_gaps() {
        let mut assembler = Assembler::default();
        let len = JOIN_BYTES as u64;
        // A lane that is late with the first piece holds up any number of full ones behind it.
        for n in 1..=2 * STREAM_GAPS_MAX as u64 {
            assert_eq!(assembler.insert(n * len, bytes_at(n * len, JOIN_BYTES)), Ok(len));
            assert_eq!(assembler.gaps.get(), 1);
        }
        assert_eq!(assembler.insert(0, bytes_at(0, JOIN_BYTES)), Ok(len));
        assert_eq!((assembler.gaps.get(), assembler.segments.len()), (0, 0));
    }

    #[test]
    fn gaps_are_bounded() {
        let mut assembler = Assembler::default();
        let inserted = (1..=STREAM_GAPS_MAX as u64 + 1)
            .map(|n| assembler.insert(n * 2, Bytes::from_static(b"x")))
            .find(Result::is_err);
        assert_eq!(inserted, Some(Err(InsertError::TooManyGaps)));
    }

    #[test]
    fn an_offset_that_overflows_is_refused() {
        let refused = Assembler::default().insert(u64::MAX, Bytes::from_static(b"x"));
        assert_eq!(refused, Err(InsertError::OffsetOverflow));
    }
}
