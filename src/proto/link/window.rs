//! How much a lane may have in flight.

use super::path::{INITIAL_WINDOW_BYTES, PACKET_BYTES};
use super::sample::WindowSample;

/// This many times what fills the lane's pipe, so that no buffer on the path swallows what other
/// lanes could carry.
const PIPE_FACTOR: f64 = 3.0;
/// On a slow path, where others wait behind whatever is in its queue: what fills it, and as much
/// again until the next acknowledgement is here.
const PIPE_FACTOR_SLOW: f64 = 2.0;
/// Round trips count as at least this, in seconds: delayed acknowledgements and waking a task take
/// time.
const ROUND_TRIP_MIN: f64 = 0.005;
/// At least this many initial windows of TCP: little is known of a new lane, and it keeps what it
/// is given. The window grows as the lane proves itself, faster than TCP's slow start.
const INITIAL_WINDOWS: f64 = 4.0;
/// Lanes of one link share them, but each has room for one initial grant.
const INITIAL_WINDOWS_SHARED_MIN: f64 = 0.5;
/// On a slow path four initial windows are seconds that nothing can overtake. Three packets: two
/// are acknowledged together, and one leaves meanwhile. With four, an echo beside a download waited
/// a fifth longer than beside TCP's, and short queues overflowed (64 to 128 kbit/s, 8 KB).
const SLOW_BYTES: f64 = 3.0 * PACKET_BYTES;
/// A tiny round trip may be that of an empty packet, and a path that accepted one at once be slow.
/// So beyond the initial windows a lane has no more in flight than twice what was acknowledged on
/// it; TCP doubles, too.
const ACKED_FACTOR: f64 = 2.0;
/// Where the kernel reports its window, that decides: what waits at the other end for something
/// lost (and lost again: some round trips) is in flight for us, but no longer for the kernel. Not
/// while a queue stands on a shared path: each of these windows is for what its lane got while the
/// others got less.
const CWND_FACTOR: f64 = 4.0;

/// The window of a link's lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// How many of them share the path.
    pub(super) sharing: usize,
    /// A queue stands on it.
    pub(super) is_queued: bool,
    /// How much longer than usual round trips may be, in seconds.
    pub(super) jitter: f64,
}

impl Window {
    /// In bytes. Not based on what the lane can expect now, or it could never deliver more again.
    pub(super) fn bytes(self, lane: &WindowSample) -> f64 {
        let round_trip = lane.rtt_min.as_secs_f64().max(ROUND_TRIP_MIN);
        let pipe_factor = if lane.is_slow { PIPE_FACTOR_SLOW } else { PIPE_FACTOR };
        let mut window = pipe_factor * lane.rate.max(1.0) * round_trip;
        let windows = (INITIAL_WINDOWS / self.sharing as f64).max(INITIAL_WINDOWS_SHARED_MIN);
        let least = windows * INITIAL_WINDOW_BYTES;
        window = window.max(if lane.is_slow { least.min(SLOW_BYTES) } else { least });
        if self.sharing > 1 {
            window += PIPE_FACTOR * lane.rate * self.jitter;
        }
        if !self.is_queued && !lane.is_slow {
            window = window.max(CWND_FACTOR * lane.cwnd_bytes as f64);
        }
        let shown = ACKED_FACTOR * lane.acked_bytes as f64;
        window.min(INITIAL_WINDOWS * INITIAL_WINDOW_BYTES + shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::link::testing::filling_lane;

    const ALONE: Window = Window { sharing: 1, is_queued: false, jitter: 0.0 };

    /// A lane that fills a path of 20 ms.
    fn lane() -> WindowSample {
        (&filling_lane()).into()
    }

    #[test]
    fn a_new_lane_has_four_initial_windows_and_grows_by_what_is_acknowledged() {
        let fast = |acked_bytes| WindowSample { rate: 1e8, acked_bytes, ..lane() };
        assert_eq!(ALONE.bytes(&fast(0)), 58_400.0);
        assert_eq!(ALONE.bytes(&fast(10_000)), 78_400.0);
        assert_eq!(ALONE.bytes(&fast(1 << 30)), 6e6, "three bandwidth-delay products");
    }

    #[test]
    fn lanes_of_one_link_share_initial_windows_and_have_room_for_jitter() {
        let lane = WindowSample { rate: 1e3, acked_bytes: 1 << 30, ..lane() };
        let of = |sharing| Window { sharing, ..ALONE }.bytes(&lane);
        assert_eq!([1, 2, 8, 100].map(of), [58_400.0, 29_200.0, 7_300.0, 7_300.0]);
        let jitter = |sharing| {
            let fast = WindowSample { rate: 1e7, ..lane };
            Window { sharing, jitter: 0.02, ..ALONE }.bytes(&fast)
        };
        assert_eq!([1, 2].map(jitter), [6e5, 1.2e6]);
    }

    #[test]
    fn the_kernels_window_counts_unless_a_queue_stands_or_the_path_is_slow() {
        let lane = WindowSample { cwnd_bytes: 1_000_000, acked_bytes: 1 << 30, ..lane() };
        assert_eq!(ALONE.bytes(&lane), 4e6);
        assert_eq!(Window { is_queued: true, ..ALONE }.bytes(&lane), 6e4);
        let slow = |rate: f64| ALONE.bytes(&WindowSample { rate, is_slow: true, ..lane });
        assert_eq!(slow(8e3), SLOW_BYTES);
        assert_eq!(slow(6e5), 2.4e4, "two bandwidth-delay products");
    }
}
