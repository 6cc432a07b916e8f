//! Lanes coming, going, falling silent, and being woken.

use std::time::{Duration, Instant};

use super::Session;
use super::rank::{Answering, Fallback, Rank};
use crate::proto::error::Code;
use crate::proto::event::Event;
use crate::proto::ids::LaneId;
use crate::proto::lane::{DeadLane, Health, Lane, LaneMetrics};
use crate::proto::limits::{DEAD_LANES_MAX, LANES_MAX};
use crate::proto::link::Advice;
use crate::proto::mutants::mutant;
use crate::proto::policy::{LanePolicy, Tier};
use crate::proto::scheduler::LaneView;
use crate::proto::timer::Timer;

/// A way back counts as faster if it saves at least this: less is not worth a frame of its own.
const FASTER_WAY_SECONDS: f64 = 0.002;

/// A lane that costs money is asked for a sign of life so many times less often while others
/// answer.
const METERED_KEEPALIVE_FACTOR: u32 = 4;

/// A lane of the only link whose kernel hears the peer, and of nothing more that has arrived, is
/// kept for so much longer: what answers may be a middlebox that goes no further. The kernel itself
/// does not wait longer for an acknowledgement that it lacks.
const HEARD_TIME: Duration = Duration::from_secs(60);

impl Session {
    /// A lane is up and verified. `number` was not used in this session before. `rtt` is the
    /// round-trip time its handshake took, if known. `false`: there are too many, or the number
    /// was used; nothing has changed.
    #[must_use]
    pub fn handle_lane_up(&mut self, now: Instant, id: LaneId, rtt: Option<Duration>) -> bool {
        let used = self.lanes.contains_key(&id) || self.dead.iter().any(|dead| dead.id == id);
        if used || self.lanes.len() >= LANES_MAX || self.is_closed() {
            return false;
        }
        let given_at_payload = self.totals.sent_payload;
        let mut lane =
            Lane { unanswered: self.unanswered, given_at_payload, ..Lane::new(id, now, rtt) };
        // The others are active already.
        lane.standby = true;
        self.links.join(&lane.policy, now);
        let link = lane.policy.link;
        self.lanes.insert(id, lane);
        self.arrange(link);
        self.alone_since = None;
        true
    }

