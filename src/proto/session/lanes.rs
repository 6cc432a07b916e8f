//! Lanes coming, going, falling silent, and being woken.

use std::time::{Duration, Instant};

use super::Session;
use super::output::Standing;
use crate::proto::error::Code;
use crate::proto::event::Event;
use crate::proto::ids::LaneId;
use crate::proto::lane::{DeadLane, Health, Lane, LaneMetrics};
use crate::proto::limits::{DEAD_LANES_MAX, LANES_MAX};
use crate::proto::mutants::mutant;
use crate::proto::scheduler::LaneView;
use crate::proto::timer::Timer;

/// A way back counts as faster if it saves at least this: less is not worth a frame of its own.
const FASTER_WAY_SECONDS: f64 = 0.002;

/// What a lane may have in flight: this many times what fills its pipe, so that no buffer on the
/// way swallows what other lanes could carry ...
const PIPE_FACTOR: f64 = 3.0;
/// ... counting round trips as no shorter than this, because delayed acknowledgements and waking
/// a task take time ...
const PIPE_ROUND_TRIP_MIN: f64 = 0.005;
/// ... and never less than four initial windows of TCP: what is known of a new lane is little, and
/// what it is given it keeps. It grows as the lane proves itself, faster than TCP's slow start.
const WINDOW_MIN: f64 = 4.0 * 14_600.0;
/// Where the kernel tells its window, it is the judge: what waits in order at the other end, for
/// what was lost, is in flight for us and no longer for the kernel.
const CWND_FACTOR: f64 = 2.0;

