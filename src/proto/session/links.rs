//! What the lanes of one link know together: that it carries nothing any more, which shows much sooner than on each of many
//! lanes alone; and what it carries, of which each of them sees a part.

use std::time::{Duration, Instant};

use litemap::LiteMap;

use super::acked::Acked;
use super::crowd::{Crowd, Crowding};
use super::rest::{Rest, Seen};
use super::wander::Wander;
use crate::proto::ids::LinkId;
use crate::proto::lane::{Lane, MaxFilter};
use crate::proto::policy::{LanePolicy, Tier};

/// So often lanes are seen to fill a path before they are held to what it carries.
const SEARCHING_LOOKS: u32 = 4;

/// The links that have lanes.
#[derive(Debug, Default)]
pub(super) struct Links(LiteMap<LinkId, Link>);

#[derive(Debug)]
struct Link {
    lanes: usize,
    /// Those of them that carry bulk only while no other answers.
    express: usize,
    /// Those of the others that are not needed.
    resting: usize,
    /// So many shall work; `None`: all.
    wanted: Option<usize>,
    /// When any of the lanes last heard of the peer's end.
    heard_at: Instant,
    /// What the path has delivered since it was last looked at.
    count: Count,
    /// What it delivers, in bytes a second.
    carried: MaxFilter,
    /// What the peer acknowledges on it.
    acked: Acked,
    /// What the handshake of its first lane showed, in bytes a second, if that is little: those of the others wait behind it, and
    /// show less.
    by_handshake: Option<f64>,
    wander: Wander,
    crowding: Crowding,
    rest: Rest,
    /// How often several lanes were seen to fill it; `None`: it was not looked at yet.
    looks: Option<u32>,
}

impl Link {
    /// Lanes that share the path.
    fn working(&self) -> usize {
        self.lanes.saturating_sub(self.express).saturating_sub(self.resting)
    }
}

/// What a link means to one of its lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkView {
    /// How many lanes share its path: those that rest and express lanes leave it to the others.
    pub(super) sharing: usize,
    pub(super) crowding: Crowding,
    /// How much longer its round trips may be than usual, in seconds, without a queue.
    pub(super) wander: f64,
}

impl LinkView {
    /// Whether its lanes share its path.
    pub(super) fn is_shared(&self) -> bool {
        self.sharing > 1
    }

    /// Whether the path's rate may be what it was a moment ago, though it has carried less since. Of lanes that share a path
    /// that does not wander, each has its part of what it carries now.
    pub(super) fn may_recover(&self) -> bool {
        !self.is_shared() || self.wander > 0.0
    }
}

/// What the kernels count as delivered on all lanes, over some time. The sum of their most recent rates is no measure of
/// the path: of lanes that have a few packets each on the way a burst decides.
#[derive(Debug)]
struct Count {
    since: Instant,
    bytes: f64,
    /// Round trips in seconds, each times the bytes that were delivered: of a lane that is stuck the kernel's are old.
    rtt_bytes: f64,
}

impl Count {
    fn new(since: Instant) -> Self {
        Self { since, bytes: 0.0, rtt_bytes: 0.0 }
    }
}

impl Links {
    /// A lane of this policy's link is up, of which something was just heard.
    pub(super) fn join(&mut self, policy: &LanePolicy, now: Instant) {
        let express = usize::from(policy.tier == Tier::Express);
        match self.0.get_mut(&policy.link) {
            Some(link) => {
                link.lanes = link.lanes.saturating_add(1);
                link.express = link.express.saturating_add(express);
                link.heard_at = link.heard_at.max(now);
            }
            None => {
                let link = Link {
                    lanes: 1,
                    express,
                    resting: 0,
                    wanted: None,
                    heard_at: now,
                    count: Count::new(now),
                    carried: MaxFilter::default(),
                    acked: Acked::new(now),
                    by_handshake: None,
                    wander: Wander::default(),
                    crowding: Crowding::NONE,
                    rest: Rest::default(),
                    looks: None,
                };
                self.0.insert(policy.link, link);
            }
        }
    }

