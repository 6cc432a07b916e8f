//! Dead lanes: each is remembered until both ends have said how much of it they received.

use std::collections::VecDeque;

use crate::proto::error::Code;
use crate::proto::ids::LaneId;
use crate::proto::lane::{Carried, Lane, Ledger};
use crate::proto::limits::DEAD_LANES_MAX;

/// Lanes that are down and that the peer is not done with, oldest first.
#[derive(Debug, Default)]
pub struct DeadLanes(VecDeque<DeadLane>);

#[derive(Debug)]
struct DeadLane {
    id: LaneId,
    /// For late acknowledgements: what was delivered after all need not be sent again.
    ledger: Ledger,
    notice: Notice,
    /// The LANE_CLOSED waits to be sent (again).
    notice_due: bool,
    /// The peer has acknowledged the LANE_CLOSED.
    notice_acked: bool,
    /// The peer's LANE_CLOSED has come.
    peer_closed: bool,
}

/// What a LANE_CLOSED says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    pub lane: LaneId,
    /// How far the lane was received.
    pub position: u64,
    pub code: Code,
}

impl DeadLanes {
    /// The lane is down; the peer has to be told. If there are too many, the oldest is forgotten.
    pub fn add(&mut self, lane: Lane, code: Code) {
        let notice = Notice { lane: lane.id, position: lane.inbound.position(), code };
        self.0.push_back(DeadLane {
            id: lane.id,
            ledger: lane.ledger,
            notice,
            notice_due: true,
            notice_acked: false,
            peer_closed: false,
        });
        if self.0.len() > DEAD_LANES_MAX {
            self.0.pop_front();
        }
    }

    pub fn contains(&self, id: LaneId) -> bool {
        self.0.iter().any(|dead| dead.id == id)
    }

    /// Frames that nobody has acknowledged yet.
    pub fn frames(&self) -> usize {
        self.0.iter().map(|dead| dead.ledger.frames()).fold(0, usize::saturating_add)
    }

    /// Whether a LANE_CLOSED waits to be sent.
    pub fn notices_wait(&self) -> bool {
        self.0.iter().any(|dead| dead.notice_due)
    }

    /// Takes the LANE_CLOSEDs that wait to be sent.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let due = self.0.iter_mut();
        due.filter_map(|dead| std::mem::take(&mut dead.notice_due).then_some(dead.notice)).collect()
    }

    /// A late acknowledgement; what it settles is added to `settled`. `false`: it acknowledges what
    /// was never sent. For forgotten lanes any acknowledgement is accepted.
    pub fn on_ack(&mut self, id: LaneId, position: u64, settled: &mut Vec<Carried>) -> bool {
        let Some(dead) = self.get_mut(id) else { return true };
        let sent = position <= dead.ledger.sent_position();
        if sent {
            dead.ledger.ack(position, |entry| settled.push(entry.carried));
        }
        sent
    }

    /// The peer has the LANE_CLOSED.
    pub fn on_notice_acked(&mut self, id: LaneId) {
        if let Some(dead) = self.get_mut(id) {
            dead.notice_acked = true;
            dead.notice_due = false;
        }
        self.forget();
    }

    /// The LANE_CLOSED did not arrive, or may not have.
    pub fn on_notice_lost(&mut self, id: LaneId) {
        if let Some(dead) = self.get_mut(id) {
            dead.notice_due = !dead.notice_acked;
        }
    }

    /// The peer has said how far it received the lane: nothing more is acknowledged on it.
    pub fn on_peer_closed(&mut self, id: LaneId) {
        if let Some(dead) = self.get_mut(id) {
            dead.peer_closed = true;
            drop(dead.ledger.drain());
        }
        self.forget();
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn get_mut(&mut self, id: LaneId) -> Option<&mut DeadLane> {
        self.0.iter_mut().find(|dead| dead.id == id)
    }

    /// Forgets lanes that both ends are done with.
    fn forget(&mut self) {
        self.0.retain(|dead| !(dead.notice_acked && dead.peer_closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    fn dead(count: u64) -> DeadLanes {
        let mut dead = DeadLanes::default();
        for number in 0..count {
            let lane = Lane::new(LaneId::new(number), testing::start(), None);
            dead.add(lane, Code::LANE_TIMEOUT);
        }
        dead
    }

    #[test]
    fn a_dead_lane_is_forgotten_when_both_ends_have_said_the_last_word_in_any_order() {
        for peer_first in [true, false] {
            let mut dead = dead(1);
            let id = LaneId::new(0);
            assert_eq!(dead.take_notices().len(), 1);
            assert!(!dead.notices_wait(), "once");
            dead.on_notice_lost(id);
            assert!(dead.notices_wait(), "again");
            if peer_first {
                dead.on_peer_closed(id);
                assert!(dead.contains(id));
                dead.on_notice_acked(id);
            } else {
                dead.on_notice_acked(id);
                dead.on_notice_lost(id);
                assert!(!dead.notices_wait(), "the peer has it");
                dead.on_peer_closed(id);
            }
            assert!(!dead.contains(id));
        }
    }

    #[test]
    fn no_more_dead_lanes_are_remembered_than_their_limit() {
        let count = DEAD_LANES_MAX as u64 + 3;
        let mut dead = dead(count);
        assert!(!dead.contains(LaneId::new(2)) && dead.contains(LaneId::new(3)));
        assert_eq!(dead.take_notices().len(), DEAD_LANES_MAX);
        let mut settled = Vec::new();
        assert!(dead.on_ack(LaneId::new(0), 1_000, &mut settled), "long forgotten");
        assert!(!dead.on_ack(LaneId::new(3), 1_000, &mut settled), "it was given nothing");
    }
}
