//! Lanes coming, going, and falling silent.

use std::time::{Duration, Instant};

use super::Session;
use crate::proto::count::end_of;
use crate::proto::error::Code;
use crate::proto::event::Event;
use crate::proto::ids::{LaneId, LinkId};
use crate::proto::lane::{Condition, Lane};
use crate::proto::link::{Advice, KernelSample};
use crate::proto::policy::LanePolicy;

impl Session {
    /// A lane is up and verified. `number` must be new in this session. `rtt` is the round-trip
    /// time its handshake took, if known. `false`: there are too many lanes, or the number was
    /// used; nothing has changed.
    #[must_use]
    pub fn handle_lane_up(&mut self, now: Instant, id: LaneId, rtt: Option<Duration>) -> bool {
        !self.is_closed() && self.lanes.add(now, id, rtt)
    }

    /// How a lane may be used. Call right after `handle_lane_up`, before the lane pulls; without it
    /// a lane is primary and has no cap.
    pub fn handle_lane_policy(&mut self, now: Instant, id: LaneId, policy: LanePolicy) {
        self.lanes.set_policy(now, id, policy);
    }

    /// What the kernel knows of a lane. Returns how to use the lane from now on, for the driver to
    /// pass to the kernel; `None`: it is not up.
    pub fn handle_lane_metrics(
        &mut self,
        now: Instant,
        id: LaneId,
        sample: KernelSample,
    ) -> Option<Advice> {
        self.lanes.on_metrics(now, id, sample)
    }

    /// A lane is down; what it owes goes elsewhere. Does nothing for a lane that is not up.
    pub fn handle_lane_down(&mut self, now: Instant, id: LaneId, code: Code) {
        let Some(lane) = self.lanes.remove(now, id) else { return };
        self.flows.on_lane_gone(id);
        if self.is_closed() {
            return;
        }
        for entry in lane.ledger.entries() {
            self.on_undelivered(&entry.carried);
        }
        self.lanes.bury(lane, code);
    }

    /// Whether a link's path is known to carry less than 512 kbit/s, so that one lane fills it.
    pub fn is_slow(&self, link: LinkId) -> bool {
        let mut of_link = self.lanes.values().filter(|lane| lane.policy.link == link);
        of_link.any(|lane| lane.estimate.is_slow())
    }

    /// How to use a lane, given what is known of its link; `None`: it is not up. For drivers whose
    /// lanes have no metrics: the others get it as the answer to those.
    pub fn advice(&self, id: LaneId) -> Option<Advice> {
        self.lanes.advice(id)
    }

    /// Checks every lane for anything overdue.
    pub(super) fn check_lanes(&mut self, now: Instant) {
        let ids: Vec<LaneId> = self.lanes.values().map(|lane| lane.id).collect();
        for id in ids {
            let answering = self.lanes.answering();
            let Some(lane) = self.lanes.get(id) else { continue };
            let ping = self.lanes.ping_at(lane, answering).is_some_and(|at| at <= now);
            let is_due = |due: &Instant| lane.decided_at(*due) <= now;
            let suspect_at = self.lanes.suspect_at(lane, answering).filter(is_due);
            let lost_at = self.lanes.lost_at(lane, answering).filter(is_due);
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            if let Some(due) = lost_at.or(suspect_at)
                && lane.ask_kernel(now, due)
            {
                self.tell(Event::MetricsWanted(id));
            } else if lost_at.is_some() {
                self.lanes.count_unanswered(id);
                self.tell(Event::LaneLost { lane: id, code: Code::LANE_TIMEOUT });
                self.handle_lane_down(now, id, Code::LANE_TIMEOUT);
            } else if suspect_at.is_some() {
                self.suspect(now, id);
            } else if ping {
                lane.signs.ping_due = true;
                lane.signs.heard_at = now;
            } else {
                for carried in self.copies.take_late(&mut self.lanes, now, id, answering) {
                    self.on_undelivered(&carried);
                }
            }
        }
    }

    /// The lane owes and does not answer. Unless its link was heard, the link's standby lanes are
    /// suspect, too: urgent data must not find that out one by one.
    fn suspect(&mut self, now: Instant, id: LaneId) {
        let Some(lane) = self.lanes.get(id) else { return };
        let link = lane.policy.link;
        let heard = self.lanes.links.heard_at(link).is_some_and(|at| lane.silent_at() <= Some(at));
        self.lanes.totals.suspected = end_of(self.lanes.totals.suspected, 1);
        self.move_owed(now, id);
        if heard {
            self.tell(Event::LaneSuspect(id));
            return;
        }
        let standby = |lane: &&Lane| lane.policy.link == link && lane.standby && !lane.is_suspect();
        let standby: Vec<LaneId> =
            self.lanes.values().filter(standby).map(|lane| lane.id).collect();
        standby.into_iter().for_each(|id| self.move_owed(now, id));
        self.tell(Event::LaneSuspect(id));
    }

    /// The lane is suspect: everything it owes is sent on other lanes, in stream order, while its
    /// own copy stays in flight.
    fn move_owed(&mut self, now: Instant, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.condition = Condition::Suspect;
        // With nothing to be acknowledged it would stay suspect. Its time to answer starts now.
        if !lane.ledger.owes() && !lane.signs.ping_due {
            lane.signs.ping_due = true;
            lane.signs.heard_at = now;
        }
        lane.copies.clear();
        self.flows.forget_lane(id);
        lane.ledger.entries_mut().for_each(|entry| entry.duplicated = true);
        let owed: Vec<_> = lane.ledger.entries().map(|entry| entry.carried.clone()).collect();
        for carried in &owed {
            self.on_undelivered(carried);
        }
    }
}
