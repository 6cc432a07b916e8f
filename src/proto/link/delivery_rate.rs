//! What a path delivers, by the peer's acknowledgements. Kernels count packets and take each for a
//! full one; on a slow path few are.

use std::time::{Duration, Instant};

use super::path::SLOW_RATE;
use crate::proto::limits::LINK_RATE_MIN;

/// A path's rate is known once it was full for this long: after a loss, acknowledgements come in
/// bursts.
const RATE_TIME: Duration = Duration::from_secs(1);

/// In bytes a second. A lower rate is what trickles in beside silent lanes, not the path's.
const RATE_MIN: f64 = LINK_RATE_MIN as f64 / 8.0;

/// Bytes acknowledged since a given time.
#[derive(Clone, Copy, Debug)]
struct Since(Instant, u64);

impl Since {
    /// Bytes a second, once enough time has passed.
    fn rate(self, now: Instant) -> Option<f64> {
        let age = now.saturating_duration_since(self.0);
        (age >= RATE_TIME).then(|| self.least(now))
    }

    /// Bytes a second, at least: as if what was acknowledged in less than `RATE_TIME` had taken
    /// all of it.
    fn least(self, now: Instant) -> f64 {
        let Self(since, bytes) = self;
        bytes as f64 / now.saturating_duration_since(since).max(RATE_TIME).as_secs_f64()
    }
}

/// The rate at which all lanes of a link together had data acknowledged.
#[derive(Debug)]
pub(super) struct DeliveryRate {
    /// Whether or not the path was full.
    any: Since,
    /// While the path was continuously full.
    full: Option<Since>,
    sampled_at: Instant,
    rate: Option<f64>,
}

impl DeliveryRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { any: Since(now, 0), full: None, sampled_at: now, rate: None }
    }

    /// This many more `bytes` were acknowledged.
    pub(super) fn on_ack(&mut self, bytes: u64) {
        for Since(_, sum) in [Some(&mut self.any), self.full.as_mut()].into_iter().flatten() {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// What the path delivered when it was last full, or more if it has delivered more since; in
    /// bytes a second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Lanes now fill the path, or do not. If next to nothing is acknowledged, the path is just
    /// silent.
    pub(super) fn on_sample(&mut self, now: Instant, is_full: bool) {
        let paused = now.saturating_duration_since(self.sampled_at) > RATE_TIME;
        self.sampled_at = now;
        let full = self.full.filter(|_| is_full && !paused);
        let found = full.and_then(|full| full.rate(now));
        if let Some(rate) = found.filter(|rate| *rate >= RATE_MIN) {
            self.rate = Some(rate);
        }
        let goes_on = full.filter(|_| found.is_none());
        self.full = is_full.then(|| goes_on.unwrap_or(Since(now, 0)));
        // A path that a long handshake made look slow is never full if it is not.
        let (least, is_over) = (self.any.least(now), self.any.rate(now).is_some());
        let is_fast = least >= SLOW_RATE;
        if is_over || is_fast {
            let raised = self.rate.map(|known| known.max(least));
            self.rate = raised.or(is_fast.then_some(least));
        }
        if is_over {
            self.any = Since(now, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    /// A path sampled ten times a second.
    struct Path {
        rate: DeliveryRate,
        now: Instant,
    }

    impl Path {
        fn new() -> Self {
            Self { rate: DeliveryRate::new(testing::start()), now: testing::start() }
        }

        /// Takes this many samples; for each, `path` returns the bytes acknowledged and whether it
        /// is full.
        fn on_samples(&mut self, samples: u32, path: impl Fn(u32) -> (u64, bool)) -> Option<f64> {
            for (bytes, is_full) in (0..samples).map(path) {
                self.now += Duration::from_millis(100);
                self.rate.on_ack(bytes);
                self.rate.on_sample(self.now, is_full);
            }
            self.rate.rate()
        }

        fn pause(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn the_rate_is_known_while_the_path_is_full_and_only_then() {
        let mut path = Path::new();
        path.pause(5);
        assert_eq!(path.on_samples(1, |_| (2_000, true)), None, "there was little to send");
        path.pause(4);
        assert_eq!(path.on_samples(1, |_| (1_000, true)), None);
        let slow = path.on_samples(10, |_| (1_000, true)).unwrap();
        assert!((slow - 10_000.0).abs() < 1.0, "{slow}");
        assert_eq!(path.on_samples(20, |_| (50, false)), Some(slow), "it is not full");
        let fast = path.on_samples(20, |_| (50_000, false)).unwrap();
        assert!((fast - 500_000.0).abs() < 1.0, "it can do more: {fast}");
        let slow = path.on_samples(21, |_| (1_000, true)).unwrap();
        assert!((slow - 10_000.0).abs() < 1.0, "slow again: {slow}");
    }

    #[test]
    fn a_path_that_delivers_much_is_known_not_to_be_slow_whether_or_not_it_is_full() {
        let mut path = Path::new();
        path.pause(5);
        assert_eq!(path.on_samples(10, |_| (6_000, false)), None, "slow perhaps");
        let fast = path.on_samples(2, |_| (40_000, false)).unwrap();
        assert!(fast >= SLOW_RATE, "known before a second has passed: {fast}");
    }

    #[test]
    fn a_silent_path_is_not_slow() {
        let answers_to_pings = |_| (20, true);
        assert_eq!(Path::new().on_samples(30, answers_to_pings), None);
    }
}
