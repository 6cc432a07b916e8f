//! The lanes of a link that keep its path full.

use std::time::{Duration, Instant};

use super::path::{PACKET_BYTES, SLOW_RATE};
use super::sample::LaneSample;

/// A lane needs this much room on its path to keep going after a loss and to probe for more: BBR
/// never has less than a quarter of it in flight.
const LANE_BYTES: f64 = 16.0 * PACKET_BYTES;
/// With less room than this BBR works badly: it never has less than half of it in flight, however
/// small a lane's part of the path is.
const LANE_BYTES_MIN: f64 = 8.0 * PACKET_BYTES;
/// A slow path keeps several active lanes only while round trips are shorter than this many times
/// the smallest: at the start of a long path, which may still prove fast.
const SLOW_QUEUE: f64 = 2.0;
/// A lane fills a path only if it answered within this time: half of how long a path has to be full
/// before its rate counts.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Active lanes with a bandwidth-delay product in flight.
#[derive(Debug)]
pub(super) struct Filling {
    /// How many their kernels report on.
    pub(super) lanes: usize,
    /// Whether any of them answers, whatever its kernel reports: what was lost with a silent lane
    /// fills nothing.
    pub(super) answers: bool,
    /// The sum of the rates they are believed to deliver, in bytes a second.
    pub(super) believed: f64,
    /// The shortest round trip without a queue, in seconds: all share the path.
    pub(super) rtt_min: f64,
}

impl Filling {
    pub(super) fn of(now: Instant, lanes: impl Iterator<Item = LaneSample>) -> Self {
        let mut filling = Self { lanes: 0, answers: false, believed: 0.0, rtt_min: f64::INFINITY };
        let fills = |lane: &LaneSample| {
            lane.active && lane.in_flight as f64 >= lane.rate * lane.rtt_min.as_secs_f64()
        };
        for lane in lanes.filter(fills) {
            filling.answers |= now.saturating_duration_since(lane.answered_at) < ANSWER_TIME;
            let Some(kernel) = lane.kernel else { continue };
            filling.lanes = filling.lanes.saturating_add(1);
            filling.believed += lane.rate.max(1.0);
            filling.rtt_min = filling.rtt_min.min(kernel.rtt_min.as_secs_f64());
        }
        filling
    }

    /// Whether one lane would do: the path carries little (`path_rate`, in bytes a second), and
    /// round trips of `rtt` seconds show that what is in flight queues ahead of it. The minimum
    /// each lane's kernel keeps in flight is most of a second on such a path.
    pub(super) fn fill_slow_path(&self, rtt: f64, path_rate: Option<f64>) -> bool {
        let slow = path_rate.is_some_and(|rate| rate < SLOW_RATE);
        self.lanes > 0 && slow && rtt > SLOW_QUEUE * self.rtt_min
    }

    /// How many lanes to try while a queue stands: three quarters of them, which still fill the
    /// path if the queue was one bandwidth-delay product; or fewer, if a path that `carried` this
    /// many bytes a second has room for fewer.
    pub(super) fn needed(&self, carried: f64) -> usize {
        let room = carried * self.rtt_min / LANE_BYTES;
        let most = self.lanes.saturating_mul(3).checked_div(4).unwrap_or_default();
        (room.ceil() as usize).clamp(1, most.max(1))
    }

    /// Whether a path that `carried` this many bytes a second is too short for this many lanes: a
    /// queue of a few packets overflows without noticeably lengthening round trips.
    pub(super) fn exceed_path(&self, carried: f64) -> bool {
        self.lanes as f64 * LANE_BYTES_MIN > carried * self.rtt_min
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::link::testing::filling_lane;
    use crate::proto::testing;

    /// Ten lanes on a path of 20 ms.
    fn filling(lane: impl Fn(usize) -> LaneSample) -> Filling {
        Filling::of(testing::start(), (0..10).map(lane))
    }

    #[test]
    fn lanes_fill_a_path_with_a_bandwidth_delay_product_each() {
        let all = filling(|_| filling_lane());
        assert_eq!((all.lanes, all.answers, all.believed), (10, true, 1e7));
        let odd = |nth: usize| nth % 2 == 1;
        let half = filling(|nth| LaneSample { active: odd(nth), ..filling_lane() });
        assert_eq!(half.lanes, 5, "lanes on standby fill nothing");
        let few = filling(|nth| LaneSample {
            in_flight: if odd(nth) { 20_000 } else { 19_999 },
            ..filling_lane()
        });
        assert_eq!(few.lanes, 5);
        let none = filling(|_| LaneSample { kernel: None, ..filling_lane() });
        assert_eq!((none.lanes, none.answers), (0, true), "no kernel tells");
    }

    #[test]
    fn a_silent_lane_fills_nothing() {
        let lane = filling_lane();
        assert!(!Filling::of(lane.answered_at + ANSWER_TIME, [lane].into_iter()).answers);
    }

    #[test]
    fn a_path_is_too_short_for_lanes_that_have_no_room_for_eight_packets_each() {
        let ten = filling(|_| filling_lane());
        // 20 ms of that are 120 kB.
        assert!(ten.exceed_path(5_900_000.0) && !ten.exceed_path(6_100_000.0));
        let none = filling(|_| LaneSample { active: false, ..filling_lane() });
        assert!(!none.exceed_path(0.0), "nobody fills it");
    }

    #[test]
    fn as_many_lanes_are_needed_as_the_path_has_room_for_and_three_quarters_at_most() {
        let ten = filling(|_| filling_lane());
        let needed = [0.0, 1.2e6, 2.4e6, 1e9].map(|carried| ten.needed(carried));
        assert_eq!(needed, [1, 1, 2, 7]);
    }

    #[test]
    fn one_lane_does_on_a_slow_path_that_is_full() {
        let ten = filling(|_| filling_lane());
        assert!(ten.fill_slow_path(0.041, Some(60_000.0)));
        assert!(!ten.fill_slow_path(0.039, Some(60_000.0)), "nothing waits");
        assert!(!ten.fill_slow_path(0.041, Some(70_000.0)), "it is not slow");
        assert!(!ten.fill_slow_path(0.041, None));
    }
}
