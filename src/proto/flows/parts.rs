//! A datagram that comes in parts.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use crate::proto::limits::DATAGRAM_OVERHEAD_BYTES;

/// The parts there are so far. Invariant: they do not overlap, and end within `total`.
#[derive(Debug)]
pub struct Parts {
    total: usize,
    pieces: BTreeMap<usize, Bytes>,
    /// Bytes in `pieces`.
    bytes: usize,
}

/// What a part was.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// New: there is this much more to keep.
    New(u64),
    /// It was there already.
    Again,
    /// It does not fit the others.
    Contradicts,
}

impl Parts {
    pub fn new(total: usize) -> Self {
        Self { total, pieces: BTreeMap::new(), bytes: 0 }
    }

    /// Adds one; the datagram has `total` bytes according to it.
    pub fn add(&mut self, total: usize, offset: usize, data: Bytes) -> Part {
        let end = offset.saturating_add(data.len());
        if total != self.total || end > total {
            return Part::Contradicts;
        }
        if self.pieces.get(&offset).is_some_and(|piece| piece.len() == data.len()) {
            return Part::Again;
        }
        let before = self.pieces.range(..=offset).next_back();
        let overlaps = before.is_some_and(|(at, piece)| at.saturating_add(piece.len()) > offset)
            || self.pieces.range(offset..end).next().is_some();
        if overlaps {
            return Part::Contradicts;
        }
        self.bytes = self.bytes.saturating_add(data.len());
        let cost = (data.len() as u64).saturating_add(DATAGRAM_OVERHEAD_BYTES);
        self.pieces.insert(offset, data);
        Part::New(cost)
    }

    /// The whole datagram, once every part is there.
    pub fn join(&self) -> Option<Bytes> {
        if self.bytes < self.total {
            return None;
        }
        let mut whole = BytesMut::with_capacity(self.total);
        self.pieces.values().for_each(|piece| whole.extend_from_slice(piece));
        Some(whole.freeze())
    }

    /// What keeping them costs.
    pub fn cost(&self) -> u64 {
        let overhead = DATAGRAM_OVERHEAD_BYTES.saturating_mul(self.pieces.len() as u64);
        (self.bytes as u64).saturating_add(overhead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_whole_in_any_order_and_what_overlaps_does_not_fit() {
        let whole: Bytes = (0..=255u8).cycle().take(5_000).collect();
        let part = |from, to| (from, whole.slice(from..to));
        let mut parts = Parts::new(5_000);
        for (from, to) in [(2_000, 4_000), (4_000, 5_000)] {
            let (offset, data) = part(from, to);
            assert_eq!(parts.add(5_000, offset, data.clone()), Part::New((to - from) as u64 + 128));
            assert_eq!(parts.add(5_000, offset, data), Part::Again);
            assert_eq!(parts.join(), None);
        }
        for (from, to) in [(1_000, 2_001), (3_000, 3_500), (0, 5_000), (4_500, 5_000)] {
            let (offset, data) = part(from, to);
            assert_eq!(parts.add(5_000, offset, data), Part::Contradicts, "{from}..{to}");
        }
        assert_eq!(parts.add(5_001, 0, whole.slice(..2_000)), Part::Contradicts);
        assert_eq!(parts.add(5_000, 4_999, whole.slice(..2)), Part::Contradicts);
        assert_eq!(parts.add(5_000, 0, whole.slice(..2_000)), Part::New(2_128));
        assert_eq!(parts.join(), Some(whole));
        assert_eq!(parts.cost(), 5_000 + 3 * 128);
    }
}
