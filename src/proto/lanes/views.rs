//! Lanes as the scheduler sees them: which may be given work, and snapshots of those.

use std::time::Instant;

use super::Lanes;
use super::rank::Rank;
use crate::proto::ids::LaneId;
use crate::proto::lane::Lane;
use crate::proto::policy::Tier;
use crate::proto::scheduler::LaneView;

/// A return path counts as faster if it saves at least this: less is not worth a frame of its own.
const FASTER_WAY_SECONDS: f64 = 0.002;

impl Lanes {
    /// Snapshots of the lanes that may be given work: those that answer in time or, if none does,
    /// the next best.
    pub fn views(&self, now: Instant) -> impl Iterator<Item = LaneView> {
        let best = self.best_rank();
        let used = self.usable(best).filter(move |lane| !self.is_spare(lane, best));
        used.map(move |lane| self.paced_view(lane, now))
    }

    /// The same, plus spare lanes: a copy has to go on another lane, if there is one.
    pub fn views_for_copies(&self, now: Instant) -> impl Iterator<Item = LaneView> {
        self.usable(self.best_rank()).map(move |lane| self.paced_view(lane, now))
    }

    /// Whether the lane may carry what another lane could carry as well.
    pub fn may_carry(&self, id: LaneId) -> bool {
        let rank = self.get(id).map(Rank::of);
        rank.is_some_and(|rank| rank >= self.best_rank())
    }

    /// The best rank of any lane: only lanes of that rank are given work.
    pub fn best_rank(&self) -> Rank {
        self.values().map(Rank::of).max().unwrap_or(Rank::WORST)
    }

    /// Lanes of the `best` rank.
    pub fn usable(&self, best: Rank) -> impl Iterator<Item = &Lane> {
        self.values().filter(move |lane| Rank::of(lane) >= best)
    }

    /// Whether the lane is on standby on a slow link that has an active lane: urgent data would get
    /// there no sooner, and each lane's packets in flight take long.
    fn is_spare(&self, lane: &Lane, best: Rank) -> bool {
        let active =
            |other: &Lane| other.policy.link == lane.policy.link && !other.is_urgent_only();
        let stands_by = lane.standby && lane.copies.is_empty();
        stands_by && lane.estimate.is_slow() && self.usable(best).any(active)
    }

    /// Snapshot of a lane, if it may be given work.
    pub fn view_of(&self, now: Instant, id: LaneId) -> Option<LaneView> {
        self.may_carry(id).then(|| self.get(id)).flatten().map(|l| self.paced_view(l, now))
    }

    /// A lane as the scheduler sees it, with what its link allows.
    fn paced_view(&self, lane: &Lane, now: Instant) -> LaneView {
        let link = self.links.view(lane.policy.link);
        let mut view = view(lane, now, link.share());
        view.window = link.window(&lane.window_sample());
        view.congestion_window = lane.estimate.congestion_window().unwrap_or(view.window);
        if let Some(ready_at) = self.caps.ready_at(&lane.policy).filter(|at| *at > now) {
            view.queue += ready_at.saturating_duration_since(now).as_secs_f64();
            (view.window, view.congestion_window) = (0.0, 0.0); // no room until then
        }
        view
    }

    /// Whether an acknowledgement for what arrives on `id` would get there sooner on another lane.
    pub fn has_faster_way_back(&self, id: LaneId, now: Instant) -> bool {
        if self.len() < 2 {
            return false;
        }
        let Some(own) = self.get(id) else { return false };
        let (own, link) = (view(own, now, 1.0).arrival(1.0), own.policy.link);
        let best = self.best_rank();
        let used = |lane: &&Lane| Rank::of(lane) >= best && lane.policy.tier != Tier::Metered;
        // On a slow link, saying anything twice delays everything.
        let alike = |lane: &Lane| lane.estimate.is_slow() && lane.policy.link == link;
        let others = self.values().filter(|lane| lane.id != id && !alike(lane));
        let good = others.filter(used);
        good.map(|lane| view(lane, now, 1.0).arrival(1.0))
            .any(|other| other + FASTER_WAY_SECONDS < own)
    }

    /// A sleeping lane that could carry an acknowledgement for what arrived on `id`.
    pub fn way_back(&self, id: LaneId) -> Option<&Lane> {
        let best = self.best_rank();
        let free = |lane: &&Lane| lane.id != id && lane.is_asleep() && Rank::of(lane) >= best;
        self.values().filter(free).min_by_key(|l| l.estimate.rtt_min())
    }
}

/// A lane that can expect this `share` of its believed rate.
fn view(lane: &Lane, now: Instant, share: f64) -> LaneView {
    let estimate = &lane.estimate;
    let rate = (estimate.rate() * share).max(1.0);
    let rtt_min = estimate.rtt_min().as_secs_f64();
    let in_flight = lane.ledger.in_flight() as f64;
    let pipe = rate * rtt_min;
    let behind = lane.leaves_at.map_or(0.0, |at| at.saturating_duration_since(now).as_secs_f64());
    // What is in flight beyond the pipe's capacity stands in a queue; what the lane was given a
    // moment ago is in none yet, but leaves no sooner than the rate allows.
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
        window: 0.0, // filled in from its link
        congestion_window: 0.0,
        idle: lane.is_asleep(),
        measured: estimate.is_measured(),
        slow: estimate.is_slow(),
        urgent_only: lane.is_urgent_only(),
    }
}
