//! imux's own rule: forecast when this lane would deliver, and what the others will have delivered
//! by then.

use super::{Grant, LaneView};

/// If all that waits would be through on the other lanes before this one's chunk arrives, the lane
/// gets nothing (the idea of ECF). Otherwise it gets the bytes whose turn it is when they arrive
/// (the idea of STMS).
pub(super) fn decide(lane: &LaneView, others: &[LaneView], waiting: f64, chunk: f64) -> Grant {
    let complete = lane.arrival(chunk.min(waiting));
    if delivered_by(others, complete) >= waiting {
        return Grant::Nothing;
    }
    let ahead = delivered_by(others, lane.arrival(0.0));
    Grant::Skip((ahead.min(waiting - 1.0).max(0.0)) as u64)
}

/// Bytes of what waits now that `lanes` could have delivered `at` seconds from now.
fn delivered_by(lanes: &[LaneView], at: f64) -> f64 {
    lanes.iter().map(|lane| lane.rate * (at - lane.arrival(0.0)).max(0.0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::LaneId;

    fn lane(rate_mbit: f64, rtt_ms: f64) -> LaneView {
        let rate = rate_mbit * 125_000.0;
        LaneView {
            id: LaneId::FIRST,
            rate,
            rtt: rtt_ms / 1e3,
            rtt_var: 0.0,
            delay: rtt_ms / 2e3,
            queue: 0.0,
            in_flight: 0.0,
            window: rate * rtt_ms / 1e3,
            idle: true,
        }
    }

    #[test]
    fn a_slow_lane_is_left_out_of_a_short_transfer() {
        let (fast, slow) = (lane(50.0, 10.0), lane(50.0, 100.0));
        assert_eq!(decide(&slow, &[fast], 100_000.0, 16_000.0), Grant::Nothing);
        assert_eq!(decide(&fast, &[slow], 100_000.0, 16_000.0), Grant::Skip(0));
    }

    #[test]
    fn a_slow_lane_takes_later_bytes_of_a_long_one() {
        let (fast, slow) = (lane(50.0, 10.0), lane(50.0, 100.0));
        // 45 ms earlier at 6.25 MB/s: the fast lane delivers 281 kB first.
        assert_eq!(decide(&slow, &[fast], 1e6, 16_000.0), Grant::Skip(281_250));
    }

    #[test]
    fn equal_lanes_share_the_front() {
        let (one, two) = (lane(50.0, 20.0), lane(50.0, 20.0));
        assert_eq!(decide(&one, &[two], 1e6, 16_000.0), Grant::Skip(0));
        assert_eq!(decide(&one, &[], 1.0, 16_000.0), Grant::Skip(0), "the only lane always may");
    }
}
