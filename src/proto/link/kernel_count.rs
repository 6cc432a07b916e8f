//! What a path carries, by what the kernels count as delivered on all its lanes over some time. The
//! sum of their latest rates is no measure of the path: with few packets of each lane in flight,
//! bursts dominate.

use std::time::{Duration, Instant};

use super::max_filter::MaxFilter;

/// What was delivered within one window of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowSum {
    pub(super) bytes: f64,
    /// The mean round trip in seconds, weighted by what each lane delivered: the kernel's round
    /// trip for a stuck lane is an old one.
    pub(super) rtt: f64,
}

/// A link's count since its last window ended.
#[derive(Debug)]
pub(super) struct KernelCount {
    since: Instant,
    bytes: f64,
    /// Round trips in seconds, each times the bytes delivered.
    rtt_bytes: f64,
    rate: MaxFilter,
}

impl KernelCount {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0.0, rtt_bytes: 0.0, rate: MaxFilter::default() }
    }

    /// A lane's kernel counted this many more `bytes` as delivered, with round trips of `rtt`.
    pub(super) fn on_delivered(&mut self, bytes: u64, rtt: Duration) {
        self.bytes += bytes as f64;
        self.rtt_bytes += bytes as f64 * rtt.as_secs_f64();
    }

    /// Ends the window if it has lasted this long.
    pub(super) fn end_window(&mut self, now: Instant, window: Duration) -> Option<WindowSum> {
        let age = now.saturating_duration_since(self.since);
        if age < window {
            return None;
        }
        let (bytes, rtt) = (self.bytes, self.rtt_bytes / self.bytes.max(1.0));
        self.rate.add(now, bytes / age.as_secs_f64().max(1e-3), window);
        (self.since, self.bytes, self.rtt_bytes) = (now, 0.0, 0.0);
        Some(WindowSum { bytes, rtt })
    }

    /// What the path carries, in bytes a second: the maximum of the last one or two windows.
    pub(super) fn rate(&self) -> f64 {
        self.rate.max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    #[test]
    fn a_lane_that_is_stuck_says_nothing_of_the_round_trip() {
        let (start, ms) = (testing::start(), Duration::from_millis);
        let mut count = KernelCount::new(start);
        for lane in 0..10 {
            let stuck = lane == 7;
            count.on_delivered(if stuck { 0 } else { 32_000 }, ms(if stuck { 1_000 } else { 20 }));
        }
        assert!(count.end_window(start + ms(39), ms(40)).is_none(), "not over");
        let sum = count.end_window(start + ms(40), ms(40)).unwrap();
        assert!((sum.rtt - 0.02).abs() < 1e-9, "{sum:?}");
        assert!((count.rate() - 7_200_000.0).abs() < 1.0, "{}", count.rate());
    }
}
