//! What the lanes of one link know together: that it carries nothing any more, which shows much sooner than on each of many
//! lanes alone; and what it carries, of which each of them sees a part.

use std::time::{Duration, Instant};

use litemap::LiteMap;

use crate::proto::lane::{Lane, MaxFilter, PACING_HEADROOM};

/// Several lanes that fill a path are held to what it carries once a queue stands on it that is longer than this part of the
/// smallest round trip, and than a task may have to wait ...
const QUEUE_PART: f64 = 1.0 / 16.0;
const QUEUE_MIN: f64 = 0.001;
/// ... wholly so when it is this much longer yet. In between they come to rest.
const QUEUE_RANGE: f64 = 1.5;
/// An acknowledgement waits for a second packet (RFC 9293, 3.8.6.3), which takes a slow lane long.
const PACKET_BYTES: f64 = 1500.0;
/// What they send beyond it, all together: while a queue stands there is nothing to find out, but what a lane delivers is
/// measured a little too low rather than too high.
const HEADROOM: f64 = 1.01;

/// The links that have lanes, by number.
#[derive(Debug, Default)]
pub(super) struct Links(LiteMap<u64, Link>);

#[derive(Debug)]
struct Link {
    lanes: usize,
    /// When any of the lanes last heard of the peer's end.
    heard_at: Instant,
    /// What the lanes that fill it carry together, in bytes a second.
    carried: MaxFilter,
    /// What each of them may send at, in parts of what it believes it can.
    headroom: f64,
}

/// Those lanes of a link that keep its path full.
#[derive(Debug, Default)]
struct Crowd {
    lanes: usize,
    /// What they carry now, and what each believes it can, in bytes a second.
    carried: f64,
    believed: f64,
    /// The shortest of their round trips, and the shortest without a queue, in seconds: all go the same way.
    rtt: f64,
    rtt_min: f64,
}

impl Crowd {
    /// `None`: there are some of which the kernel tells nothing.
    fn of<'a>(lanes: impl Iterator<Item = &'a Lane>) -> Option<Self> {
        let filling =
            |lane: &&Lane| lane.ledger.in_flight() as f64 >= lane.estimate.bandwidth_delay_bytes();
        let unknown = Self { rtt: f64::INFINITY, rtt_min: f64::INFINITY, ..Self::default() };
        lanes.filter(filling).try_fold(unknown, |crowd, lane| {
            let estimate = &lane.estimate;
            let path = estimate.end_to_end_kernel()?;
            let rate = estimate.rate().max(1.0);
            let rtt = path.rtt.as_secs_f64() - PACKET_BYTES / rate;
            Some(Self {
                lanes: crowd.lanes.saturating_add(1),
                carried: crowd.carried + path.delivery_rate? as f64,
                believed: crowd.believed + rate,
                rtt: crowd.rtt.min(rtt),
                rtt_min: crowd.rtt_min.min(path.rtt_min.as_secs_f64()),
            })
        })
    }

    /// From none, if no queue stands on the path, to one.
    fn pressure(&self) -> f64 {
        let usual = QUEUE_PART * self.rtt_min + QUEUE_MIN;
        let queue = self.rtt - self.rtt_min - usual;
        (queue / (QUEUE_RANGE * usual)).clamp(0.0, 1.0)
    }
}

impl Links {
    /// A lane of the link is up, of which something was just heard.
    pub(super) fn join(&mut self, number: u64, now: Instant) {
        match self.0.get_mut(&number) {
            Some(link) => {
                link.lanes = link.lanes.saturating_add(1);
                link.heard_at = link.heard_at.max(now);
            }
            None => {
                self.0.insert(
                    number,
                    Link {
                        lanes: 1,
                        heard_at: now,
                        carried: MaxFilter::default(),
                        headroom: PACING_HEADROOM,
                    },
                );
            }
        }
    }

