//! When a silent lane is pinged, suspected, and given up. What its silence means depends on the
//! others: whether its link was heard, and whether anything could take over.

use std::time::{Duration, Instant};

use super::Lanes;
use super::rank::{Answering, Fallback};
use crate::proto::lane::Lane;
use crate::proto::policy::Tier;
use crate::proto::timer::Timer;

/// A metered lane is pinged this many times less often while others answer.
const METERED_KEEPALIVE_FACTOR: u32 = 4;

/// A lane of the only link, whose kernel hears the peer but learns of no new deliveries, is kept
/// this much longer: a middlebox short of the peer may be answering. The kernel itself waits no
/// longer for a missing acknowledgement.
const HEARD_TIME: Duration = Duration::from_secs(60);

impl Lanes {
    /// When something is due for a lane; `late`: when the next of its frames counts as late.
    pub fn timeout(
        &self,
        lane: &Lane,
        answering: Answering,
        late: Option<Instant>,
    ) -> Option<(Instant, Timer)> {
        let sleeping = lane.is_asleep();
        // Not before the lane that carries it may speak.
        let ack_at = |at: Instant, on: &Lane| {
            (self.caps.speaks_at(&on.policy).max(Some(at)).unwrap_or(at), Timer::Ack)
        };
        let ack = lane.inbound.due().filter(|_| sleeping).map(|at| ack_at(at, lane));
        let elsewhere = lane.inbound.due_elsewhere();
        let elsewhere = elsewhere.and_then(|at| Some(ack_at(at, self.way_back(lane.id)?)));
        let silent = |at: Option<Instant>, timer| at.map(|due| (lane.decided_at(due), timer));
        let suspect = silent(self.suspect_at(lane, answering), Timer::Suspect);
        let late = late.map(|at| (at, Timer::Late));
        let lost = silent(self.lost_at(lane, answering), Timer::LaneLost);
        let idle_ping = self.ping_at(lane, answering).map(|at| (at, Timer::Keepalive));
        [ack, elsewhere, suspect, late, lost, idle_ping].into_iter().flatten().min_by_key(|t| t.0)
    }

    /// When the lane is pinged if nothing is heard on it. Not while a PING is still to be sent:
    /// that would restart its time to answer.
    pub fn ping_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        if lane.ledger.owes() || lane.signs.ping_due {
            return None;
        }
        let factor = if lane.policy.tier == Tier::Metered && answering.unmetered() {
            METERED_KEEPALIVE_FACTOR
        } else {
            1
        };
        lane.signs.heard_at.checked_add(self.config.keepalive.saturating_mul(factor))
    }

    /// When the lane is given up. Not while its kernel learns that more has arrived; and if its
    /// link was heard since then, no sooner than the slowest of the link's lanes would be, whose
    /// queue it may be in. A lane of the only link would be replaced by one that fares no better:
    /// it is kept much longer while its kernel hears the peer at all.
    pub fn lost_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        let (since, own) = (lane.silent_since()?, lane.lost_after());
        let link = lane.policy.link;
        let heard = self.links.heard_at(link).is_some_and(|heard| heard > since);
        let of_link = self.values().filter(|other| heard && other.policy.link == link);
        let silence = of_link.map(Lane::lost_after).fold(own, Duration::max);
        let at = since.checked_add(silence)?;
        let heard = lane.estimate.kernel_heard_at().filter(|_| !answering.on_another_link(lane));
        let kept = heard.and_then(|heard| heard.checked_add(silence));
        Some(kept.map_or(at, |kept| kept.min(at.checked_add(HEARD_TIME).unwrap_or(at)).max(at)))
    }

    /// When the lane becomes suspect if nothing is heard on it or on its link, and something could
    /// take over.
    pub fn suspect_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        if answering.fallback(lane) == Fallback::None {
            return None;
        }
        let alone = lane.suspect_at()?;
        let heard = self.links.heard_at(lane.policy.link);
        let with_its_link = heard
            .and_then(|heard| heard.max(lane.signs.progress_at).checked_add(lane.path_timeout()));
        let at = with_its_link.map_or(alone, |at| at.min(alone));
        if answering.on_another_link(lane) {
            return Some(at);
        }
        self.broken_at(lane).map(|broken| broken.max(at))
    }

    /// When a lane of the only link that answers is considered broken itself: if its link is slow,
    /// another of its lanes would be no sooner and would slow the link further. So the lane has to
    /// be silent, and the others not: some were heard since or, unless the link is slow, owe
    /// nothing.
    fn broken_at(&self, lane: &Lane) -> Option<Instant> {
        let slow = lane.estimate.is_slow();
        if lane.estimate.kernel_heard_at().is_none() && !slow {
            return Some(lane.signs.progress_at); // nothing reports on its path
        }
        let silent_at = lane.silent_at()?;
        let link = lane.policy.link;
        let heard = self.links.heard_at(link).is_some_and(|heard| heard >= silent_at);
        let free = |other: &Lane| {
            other.id != lane.id
                && other.policy.link == link
                && !other.owes()
                && !other.signs.ping_due
        };
        (heard || (!slow && self.values().any(free))).then_some(silent_at)
    }
}
