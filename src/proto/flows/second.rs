//! Datagrams of redundant flows that one lane was given, for the second.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::cost::cost;
use super::outbox::waited_ms;
use crate::proto::count::Count;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::wire::Datagram;

/// What each lane is to carry because another was given it first.
#[derive(Debug, Default)]
pub struct Seconds {
    lanes: BTreeMap<LaneId, VecDeque<Second>>,
    /// What keeping them costs.
    bytes: Count,
}

#[derive(Debug)]
struct Second {
    datagram: Datagram,
    since: Instant,
    deadline: Duration,
}

impl Second {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > self.deadline
    }
}

impl Seconds {
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// What keeping them costs.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// For the lane.
    pub fn push(&mut self, lane: LaneId, datagram: Datagram, since: Instant, deadline: Duration) {
        self.bytes.add(cost(&datagram.data));
        self.lanes.entry(lane).or_default().push_back(Second { datagram, since, deadline });
    }

    /// Payload of the lane's next one that is not too old.
    pub fn next(&self, now: Instant, lane: LaneId) -> Option<usize> {
        let next = self.lanes.get(&lane)?.iter().find(|second| !second.is_old(now));
        next.map(|second| second.datagram.data.len())
    }

    /// The lane's next one that is not too old.
    pub fn take(&mut self, now: Instant, lane: LaneId) -> Option<Datagram> {
        while let Some(second) = self.lanes.get_mut(&lane)?.pop_front() {
            self.bytes.take(cost(&second.datagram.data));
            if !second.is_old(now) {
                let Second { mut datagram, since, .. } = second;
                datagram.waited_ms = waited_ms(now, since);
                return Some(datagram);
            }
        }
        None
    }

    /// Drops what has waited too long. Deadlines differ, and so what is old may stand anywhere.
    pub fn expire(&mut self, now: Instant) {
        self.retain(|second| !second.is_old(now));
    }

    /// The flow is over.
    pub fn forget_flow(&mut self, id: StreamId) {
        self.retain(|second| second.datagram.id != id);
    }

    fn retain(&mut self, keep: impl Fn(&Second) -> bool) {
        for queue in self.lanes.values_mut() {
            queue.retain(|second| {
                let kept = keep(second);
                if !kept {
                    self.bytes.take(cost(&second.datagram.data));
                }
                kept
            });
        }
        self.drop_empty();
    }

    /// Forgets lanes that have none.
    pub fn drop_empty(&mut self) {
        self.lanes.retain(|_, queue| !queue.is_empty());
    }

    /// The lane gets no more.
    pub fn forget(&mut self, lane: LaneId) {
        for second in self.lanes.remove(&lane).into_iter().flatten() {
            self.bytes.take(cost(&second.datagram.data));
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