    /// A lane of the link is down, or belongs to another.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(link) = self.0.get_mut(&number) else { return };
        link.lanes = link.lanes.saturating_sub(1);
        if link.lanes == 0 {
            self.0.remove(&number);
        }
    }

    /// What one of the link's lanes owed was acknowledged, by the peer or by its kernel.
    pub(super) fn heard(&mut self, number: u64, at: Instant) {
        if let Some(link) = self.0.get_mut(&number) {
            link.heard_at = link.heard_at.max(at);
        }
    }

    /// How many lanes the link has.
    pub(super) fn lanes(&self, number: u64) -> usize {
        self.0.get(&number).map_or(1, |link| link.lanes)
    }

    /// Whether the link's lanes share its path.
    pub(super) fn is_shared(&self, number: u64) -> bool {
        self.lanes(number) > 1
    }

    /// When anything was last heard on the link, if it has several lanes: one knows no more of it than of itself.
    pub(super) fn heard_at(&self, number: u64) -> Option<Instant> {
        self.0.get(&number).filter(|link| link.lanes > 1).map(|link| link.heard_at)
    }

    /// One of the link's `lanes` has news of what it carries. Lanes that fill a path together each believe what they had when
    /// the others had less: if each sent at that, the path would be overfilled all the time. (BBR's known weakness; ten
    /// lanes lost 18 % of their packets to a queue of one bandwidth-delay product.) `window`: how long a maximum is kept.
    pub(super) fn measure<'a>(
        &mut self,
        now: Instant,
        number: u64,
        lanes: impl Iterator<Item = &'a Lane>,
        window: Duration,
    ) {
        let Some(link) = self.0.get_mut(&number).filter(|link| link.lanes > 1) else { return };
        let Some(crowd) = Crowd::of(lanes).filter(|crowd| crowd.lanes > 1) else {
            link.headroom = PACING_HEADROOM;
            return;
        };
        link.carried.add(now, crowd.carried, window);
        let fair = (link.carried.max() / crowd.believed).min(1.0) * HEADROOM;
        link.headroom = PACING_HEADROOM + crowd.pressure() * (fair - PACING_HEADROOM);
    }

    /// What each of the link's lanes may send at, in parts of what it believes it can.
    pub(super) fn headroom(&self, number: u64) -> f64 {
        self.0.get(&number).map_or(PACING_HEADROOM, |link| link.headroom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::ids::{Dir, LaneId, Side, StreamId};
    use crate::proto::lane::{Carried, LaneMetrics};
    use crate::proto::testing;

    /// A lane of a path of 20 ms, which fills it: it believes in 1 MB/s and delivers `rate` now, through a queue.
    fn filling(number: u64, rate: u64, queue: Duration) -> Lane {
        let (start, ms) = (testing::start(), Duration::from_millis);
        let mut lane = Lane::new(LaneId::new(number), start, Some(ms(20)));
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        let carried = Carried::Data { id, range: 0..100_000, fin: false };
        lane.ledger.record(carried, 100_000, start, start, Duration::ZERO, true);
        for rate in [1_000_000, rate] {
            let metrics = LaneMetrics {
                rtt: ms(20) + queue,
                rtt_var: ms(1),
                rtt_min: ms(20),
                delivery_rate: Some(rate),
                app_limited: false,
                pacing_rate: None,
                cwnd_bytes: 0,
                silence: None,
            };
            lane.estimate.on_metrics(start, metrics);
        }
        lane
    }

    /// What ten lanes may send at, each in parts of what it believes.
    fn limit(lanes: &[Lane]) -> f64 {
        let mut links = Links::default();
        lanes.iter().for_each(|_| links.join(0, testing::start()));
        links.measure(testing::start(), 0, lanes.iter(), Duration::from_millis(40));
        links.headroom(0)
    }

    #[test]
    fn lanes_that_overfill_their_path_are_held_to_what_it_carries() {
        let ten = |queue_ms| -> Vec<Lane> {
            (0..10).map(|n| filling(n, 800_000, Duration::from_millis(queue_ms))).collect()
        };
        let near = |limit: f64, expected: f64| assert!((limit - expected).abs() < 1e-6, "{limit}");
        near(limit(&ten(20)), 0.8 * HEADROOM);
        near(limit(&ten(2)), PACING_HEADROOM);
        let between = limit(&ten(6));
        assert!(between > 0.9 && between < PACING_HEADROOM, "{between}");
        near(limit(&ten(20)[..1]), PACING_HEADROOM);
        let mut quick = ten(20);
        quick[7] = filling(7, 800_000, Duration::ZERO);
        near(limit(&quick), PACING_HEADROOM);
        let idle = Lane::new(LaneId::new(1), testing::start(), None);
        near(limit(&[ten(20).remove(0), idle]), PACING_HEADROOM);
    }

    #[test]
    fn several_lanes_know_when_their_link_was_heard_and_one_does_not() {
        let start = testing::start();
        let later = start + Duration::from_secs(1);
        let mut links = Links::default();
        links.join(7, start);
        assert_eq!(links.heard_at(7), None);
        links.join(7, start);
        links.join(8, start);
        links.heard(7, later);
        links.heard(7, start);
        assert_eq!((links.heard_at(7), links.heard_at(8)), (Some(later), None));
        links.leave(7);
        assert_eq!(links.heard_at(7), None);
        links.leave(7);
        links.leave(7);
        assert_eq!(links.0.len(), 1, "what has no lanes is forgotten");
    }
}
