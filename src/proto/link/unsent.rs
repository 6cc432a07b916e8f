//! How much unsent data a lane's kernel should hold.

use super::path::PACKET_BYTES;
use super::sample::LaneSample;

/// This much of the lane's time, so that the choice of what to send is made late.
const SECONDS: f64 = 0.003;
/// More while the kernel searches for the path's rate (BBR's start-up sends at 2.9 times what it
/// has found): whenever it runs dry it takes the lack of bytes for a reason not to end the search,
/// and keeps overfilling the path's queue.
const SECONDS_SEARCHING: f64 = 0.015;
/// The kernel is searching while it sends at more than this many times the rate.
const SEARCHING_GAIN: f64 = 2.0;
/// A slow lane's task cannot wake for each packet: this much of its time, up to this many bytes.
const SECONDS_SLOW: f64 = 0.050;
const BYTES_SLOW: f64 = 16.0 * 1024.0;
/// A few packets, on a slow path one.
const BYTES_MIN: u32 = 4 * 1024;
const BYTES_MIN_SLOW: u32 = PACKET_BYTES as u32;
/// What a gigabit link needs.
const BYTES_MAX: u32 = 512 * 1024;

/// In bytes.
pub(super) fn unsent_limit(lane: &LaneSample) -> u32 {
    let pacing = lane.pacing_rate;
    let searching = pacing > SEARCHING_GAIN * lane.rate;
    let seconds = if searching { SECONDS_SEARCHING } else { SECONDS };
    let slow = (pacing * SECONDS_SLOW).min(BYTES_SLOW);
    let least = if lane.is_slow { BYTES_MIN_SLOW } else { BYTES_MIN };
    ((pacing * seconds).max(slow) as u32).clamp(least, BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::link::testing::filling_lane;

    #[test]
    fn a_kernel_holds_a_few_milliseconds_and_more_while_it_searches() {
        let limit = |rate: f64, pacing_rate: f64| {
            unsent_limit(&LaneSample { rate, pacing_rate, ..filling_lane() })
        };
        assert_eq!(limit(1e7, 1e7), 30_000);
        assert_eq!(limit(1e7, 2.9e7), 435_000, "BBR's start-up");
        assert_eq!(limit(1e6, 1e6), 16_384, "a task cannot wake for each packet");
        assert_eq!(limit(1e9, 1e9), BYTES_MAX);
        assert_eq!(limit(1.0, 1.0), BYTES_MIN);
        let slow = LaneSample { rate: 8e3, pacing_rate: 8e3, is_slow: true, ..filling_lane() };
        assert_eq!(unsent_limit(&slow), BYTES_MIN_SLOW);
    }
}
