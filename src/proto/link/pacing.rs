//! How fast a lane's kernel should send.

use super::path::INITIAL_WINDOW_BYTES;
use super::sample::LaneSample;
use super::standing_queue::StandingQueue;

/// How far the kernel may exceed a full path's rate: BBR needs 1.25 to find out that there is more.
const HEADROOM: f64 = 1.3;
/// In bytes a second: an initial window. No lane comes to a stop.
const RATE_MIN: f64 = INITIAL_WINDOW_BYTES;

/// The limit for a link's lanes. A kernel may search for the path's rate, but must not overfill the
/// path once that is known. BBR does while the lane lacks bytes (it takes that for a reason not to
/// end the search), and for more round trips than the rate is kept when a path becomes slower.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pacing {
    headroom: f64,
    /// The path may regain the rate it had a moment ago. Lanes that share a path without jitter
    /// each get their part of what it carries now.
    may_recover: bool,
}

impl Pacing {
    pub(super) fn new(queue: StandingQueue, shared: bool, jitter: f64) -> Self {
        Self { headroom: queue.headroom(HEADROOM), may_recover: !shared || jitter > 0.0 }
    }

    /// In bytes a second, if there is a limit.
    pub(super) fn limit(self, lane: &LaneSample) -> Option<f64> {
        let rate = if self.may_recover { lane.peak_rate } else { lane.rate };
        let is_known = lane.is_full || self.headroom < HEADROOM;
        is_known.then(|| (rate * self.headroom).max(RATE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::link::testing::filling_lane;

    const ALONE: Pacing = Pacing { headroom: HEADROOM, may_recover: true };

    #[test]
    fn a_full_path_bounds_what_the_kernel_sends_at_and_one_that_fills_does_not() {
        let full = LaneSample { is_full: true, ..filling_lane() };
        assert_eq!(ALONE.limit(&full), Some(1.3e6));
        assert_eq!(ALONE.limit(&LaneSample { is_full: false, ..full }), None);
        let none = LaneSample { rate: 1.0, peak_rate: 1.0, ..full };
        assert_eq!(ALONE.limit(&none), Some(RATE_MIN));
        let held = Pacing { headroom: 0.8, ..ALONE };
        let limit = held.limit(&LaneSample { is_full: false, ..full });
        assert_eq!(limit, Some(0.8e6), "a queue stands");
    }

    #[test]
    fn a_lane_whose_path_may_recover_is_paced_by_the_rate_it_had_a_moment_ago() {
        let slower = LaneSample { rate: 2e5, peak_rate: 1e6, is_full: true, ..filling_lane() };
        let limit =
            |shared, jitter| Pacing::new(StandingQueue::NONE, shared, jitter).limit(&slower);
        assert_eq!(limit(false, 0.0), Some(1.3e6));
        assert_eq!(limit(true, 0.0), Some(2.6e5));
        assert_eq!(limit(true, 0.01), Some(1.3e6));
    }
}
