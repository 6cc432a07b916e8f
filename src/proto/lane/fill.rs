//! Whether a path is full, looked at once a round trip: by the kernel's figures, since our acknowledgements may come back by
//! another lane.

use std::time::{Duration, Instant};

use super::{LaneMetrics, part};

/// A path is full when more in flight makes a queue, and not more rate: it grew by less than this in a round trip (while
/// the kernel looks for it, it doubles) ...
const GROWTH_MIN: f64 = 1.5;
/// ... and round trips are longer than the smallest by this part of it, and by more than a task may have to wait.
const QUEUED: u32 = 8;
const QUEUED_MIN: Duration = Duration::from_millis(2);
/// After so many such round trips, one after the other, it is certain (BBR ends its search by the same rule). Before, a longer
/// way looks the same: where delays wander, as on radio links, the search would end at a third of what the path carries.
const FULL_ROUND_TRIPS: u8 = 3;

/// Whether the path was full since it came up, looked at once a round trip.
#[derive(Clone, Debug, Default)]
pub(super) struct Fill {
    /// So many times in a row it seemed to be.
    full: u8,
    /// At the last look, in bytes a second.
    rate_before: f64,
    look_at: Option<Instant>,
}

impl Fill {
    /// What the path carries now is `rate`, in bytes a second, and the lane was `busy`. Lanes that share a path are held to what
    /// all of them carry, which needs no proof from each.
    pub(super) fn look(
        &mut self,
        now: Instant,
        kernel: &LaneMetrics,
        rate: f64,
        busy: bool,
        shared: bool,
    ) {
        let certain = if shared { 1 } else { FULL_ROUND_TRIPS };
        if self.full >= certain || self.look_at.is_some_and(|at| now < at) {
            return;
        }
        let grown = rate >= GROWTH_MIN * self.rate_before;
        let full = match busy {
            true if is_queued(kernel) && !grown => self.full.saturating_add(1),
            true => 0,
            false => self.full,
        };
        *self = Self { full, rate_before: rate, look_at: now.checked_add(kernel.rtt) };
    }

    /// Whether it seemed so at the last look, or is certain.
    pub(super) fn is_likely(&self) -> bool {
        self.full > 0
    }
}

fn is_queued(kernel: &LaneMetrics) -> bool {
    let queue = part::<QUEUED>(kernel.rtt_min).saturating_add(QUEUED_MIN);
    kernel.rtt > kernel.rtt_min.saturating_add(queue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    /// Whether a path of 20 ms is likely to be full after looks at these rates, in MB/s, and round trips in milliseconds.
    fn is_likely(looks: &[(f64, u64)], shared: bool) -> bool {
        let (start, mut fill) = (testing::start(), Fill::default());
        for (nth, (rate, rtt)) in (0..).zip(looks) {
            let kernel = testing::kernel(1_000_000, Duration::from_millis(*rtt));
            let now = start + Duration::from_millis(100 * nth);
            fill.look(now, &kernel, rate * 1e6, true, shared);
        }
        fill.is_likely()
    }

    #[test]
    fn a_path_is_full_for_good_only_after_three_round_trips() {
        assert!(!is_likely(&[(1.0, 40)], false), "nothing to compare it with");
        let mut looks = vec![(1.0, 40), (1.0, 40), (1.0, 40)];
        assert!(is_likely(&looks, false));
        looks.push((1.0, 20));
        assert!(!is_likely(&looks, false), "the way was longer, not the queue");
        looks.extend([(1.0, 40); 3]);
        assert!(is_likely(&looks, false));
        looks.extend([(1.0, 20), (4.0, 20)]);
        assert!(is_likely(&looks, false), "whatever comes");
    }

    #[test]
    fn of_lanes_that_share_a_path_one_round_trip_is_enough() {
        assert!(is_likely(&[(1.0, 40), (1.0, 40), (1.0, 20)], true));
        assert!(!is_likely(&[(1.0, 40), (1.0, 40), (1.0, 20)], false));
    }

    #[test]
    fn it_is_looked_at_once_a_round_trip() {
        let (start, mut fill) = (testing::start(), Fill::default());
        let kernel = testing::kernel(1_000_000, Duration::from_millis(40));
        fill.look(start, &kernel, 1e6, true, false);
        fill.look(start + Duration::from_millis(39), &kernel, 1e6, true, false);
        assert!(!fill.is_likely());
        fill.look(start + Duration::from_millis(40), &kernel, 1e6, true, false);
        assert!(fill.is_likely());
    }
}