    /// A lane of this policy's link is down, or has another policy.
    pub(super) fn leave(&mut self, policy: &LanePolicy) {
        let Some(link) = self.0.get_mut(&policy.link) else { return };
        link.lanes = link.lanes.saturating_sub(1);
        link.express = link.express.saturating_sub(usize::from(policy.tier == Tier::Express));
        if link.lanes == 0 {
            self.0.remove(&policy.link);
        }
    }

    /// What one of the link's lanes owed was acknowledged, by the peer or by its kernel.
    pub(super) fn heard(&mut self, id: LinkId, at: Instant) {
        if let Some(link) = self.0.get_mut(&id) {
            link.heard_at = link.heard_at.max(at);
        }
    }

    /// The peer has acknowledged so many `bytes` more on one of the link's lanes.
    pub(super) fn acked(&mut self, id: LinkId, bytes: u64) {
        if let Some(link) = self.0.get_mut(&id) {
            link.acked.add(bytes);
        }
    }

    /// What the link means to one of its lanes.
    pub(super) fn view(&self, id: LinkId) -> LinkView {
        let alone = LinkView { sharing: 1, crowding: Crowding::NONE, wander: 0.0 };
        self.0.get(&id).map_or(alone, |link| LinkView {
            sharing: link.working().max(1),
            crowding: link.crowding,
            wander: link.wander.allowance,
        })
    }

    /// What the link's path was last seen to carry when it was full, in bytes a second.
    pub(super) fn path_rate(&self, id: LinkId) -> Option<f64> {
        self.0.get(&id)?.acked.rate()
    }

    /// What the link's path carries as its first handshake showed, in bytes a second, if that is little.
    pub(super) fn path_by_handshake(&self, id: LinkId) -> Option<f64> {
        self.0.get(&id)?.by_handshake
    }

    /// When anything was last heard on the link, if it has several lanes: one knows no more of it than of itself.
    pub(super) fn heard_at(&self, id: LinkId) -> Option<Instant> {
        self.0.get(&id).filter(|link| link.lanes > 1).map(|link| link.heard_at)
    }

    /// Of one of the link's lanes the kernel has counted so many `bytes` more as delivered, after round trips of `rtt`.
    pub(super) fn delivered(&mut self, id: LinkId, bytes: u64, rtt: Duration) {
        if let Some(link) = self.0.get_mut(&id) {
            link.count.bytes += bytes as f64;
            link.count.rtt_bytes += bytes as f64 * rtt.as_secs_f64();
        }
    }

    /// So many of the link's lanes rest.
    pub(super) fn set_resting(&mut self, id: LinkId, lanes: usize) {
        if let Some(link) = self.0.get_mut(&id) {
            link.resting = lanes;
        }
    }

    /// How many of the link's lanes shall work.
    pub(super) fn wanted(&self, id: LinkId) -> usize {
        self.0.get(&id).and_then(|link| link.wanted).unwrap_or(usize::MAX)
    }

    #[cfg(test)]
    pub(super) fn want(&mut self, id: LinkId, wanted: usize) {
        self.0.get_mut(&id).unwrap().wanted = Some(wanted);
    }

