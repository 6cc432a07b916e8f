//! What lanes have carried, and how fast they carry now: for display alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::proto::{LaneStats, Tier};

/// A rate is the mean of at least this long.
const RATE_OVER: Duration = Duration::from_millis(500);

/// What the lanes of one link, or of one tier, have carried since the start; lanes that have gone
/// count on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Carried {
    /// Stream payload given to them, in bytes.
    pub sent_bytes: u64,
    /// Of these, what another lane had been given before.
    pub resent_bytes: u64,
    /// Stream payload received on them, in bytes, repeats included.
    pub received_bytes: u64,
    /// Lanes that came up.
    pub lanes_made: u64,
    /// Lanes that went before their session did.
    pub lanes_lost: u64,
}

/// Where it is counted.
#[derive(Debug, Default)]
pub(super) struct Totals {
    sent: AtomicU64,
    resent: AtomicU64,
    received: AtomicU64,
    made: AtomicU64,
    lost: AtomicU64,
}

impl Totals {
    pub(super) fn read(&self) -> Carried {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Carried {
            sent_bytes: read(&self.sent),
            resent_bytes: read(&self.resent),
            received_bytes: read(&self.received),
            lanes_made: read(&self.made),
            lanes_lost: read(&self.lost),
        }
    }

    pub(super) fn on_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// By tier, for lanes that others have dialled: their links are only what those say.
#[derive(Debug, Default)]
pub(super) struct TierTotals([Arc<Totals>; Tier::ALL.len()]);

impl TierTotals {
    pub(super) fn of(&self, tier: Tier) -> &Arc<Totals> {
        &self.0[tier as usize]
    }
}

/// Bytes of one lane, each way, and those sent again.
#[derive(Clone, Copy, Debug, Default)]
struct Bytes {
    sent: u64,
    resent: u64,
    received: u64,
}

impl Bytes {
    fn of(lane: &LaneStats) -> Self {
        let LaneStats { sent_bytes, resent_bytes, received_bytes, .. } = *lane;
        Self { sent: sent_bytes, resent: resent_bytes, received: received_bytes }
    }
}

/// Counts for one lane.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) totals: Arc<Totals>,
    counted: Bytes,
    /// Since when a mean is taken, and what had been carried then.
    since: Instant,
    then: Bytes,
    /// The mean before that, each way, in bytes a second.
    before: (u64, u64),
}

impl Meter {
    pub(super) fn new(now: Instant, totals: Arc<Totals>) -> Self {
        totals.made.fetch_add(1, Ordering::Relaxed);
        let none = Bytes::default();
        Self { totals, counted: none, since: now, then: none, before: (0, 0) }
    }

    /// Notes what the lane has carried by now.
    pub(super) fn note(&mut self, now: Instant, lane: &LaneStats) {
        let bytes = Bytes::of(lane);
        let add = |to: &AtomicU64, now: u64, before: u64| {
            to.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
        };
        add(&self.totals.sent, bytes.sent, self.counted.sent);
        add(&self.totals.resent, bytes.resent, self.counted.resent);
        add(&self.totals.received, bytes.received, self.counted.received);
        self.counted = bytes;
        if now.duration_since(self.since) >= RATE_OVER {
            self.before = self.mean(now, bytes);
            (self.since, self.then) = (now, bytes);
        }
    }

    /// Bytes a second that it sends and receives now.
    pub(super) fn rates(&self, now: Instant, lane: &LaneStats) -> (u64, u64) {
        if now.duration_since(self.since) >= RATE_OVER {
            self.mean(now, Bytes::of(lane))
        } else {
            self.before
        }
    }

    fn mean(&self, now: Instant, bytes: Bytes) -> (u64, u64) {
        let seconds = now.duration_since(self.since).as_secs_f64();
        let mean = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds) as u64;
        (mean(bytes.sent, self.then.sent), mean(bytes.received, self.then.received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{Health, LaneId, LinkId};

    fn lane(sent_bytes: u64, received_bytes: u64) -> LaneStats {
        LaneStats {
            id: LaneId::FIRST,
            sent_bytes,
            received_bytes,
            resent_bytes: sent_bytes / 10,
            in_flight_bytes: 0,
            rtt: Duration::ZERO,
            rtt_min: Duration::ZERO,
            rate: 0,
            health: Health::Good,
            late: false,
            standby: false,
            tier: Tier::Primary,
            link: LinkId::new(0),
        }
    }

    #[test]
    fn a_rate_is_of_the_last_moment_and_falls_to_nothing_when_nothing_is_carried() {
        let begun = crate::driver::clock::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut meter = Meter::new(begun, Arc::default());
        meter.note(at(10), &lane(1_000, 0));
        assert_eq!(meter.rates(at(20), &lane(1_000, 0)), (0, 0));
        meter.note(at(500), &lane(50_000, 500));
        assert_eq!(meter.rates(at(510), &lane(51_000, 500)), (100_000, 1_000));
        // Nobody notes anything while nothing is carried.
        let (sent, received) = meter.rates(at(100_500), &lane(51_000, 500));
        assert_eq!((sent, received), (10, 0));
    }

    #[test]
    fn what_lanes_have_carried_is_counted_once_and_outlives_them() {
        let begun = crate::driver::clock::now();
        let totals = Arc::<Totals>::default();
        for _ in 0..2 {
            let mut meter = Meter::new(begun, totals.clone());
            meter.note(begun, &lane(100, 7));
            meter.note(begun, &lane(100, 7));
            meter.note(begun, &lane(300, 7));
            totals.on_lost();
        }
        let expected = Carried {
            sent_bytes: 600,
            resent_bytes: 60,
            received_bytes: 14,
            lanes_made: 2,
            lanes_lost: 2,
        };
        assert_eq!(totals.read(), expected);
    }
}