/// What the kernel may hold of a lane that it has not sent: this much of the lane's time, so that
/// the choice of what to send is made late ...
const UNSENT_SECONDS: f64 = 0.003;
/// ... but while the kernel still looks for the path's rate (BBR's start-up sends at 2.9 times what
/// it has found), more of it: each time it runs dry it takes the lack of bytes for a reason not to
/// end the search, and goes on overfilling the path's queue.
const UNSENT_SECONDS_SEARCHING: f64 = 0.015;
const SEARCHING_GAIN: f64 = 2.0;
/// Bounds of it: a TLS record, and what a gigabit link needs.
const UNSENT_BYTES_MIN: u32 = 16 * 1024;
const UNSENT_BYTES_MAX: u32 = 512 * 1024;

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
        self.lanes.insert(id, Lane { futile: self.futile, ..Lane::new(id, now, rtt) });
        self.alone_since = None;
        true
    }

    /// What the kernel knows of a lane.
    pub fn handle_lane_metrics(&mut self, now: Instant, id: LaneId, metrics: LaneMetrics) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.estimate.on_metrics(now, metrics);
            lane.late &= !lane.answers(now);
        }
    }

    /// A lane is down; what it owes travels elsewhere. Does nothing for a lane that is not up.
    pub fn handle_lane_down(&mut self, now: Instant, id: LaneId, code: Code) {
        let Some(lane) = self.lanes.remove(&id) else { return };
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

    /// How many bytes the kernel should hold unsent for a lane: a few milliseconds of its rate, so
    /// that the choice of what to send is made late, yet the lane never runs dry.
    pub fn unsent_limit(&self, id: LaneId) -> u32 {
        let Some(lane) = self.lanes.get(&id) else { return UNSENT_BYTES_MIN };
        let (rate, pacing) = (lane.estimate.rate(), lane.estimate.pacing_rate());
        let seconds =
            if pacing > SEARCHING_GAIN * rate { UNSENT_SECONDS_SEARCHING } else { UNSENT_SECONDS };
        ((pacing * seconds) as u32).clamp(UNSENT_BYTES_MIN, UNSENT_BYTES_MAX)
    }

    /// An idle lane for which there is work now, each at most once until it has come.
    #[must_use]
    pub fn poll_wake(&mut self, now: Instant) -> Option<LaneId> {
        self.prune_data_queue();
        let id = self.lane_to_wake(now)?;
        let lane = self.lanes.get_mut(&id)?;
        lane.waking = true;
        Some(id)
    }

    fn lane_to_wake(&self, now: Instant) -> Option<LaneId> {
        let sleeping = |lane: &&Lane| lane.idle && !lane.waking;
        if self.is_closed() {
            return self
                .lanes
                .values()
                .filter(sleeping)
                .find(|lane| !lane.close_sent)
                .map(|l| l.id);
        }
        let urgent = |lane: &&Lane| lane.ping_due || lane.inbound.due().is_some_and(|at| at <= now);
        if let Some(lane) = self.lanes.values().filter(sleeping).find(urgent) {
            return Some(lane.id);
        }
        let overdue = |lane: &&Lane| lane.inbound.due_elsewhere().is_some_and(|at| at <= now);
        if let Some(way) = self.lanes.values().filter(overdue).find_map(|l| self.way_back(l.id)) {
            return Some(way);
        }
        let control = self.control_waits();
        if !control && self.data_queue.is_empty() && !self.tail_possible() {
            return None;
        }
        // The fastest first: whatever waits, it is the first to be asked.
        let mut views = self.views(now);
        views.sort_by(|a, b| a.arrival(1.0).total_cmp(&b.arrival(1.0)));
        let control = control && !self.lanes.values().any(|lane| lane.waking);
        let mut sleeping = views.iter().filter(|view| view.idle).map(|view| view.id);
        sleeping.find(|&id| control || self.would_carry(now, id, &views))
    }

    /// A lane that sleeps and could take an acknowledgement for what came on `id`.
    fn way_back(&self, id: LaneId) -> Option<LaneId> {
        let best = self.best_standing();
        let free =
            |lane: &&Lane| lane.id != id && lane.idle && !lane.waking && Standing::of(lane) >= best;
        self.lanes.values().filter(free).min_by_key(|l| l.estimate.rtt_min()).map(|lane| lane.id)
    }

    fn control_waits(&self) -> bool {
        let notices = self.dead.iter().any(|dead| dead.notice_due);
        let say = self.say;
        notices
            || say.max_data
            || say.max_streams
            || say.drain
            || say.next_key
            || !self.control_queue.is_empty()
    }

    /// Snapshots of the lanes that may be given work: those that answer in time or, if none does,
    /// the next best.
    pub(super) fn views(&self, now: Instant) -> Vec<LaneView> {
        let best = self.best_standing();
        let usable = |lane: &&Lane| Standing::of(lane) >= best;
        self.lanes.values().filter(usable).map(|lane| view(lane, now)).collect()
    }

    /// Whether an acknowledgement for what comes on `id` would be there sooner on another lane.
    pub(super) fn has_faster_way_back(&self, id: LaneId, now: Instant) -> bool {
        if self.lanes.len() < 2 {
            return false;
        }
        let Some(own) = self.lanes.get(&id) else { return false };
        let own = view(own, now).arrival(1.0);
        let good = self.lanes.values().filter(|lane| lane.health == Health::Good && lane.id != id);
        good.map(|lane| view(lane, now).arrival(1.0)).any(|other| other + FASTER_WAY_SECONDS < own)
    }

    /// When something is due for a lane.
    pub(super) fn lane_timeout(&self, lane: &Lane, healthy: usize) -> Option<(Instant, Timer)> {
        let sleeping = lane.idle && !lane.waking;
        let ack = lane.inbound.due().filter(|_| sleeping).map(|at| (at, Timer::Ack));
        let elsewhere = lane
            .inbound
            .due_elsewhere()
            .filter(|_| self.way_back(lane.id).is_some())
            .map(|at| (at, Timer::Ack));
        let suspect = lane.suspect_at().filter(|_| healthy > 1).map(|at| (at, Timer::Suspect));
        let late = self.late_at(lane).filter(|_| healthy > 1).map(|at| (at, Timer::Late));
        let lost = lane.lost_at().map(|at| (at, Timer::LaneLost));
        let idle_ping = (!lane.ledger.owes() && !lane.ping_due)
            .then(|| lane.heard_at.checked_add(self.config.keepalive))
            .flatten()
            .map(|at| (at, Timer::Keepalive));
        [ack, elsewhere, suspect, late, lost, idle_ping].into_iter().flatten().min_by_key(|t| t.0)
    }

    /// Looks at every lane for what is overdue.
    pub(super) fn check_lanes(&mut self, now: Instant) {
        let ids: Vec<LaneId> = self.lanes.keys().copied().collect();
        for id in ids {
            let healthy = self.healthy_lanes();
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if lane.lost_at().is_some_and(|at| at <= now) {
                let futile = lane.ledger.acked_position() == 0;
                self.futile = if futile { self.futile.saturating_add(1) } else { 0 };
                self.events.push_back(Event::LaneLost { lane: id, code: Code::LANE_TIMEOUT });
                self.handle_lane_down(now, id, Code::LANE_TIMEOUT);
            } else if healthy > 1 && lane.suspect_at().is_some_and(|at| at <= now) {
                self.suspect(id);
            } else if !lane.ledger.owes()
                && now.saturating_duration_since(lane.heard_at) >= self.config.keepalive
            {
                lane.ping_due = true;
                if !mutant!("pings-without-end") {
                    lane.heard_at = now;
                }
            } else if healthy > 1 {
                self.move_late(now, id);
            }
        }
    }

    /// The lane owes and does not answer: all it owes is sent on other lanes, in stream order,
    /// while its own copy stays under way.
    fn suspect(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        lane.health = Health::Suspect;
        lane.ledger.entries_mut().for_each(|entry| entry.duplicated = true);
        let owed: Vec<_> = lane.ledger.entries().map(|entry| entry.carried.clone()).collect();
        self.totals.suspected = self.totals.suspected.saturating_add(1);
        for carried in &owed {
            self.on_undelivered(carried);
        }
        self.events.push_back(Event::LaneSuspect(id));
    }

    /// The peer has acknowledged a lane's bytes up to `position`.
    pub(super) fn on_ack(&mut self, now: Instant, id: LaneId, position: u64) {
        let mut settled = Vec::new();
        let known = if let Some(lane) = self.lanes.get_mut(&id) {
            lane.on_ack(now, position, |entry| settled.push(entry.carried))
        } else if let Some(dead) = self.dead.iter_mut().find(|dead| dead.id == id) {
            let sent = position <= dead.ledger.sent_position();
            if sent {
                dead.ledger.ack(position, |entry| settled.push(entry.carried));
            }
            sent
        } else {
            true // long dead
        };
        if !known {
            self.misbehaved(Code::INVALID_ACK, "more acknowledged on a lane than was sent on it");
            return;
        }
        for carried in &settled {
            self.on_delivered(carried);
        }
    }

    /// The peer has given a lane up.
    pub(super) fn on_lane_closed(&mut self, now: Instant, id: LaneId, position: u64, code: Code) {
        self.on_ack(now, id, position);
        if self.is_closed() {
            return;
        }
        if self.lanes.contains_key(&id) {
            self.events.push_back(Event::LaneLost { lane: id, code });
            self.handle_lane_down(now, id, code);
        }
        if let Some(dead) = self.dead.iter_mut().find(|dead| dead.id == id) {
            dead.peer_closed = true;
            drop(dead.ledger.drain());
        }
        self.dead.retain(|dead| !dead.is_done());
    }
}

