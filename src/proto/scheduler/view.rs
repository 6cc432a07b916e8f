//! The input and the result of the choice.

use std::time::Duration;

use crate::proto::ids::LaneId;

/// A lane at the time of the choice. Times in seconds, sizes in bytes, rates in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneView {
    pub id: LaneId,
    /// Invariant: above zero.
    pub rate: f64,
    /// Smoothed round trip, and its deviation.
    pub rtt: f64,
    pub rtt_var: f64,
    /// One way, without queues.
    pub delay: f64,
    /// How much later than the other figures explain it usually delivers.
    pub lateness: Duration,
    /// Until everything the lane was given has left this end.
    pub queue: f64,
    pub in_flight: f64,
    /// What it may have in flight when its pipe is full.
    pub window: f64,
    /// What fills it according to published schedulers: its kernel's congestion window.
    pub congestion_window: f64,
    /// The rate was measured, not assumed.
    pub measured: bool,
    /// Its path carries little: what is given to it takes long.
    pub slow: bool,
    /// It carries no bulk.
    pub urgent_only: bool,
    /// The lane waits for work.
    pub idle: bool,
}

impl LaneView {
    /// Seconds until `bytes` more have arrived at the other end.
    pub fn arrival(&self, bytes: f64) -> f64 {
        self.queue + (self.delay + self.lateness.as_secs_f64()) + bytes / self.rate
    }

    /// It was given `bytes` more.
    pub fn take(&mut self, bytes: u64) {
        self.in_flight += bytes as f64;
        self.queue += bytes as f64 / self.rate;
    }
}

/// What a pulling lane should do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Grant {
    /// Nothing now: it would be slower than waiting for another lane.
    Nothing,
    /// Take bytes this far behind the first that waits.
    Skip(u64),
}
