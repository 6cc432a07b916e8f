//! Round trips that change for another reason than a queue, on radio links for one.

/// A change from one window to the next counts this much towards the mean of them, and never more than a round trip: one
/// climb, when a path becomes slower, is not yet wandering ...
const GAIN: f64 = 1.0 / 32.0;
/// ... and so many times that mean they may be longer at any time, if it is more than this part of the smallest round trip:
/// a few milliseconds come and go with the lanes' own queue.
const FACTOR: f64 = 2.0;
const PART_MIN: f64 = 0.25;

/// How much they change from one window to the next.
#[derive(Debug, Default)]
pub(super) struct Wander {
    rtt: Option<f64>,
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
            self.change += GAIN * (change - self.change);
        }
        let allowance = FACTOR * self.change;
        self.allowance = if allowance > PART_MIN * rtt_min { allowance } else { 0.0 };
    }
}
