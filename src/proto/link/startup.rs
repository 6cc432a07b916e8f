//! When a lane's start-up is over: its path is full, so its kernel need not search for more.
//! Sampled once a round trip, by the kernel's figures: acknowledgements may return on another lane.

use std::time::{Duration, Instant};

/// A path is full when more in flight adds to the queue, not to the rate: the rate grew by less
/// than this in a round trip. While the kernel searches for the rate, it doubles.
const GROWTH_MIN: f64 = 1.5;
/// A queue lengthens round trips by more than this part of the smallest, and by more than a task
/// may have to wait.
const QUEUE_PART: u32 = 8;
const QUEUE_MIN: Duration = Duration::from_millis(2);
/// After this many such round trips in a row it is certain (BBR ends its search by the same rule).
/// Fewer could be a longer delay: on radio links, where delays vary, the search would end at a
/// third of what the path carries.
const FULL_ROUND_TRIPS: u8 = 3;

/// Whether a lane has filled its path since it came up.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    /// Samples in a row that said so.
    full: u8,
    /// At the last sample, in bytes a second.
    rate_before: f64,
    sample_at: Option<Instant>,
}

impl Startup {
    /// The path's round trip is `rtt`, its smallest `rtt_min`; it carries `rate` bytes a second,
    /// and the lane was `busy`. Lanes that share a path (`shared`) are held to what all of them
    /// carry, which needs no proof from each.
    pub fn on_sample(
        &mut self,
        now: Instant,
        [rtt, rtt_min]: [Duration; 2],
        rate: f64,
        busy: bool,
        shared: bool,
    ) {
        let certain = if shared { 1 } else { FULL_ROUND_TRIPS };
        if self.full >= certain || self.sample_at.is_some_and(|at| now < at) {
            return;
        }
        let grown = rate >= GROWTH_MIN * self.rate_before;
        let full = match busy {
            true if is_queued(rtt, rtt_min) && !grown => self.full.saturating_add(1),
            true => 0,
            false => self.full,
        };
        *self = Self { full, rate_before: rate, sample_at: now.checked_add(rtt) };
    }

    /// Whether the last sample said that the path is full, or that is certain.
    pub fn is_over(&self) -> bool {
        self.full > 0
    }
}

fn is_queued(rtt: Duration, rtt_min: Duration) -> bool {
    let queue = rtt_min.checked_div(QUEUE_PART).unwrap_or_default().saturating_add(QUEUE_MIN);
    rtt > rtt_min.saturating_add(queue)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    /// Whether start-up is over after this many samples; for each, `path` returns the rate in MB/s
    /// and the round trip in milliseconds, on a path of 20 ms.
    fn is_over(samples: u32, shared: bool, path: impl Fn(u32) -> (f64, u64)) -> bool {
        let (mut now, mut startup) = (testing::start(), Startup::default());
        for (rate, rtt) in (0..samples).map(path) {
            let round_trips = [rtt, 20].map(Duration::from_millis);
            startup.on_sample(now, round_trips, rate * 1e6, true, shared);
            now += Duration::from_millis(100);
        }
        startup.is_over()
    }

    #[test]
    fn a_path_is_full_for_good_only_after_three_round_trips() {
        let full = |_| (1.0, 40);
        assert!(!is_over(1, false, full), "nothing to compare it with");
        assert!(is_over(3, false, full));
        let longer_way = |nth| (1.0, if nth == 3 { 20 } else { 40 });
        assert!(!is_over(4, false, longer_way), "the way was longer, not the queue");
        assert!(is_over(7, false, longer_way));
        let freed = |nth| if nth < 7 { longer_way(nth) } else { (4.0, 20) };
        assert!(is_over(9, false, freed), "whatever comes");
    }

    #[test]
    fn of_lanes_that_share_a_path_one_round_trip_is_enough() {
        let once = |nth| (1.0, if nth < 2 { 40 } else { 20 });
        assert!(is_over(3, true, once));
        assert!(!is_over(3, false, once));
    }

    #[test]
    fn it_is_sampled_once_a_round_trip() {
        let (start, mut startup) = (testing::start(), Startup::default());
        let round_trips = [40, 20].map(Duration::from_millis);
        for ms in [0, 39] {
            startup.on_sample(start + Duration::from_millis(ms), round_trips, 1e6, true, false);
        }
        assert!(!startup.is_over());
        startup.on_sample(start + Duration::from_millis(40), round_trips, 1e6, true, false);
        assert!(startup.is_over());
    }
}
