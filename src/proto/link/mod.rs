//! Link control: how a link's lanes share its path. Knows neither sessions nor lanes: lane samples
//! come in, advice for each lane goes out.
//!
//! One file per mechanism: what the path delivers (`delivery_rate`, `kernel_count`), which lanes
//! fill it (`startup`, `filling`), its `jitter` and its `standing_queue`; and what follows: which
//! lanes are active (`active_set`), how fast they may send (`pacing`, `rate_cap`), how much they
//! may have in flight (`window`), and how much of that their kernels hold (`unsent`). `control`
//! brings them together.

mod active_set;
mod backoff;
mod control;
mod delivery_rate;
mod filling;
mod jitter;
mod kernel_count;
mod max_filter;
mod pacing;
mod path;
mod rate_cap;
mod sample;
mod standing_queue;
mod startup;
mod unsent;
mod window;

#[cfg(test)]
mod testing;

pub use control::LinkView;
pub use max_filter::MaxFilter;
pub use path::{INITIAL_WINDOW_BYTES, PACKET_BYTES, SLOW_RATE};
pub use rate_cap::{RateAllowance, RateCaps};
pub use sample::{Advice, KernelSample};
pub use sample::{Candidate, LaneSample, WindowSample};
pub use startup::Startup;

use std::time::{Duration, Instant};

use litemap::LiteMap;

use self::control::Link;
use super::count::Count;
use super::ids::LinkId;
use super::policy::LanePolicy;

/// The links that have lanes.
#[derive(Debug, Default)]
pub struct Links(LiteMap<LinkId, Link>);

impl Links {
    /// A lane of this policy's link is up; something was just heard on it.
    pub fn join(&mut self, policy: &LanePolicy, now: Instant) {
        let mut link = self.0.remove(&policy.link).unwrap_or_else(|| Link::new(now));
        link.join(policy.tier);
        link.heard_at = link.heard_at.max(now);
        self.0.insert(policy.link, link);
    }

    /// A lane of this policy's link is down, or has a new policy.
    pub fn leave(&mut self, policy: &LanePolicy) {
        let Some(link) = self.0.get_mut(&policy.link) else { return };
        link.leave(policy.tier);
        if link.lanes == Count::ZERO {
            self.0.remove(&policy.link);
        }
    }

    /// The peer or its kernel acknowledged something that one of the link's lanes owed.
    pub fn on_heard(&mut self, id: LinkId, at: Instant) {
        if let Some(link) = self.0.get_mut(&id) {
            link.heard_at = link.heard_at.max(at);
        }
    }

    /// The peer acknowledged this many more `bytes` on one of the link's lanes.
    pub fn on_ack(&mut self, id: LinkId, bytes: u64) {
        if let Some(link) = self.0.get_mut(&id) {
            link.delivery_rate.on_ack(bytes);
        }
    }

    /// The kernel of one of the link's lanes counted this many more `bytes` as delivered, with
    /// round trips of `rtt`.
    pub fn on_delivered(&mut self, id: LinkId, bytes: u64, rtt: Duration) {
        if let Some(link) = self.0.get_mut(&id) {
            link.on_delivered(bytes, rtt);
        }
    }

    /// Takes a sample of the link's `lanes`, once per `window`. Returns whether the active lanes
    /// are to change: see [`choose`](Self::choose).
    pub fn on_sample(
        &mut self,
        now: Instant,
        id: LinkId,
        lanes: impl Iterator<Item = LaneSample>,
        window: Duration,
    ) -> bool {
        self.0.get_mut(&id).is_some_and(|link| link.on_sample(now, lanes, window))
    }

    /// Chooses the link's active lanes. `lanes` are the candidates: all but express lanes.
    pub fn choose(&mut self, id: LinkId, lanes: &mut [Candidate]) {
        let link = self.0.get_mut(&id);
        let active = link.as_ref().and_then(|link| link.active_max).unwrap_or(usize::MAX);
        active_set::choose(lanes, active);
        if let Some(link) = link {
            link.standby = lanes.len().saturating_sub(active);
        }
    }