/// A lane as the scheduler sees it.
fn view(lane: &Lane, now: Instant) -> LaneView {
    let estimate = &lane.estimate;
    let rate = estimate.rate().max(1.0);
    let rtt_min = estimate.rtt_min().as_secs_f64();
    let in_flight = lane.ledger.in_flight() as f64;
    let pipe = estimate.bandwidth_delay_bytes();
    let behind = lane.leaves_at.map_or(0.0, |at| at.saturating_duration_since(now).as_secs_f64());
    // What is in flight beyond what the pipe holds stands in a queue; what was given to the lane
    // a moment ago is in none yet, but leaves no sooner than the rate lets it.
    let queue = behind.min(in_flight / rate).max((in_flight - pipe) / rate).max(0.0);
    LaneView {
        id: lane.id,
        rate,
        rtt: estimate.rtt().as_secs_f64(),
        rtt_var: estimate.rtt_var().as_secs_f64(),
        delay: rtt_min / 2.0,
        queue,
        in_flight,
        window: (PIPE_FACTOR * rate * rtt_min.max(PIPE_ROUND_TRIP_MIN))
            .max(CWND_FACTOR * estimate.cwnd_bytes() as f64)
            .max(WINDOW_MIN),
        idle: lane.idle && !lane.waking,
        measured: estimate.is_measured(),
    }
}
