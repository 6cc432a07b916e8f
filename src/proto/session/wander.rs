//! Round trips that change for another reason than a queue, on radio links for one.

/// A change from one window to the next counts this much towards the mean of them, and never more than a round trip: one
/// climb, when a path becomes slower, is not yet wandering. As long as there were few of them it counts for more, beside so
/// many at rest ...
const GAIN: f64 = 1.0 / 32.0;
const AT_REST: u8 = 8;
/// ... and so many times that mean they may be longer at any time, if it is more than this part of the smallest round trip:
/// a few milliseconds come and go with the lanes' own queue.
const FACTOR: f64 = 2.0;
const PART_MIN: f64 = 0.25;

/// How much they change from one window to the next.
#[derive(Debug, Default)]
pub(super) struct Wander {
    rtt: Option<f64>,
    changes: u8,
    /// Smoothed, in seconds.
    change: f64,
    /// How much longer they may be than usual, in seconds: nothing on a path that does not wander.
    pub(super) allowance: f64,
}

impl Wander {
    /// The mean round trip of a window, in seconds.
    pub(super) fn add(&mut self, rtt: f64, rtt_min: f64) {
        if let Some(before) = self.rtt.replace(rtt) {
            let change = (rtt - before).abs().min(rtt_min);
            self.changes = self.changes.saturating_add(1);
            let gain = GAIN.max(1.0 / (f64::from(AT_REST) + f64::from(self.changes)));
            self.change += gain * (change - self.change);
        }
        let allowance = FACTOR * self.change;
        self.allowance = if allowance > PART_MIN * rtt_min { allowance } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allowance on a path of 20 ms after windows with such round trips, in milliseconds.
    fn allowance(rtts: &[u32]) -> f64 {
        let mut wander = Wander::default();
        rtts.iter().for_each(|ms| wander.add(f64::from(*ms) / 1e3, 0.02));
        wander.allowance
    }

    #[test]
    fn a_new_path_that_wanders_is_known_soon_and_one_climb_is_not_wandering() {
        assert!(allowance(&[20, 40, 25, 35, 20]) > 0.005);
        assert_eq!(allowance(&[20, 40, 40, 40, 40]), 0.0);
        assert_eq!(allowance(&[20; 100]), 0.0);
        let settled = [20, 40].repeat(200);
        assert!((0.039..0.041).contains(&allowance(&settled)), "by twice the change");
    }
}
