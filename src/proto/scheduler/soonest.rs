//! Which lane carries a datagram: the one that will have it there first.

use super::LaneView;

/// Whether `lane` is that one for the next `bytes`. Another that would be sooner is waited for, but
/// no longer than it would save: it may have stalled, and the forecast not know yet. `waited` is
/// how long that was so far, in seconds.
pub fn is_soonest<'a>(
    lane: &LaneView,
    mut others: impl Iterator<Item = &'a LaneView>,
    bytes: f64,
    waited: f64,
) -> bool {
    let arrival = lane.arrival(bytes);
    others.all(|other| arrival <= other.arrival(bytes) + waited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::LaneId;

    fn lane(number: u64, delay: f64, queue: f64) -> LaneView {
        LaneView {
            id: LaneId::new(number),
            rate: 1e6,
            rtt: 2.0 * delay,
            rtt_var: 0.0,
            delay,
            lateness: std::time::Duration::ZERO,
            queue,
            in_flight: 0.0,
            window: 1e6,
            congestion_window: 1e6,
            measured: true,
            slow: false,
            urgent_only: false,
            idle: true,
        }
    }

    #[test]
    fn the_lane_that_would_deliver_first_is_taken_its_queue_counted() {
        let (near, far) = (lane(0, 0.010, 0.0), lane(1, 0.020, 0.0));
        assert!(is_soonest(&near, [far].iter(), 1e3, 0.0));
        assert!(!is_soonest(&far, [near].iter(), 1e3, 0.0));
        let near = LaneView { queue: 0.011, ..near };
        assert!(is_soonest(&far, [near].iter(), 1e3, 0.0));
        assert!(!is_soonest(&near, [far].iter(), 1e3, 0.0));
        assert!(is_soonest(&near, [].iter(), 1e3, 0.0), "the only one");
        assert!(is_soonest(&near, [near].iter(), 1e3, 0.0), "one of equals");
    }

    #[test]
    fn a_lane_that_is_sooner_is_waited_for_as_long_as_it_would_save() {
        let (near, far) = (lane(0, 0.010, 0.0), lane(1, 0.020, 0.0));
        for (waited, taken) in [(0.0, false), (0.009, false), (0.0101, true)] {
            assert_eq!(is_soonest(&far, [near].iter(), 1e3, waited), taken, "{waited}");
        }
    }
}
