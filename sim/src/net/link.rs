//! One direction of a path: a queue, then a rate, then a delay; and losses.

use super::{MSS, SECOND, Time, ms};
use crate::options::{Congestion, PathOptions};
use crate::rng::Rng;

/// One direction of a path.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes a second.
    pub rate: f64,
    pub delay: Time,
    queue_bytes: f64,
    pub loss: f64,
    /// When everything queued will have left.
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

    pub(super) fn time_of(&self, bytes: u64) -> Time {
        (bytes as f64 / self.rate * SECOND as f64) as Time
    }

    /// Takes `bytes`, which leave after everything queued before them. Returns when, and their
    /// fate.
    pub(super) fn carry(&mut self, now: Time, bytes: u64, rng: &mut Rng) -> (Time, Fate) {
        let segments = (bytes as f64 / MSS).max(1.0);
        self.carry_segments(now, bytes, segments, rng)
    }

    /// The same for a retransmission: usually only one of its segments was lost.
    pub(super) fn carry_again(&mut self, now: Time, bytes: u64, rng: &mut Rng) -> (Time, Fate) {
        self.carry_segments(now, bytes, 1.0, rng)
    }

    fn carry_segments(
        &mut self,
        now: Time,
        bytes: u64,
        segments: f64,
        rng: &mut Rng,
    ) -> (Time, Fate) {
        let queued = self.free_at.saturating_sub(now) as f64 / SECOND as f64 * self.rate;
        let overflow = self.control != Congestion::Pipe
            && queued + bytes as f64 > self.queue_bytes
            && queued > MSS;
        let fate = if overflow {
            Fate::Overflowed
        } else if self.loss > 0.0 && rng.chance(1.0 - (1.0 - self.loss).powf(segments)) {
            Fate::Lost
        } else {
            Fate::Passed
        };
        let copies = match fate {
            // It is lost before the queue; its sender notices and sends it again.
            Fate::Lost | Fate::Overflowed if self.control == Congestion::Bbr => 0,
            // A loss is sent again on the same link, which is counted here.
            Fate::Lost => 2,
            Fate::Passed | Fate::Overflowed => 1,
        };
        self.free_at = self.free_at.max(now) + self.time_of(bytes * copies);
        (self.free_at, fate)
    }
}

/// A segment's fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Passed,
    Lost,
    /// It did not fit into the queue.
    Overflowed,
}
