//! The largest of recent samples.

use std::time::{Duration, Instant};

/// The largest value of the current and the previous window.
#[derive(Clone, Debug, Default)]
pub struct MaxFilter {
    previous: f64,
    current: f64,
    began: Option<Instant>,
    /// Whether any sample came from a busy lane.
    pub was_busy: bool,
}

impl MaxFilter {
    /// Unless the lane was `busy`, a sample is only a lower bound.
    pub fn add_sample(&mut self, now: Instant, value: f64, busy: bool, window: Duration) {
        self.was_busy |= busy;
        if busy || value > self.max() {
            self.add(now, value, window);
        }
    }

    pub fn add(&mut self, now: Instant, value: f64, window: Duration) {
        let age = self.began.map(|began| now.saturating_duration_since(began));
        match age {
            Some(age) if age < window => self.current = self.current.max(value),
            Some(_) => {
                // However long ago: a lane that was idle since has not become slower.
                self.previous = self.current;
                self.current = value;
                self.began = Some(now);
            }
            None => {
                self.current = value;
                self.began = Some(now);
            }
        }
    }

    pub fn max(&self) -> f64 {
        self.current.max(self.previous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    #[test]
    fn a_maximum_lasts_one_to_two_windows() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut filter = MaxFilter::default();
        assert_eq!(filter.max(), 0.0);
        filter.add(start, 5.0, ms(10));
        filter.add(start + ms(9), 1.0, ms(10));
        filter.add(start + ms(10), 2.0, ms(10));
        assert_eq!(filter.max(), 5.0, "one window later");
        filter.add(start + ms(20), 1.0, ms(10));
        assert_eq!(filter.max(), 2.0, "two windows later");
    }

    #[test]
    fn a_sample_of_a_lane_that_was_not_busy_only_raises_it() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut filter = MaxFilter::default();
        filter.add_sample(start, 5.0, false, ms(10));
        assert!(!filter.was_busy);
        filter.add_sample(start + ms(50), 1.0, false, ms(10));
        filter.add_sample(start + ms(100), 1.0, false, ms(10));
        assert_eq!(filter.max(), 5.0);
        filter.add_sample(start + ms(150), 1.0, true, ms(10));
        filter.add_sample(start + ms(200), 1.0, true, ms(10));
        assert_eq!((filter.max(), filter.was_busy), (1.0, true));
    }
}
