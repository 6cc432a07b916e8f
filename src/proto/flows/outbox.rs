//! What a flow has to send: datagrams that wait for a lane.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cost::cost;
use crate::proto::count::Count;
use crate::proto::ids::StreamId;
use crate::proto::wire::Datagram;

/// Payload of one frame; a larger datagram is cut. With its header it fits the smallest frame that
/// is worth one.
const PAYLOAD_MAX: usize = 2_000;

/// Datagrams in the order they were sent.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<Waiting>,
    /// The number of the first of them. It is given with the first part: what is dropped before
    /// leaves no gap that the other end would wait for.
    number: u64,
    /// Bytes of the first that lanes were given already.
    given: usize,
    /// What keeping them costs.
    bytes: Count,
}

#[derive(Debug)]
struct Waiting {
    data: Bytes,
    since: Instant,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What keeping them costs.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub fn push(&mut self, now: Instant, data: Bytes) {
        self.bytes.add(cost(&data));
        self.waiting.push_back(Waiting { data, since: now });
    }

    /// Drops the oldest, or what is left of it.
    pub fn drop_first(&mut self) -> bool {
        if self.given > 0 {
            self.number = self.number.saturating_add(1);
        }
        self.given = 0;
        let Some(first) = self.waiting.pop_front() else { return false };
        self.bytes.take(cost(&first.data));
        true
    }

    /// Drops what has waited longer than `deadline`; returns how many.
    pub fn expire(&mut self, now: Instant, deadline: Duration) -> u64 {
        let mut expired = 0u64;
        while self.first_since().is_some_and(|at| now.saturating_duration_since(at) > deadline) {
            self.drop_first();
            expired = expired.saturating_add(1);
        }
        expired
    }

    /// Since when the oldest has waited.
    pub fn first_since(&self) -> Option<Instant> {
        self.waiting.front().map(|first| first.since)
    }

    /// Payload of the next frame, and since when it has waited.
    pub fn next(&self) -> Option<(usize, Instant)> {
        let first = self.waiting.front()?;
        let left = first.data.len().saturating_sub(self.given);
        Some((left.min(PAYLOAD_MAX), first.since))
    }

    /// The next frame of the flow `id`, since when it has waited, and whether it is the last of its
    /// datagram.
    pub fn take(&mut self, now: Instant, id: StreamId) -> Option<(Datagram, Instant, bool)> {
        let first = self.waiting.front()?;
        let (since, total, offset) = (first.since, first.data.len(), self.given);
        let end = offset.saturating_add(PAYLOAD_MAX).min(total);
        let data = first.data.slice(offset..end);
        let waited_ms = waited_ms(now, since);
        let datagram = Datagram { id, number: self.number, waited_ms, total, offset, data };
        let last = end == total;
        self.given = end;
        if last {
            self.number = self.number.saturating_add(1);
            self.given = 0; // it is complete: dropping it counts nothing
            self.drop_first();
        }
        Some((datagram, since, last))
    }
}

/// How long it has waited, in whole milliseconds, a part of one counted as one: nobody is to think
/// that there is more time left than there is.
pub fn waited_ms(now: Instant, since: Instant) -> u64 {
    let waited = now.saturating_duration_since(since).as_nanos().div_ceil(1_000_000);
    u64::try_from(waited).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::{Dir, Side};
    use crate::proto::testing;

    fn id() -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, 0)
    }

    #[test]
    fn a_large_datagram_is_cut_and_numbers_are_given_to_what_is_sent() {
        let now = testing::start();
        let mut outbox = Outbox::default();
        for len in [5, 4_500, 65_507, 0] {
            outbox.push(now, Bytes::from(vec![len as u8; len]));
        }
        let mut told = Vec::new();
        while let Some((datagram, _, last)) = outbox.take(now, id()) {
            assert_eq!(last, datagram.offset + datagram.data.len() == datagram.total);
            told.push((datagram.number, datagram.total, datagram.offset, datagram.data.len()));
        }
        assert_eq!(told[..2], [(0, 5, 0, 5), (1, 4_500, 0, 2_000)]);
        assert_eq!(told[2..4], [(1, 4_500, 2_000, 2_000), (1, 4_500, 4_000, 500)]);
        assert_eq!(told.len(), 4 + 33 + 1);
        assert_eq!(told.last(), Some(&(3, 0, 0, 0)));
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn what_is_too_old_is_dropped_and_leaves_no_gap_unless_a_part_of_it_was_sent() {
        let now = testing::start();
        let deadline = Duration::from_millis(200);
        let at = |ms| now + Duration::from_millis(ms);
        let mut outbox = Outbox::default();
        for (ms, len) in [(0, 10), (1, 3_000), (150, 20), (300, 30)] {
            outbox.push(at(ms), Bytes::from(vec![0; len]));
        }
        assert_eq!(outbox.expire(at(200), deadline), 0);
        assert_eq!(outbox.expire(at(201), deadline), 1);
        let (part, ..) = outbox.take(at(201), id()).unwrap();
        assert_eq!((part.number, part.waited_ms), (0, 200));
        assert_eq!(outbox.expire(at(300), deadline), 1, "the rest of it");
        let (whole, _, last) = outbox.take(at(300), id()).unwrap();
        assert_eq!((whole.number, whole.total, last), (1, 20, true));
        assert_eq!(outbox.next(), Some((30, at(300))));
    }
}
