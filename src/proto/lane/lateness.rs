//! How much later than forecast a lane's acknowledgements usually are.

use std::time::{Duration, Instant};

use super::part::part;

/// Smoothed over sixteen acknowledgements.
#[derive(Clone, Debug, Default)]
pub(super) struct Lateness {
    usual: Duration,
    /// When the last one came.
    at: Option<Instant>,
    /// What ends on the lane at or before this was in flight while it was suspect: its lateness is
    /// not usual.
    excused: u64,
}

impl Lateness {
    /// A frame was acknowledged `late` later than the path and the queue ahead explain.
    pub(super) fn on_sample(&mut self, now: Instant, late: Duration, rtt_min: Duration) {
        let usual = self.usual(now, rtt_min).saturating_mul(15).saturating_add(late);
        self.usual = part::<16>(usual);
        self.at = Some(now);
    }

    /// Whatever made them late passes: after a round trip without a sample, half of the time that
    /// passes is subtracted.
    pub(super) fn usual(&self, now: Instant, rtt_min: Duration) -> Duration {
        let age = self.at.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
        self.usual.saturating_sub(part::<2>(age.saturating_sub(rtt_min)))
    }

    /// What was sent up to this position does not count.
    pub(super) fn excuse(&mut self, position: u64) {
        self.excused = position;
    }

    /// Whether the frame that ends at `end` counts.
    pub(super) fn counts(&self, end: u64) -> bool {
        end > self.excused
    }
}
