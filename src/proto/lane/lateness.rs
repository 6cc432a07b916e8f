//! How much later than forecast a lane's acknowledgements are, as a rule.

use std::time::{Duration, Instant};

use super::part::part;

/// Smoothed over sixteen acknowledgements.
#[derive(Clone, Debug, Default)]
pub(super) struct Lateness {
    usual: Duration,
    /// When the last one came.
    at: Option<Instant>,
    /// What ends here on the lane or before was on its way while the lane was suspect: how late it
    /// was is not the rule.
    excused: u64,
}

impl Lateness {
    /// A frame was acknowledged `late` after the path and the queue before it explain.
    pub(super) fn on_sample(&mut self, now: Instant, late: Duration, rtt_min: Duration) {
        let usual = self.usual(now, rtt_min).saturating_mul(15).saturating_add(late);
        self.usual = part::<16>(usual);
        self.at = Some(now);
    }

    /// What made them late passes: after a round trip without any, half of the time that goes by is
    /// taken off.
    pub(super) fn usual(&self, now: Instant, rtt_min: Duration) -> Duration {
        let age = self.at.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        self.usual.saturating_sub(part::<2>(age.saturating_sub(rtt_min)))
    }

    /// What was sent up to this position says nothing.
    pub(super) fn excuse(&mut self, position: u64) {
        self.excused = position;
    }

    /// Whether the frame that ends at `end` says anything.
    pub(super) fn counts(&self, end: u64) -> bool {
        end > self.excused
    }
}
