//! How long to wait before retrying what failed.

use std::time::{Duration, Instant};

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A wait that doubles with each failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    /// No failure yet. The wait after the first one is `first`.
    pub(super) const fn new(first: Duration) -> Self {
        Self { first, failures: 0, not_before: None }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// It failed again.
    pub(super) fn begin(&mut self, now: Instant) {
        self.not_before = now.checked_add(self.wait());
        self.failures = self.failures.saturating_add(1);
    }

    /// It failed for good, as far as one can tell.
    pub(super) fn wait_longest(&mut self, now: Instant) {
        self.wait_at_least(WAIT_MAX);
        self.begin(now);
    }

    /// The next wait is not shorter than this.
    pub(super) fn wait_at_least(&mut self, least: Duration) {
        while self.wait() < least.min(WAIT_MAX) && self.failures < u32::BITS {
            self.failures = self.failures.saturating_add(1);
        }
    }

    fn wait(&self) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    #[test]
    fn each_wait_is_twice_as_long_up_to_a_minute() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let mut now = testing::start();
        assert!(backoff.is_over(now) && !backoff.has_failed());
        for seconds in [1, 2, 4, 8, 16, 32].into_iter().chain([60; 40]) {
            backoff.begin(now);
            now += Duration::from_secs(seconds);
            assert!(!backoff.is_over(now - Duration::from_millis(1)), "{seconds} s");
            assert!(backoff.is_over(now), "{seconds} s");
        }
        assert!(backoff.has_failed());
    }

    #[test]
    fn a_wait_may_begin_longer() {
        let now = testing::start();
        let mut backoff = Backoff::new(Duration::from_secs(1));
        backoff.wait_at_least(Duration::from_secs(4));
        backoff.begin(now);
        assert!(!backoff.is_over(now + Duration::from_secs(3)));
        assert!(backoff.is_over(now + Duration::from_secs(4)));
        let mut longest = Backoff::new(Duration::from_secs(4));
        longest.wait_longest(now);
        assert!(!longest.is_over(now + Duration::from_secs(59)));
    }
}
