//! What a lane is late with is sent again on others, within a budget (the idea of XLINK; Zheng et
//! al., SIGCOMM 2021).

use std::time::{Duration, Instant};

use super::budget::cost_twice;
use crate::proto::byte_count::span;
use crate::proto::ids::LaneId;
use crate::proto::lane::{Carried, Condition, Lane};
use crate::proto::lanes::{Answering, Fallback};
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::policy::Tier;
use crate::proto::session::Session;

impl Session {
    /// When the next frame in flight on the lane counts as late.
    pub(in crate::proto::session) fn late_at(
        &self,
        lane: &Lane,
        answering: Answering,
    ) -> Option<Instant> {
        let fallback = answering.fallback(lane);
        // Anything sent again on a slow link delays everything on it.
        let in_vain = lane.estimate.is_slow() && !answering.on_another_link(lane);
        if lane.is_suspect()
            || fallback == Fallback::None
            || in_vain
            || lane.policy.tier == Tier::Metered
            || self.duplicates.left() < FRAME_BYTES_MAX as u64
        {
            return None;
        }
        let first = lane.ledger.entries().find(|entry| !entry.duplicated)?;
        let path_shared = self.lanes.links.view(lane.policy.link).is_shared();
        let mut late = first.expected_by(path_shared).checked_add(lane.late_after())?;
        if self.duplicates.unreserved() < FRAME_BYTES_MAX as u64 {
            late = late.checked_add(lane.slack())?; // very late
        }
        // A backup takes over from a lane that does not answer, not from a slow one; and what is
        // merely held up (TCP repairs a loss in a round trip) gains nothing from a lane that takes
        // longer.
        let repaired = lane.estimate.rtt().saturating_add(lane.slack());
        let sooner = matches!(fallback, Fallback::Peers { rtt } if rtt < repaired);
        let silent = lane.answered_until().filter(|_| !sooner);
        Some(silent.map_or(late, |silent| silent.max(late)))
    }

    /// What is late on the lane is queued for the others again, in stream order; if its link is
    /// silent, so is what the link's other lanes owe.
    pub(in crate::proto::session) fn move_late(
        &mut self,
        now: Instant,
        id: LaneId,
        answering: Answering,
    ) {
        let Some(lane) = self.lanes.get(id) else { return };
        if self.late_at(lane, answering).is_none_or(|at| at > now) {
            return;
        }
        let (slack, link) = (lane.slack(), lane.policy.link);
        let very_late_after = lane.late_after().saturating_add(slack);
        let silent = |heard| now.saturating_duration_since(heard) >= slack;
        let link_silent = self.lanes.links.heard_at(link).is_some_and(silent);
        for lane in self.lanes.values_mut() {
            if lane.id == id {
                // Being slower than forecast is one thing, not answering at all another.
                let answers = lane.answers(now);
                lane.condition = if answers { Condition::Good } else { Condition::Late };
            } else if link_silent && lane.policy.link == link && !lane.is_suspect() && lane.owes() {
                lane.condition = Condition::Late;
            }
        }
        for (expected_by, lane, end) in self.overdue(now, id, link_silent) {
            let very_late = link_silent || is_past(now, expected_by, very_late_after);
            let duplicates = &self.duplicates;
            if (if very_late { duplicates.left() } else { duplicates.unreserved() }) == 0 {
                break;
            }
            self.send_again(lane, end);
        }
    }

    /// The frames that are late on the lane or, if its link is silent, everything its lanes owe, in
    /// expected order of arrival: when expected, on which lane, and where on it they end.
    fn overdue(&self, now: Instant, id: LaneId, link_silent: bool) -> Vec<(Instant, LaneId, u64)> {
        let Some(late) = self.lanes.get(id) else { return Vec::new() };
        let (late_after, link) = (late.late_after(), late.policy.link);
        let path_shared = self.lanes.links.view(link).is_shared();
        let of_link = |lane: &Lane| lane.policy.link == link && !lane.is_suspect();
        let concerned = |lane: &&Lane| lane.id == id || (link_silent && of_link(lane));
        let mut overdue = Vec::new();
        for lane in self.lanes.values().filter(concerned) {
            let entries = lane.ledger.entries().filter(|entry| !entry.duplicated);
            let frames = entries.map(|entry| (entry.expected_by(path_shared), lane.id, entry.end));
            overdue
                .extend(frames.take_while(|(by, ..)| link_silent || is_past(now, *by, late_after)));
        }
        overdue.sort_unstable();
        overdue
    }

    /// Queues the frame that ends at `end` on `lane` for the other lanes again.
    fn send_again(&mut self, lane: LaneId, end: u64) {
        let ledger = self.lanes.get_mut(lane).map(|lane| &mut lane.ledger);
        let Some(entry) = ledger.and_then(|ledger| ledger.entry_mut(end)) else { return };
        entry.duplicated = true;
        if let Carried::Data { range, .. } = &entry.carried {
            self.duplicates.spend(cost_twice(span(range.start, range.end)));
            let carried = entry.carried.clone();
            self.on_undelivered(&carried);
        }
    }
}

fn is_past(now: Instant, expected_by: Instant, late_after: Duration) -> bool {
    expected_by.checked_add(late_after).is_some_and(|at| at <= now)
}
