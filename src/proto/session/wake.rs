//! Which sleeping lane is woken: the fastest for which there is work.

use std::time::Instant;

use super::plan::{Candidate, Stage};
use super::{NoticesDue, Session};
use crate::proto::copies::redundant;
use crate::proto::ids::LaneId;
use crate::proto::lane::{Lane, Task};
use crate::proto::lanes::Rank;
use crate::proto::scheduler::{LaneView, pull_budget};

impl Session {
    /// A sleeping lane that has work now. Each is named at most once until it pulls.
    #[must_use]
    pub fn poll_wake(&mut self, now: Instant) -> Option<LaneId> {
        if !self.lanes.values().any(Lane::is_asleep) {
            self.lanes.paced_until = None;
            self.flows.ask_at = None; // they all ask by themselves
            return None;
        }
        self.streams.prune();
        self.flows.prune(now);
        let mut views = std::mem::take(&mut self.view_space);
        let id = self.lane_to_wake(now, &mut views);
        self.view_space = views;
        let Some(id) = id else {
            self.lanes.paced_until = self.pace(now);
            self.ask_again(now);
            return None;
        };
        let lane = self.lanes.get_mut(id)?;
        lane.task = Task::Woken(now);
        Some(id)
    }

    /// `views` is scratch space for snapshots.
    fn lane_to_wake(&self, now: Instant, views: &mut Vec<LaneView>) -> Option<LaneId> {
        let sleeping = |lane: &&Lane| lane.is_asleep();
        if self.is_closed() {
            return self
                .lanes
                .values()
                .filter(sleeping)
                .find(|lane| !lane.close_sent)
                .map(|l| l.id);
        }
        let urgent =
            |lane: &&Lane| is_urgent(lane, now) && self.lanes.caps.may_speak(now, &lane.policy);
        if let Some(lane) = self.lanes.values().filter(sleeping).find(urgent) {
            return Some(lane.id);
        }
        let overdue = |lane: &&Lane| lane.inbound.due_elsewhere().is_some_and(|at| at <= now);
        let mut ways =
            self.lanes.values().filter(overdue).filter_map(|l| self.lanes.way_back(l.id));
        if let Some(way) = ways.find(|way| self.lanes.caps.may_speak(now, &way.policy)) {
            return Some(way.id);
        }
        let control = self.control_waits();
        if !control && (!self.payload_waits() || self.bulk_waits_for_others()) {
            return None;
        }
        // Fastest first: whatever waits, it is asked first.
        views.clear();
        views.extend(self.lanes.views(now));
        views.sort_by(|a, b| a.arrival(1.0).total_cmp(&b.arrival(1.0)));
        let woken = |lane: &Lane| matches!(lane.task, Task::Woken(_));
        let waking = |view: &LaneView| self.lanes.get(view.id).is_some_and(woken);
        let control = control && !views.iter().any(waking);
        // Move each to the front in turn, keeping the others in order behind it.
        for nth in 0..views.len() {
            views.get_mut(..=nth)?.rotate_right(1);
            let (own, others) = views.split_first()?;
            if own.idle && self.has_work(now, own, others, control) {
                return Some(own.id);
            }
            views.get_mut(..=nth)?.rotate_left(1);
        }
        None
    }

    /// Whether anything waits that only moves payload.
    fn payload_waits(&self) -> bool {
        self.streams.data_waits()
            || self.flows.wait()
            || self.copies.tail_possible(&self.lanes, &self.streams)
            || redundant::any_wait(&self.lanes)
    }

    /// Whether a sleeping lane would carry anything now; `control`: there are control frames that
    /// any lane may carry.
    fn has_work(&self, now: Instant, own: &LaneView, others: &[LaneView], control: bool) -> bool {
        let Some(lane) = self.lanes.get(own.id) else { return false };
        let allowance = self.lanes.caps.allowance(now, &lane.policy);
        if !allowance.ready {
            return false;
        }
        let budget = pull_budget(lane.estimate.rate(), lane.estimate.is_slow());
        let (written, stage) = (0, Stage::Datagrams);
        let candidate = Candidate { own, others, allowance, budget, written, stage };
        control || self.plan(now, &candidate).is_some()
    }

    /// When the first of the lanes held back by their links' caps may resume.
    fn pace(&self, now: Instant) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let work = self.control_waits() || self.payload_waits();
        let best = self.lanes.best_rank();
        let sleeping = self.lanes.values().filter(|lane| lane.is_asleep());
        let times = sleeping.filter_map(|lane| {
            let speaks = self.lanes.caps.speaks_at(&lane.policy).filter(|_| is_urgent(lane, now));
            let used = work && Rank::of(lane) >= best;
            let ready = self.lanes.caps.ready_at(&lane.policy).filter(|_| used);
            [speaks, ready].into_iter().flatten().filter(|at| *at > now).min()
        });
        times.min()
    }

    fn control_waits(&self) -> bool {
        self.lanes.dead.notices_wait()
            || self.notices.due != NoticesDue::default()
            || self.streams.control_waits()
    }
}

/// Whether the lane has something to say that concerns itself.
fn is_urgent(lane: &Lane, now: Instant) -> bool {
    lane.signs.ping_due || lane.inbound.due().is_some_and(|at| at <= now)
}
