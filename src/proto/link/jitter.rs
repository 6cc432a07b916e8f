//! Jitter: round trips that change for other reasons than a queue, as on radio links.

/// A change has this weight in the mean change, and counts as at most one round trip. When a path
/// becomes slower its round trips climb once, which is no jitter.
const GAIN: f64 = 1.0 / 32.0;
/// While few changes are known each has more weight: they are averaged with this many zeros.
const QUIET_CHANGES: u8 = 8;
/// Round trips may exceed the usual ones by this many times the mean change.
const FACTOR: f64 = 2.0;
/// Below this part of the smallest round trip there is no jitter: lanes' own queues vary by a few
/// milliseconds.
const PART_MIN: f64 = 0.25;

/// How much a path's round trips change from one window of time to the next.
#[derive(Debug, Default)]
pub(super) struct Jitter {
    /// The previous window's round trip, in seconds.
    rtt: Option<f64>,
    changes: u8,
    /// The mean change, in seconds.
    change: f64,
    allowance: f64,
}

impl Jitter {
    /// The mean round trip of a window was `rtt`, the smallest is `rtt_min`; both in seconds.
    pub(super) fn on_sample(&mut self, rtt: f64, rtt_min: f64) {
        if let Some(before) = self.rtt.replace(rtt) {
            let change = (rtt - before).abs().min(rtt_min);
            self.changes = self.changes.saturating_add(1);
            let gain = GAIN.max(1.0 / (f64::from(QUIET_CHANGES) + f64::from(self.changes)));
            self.change += gain * (change - self.change);
        }
        let allowance = FACTOR * self.change;
        self.allowance = if allowance > PART_MIN * rtt_min { allowance } else { 0.0 };
    }

    /// How much longer than usual round trips may be without a queue, in seconds; zero on a path
    /// without jitter.
    pub(super) fn allowance(&self) -> f64 {
        self.allowance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The allowance on a path of 20 ms after this many windows with round trips `of_window`, in
    /// milliseconds.
    fn allowance(windows: u32, of_window: impl Fn(u32) -> u32) -> f64 {
        let mut jitter = Jitter::default();
        for ms in (0..windows).map(of_window) {
            jitter.on_sample(f64::from(ms) / 1e3, 0.02);
        }
        jitter.allowance()
    }

    #[test]
    fn jitter_shows_soon_and_one_climb_is_none() {
        assert!(allowance(5, |window| [20, 40, 25, 35, 20][window as usize]) > 0.005);
        assert_eq!(allowance(5, |window| if window == 0 { 20 } else { 40 }), 0.0, "one climb");
        assert_eq!(allowance(100, |_| 20), 0.0);
    }

    #[test]
    fn round_trips_may_be_longer_by_twice_their_mean_change() {
        let settled = allowance(400, |window| 20 + window % 2 * 20);
        assert!((0.039..0.041).contains(&settled), "{settled}");
    }

    #[test]
    fn the_allowance_is_bounded_whatever_round_trips_the_kernel_tells_of() {
        let wild = allowance(80, |window| 20 + window % 2 * 5_000);
        assert!(wild <= 0.04, "{wild}");
    }
}
