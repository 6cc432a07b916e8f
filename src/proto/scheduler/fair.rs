//! Whose turn it is: deficit round robin with a fast lane for streams that send little, after
//! fq_codel (RFC 8290, 4.2).

use std::collections::VecDeque;

use crate::proto::ids::StreamId;

/// Bytes a stream may send per turn: two full frames, so that switching does not dominate, and
/// eight streams still get their turn within a few milliseconds at 100 Mbit/s.
const QUANTUM: i64 = 32 * 1024;

/// Streams with something to send. One that had nothing until now comes first, once; if it uses up
/// its quantum it joins the bulk.
#[derive(Debug, Default)]
pub struct FairQueue {
    urgent: VecDeque<Turn>,
    bulk: VecDeque<Turn>,
}

#[derive(Clone, Copy, Debug)]
struct Turn {
    id: StreamId,
    /// What is left of its quantum.
    credit: i64,
}

impl FairQueue {
    /// Adds a stream that is not in the queue.
    pub fn push(&mut self, id: StreamId) {
        self.urgent.push_back(Turn { id, credit: QUANTUM });
    }

    /// How many streams have something to send.
    pub fn len(&self) -> usize {
        self.urgent.len().saturating_add(self.bulk.len())
    }

    /// Whether no stream has anything to send.
    pub fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.bulk.is_empty()
    }

    /// The stream in the `nth` place, starting with 0.
    pub fn peek(&self, nth: usize) -> Option<StreamId> {
        let bulk = || self.bulk.get(nth.saturating_sub(self.urgent.len()));
        self.urgent.get(nth).or_else(bulk).map(|turn| turn.id)
    }

    /// How many of them sent little lately; they come first.
    pub fn urgent_len(&self) -> usize {
        self.urgent.len()
    }

    /// Whether the stream in the `nth` place sent little lately.
    pub fn is_urgent(&self, nth: usize) -> bool {
        nth < self.urgent.len()
    }

    /// The stream in the `nth` place has sent `bytes`; its turn ends with its credit.
    pub fn charge(&mut self, nth: usize, bytes: u64) {
        let urgent = self.is_urgent(nth);
        let at = if urgent { nth } else { nth.saturating_sub(self.urgent.len()) };
        let list = if urgent { &mut self.urgent } else { &mut self.bulk };
        let Some(turn) = list.get_mut(at) else { return };
        turn.credit = turn.credit.saturating_sub_unsigned(bytes);
        if turn.credit > 0 {
            return;
        }
        if let Some(turn) = list.remove(at) {
            self.bulk.push_back(Turn { credit: turn.credit.saturating_add(QUANTUM), ..turn });
        }
    }

    /// Removes the stream in the `nth` place: it has nothing left to send.
    pub fn remove(&mut self, nth: usize) {
        if self.is_urgent(nth) {
            self.urgent.remove(nth);
        } else {
            self.bulk.remove(nth.saturating_sub(self.urgent.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::{Dir, Side};

    fn id(index: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, index)
    }

    #[test]
    fn bulk_streams_share_and_fresh_ones_go_first() {
        let mut queue = FairQueue::default();
        queue.push(id(0));
        queue.push(id(1));
        let mut sent = [0u64; 2];
        for _ in 0..100 {
            let turn = queue.peek(0).unwrap();
            sent[turn.index() as usize] += 16_000;
            queue.charge(0, 16_000);
        }
        assert!(sent[0].abs_diff(sent[1]) <= 2 * QUANTUM as u64, "{sent:?}");
        queue.push(id(2));
        assert_eq!(queue.peek(0), Some(id(2)));
        assert!(queue.is_urgent(0) && !queue.is_urgent(1));
        queue.remove(0);
        assert_eq!(queue.len(), 2);
    }
}
