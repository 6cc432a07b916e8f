//! Bytes that were written and are not yet acknowledged.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::proto::count::{end_of, span};
use crate::proto::range_set::RangeSet;

/// Writes shorter than this are joined, so that a flood of tiny ones does not cost an allocation
/// and a map entry each.
const JOIN_BYTES: usize = 4096;

/// A window over the stream: `base..end`, kept in the pieces it was written in.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    /// Offset and bytes; contiguous from `base` (the first may begin below it) to `end`.
    pieces: VecDeque<(u64, Bytes)>,
    /// Everything below is acknowledged. base <= end.
    base: u64,
    end: u64,
    /// Acknowledged above `base`.
    acked: RangeSet,
}

impl SendBuffer {
    /// Where the next byte written will stand.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether everything written has been acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.base == self.end
    }

    /// Bytes held: written and not released.
    pub(super) fn held(&self) -> u64 {
        span(self.base, self.end)
    }

    /// Appends `data`.
    pub(super) fn write(&mut self, data: Bytes) {
        let len = data.len() as u64;
        if let Some((offset, last)) = self.pieces.pop_back() {
            if last.len() < JOIN_BYTES && data.len() < JOIN_BYTES {
                let mut joined = last.try_into_mut().unwrap_or_else(|last| {
                    let mut copy = BytesMut::with_capacity(JOIN_BYTES);
                    copy.extend_from_slice(&last);
                    copy
                });
                joined.extend_from_slice(&data);
                self.pieces.push_back((offset, joined.freeze()));
            } else {
                self.pieces.push_back((offset, last));
                self.pieces.push_back((self.end, data));
            }
        } else {
            self.pieces.push_back((self.end, data));
        }
        self.end = end_of(self.end, len);
    }

    /// Passes the bytes of `range` to `take`, piece by piece. The range must lie in `base..end`.
    pub(super) fn copy_to(&self, range: Range<u64>, mut take: impl FnMut(Bytes)) {
        debug_assert!(self.base <= range.start && range.end <= self.end);
        let first = self.pieces.partition_point(|(offset, _)| *offset <= range.start);
        for (offset, piece) in self.pieces.range(first.saturating_sub(1)..) {
            if *offset >= range.end {
                break;
            }
            let from = range.start.saturating_sub(*offset).min(piece.len() as u64);
            let to = range.end.saturating_sub(*offset).min(piece.len() as u64);
            if from < to {
                take(piece.slice(from as usize..to as usize));
            }
        }
    }

    /// Marks `range` as arrived; releases everything acknowledged from `base` on.
    pub(super) fn ack(&mut self, range: Range<u64>) {
        let start = range.start.max(self.base);
        let end = range.end.min(self.end);
        if start > self.base {
            self.acked.insert(start..end);
            return;
        }
        self.base = self.base.max(end);
        // In a loop: the range may span several parts that were there already, and reach into the
        // next.
        while let Some(next) = self.acked.first()
            && next.start <= self.base
        {
            self.base = self.base.max(next.end);
            self.acked.remove_below(self.base);
        }
        while let Some((offset, piece)) = self.pieces.front() {
            if end_of(*offset, piece.len() as u64) > self.base {
                break;
            }
            self.pieces.pop_front();
        }
    }

    /// The parts of `range` that are not acknowledged.
    pub(super) fn unacked_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let range = range.start.max(self.base)..range.end.min(self.end);
        if range.is_empty() {
            return Vec::new();
        }
        self.acked.gaps_in(range)
    }

    /// Forgets everything: none of it will be sent again.
    pub(super) fn clear(&mut self) {
        self.pieces = VecDeque::new();
        self.acked = RangeSet::new();
        self.base = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(buffer: &SendBuffer, range: Range<u64>) -> Vec<u8> {
        let mut out = Vec::new();
        buffer.copy_to(range, |piece| out.extend_from_slice(&piece));
        out
    }

    #[test]
    fn an_acknowledgement_over_several_earlier_ones_releases_them_all() {
        let mut buffer = SendBuffer::default();
        buffer.write(Bytes::from_static(&[7; 200]));
        for range in [10..20, 50..60, 90..150, 0..100] {
            buffer.ack(range);
        }
        assert_eq!(buffer.base, 150);
        buffer.ack(150..200);
        assert!(buffer.is_empty() && buffer.acked.is_empty());
    }

    #[test]
    fn keeps_what_is_not_acknowledged() {
        let mut buffer = SendBuffer::default();
        let bytes: Vec<u8> = (0..=255).cycle().take(20_000).collect();
        buffer.write(Bytes::copy_from_slice(&bytes[..9_000]));
        for piece in bytes[9_000..].chunks(7) {
            buffer.write(Bytes::copy_from_slice(piece));
        }
        assert!(buffer.pieces.len() < 10, "tiny writes were joined");
        assert_eq!(read(&buffer, 8_990..9_010), &bytes[8_990..9_010]);
        buffer.ack(100..200);
        assert_eq!(buffer.base, 0);
        assert_eq!(buffer.unacked_in(0..300), vec![0..100, 200..300]);
        buffer.ack(0..100);
        assert_eq!(buffer.base, 200);
        buffer.ack(200..20_000);
        assert!(buffer.is_empty() && buffer.pieces.is_empty());
    }
}
