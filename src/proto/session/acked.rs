//! What a path carries, by what the peer acknowledges on it. Kernels count packets, and take each for a full one, which on a slow
//! path few are.

use std::time::{Duration, Instant};

use crate::proto::limits::LINK_RATE_MIN;

/// What a path carries is known after it was full for so long: acknowledgements come in heaps when something was lost.
const RATE_TIME: Duration = Duration::from_secs(1);

/// In bytes a second: less is what comes on a path beside lanes that are silent, and not what it carries.
const RATE_MIN: f64 = LINK_RATE_MIN as f64 / 8.0;

/// Bytes acknowledged since then.
#[derive(Clone, Copy, Debug)]
struct Since(Instant, u64);

impl Since {
    /// Bytes a second, once that can be told.
    fn rate(self, now: Instant) -> Option<f64> {
        let Self(since, bytes) = self;
        let age = now.saturating_duration_since(since);
        (age >= RATE_TIME).then(|| bytes as f64 / age.as_secs_f64())
    }
}

/// Acknowledgements of all the lanes of a link.
#[derive(Debug)]
pub(super) struct Acked {
    /// In any case, ...
    all: Since,
    /// ... and while lanes were seen to fill the path, without a pause.
    full: Option<Since>,
    looked_at: Instant,
    rate: Option<f64>,
}

impl Acked {
    pub(super) fn new(now: Instant) -> Self {
        Self { all: Since(now, 0), full: None, looked_at: now, rate: None }
    }

    /// So many more `bytes` were acknowledged.
    pub(super) fn add(&mut self, bytes: u64) {
        for Since(_, sum) in [Some(&mut self.all), self.full.as_mut()].into_iter().flatten() {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// What the path carried when it was full last, or more if it has carried more since; in bytes a second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Lanes fill the path now, or do not. That next to nothing is acknowledged says only that it is silent.
    pub(super) fn look(&mut self, now: Instant, is_full: bool) {
        let paused = now.saturating_duration_since(self.looked_at) > RATE_TIME;
        self.looked_at = now;
        let full = self.full.filter(|_| is_full && !paused);
        let found = full.and_then(|full| full.rate(now));
        if let Some(rate) = found.filter(|rate| *rate >= RATE_MIN) {
            self.rate = Some(rate);
        }
        let goes_on = full.filter(|_| found.is_none());
        self.full = is_full.then(|| goes_on.unwrap_or(Since(now, 0)));
        if let Some(rate) = self.all.rate(now) {
            self.rate = self.rate.map(|known| known.max(rate));
            self.all = Since(now, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    #[test]
    fn what_a_path_carries_is_known_while_it_is_full_and_only_then() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut acked = Acked::new(start);
        // Next to nothing within seconds in which there was next to nothing to carry.
        acked.add(2_000);
        acked.look(start + ms(5_000), true);
        acked.add(1_000);
        acked.look(start + ms(9_000), true);
        assert_eq!(acked.rate(), None);
        for step in 1..=10 {
            acked.add(1_000);
            acked.look(start + ms(9_000 + 100 * step), true);
        }
        let slow = acked.rate().unwrap();
        assert!((slow - 10_000.0).abs() < 1.0, "{slow}");
        // Less, of a path that is not full, says nothing; more does.
        acked.look(start + ms(10_500), false);
        acked.add(500);
        acked.look(start + ms(12_000), false);
        assert_eq!(acked.rate(), Some(slow));
        acked.add(500_000);
        acked.look(start + ms(13_000), false);
        assert_eq!(acked.rate(), Some(500_000.0));
        // It has become slow again.
        for step in 1..=11 {
            acked.add(1_000);
            acked.look(start + ms(13_000 + 100 * step), true);
        }
        assert_eq!(acked.rate(), Some(10_000.0));
    }

    #[test]
    fn a_silent_path_is_not_slow() {
        let start = testing::start();
        let mut acked = Acked::new(start);
        for step in 1..=30 {
            acked.add(20); // an answer to somebody's ping
            acked.look(start + Duration::from_millis(100 * step), true);
        }
        assert_eq!(acked.rate(), None);
    }
}
