//! imux's own rule: forecast when this lane would deliver, and what the others will have delivered
//! by then.

use super::{Grant, LaneView};

/// Bulk counts as in turn if it would wait no longer than this for the bytes ahead of it: forecasts
/// are no better, and skipping less leaves holes, which cost both ends more than the wait.
const IN_TURN_SECONDS: f64 = 0.0005;

/// If the other lanes would deliver everything before this one's chunk arrives, the lane gets
/// nothing (the idea of ECF). Otherwise it gets the bytes whose turn it is when they arrive (the
/// idea of STMS).
pub(super) fn decide<'a>(
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView> + Clone,
    waiting: f64,
    chunk: f64,
    bulk: bool,
) -> Grant {
    let chunk = chunk.min(waiting).max(1.0);
    let complete = lane.arrival(chunk);
    // Counted in whole chunks, and only those delivered first: among equally good lanes, or many
    // that only together seem better than each, one must take the last chunk.
    let sooner = complete * (1.0 - 1e-6);
    let whole = |bytes: f64| (bytes / chunk).floor() * chunk;
    let others_deliver: f64 = others.clone().map(|other| whole(other.delivers_by(sooner))).sum();
    if others_deliver >= waiting {
        return Grant::Nothing;
    }
    let arrival = lane.arrival(0.0);
    let in_turn = if bulk { IN_TURN_SECONDS } else { 0.0 };
    let sooner = |other: &&LaneView| other.arrival(0.0) + in_turn < arrival;
    let ahead: f64 = others.filter(sooner).map(|other| other.delivers_by(arrival)).sum();
    Grant::Skip((ahead.min(waiting - 1.0).max(0.0)) as u64)
}

impl LaneView {
    /// Bytes of what waits now that the lane could have delivered in `at` seconds.
    fn delivers_by(&self, at: f64) -> f64 {
        self.rate * (at - self.arrival(0.0)).max(0.0)
    }
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
            lateness: std::time::Duration::ZERO,
            queue: 0.0,
            in_flight: 0.0,
            window: rate * rtt_ms / 1e3,
            congestion_window: rate * rtt_ms / 1e3,
            idle: true,
            measured: true,
            slow: false,
            urgent_only: false,
        }
    }

    #[test]
    fn a_slow_lane_is_left_out_of_a_short_transfer() {
        let (fast, slow) = (lane(50.0, 10.0), lane(50.0, 100.0));
        assert_eq!(decide(&slow, [fast].iter(), 100_000.0, 16_000.0, true), Grant::Nothing);
        assert_eq!(decide(&fast, [slow].iter(), 100_000.0, 16_000.0, true), Grant::Skip(0));
    }

    #[test]
    fn a_slow_lane_takes_later_bytes_of_a_long_one() {
        let (fast, slow) = (lane(50.0, 10.0), lane(50.0, 100.0));
        // 45 ms earlier at 6.25 MB/s: the fast lane delivers 281 kB first.
        assert_eq!(decide(&slow, [fast].iter(), 1e6, 16_000.0, true), Grant::Skip(281_250));
    }

    #[test]
    fn some_lane_always_takes_the_last_chunk() {
        for count in 1..8 {
            for (rate, rtt) in [(50.0, 20.0), (0.7, 0.3), (300.0, 111.0)] {
                let lanes: Vec<LaneView> = vec![lane(rate, rtt); count];
                for waiting in [1.0, 520.0, 16_384.0, 40_000.0] {
                    let chunk = 16_384.0f64.min(waiting);
                    let grant = decide(&lanes[0], lanes[1..].iter(), waiting, chunk, true);
                    assert_ne!(grant, Grant::Nothing, "{count} lanes, {waiting} bytes");
                }
            }
        }
    }

    #[test]
    fn bulk_on_lanes_that_are_nearly_as_soon_leaves_no_holes() {
        let (near, far) = (lane(1_000.0, 1.0), lane(1_000.0, 1.8));
        assert_eq!(decide(&far, [near].iter(), 1e6, 16_000.0, true), Grant::Skip(0));
        let Grant::Skip(skip) = decide(&far, [near].iter(), 1e6, 16_000.0, false) else { panic!() };
        assert!(skip.abs_diff(50_000) <= 1, "what is no bulk goes on the best lane: {skip}");
    }

    #[test]
    fn equal_lanes_share_the_front() {
        let (one, two) = (lane(50.0, 20.0), lane(50.0, 20.0));
        assert_eq!(decide(&one, [two].iter(), 1e6, 16_000.0, true), Grant::Skip(0));
        assert_eq!(
            decide(&one, [].iter(), 1.0, 16_000.0, true),
            Grant::Skip(0),
            "the only lane always may"
        );
    }
}