    /// Looks at what the link's `lanes` carry, once in a `window`. Returns whether others shall work from now on.
    pub(super) fn look<'a>(
        &mut self,
        now: Instant,
        id: LinkId,
        lanes: impl Iterator<Item = &'a Lane>,
        window: Duration,
    ) -> bool {
        let Some(link) = self.0.get_mut(&id) else { return false };
        let Some(looks) = link.looks else {
            let (mut rtt, mut slow) = (Duration::MAX, false);
            for lane in lanes {
                rtt = rtt.min(lane.estimate.rtt_min());
                slow |= lane.estimate.is_slow();
                link.by_handshake = link.by_handshake.or(lane.estimate.path_by_handshake());
            }
            link.wanted = Some(if slow { 1 } else { Rest::begin(rtt) });
            if slow {
                link.rest.on_slow(now);
            }
            link.looks = Some(0);
            return true;
        };
        let age = now.saturating_duration_since(link.count.since);
        if age < window {
            return false;
        }
        let count = std::mem::replace(&mut link.count, Count::new(now));
        link.carried.add(now, count.bytes / age.as_secs_f64().max(1e-3), window);
        let rtt = count.rtt_bytes / count.bytes.max(1.0);
        if count.bytes > 0.0 {
            // A window is two round trips, but not less than is worth measuring.
            link.wander.add(rtt, window.as_secs_f64() / 2.0);
        }
        let (crowd, carried) = (Crowd::of(now, lanes), link.carried.max());
        link.acked.look(now, crowd.fills);
        if crowd.fills_slow_path(rtt, link.acked.rate()) && link.wanted != Some(1) {
            link.wanted = Some(1);
            link.rest.on_slow(now);
            link.crowding = Crowding::NONE;
            return true;
        }
        let looks = looks.saturating_add(u32::from(crowd.lanes > 1));
        link.looks = Some(looks);
        // Held to what they carry they would not find out what they can, and as long as little is known of how its round trips
        // wander, no queue is certain.
        let crowding = match looks {
            ..=SEARCHING_LOOKS => Crowding::NONE,
            _ => crowd.crowding(rtt, carried, link.wander.allowance),
        };
        let working = link.working();
        let lanes = working.saturating_add(link.resting);
        let wanted = link.rest.look(Seen {
            now,
            window,
            lanes,
            working,
            needed: crowd.needed(carried),
            busy: crowd.lanes.saturating_mul(2) >= working,
            queued: crowding.is_queued(),
            cramped: crowd.is_cramped(carried),
            bytes: count.bytes,
        });
        link.crowding = if link.rest.is_throttled() { Crowding::NONE } else { crowding };
        if let Some(wanted) = wanted {
            link.wanted = Some(wanted).filter(|wanted| *wanted < lanes);
        }
        wanted.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::ids::{Dir, LaneId, Side, StreamId};
    use crate::proto::lane::{Carried, LaneMetrics, PACING_HEADROOM};
    use crate::proto::testing;

    const WINDOW: Duration = Duration::from_millis(40);
    const LINK: LinkId = LinkId::new(0);
    const RTT: Duration = Duration::from_millis(20);

    /// A lane of a path of 20 ms, which fills it and believes that it delivers 1 MB/s.
    fn filling(number: u64) -> Lane {
        let start = testing::start();
        let mut lane = Lane::new(LaneId::new(number), start, Some(RTT));
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        let carried = Carried::Data { id, range: 0..100_000, fin: false };
        lane.ledger.record(carried, 100_000, start, start, Duration::ZERO, true);
        lane.estimate.on_metrics(start, testing::kernel(1_000_000, RTT));
        lane
    }

    /// A link of these lanes, which have found out what it carries.
    fn found(lanes: &[Lane], start: Instant) -> Links {
        let mut links = Links::default();
        lanes.iter().for_each(|lane| links.join(&lane.policy, start));
        links.0.get_mut(&LINK).unwrap().looks = Some(SEARCHING_LOOKS);
        links
    }

    /// Of each lane the kernel counts so many bytes in a window, after that long a queue.
    fn crowding(lanes: &[Lane], counted: &[(u64, Duration)]) -> Crowding {
        let start = testing::start();
        let mut links = found(lanes, start);
        for (bytes, queue) in counted {
            links.delivered(LINK, *bytes, RTT + *queue);
        }
        links.look(start + WINDOW / 2, LINK, lanes.iter(), WINDOW);
        assert_eq!(links.view(LINK).crowding, Crowding::NONE, "too early to say");
        links.look(start + WINDOW, LINK, lanes.iter(), WINDOW);
        links.view(LINK).crowding
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn lanes_that_overfill_their_path_are_held_to_what_it_carries() {
        let ms = Duration::from_millis;
        let ten: Vec<Lane> = (0..10).map(filling).collect();
        // 32 kB in 40 ms is 0.8 MB/s.
        let queue_of = |queue| crowding(&ten, &[(32_000, ms(queue)); 10]);
        near(queue_of(20).headroom(), 0.8 * 1.02);
        near(queue_of(20).share(), 0.8);
        near(queue_of(2).headroom(), PACING_HEADROOM);
        near(queue_of(2).share(), 1.0);
        let between = queue_of(5);
        assert!(between.headroom() > 0.9 && between.headroom() < PACING_HEADROOM, "{between:?}");
        assert!(between.share() > 0.8 && between.share() < 1.0, "{between:?}");
    }

    #[test]
    fn a_link_begins_with_few_lanes_which_may_search() {
        let start = testing::start();
        let ten: Vec<Lane> = (0..10).map(filling).collect();
        let mut links = Links::default();
        ten.iter().for_each(|lane| links.join(&lane.policy, start));
        assert_eq!(links.wanted(LINK), usize::MAX, "nothing is known of it");
        assert!(links.look(start, LINK, ten.iter(), WINDOW), "others shall work");
        assert_eq!(links.wanted(LINK), 2, "of 20 ms");
        for window in 1..=SEARCHING_LOOKS + 1 {
            assert_eq!(links.view(LINK).crowding, Crowding::NONE, "before look {window}");
            links.delivered(LINK, 320_000, RTT * 2);
            links.look(start + WINDOW * window, LINK, ten.iter(), WINDOW);
        }
        near(links.view(LINK).crowding.share(), 0.8);
    }

    #[test]
    fn a_path_is_slow_as_its_first_handshake_shows_whatever_those_behind_it_do() {
        let start = testing::start();
        let ms = Duration::from_millis;
        // At 96 kbit/s and 110 ms: 2 kB each way, before nobody's and behind three others'.
        let mut links = Links::default();
        let [mut first, mut last] = [(0, 469), (3, 377)]
            .map(|(number, took)| Lane::new(LaneId::new(number), start, Some(ms(took))));
        let kernel = |rtt, rtt_min| LaneMetrics {
            rtt_min: ms(rtt_min),
            app_limited: true,
            ..testing::kernel(4_000, ms(rtt))
        };
        first.estimate.on_metrics(start, kernel(211, 110));
        last.estimate.on_metrics(start, kernel(498, 480));
        assert!(first.estimate.is_slow() && !last.estimate.is_slow());
        let id = StreamId::new(Side::Server, Dir::Bi, 0);
        let carried = Carried::Data { id, range: 0..6_000, fin: false };
        first.ledger.record(carried, 6_000, start, start, Duration::ZERO, true);
        (0..2).for_each(|_| links.join(&LanePolicy::default(), start));
        links.set_resting(LINK, 1);
        let lanes = [first, last];
        links.look(start, LINK, lanes[..1].iter(), WINDOW);
        // It is full, and no other is tried.
        for window in 1..=40 {
            links.delivered(LINK, 480, ms(110));
            links.look(start + WINDOW * window, LINK, lanes.iter(), WINDOW);
            assert_eq!(links.wanted(LINK), 1, "at look {window}");
        }
        let [_, mut last] = lanes;
        last.estimate.learn_of_path(None, links.path_by_handshake(LINK));
        assert!(last.estimate.is_slow());
    }

    #[test]
    fn what_comes_beside_a_silent_lane_is_not_what_its_path_carries() {
        let start = testing::start();
        let lanes = [filling(0), Lane::new(LaneId::new(1), start, Some(RTT))];
        let mut links = found(&lanes, start);
        for window in 1..=200 {
            links.acked(LINK, 200); // 5 kB/s, all of it on the other lane
            links.look(start + WINDOW * window, LINK, lanes.iter(), WINDOW);
        }
        assert_eq!(links.path_rate(LINK), None);
    }

    #[test]
    fn a_path_is_too_short_for_lanes_that_have_no_room_for_eight_packets_each() {
        let ten: Vec<Lane> = (0..10).map(filling).collect();
        let crowd = Crowd::of(testing::start(), ten.iter());
        // 20 ms of it are 120 kB.
        assert!(crowd.is_cramped(5_900_000.0) && !crowd.is_cramped(6_100_000.0));
        assert!(!Crowd::of(testing::start(), [].iter()).is_cramped(0.0), "nobody fills it");
    }

    #[test]
    fn lanes_whose_round_trips_are_long_are_not_held_to_next_to_nothing() {
        let ten: Vec<Lane> = (0..10).map(filling).collect();
        let trickle = crowding(&ten, &[(400, Duration::from_millis(200)); 10]);
        near(trickle.share(), 0.25);
        near(trickle.headroom(), 0.25 * 1.02);
    }

    #[test]
    fn round_trips_that_wander_say_nothing_of_a_queue_and_one_climb_does() {
        let start = testing::start();
        let ten: Vec<Lane> = (0..10).map(filling).collect();
        let crowding_after = |queues: &[u64]| {
            let mut links = found(&ten, start);
            for (window, queue) in (1..).zip(queues) {
                links.delivered(LINK, 320_000, RTT + Duration::from_millis(*queue));
                links.look(start + WINDOW * window, LINK, ten.iter(), WINDOW);
            }
            links.view(LINK)
        };
        let wandering = crowding_after(&[0, 20].repeat(40));
        assert_eq!(wandering.crowding.headroom(), PACING_HEADROOM, "{wandering:?}");
        assert!(wandering.wander > 0.03, "{wandering:?}");
        let climb = [[0; 40], [20; 40]].concat();
        near(crowding_after(&climb[..42]).crowding.share(), 0.8);
        assert_eq!(crowding_after(&climb[..42]).wander, 0.0);
        let wild = crowding_after(&[0, 5_000].repeat(40));
        assert!(wild.wander <= WINDOW.as_secs_f64(), "bounded, whatever the kernel says: {wild:?}");
    }

    #[test]
    fn a_lane_that_is_stuck_says_nothing_of_the_queue() {
        let ten: Vec<Lane> = (0..10).map(filling).collect();
        let mut counted = [(32_000, Duration::ZERO); 10];
        counted[7] = (0, Duration::from_secs(1));
        near(crowding(&ten, &counted).share(), 1.0);
    }

    #[test]
    fn only_lanes_that_fill_a_path_together_crowd_it() {
        let queue = Duration::from_millis(20);
        let alone = [filling(0), Lane::new(LaneId::new(1), testing::start(), None)];
        assert_eq!(crowding(&alone, &[(32_000, queue)]), Crowding::NONE);
        assert_eq!(crowding(&alone[..1], &[(32_000, queue)]), Crowding::NONE);
    }

    #[test]
    fn the_last_lane_of_a_crowd_is_free() {
        let start = testing::start();
        let lanes = [filling(0), filling(1)];
        let mut links = found(&lanes, start);
        links.delivered(LINK, 32_000, RTT * 2);
        links.look(start + WINDOW, LINK, lanes.iter(), WINDOW);
        assert_ne!(links.view(LINK).crowding, Crowding::NONE);
        links.leave(&lanes[1].policy);
        links.look(start + WINDOW * 2, LINK, lanes[..1].iter(), WINDOW);
        assert_eq!(links.view(LINK).crowding, Crowding::NONE);
    }

    #[test]
    fn several_lanes_know_when_their_link_was_heard_and_one_does_not() {
        let start = testing::start();
        let later = start + Duration::from_secs(1);
        let [seven, eight] =
            [7, 8].map(|link| LanePolicy { link: LinkId::new(link), ..LanePolicy::default() });
        let mut links = Links::default();
        links.join(&seven, start);
        assert_eq!(links.heard_at(LinkId::new(7)), None);
        links.join(&seven, start);
        links.join(&eight, start);
        links.heard(LinkId::new(7), later);
        links.heard(LinkId::new(7), start);
        assert_eq!(
            (links.heard_at(LinkId::new(7)), links.heard_at(LinkId::new(8))),
            (Some(later), None)
        );
        links.leave(&seven);
        assert_eq!(links.heard_at(LinkId::new(7)), None);
        links.leave(&seven);
        links.leave(&seven);
        assert_eq!(links.0.len(), 1, "what has no lanes is forgotten");
    }

    #[test]
    fn an_express_lane_has_no_share_of_the_path() {
        let start = testing::start();
        let primary = LanePolicy { link: LinkId::new(7), ..LanePolicy::default() };
        let express = LanePolicy { tier: Tier::Express, ..primary };
        let mut links = Links::default();
        links.join(&primary, start);
        links.join(&express, start);
        assert_eq!(
            (links.view(LinkId::new(7)).sharing, links.view(LinkId::new(7)).is_shared()),
            (1, false)
        );
        assert_eq!(links.heard_at(LinkId::new(7)), Some(start), "but it hears of it");
        links.join(&primary, start);
        links.leave(&express);
        assert_eq!(links.view(LinkId::new(7)).sharing, 2);
    }
}