    /// How a lane may be used. Told right after `handle_lane_up`, before the lane pulls; a lane of
    /// which nothing is told is primary and has no cap.
    pub fn handle_lane_policy(&mut self, now: Instant, id: LaneId, policy: LanePolicy) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let before = std::mem::replace(&mut lane.policy, policy);
        lane.standby = policy.tier != Tier::Express;
        self.links.leave(&before);
        self.links.join(&policy, now);
        let lanes = &self.lanes;
        let in_use = |link| lanes.values().any(|lane| lane.policy.link == link);
        self.caps.set(now, &policy, in_use);
        self.arrange(before.link);
        self.arrange(policy.link);
    }

    /// What the kernel knows of a lane. Returns how the lane is to be used from now on, for the
    /// driver to tell the kernel; `None`: it is not up.
    pub fn handle_lane_metrics(
        &mut self,
        now: Instant,
        id: LaneId,
        metrics: LaneMetrics,
    ) -> Option<Advice> {
        let lane = self.lanes.get_mut(&id)?;
        let delivered = lane.estimate.on_metrics(now, metrics);
        lane.asked_until = None;
        lane.late &= !lane.answers(now);
        let link = lane.policy.link;
        self.links.on_delivered(link, delivered, metrics.rtt);
        if let Some(at) = lane.estimate.kernel_heard_at() {
            self.links.on_heard(link, at);
        }
        let window = lane.estimate.kernel_window();
        let of_link = self.lanes.values().filter(|lane| lane.policy.link == link);
        let rearrange = self.links.on_sample(now, link, of_link.map(Lane::sample), window);
        let (rate, by_handshake) = (self.links.path_rate(link), self.links.path_by_handshake(link));
        let of_link = self.lanes.iter_mut().filter(|(_, lane)| lane.policy.link == link);
        of_link.for_each(|(_, lane)| lane.estimate.learn_of_path(rate, by_handshake));
        if rearrange {
            self.arrange(link);
        }
        self.advice(id)
    }

    /// A lane is down; what it owes travels elsewhere. Does nothing for a lane that is not up.
    pub fn handle_lane_down(&mut self, now: Instant, id: LaneId, code: Code) {
        let Some(lane) = self.lanes.remove(&id) else { return };
        self.links.leave(&lane.policy);
        self.arrange(lane.policy.link);
        if self.lanes.is_empty() {
            self.alone_since = Some(now);
        }
        if self.is_closed() {
            return;
        }
        self.totals.lanes_lost = self.totals.lanes_lost.saturating_add(1);
        let forgotten = usize::from(mutant!("dead-lane-forgets-a-frame"));
        for entry in lane.ledger.entries().skip(forgotten) {
            self.on_undelivered(&entry.carried);
        }
        self.dead.push_back(DeadLane {
            id,
            received: lane.inbound.position(),
            ledger: lane.ledger,
            code,
            notice_due: true,
            notice_acked: false,
            peer_closed: false,
        });
        if self.dead.len() > DEAD_LANES_MAX {
            self.dead.pop_front();
        }
    }

    /// How a lane is to be used, by what is known of its link; `None`: it is not up. For drivers
    /// whose lanes have no metrics: with those it is their answer.
    pub fn advice(&self, id: LaneId) -> Option<Advice> {
        let lane = self.lanes.get(&id)?;
        Some(self.links.view(lane.policy.link).advice(&lane.sample()))
    }

    /// Snapshots of the lanes that may be given work: those that answer in time or, if none does,
    /// the next best.
    pub(super) fn views(&self, now: Instant) -> impl Iterator<Item = LaneView> {
        let best = self.best_rank();
        let used = self.usable(best).filter(move |lane| !self.is_spare(lane, best));
        used.map(move |lane| self.paced_view(lane, now))
    }

    /// The same, with those that are spared otherwise: a copy has to go on another lane, if there
    /// is one.
    pub(super) fn views_for_copies(&self, now: Instant) -> impl Iterator<Item = LaneView> {
        self.usable(self.best_rank()).map(move |lane| self.paced_view(lane, now))
    }

    /// Whether the lane may carry what another lane could carry as well.
    pub(super) fn may_carry(&self, id: LaneId) -> bool {
        let rank = self.lanes.get(&id).map(Rank::of);
        rank.is_some_and(|rank| rank >= self.best_rank())
    }

    /// The best rank of any lane: only its like are given work.
    pub(super) fn best_rank(&self) -> Rank {
        self.lanes.values().map(Rank::of).max().unwrap_or(Rank::WORST)
    }

    /// Lanes of the `best` rank.
    pub(super) fn usable(&self, best: Rank) -> impl Iterator<Item = &Lane> {
        self.lanes.values().filter(move |lane| Rank::of(lane) >= best)
    }

    /// Whether the lane stands by on a slow link of which another lane is active: what is urgent
    /// finds it no sooner there, and each lane has packets on the way that take long.
    fn is_spare(&self, lane: &Lane, best: Rank) -> bool {
        let active = |other: &Lane| other.policy.link == lane.policy.link && !other.is_kept_free();
        let stands_by = lane.standby && lane.copies.is_empty();
        stands_by && lane.estimate.is_slow() && self.usable(best).any(active)
    }

    /// Snapshot of a lane, if it may be given work.
    pub(super) fn view_of(&self, now: Instant, id: LaneId) -> Option<LaneView> {
        self.may_carry(id).then(|| self.lanes.get(&id)).flatten().map(|l| self.paced_view(l, now))
    }

    /// A lane as the scheduler sees it, with what its link allows.
    fn paced_view(&self, lane: &Lane, now: Instant) -> LaneView {
        let link = self.links.view(lane.policy.link);
        let mut view = view(lane, now, link.share());
        view.window = link.window(&lane.sample());
        if let Some(ready_at) = self.caps.ready_at(&lane.policy).filter(|at| *at > now) {
            view.queue += ready_at.saturating_duration_since(now).as_secs_f64();
            view.window = 0.0; // no room until then
        }
        view
    }

    /// Whether an acknowledgement for what comes on `id` would be there sooner on another lane.
    pub(super) fn has_faster_way_back(&self, id: LaneId, now: Instant) -> bool {
        if self.lanes.len() < 2 {
            return false;
        }
        let Some(own) = self.lanes.get(&id) else { return false };
        let (own, link) = (view(own, now, 1.0).arrival(1.0), own.policy.link);
        let best = self.best_rank();
        let used = |lane: &&Lane| Rank::of(lane) >= best && lane.policy.tier != Tier::Metered;
        // On a slow link what is said twice makes everything later.
        let alike = |lane: &Lane| lane.estimate.is_slow() && lane.policy.link == link;
        let others = self.lanes.values().filter(|lane| lane.id != id && !alike(lane));
        let good = others.filter(used);
        good.map(|lane| view(lane, now, 1.0).arrival(1.0))
            .any(|other| other + FASTER_WAY_SECONDS < own)
    }

    /// When something is due for a lane.
    pub(super) fn lane_timeout(
        &self,
        lane: &Lane,
        answering: Answering,
    ) -> Option<(Instant, Timer)> {
        let sleeping = lane.is_asleep();
        // Not before the lane it goes on may speak.
        let ack_at = |at: Instant, on: &Lane| {
            (self.caps.speaks_at(&on.policy).max(Some(at)).unwrap_or(at), Timer::Ack)
        };
        let ack = lane.inbound.due().filter(|_| sleeping).map(|at| ack_at(at, lane));
        let elsewhere = lane.inbound.due_elsewhere();
        let elsewhere = elsewhere.and_then(|at| Some(ack_at(at, self.way_back(lane.id)?)));
        let silent = |at: Option<Instant>, timer| at.map(|due| (lane.decided_at(due), timer));
        let suspect = silent(self.suspect_at(lane, answering), Timer::Suspect);
        let late = self.late_at(lane, answering).map(|at| (at, Timer::Late));
        let lost = silent(self.lost_at(lane, answering), Timer::LaneLost);
        let idle_ping = self.ping_at(lane, answering).map(|at| (at, Timer::Keepalive));
        [ack, elsewhere, suspect, late, lost, idle_ping].into_iter().flatten().min_by_key(|t| t.0)
    }

    /// When the lane is asked for a sign of life if nothing is heard on it. Not again before it has
    /// been asked: its time to answer would begin anew.
    fn ping_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        if lane.ledger.owes() || lane.ping_due {
            return None;
        }
        let factor = if lane.policy.tier == Tier::Metered && answering.unmetered() {
            METERED_KEEPALIVE_FACTOR
        } else {
            1
        };
        lane.heard_at.checked_add(self.config.keepalive.saturating_mul(factor))
    }

    /// Looks at every lane for what is overdue.
    pub(super) fn check_lanes(&mut self, now: Instant) {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            let answering = Answering::count(self.lanes.values());
            let Some(lane) = self.lanes.get(&id) else { continue };
            let ping = self.ping_at(lane, answering).is_some_and(|at| at <= now);
            let is_due = |due: &Instant| lane.decided_at(*due) <= now;
            let suspect_at = self.suspect_at(lane, answering).filter(is_due);
            let lost_at = self.lost_at(lane, answering).filter(is_due);
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if let Some(due) = lost_at.or(suspect_at)
                && lane.ask_kernel(now, due)
            {
                self.tell(Event::MetricsWanted(id));
            } else if lost_at.is_some() {
                let unanswered = lane.ledger.acked_position() == 0;
                self.unanswered = if unanswered { self.unanswered.saturating_add(1) } else { 0 };
                self.tell(Event::LaneLost { lane: id, code: Code::LANE_TIMEOUT });
                self.handle_lane_down(now, id, Code::LANE_TIMEOUT);
            } else if suspect_at.is_some() {
                self.suspect(now, id);
            } else if ping {
                lane.ping_due = true;
                if !mutant!("pings-without-end") {
                    lane.heard_at = now;
                }
            } else {
                self.move_late(now, id, answering);
            }
        }
    }

    /// When the lane is given up: not while its kernel learns that more has arrived, and if its
    /// link was heard since then, not sooner than the slowest of its lanes would be, whose queue it
    /// may be in. One of the only link there is would be replaced by one that fares no better: it
    /// is kept while its kernel hears the peer at all, for long.
    fn lost_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        let (since, own) = (lane.silent_since()?, lane.lost_after());
        let link = lane.policy.link;
        let heard = self.links.heard_at(link).is_some_and(|heard| heard > since);
        let of_link = self.lanes.values().filter(|other| heard && other.policy.link == link);
        let silence = of_link.map(Lane::lost_after).fold(own, Duration::max);
        let at = since.checked_add(silence)?;
        let heard = lane.estimate.kernel_heard_at().filter(|_| !answering.on_another_link(lane));
        let kept = heard.and_then(|heard| heard.checked_add(silence));
        Some(kept.map_or(at, |kept| kept.min(at.checked_add(HEARD_TIME).unwrap_or(at)).max(at)))
    }

    /// When the lane becomes suspect if nothing is heard on it, or on its link, and there is what
    /// could take over.
    fn suspect_at(&self, lane: &Lane, answering: Answering) -> Option<Instant> {
        if answering.fallback(lane) == Fallback::None {
            return None;
        }
        let alone = lane.suspect_at()?;
        let heard = self.links.heard_at(lane.policy.link);
        let with_its_link =
            heard.and_then(|heard| heard.max(lane.progress_at).checked_add(lane.path_timeout()));
        let at = with_its_link.map_or(alone, |at| at.min(alone));
        if answering.on_another_link(lane) {
            return Some(at);
        }
        self.broken_at(lane).map(|broken| broken.max(at))
    }

    /// From when on a lane of the only link that answers is taken to be broken itself: what its
    /// link is slow with would be no sooner on another lane of that link, and would make it slower
    /// yet. Its silence says so, and that of the others does not: some were heard meanwhile or,
    /// unless the link is slow, owe nothing.
    fn broken_at(&self, lane: &Lane) -> Option<Instant> {
        let slow = lane.estimate.is_slow();
        if lane.estimate.kernel_heard_at().is_none() && !slow {
            return Some(lane.progress_at); // nobody tells what its path does
        }
        let silent_at = lane.silent_at()?;
        let link = lane.policy.link;
        let heard = self.links.heard_at(link).is_some_and(|heard| heard >= silent_at);
        let free = |other: &Lane| {
            other.id != lane.id && other.policy.link == link && !other.owes() && !other.ping_due
        };
        (heard || (!slow && self.lanes.values().any(free))).then_some(silent_at)
    }

    /// The lane owes and does not answer. Nor will those of its link on standby, unless any of them
    /// was heard: what is urgent shall not find out one by one.
    fn suspect(&mut self, now: Instant, id: LaneId) {
        let Some(lane) = self.lanes.get(&id) else { return };
        let link = lane.policy.link;
        let heard = self.links.heard_at(link).is_some_and(|at| lane.silent_at() <= Some(at));
        self.totals.suspected = self.totals.suspected.saturating_add(1);
        self.move_owed(now, id);
        if heard {
            self.tell(Event::LaneSuspect(id));
            return;
        }
        let standby =
            |lane: &&Lane| lane.policy.link == link && lane.standby && lane.health == Health::Good;
        let standby: Vec<LaneId> = self.lanes.values().filter(standby).map(|l| l.id).collect();
        standby.into_iter().for_each(|id| self.move_owed(now, id));
        self.tell(Event::LaneSuspect(id));
    }

    /// The lane is suspect: all it owes is sent on other lanes, in stream order, while its own copy
    /// stays under way.
    fn move_owed(&mut self, now: Instant, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.health = Health::Suspect;
        // Without anything to be acknowledged it would stay suspect. Its time to answer begins now.
        if !lane.ledger.owes() && !lane.ping_due {
            lane.ping_due = true;
            lane.heard_at = now;
        }
        lane.copies.clear();
        lane.ledger.entries_mut().for_each(|entry| entry.duplicated = true);
        let owed: Vec<_> = lane.ledger.entries().map(|entry| entry.carried.clone()).collect();
        for carried in &owed {
            self.on_undelivered(carried);
        }
    }
}

/// A lane that can expect this `share` of what it believes it can.
fn view(lane: &Lane, now: Instant, share: f64) -> LaneView {
    let estimate = &lane.estimate;
    let rate = (estimate.rate() * share).max(1.0);
    let rtt_min = estimate.rtt_min().as_secs_f64();
    let in_flight = lane.ledger.in_flight() as f64;
    let pipe = rate * rtt_min;
    let behind = lane.leaves_at.map_or(0.0, |at| at.saturating_duration_since(now).as_secs_f64());
    // What is in flight beyond what the pipe holds stands in a queue; what was given to the lane
    // a moment ago is in none yet, but leaves no sooner than the rate lets it.
    let queue = behind.min(in_flight / rate).max((in_flight - pipe) / rate).max(0.0);
    LaneView {
        id: lane.id,
        rate,
        rtt: estimate.rtt().as_secs_f64(),
        rtt_var: estimate.rtt_var().as_secs_f64(),
        delay: estimate.delay().as_secs_f64(),
        lateness: lane.lateness(now),
        queue,
        in_flight,
        window: 0.0, // its link knows it
        idle: lane.is_asleep(),
        measured: estimate.is_measured(),
        slow: estimate.is_slow(),
        kept_free: lane.is_kept_free(),
    }
}