    /// What the link means for one of its lanes.
    pub fn view(&self, id: LinkId) -> LinkView {
        self.0.get(&id).map_or(LinkView::UNKNOWN, Link::view)
    }

    /// What the link's path delivered when it was last full, in bytes a second.
    pub fn path_rate(&self, id: LinkId) -> Option<f64> {
        self.0.get(&id)?.delivery_rate.rate()
    }

    /// What the first lane's handshake showed the link's path to carry, in bytes a second, if that
    /// is little.
    pub fn path_by_handshake(&self, id: LinkId) -> Option<f64> {
        self.0.get(&id)?.by_handshake
    }

    /// When anything was last heard on the link, if it has several lanes: for a single lane this
    /// would add nothing.
    pub fn heard_at(&self, id: LinkId) -> Option<Instant> {
        self.0.get(&id).filter(|link| link.lanes.get() > 1).map(|link| link.heard_at)
    }

    #[cfg(test)]
    pub fn limit_active(&mut self, id: LinkId, active: usize) {
        self.0.get_mut(&id).unwrap().active_max = Some(active);
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{RTT, filling_lane};
    use super::*;
    use crate::proto::ids::LaneId;
    use crate::proto::policy::Tier;
    use crate::proto::testing as core;

    const LINK: LinkId = LinkId::new(0);
    const WINDOW: Duration = Duration::from_millis(40);

    /// A link whose lanes are sampled once a window.
    struct Path {
        links: Links,
        lanes: Vec<LaneSample>,
        now: Instant,
    }

    impl Path {
        /// With this many lanes that fill it.
        fn new(lanes: usize) -> Self {
            let now = core::start();
            let mut links = Links::default();
            (0..lanes).for_each(|_| links.join(&LanePolicy::default(), now));
            let mut path = Self { links, lanes: vec![filling_lane(); lanes], now };
            path.sample();
            path
        }

        fn sample(&mut self) -> bool {
            self.links.on_sample(self.now, LINK, self.lanes.iter().copied(), WINDOW)
        }

        /// Runs this many windows; for each, `path` returns what was delivered on a lane, and how
        /// long the queue was, in milliseconds.
        fn run(&mut self, windows: u32, path: impl Fn(u32) -> (u64, u64)) -> LinkView {
            for (bytes, queue) in (0..windows).map(path) {
                self.now += WINDOW;
                for _ in 0..self.lanes.len() {
                    self.links.on_delivered(LINK, bytes, RTT + Duration::from_millis(queue));
                }
                self.sample();
            }
            self.links.view(LINK)
        }
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn a_link_begins_with_few_lanes_which_may_search() {
        let mut path = Path::new(10);
        assert_eq!(path.links.0[&LINK].active_max, Some(2), "of 20 ms");
        // 32 kB in 40 ms are 0.8 MB/s.
        let full = |_| (32_000, 20);
        near(path.run(4, full).share(), 1.0);
        near(path.run(1, full).share(), 0.8);
    }

    #[test]
    fn a_path_is_slow_as_its_first_handshake_shows_and_no_other_lane_is_tried() {
        let mut links = Links::default();
        let now = core::start();
        (0..2).for_each(|_| links.join(&LanePolicy::default(), now));
        // At 96 kbit/s and 110 ms. The last lane's handshake waited behind others.
        let slow = LaneSample {
            is_slow: true,
            path_by_handshake: Some(11_000.0),
            rate: 4_000.0,
            in_flight: 6_000,
            ..filling_lane()
        };
        let last = LaneSample { active: false, in_flight: 0, ..filling_lane() };
        links.on_sample(now, LINK, [slow].into_iter(), WINDOW);
        let mut path = Path { links, lanes: vec![slow, last], now };
        let of = |number, active| Candidate { id: LaneId::new(number), active, rate: 1.0 };
        path.links.choose(LINK, &mut [of(0, true), of(1, false)]);
        for window in 1..=40 {
            path.run(1, |_| (240, 90));
            assert_eq!(path.links.0[&LINK].active_max, Some(1), "in window {window}");
        }
        assert_eq!(path.links.path_by_handshake(LINK), Some(11_000.0));
    }

    #[test]
    fn what_arrives_beside_a_silent_lane_is_not_what_its_path_delivers() {
        let mut path = Path::new(1);
        for _ in 0..200 {
            path.links.on_ack(LINK, 200); // 5 kB/s, all of it on another lane
            path.run(1, |_| (0, 0));
        }
        assert_eq!(path.links.path_rate(LINK), None);
    }

    #[test]
    fn jitter_says_nothing_of_a_queue_and_one_climb_does() {
        let jitter = Path::new(10).run(85, |window| (32_000, u64::from(window % 2 * 20)));
        near(jitter.share(), 1.0);
        let climb = |window| (32_000, if window < 45 { 0 } else { 20 });
        near(Path::new(10).run(47, climb).share(), 0.8);
    }

    #[test]
    fn only_lanes_that_fill_a_path_together_are_held_to_it() {
        let full = |_| (32_000, 20);
        near(Path::new(1).run(10, full).share(), 1.0);
        let mut two = Path::new(2);
        two.lanes[1].in_flight = 0;
        near(two.run(10, full).share(), 1.0);
        two.lanes[1] = filling_lane();
        near(two.run(10, full).share(), 0.8);
        two.links.leave(&LanePolicy::default());
        two.lanes.pop();
        near(two.run(1, full).share(), 1.0);
    }

    #[test]
    fn lanes_of_a_link_are_chosen_by_what_they_do_and_by_their_rate() {
        let mut path = Path::new(4);
        let of = |number, active, rate| Candidate { id: LaneId::new(number), active, rate };
        let mut lanes = [of(0, false, 3.0), of(1, true, 1.0), of(2, true, 2.0), of(3, false, 9.0)];
        path.links.limit_active(LINK, 3);
        path.links.choose(LINK, &mut lanes);
        let active = lanes.map(|lane| (lane.id.number(), lane.active));
        assert_eq!(active, [(2, true), (1, true), (3, true), (0, false)]);
        assert_eq!(path.links.view(LINK).sharing(), 3);
    }

    #[test]
    fn several_lanes_know_when_their_link_was_heard_and_one_does_not() {
        let start = core::start();
        let later = start + Duration::from_secs(1);
        let [seven, eight] = [7, 8].map(LinkId::new);
        let of = |link| LanePolicy { link, ..LanePolicy::default() };
        let mut links = Links::default();
        links.join(&of(seven), start);
        assert_eq!(links.heard_at(seven), None);
        links.join(&of(seven), start);
        links.join(&of(eight), start);
        links.on_heard(seven, later);
        links.on_heard(seven, start);
        assert_eq!((links.heard_at(seven), links.heard_at(eight)), (Some(later), None));
        links.leave(&of(seven));
        assert_eq!(links.heard_at(seven), None);
        links.leave(&of(seven));
        links.leave(&of(seven));
        assert_eq!(links.0.len(), 1, "what has no lanes is forgotten");
    }

    #[test]
    fn an_express_lane_has_no_share_of_the_path() {
        let start = core::start();
        let primary = LanePolicy::default();
        let express = LanePolicy { tier: Tier::Express, ..primary };
        let mut links = Links::default();
        links.join(&primary, start);
        links.join(&express, start);
        assert!(!links.view(LINK).is_shared());
        assert_eq!(links.heard_at(LINK), Some(start), "but it hears of it");
        links.join(&primary, start);
        links.leave(&express);
        assert_eq!(links.view(LINK).sharing(), 2);
    }
}
