//! One direction of a path: a rate, a queue before it, a delay behind it, and losses.

use super::{MS, MSS, SECOND, Time, ms};
use crate::options::{Congestion, PathOptions};
use crate::rng::Rng;

/// A sender that is a pipe keeps this much of its link's time queued.
const PIPE_AHEAD: Time = MS / 2;
/// BBR's, at the least: a few segments.
const BBR_AHEAD_MIN: Time = MS;

/// One direction of a path.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes a second.
    pub rate: f64,
    pub delay: Time,
    queue_bytes: f64,
    pub loss: f64,
    /// When what was queued will have left.
    pub(super) free_at: Time,
    pub down: bool,
    pub(super) control: Congestion,
    /// Lanes that share it.
    pub(super) sharers: f64,
}

impl Link {
    pub fn new(options: &PathOptions, direction: usize) -> Self {
        Self {
            rate: options.mbit[direction] * 125_000.0,
            delay: ms(options.delay_ms[direction]),
            queue_bytes: options.queue_bytes,
            loss: options.loss,
            free_at: 0,
            down: false,
            control: options.control,
            sharers: options.lanes.max(1) as f64,
        }
    }

    /// How much of the link's time a sender that paces what it sends has queued at most: BBR goes a
    /// little beyond the rate of the link, and never in bursts.
    pub(super) fn paces_ahead(&self, back: Time) -> Time {
        match self.control {
            Congestion::Pipe => PIPE_AHEAD,
            Congestion::Bbr => BBR_AHEAD_MIN + (self.delay + back) * 15 / 100,
            Congestion::Cubic => Time::MAX,
        }
    }

    pub(super) fn time_of(&self, bytes: u64) -> Time {
        (bytes as f64 / self.rate * SECOND as f64) as Time
    }

    /// Takes `bytes` that leave when what was queued before them has. When that is, and what befell
    /// them on the way.
    pub(super) fn carry(&mut self, now: Time, bytes: u64, rng: &mut Rng) -> (Time, Fate) {
        let queued = self.free_at.saturating_sub(now) as f64 / SECOND as f64 * self.rate;
        let overflow = self.control != Congestion::Pipe
            && queued + bytes as f64 > self.queue_bytes
            && queued > MSS;
        let segments = (bytes as f64 / MSS).max(1.0);
        let fate = if overflow {
            Fate::Overflowed
        } else if self.loss > 0.0 && rng.chance(1.0 - (1.0 - self.loss).powf(segments)) {
            Fate::Lost
        } else {
            Fate::Passed
        };
        // What is lost is sent again, on the same link.
        let copies = if fate == Fate::Lost { 2 } else { 1 };
        self.free_at = self.free_at.max(now) + self.time_of(bytes * copies);
        (self.free_at, fate)
    }
}

/// What befell a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Passed,
    Lost,
    /// It did not fit the queue.
    Overflowed,
}
