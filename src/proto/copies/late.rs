//! What a lane is late with is sent again on others, within a budget (the idea of XLINK; Zheng et
//! al., SIGCOMM 2021).

use std::time::{Duration, Instant};

use super::Copies;
use crate::proto::count::span;
use crate::proto::ids::LaneId;
use crate::proto::lane::{Carried, Condition, Lane};
use crate::proto::lanes::{Answering, Fallback, Lanes};
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::policy::Tier;

impl Copies {
    /// When the next frame in flight on the lane counts as late.
    pub fn late_at(&self, lanes: &Lanes, lane: &Lane, answering: Answering) -> Option<Instant> {
        let fallback = answering.fallback(lane);
        // Anything sent again on a slow link delays everything on it.
        let in_vain = lane.estimate.is_slow() && !answering.on_another_link(lane);
        if lane.is_suspect()
            || fallback == Fallback::None
            || in_vain
            || lane.policy.tier == Tier::Metered
            || self.budget.left() < FRAME_BYTES_MAX as u64
        {
            return None;
        }
        let first = lane.ledger.entries().find(|entry| !entry.duplicated)?;
        let path_shared = lanes.links.view(lane.policy.link).is_shared();
        let mut late = first.expected_by(path_shared).checked_add(lane.late_after())?;
        if self.budget.unreserved() < FRAME_BYTES_MAX as u64 {
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

    /// What is late on the lane, for the others to send again, in the order it was expected; if its
    /// link is silent, with what the link's other lanes owe.
    #[must_use]
    pub fn take_late(
        &mut self,
        lanes: &mut Lanes,
        now: Instant,
        id: LaneId,
        answering: Answering,
    ) -> Vec<Carried> {
        let mut again = Vec::new();
        let Some(lane) = lanes.get(id) else { return again };
        if self.late_at(lanes, lane, answering).is_none_or(|at| at > now) {
            return again;
        }
        let (slack, link) = (lane.slack(), lane.policy.link);
        let very_late_after = lane.late_after().saturating_add(slack);
        let silent = |heard| now.saturating_duration_since(heard) >= slack;
        let link_silent = lanes.links.heard_at(link).is_some_and(silent);
        for lane in lanes.values_mut() {
            if lane.id == id {
                // Being slower than forecast is one thing, not answering at all another.
                let answers = lane.answers(now);
                lane.condition = if answers { Condition::Good } else { Condition::Late };
            } else if link_silent && lane.policy.link == link && !lane.is_suspect() && lane.owes() {
                lane.condition = Condition::Late;
            }
        }
        for (expected_by, lane, end) in overdue(lanes, now, id, link_silent) {
            let very_late = link_silent || is_past(now, expected_by, very_late_after);
            let budget = &self.budget;
            if (if very_late { budget.left() } else { budget.unreserved() }) == 0 {
                break;
            }
            let ledger = lanes.get_mut(lane).map(|lane| &mut lane.ledger);
            let Some(entry) = ledger.and_then(|ledger| ledger.entry_mut(end)) else { continue };
            entry.duplicated = true;
            if let Carried::Data { range, .. } = &entry.carried {
                self.spend(span(range.start, range.end));
                again.push(entry.carried.clone());
            }
        }
        again
    }
}

/// The frames that are late on the lane or, if its link is silent, everything its lanes owe, in
/// expected order of arrival: when expected, on which lane, and where on it they end.
fn overdue(
    lanes: &Lanes,
    now: Instant,
    id: LaneId,
    link_silent: bool,
) -> Vec<(Instant, LaneId, u64)> {
    let Some(late) = lanes.get(id) else { return Vec::new() };
    let (late_after, link) = (late.late_after(), late.policy.link);
    let path_shared = lanes.links.view(link).is_shared();
    let of_link = |lane: &Lane| lane.policy.link == link && !lane.is_suspect();
    let concerned = |lane: &&Lane| lane.id == id || (link_silent && of_link(lane));
    let mut overdue = Vec::new();
    for lane in lanes.values().filter(concerned) {
        let entries = lane.ledger.entries().filter(|entry| !entry.duplicated);
        let frames = entries.map(|entry| (entry.expected_by(path_shared), lane.id, entry.end));
        overdue.extend(frames.take_while(|(by, ..)| link_silent || is_past(now, *by, late_after)));
    }
    overdue.sort_unstable();
    overdue
}

fn is_past(now: Instant, expected_by: Instant, late_after: Duration) -> bool {
    expected_by.checked_add(late_after).is_some_and(|at| at <= now)
}
