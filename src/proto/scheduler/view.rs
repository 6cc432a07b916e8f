//! The input and the result of the choice.

use std::time::Duration;

use crate::proto::ids::LaneId;

/// A lane at the time of the choice. Times in seconds, sizes in bytes, rates in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::proto) struct LaneView {
    pub(in crate::proto) id: LaneId,
    /// Invariant: above zero.
    pub(in crate::proto) rate: f64,
    /// Smoothed round trip, and its deviation.
    pub(in crate::proto) rtt: f64,
    pub(in crate::proto) rtt_var: f64,
    /// One way, without queues.
    pub(in crate::proto) delay: f64,
    /// How much later than the other figures explain it usually delivers.
    pub(in crate::proto) lateness: Duration,
    /// Until everything the lane was given has left this end.
    pub(in crate::proto) queue: f64,
    pub(in crate::proto) in_flight: f64,
    /// What it may have in flight when its pipe is full.
    pub(in crate::proto) window: f64,
    /// What fills it according to published schedulers: its kernel's congestion window.
    pub(in crate::proto) congestion_window: f64,
    /// The rate was measured, not assumed.
    pub(in crate::proto) measured: bool,
    /// Its path carries little: what is given to it takes long.
    pub(in crate::proto) slow: bool,
    /// It is kept free of bulk.
    pub(in crate::proto) kept_free: bool,
    /// The lane waits for work.
    pub(in crate::proto) idle: bool,
}

impl LaneView {
    /// Seconds until `bytes` more have arrived at the other end.
    pub(in crate::proto) fn arrival(&self, bytes: f64) -> f64 {
        self.queue + (self.delay + self.lateness.as_secs_f64()) + bytes / self.rate
    }

    /// It was given `bytes` more.
    pub(in crate::proto) fn take(&mut self, bytes: u64) {
        self.in_flight += bytes as f64;
        self.queue += bytes as f64 / self.rate;
    }
}

/// What a pulling lane should do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::proto) enum Grant {
    /// Nothing now: it would be slower than waiting for another lane.
    Nothing,
    /// Take bytes this far behind the first that waits.
    Skip(u64),
}
