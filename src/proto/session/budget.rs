//! Allowances: for frames that make work without moving bytes, and for bytes sent twice.

use std::time::Instant;

use crate::proto::limits::{ACKS_PER_BUSY_FRAME, BUSY_FRAMES_BURST, BUSY_FRAMES_PER_SECOND};

/// A token bucket for busy frames of the peer, counted in sixteenths: what an acknowledgement costs.
#[derive(Debug)]
pub(super) struct BusyBudget {
    left: u64,
    filled_at: Instant,
}

impl BusyBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled_at: now }
    }

    /// Counts one frame; `false` once the budget is overdrawn.
    pub(super) fn spend(&mut self, now: Instant, cost: Cost) -> bool {
        let cost = match cost {
            Cost::Ack => 1,
            Cost::Busy => ACKS_PER_BUSY_FRAME,
        };
        if self.left < cost {
            let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
            let earned = (seconds * PER_SECOND as f64) as u64;
            self.left = self.left.saturating_add(earned).min(BURST);
            self.filled_at = now;
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// What a frame costs us beside the bytes it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// A look-up.
    Ack,
    /// Work, memory, or an answer.
    Busy,
}

const BURST: u64 = BUSY_FRAMES_BURST.saturating_mul(ACKS_PER_BUSY_FRAME);
const PER_SECOND: u64 = BUSY_FRAMES_PER_SECOND.saturating_mul(ACKS_PER_BUSY_FRAME);

/// What may be sent twice: a share of what was sent once, and a little to begin with.
#[derive(Debug)]
pub(super) struct DuplicateBudget {
    share: f64,
    left: f64,
    /// The part of `left` that is kept for what is very late. Without it, what is a little late now
    /// and then, as when TCP repairs a loss, has used up all when a path becomes slow.
    reserve: f64,
}

/// What an unknown lane is given at first fits into it twice: a short transfer's tail.
const INITIAL_BYTES: f64 = 128.0 * 1024.0;
/// What can be saved up during a long one.
const SAVED_BYTES_MAX: f64 = 1024.0 * 1024.0;
/// Half of what is earned is kept until there is this much: what is under way on a path of 100 Mbit/s
/// and 40 ms when it becomes slow.
const RESERVE_BYTES_MAX: f64 = 512.0 * 1024.0;

/// A frame costs at least this, however little it carries: its header, and those of the TLS record and
/// the packet around it.
const FRAME_COST_MIN: u64 = 64;

/// What it costs to send a frame with this much payload twice.
pub(super) fn cost_twice(payload: u64) -> u64 {
    payload.max(FRAME_COST_MIN)
}

impl DuplicateBudget {
    pub(super) fn new(share: f64) -> Self {
        Self { share, left: if share > 0.0 { INITIAL_BYTES } else { 0.0 }, reserve: 0.0 }
    }

    /// `bytes` were sent for the first time.
    pub(super) fn earn(&mut self, bytes: u64) {
        let earned = bytes as f64 * self.share;
        self.left = (self.left + earned).min(SAVED_BYTES_MAX);
        self.reserve = (self.reserve + earned / 2.0).min(RESERVE_BYTES_MAX);
    }

    pub(super) fn left(&self) -> u64 {
        self.left.max(0.0) as u64
    }

    /// What of it is not kept for what is very late.
    pub(super) fn unreserved(&self) -> u64 {
        (self.left - self.reserve).max(0.0) as u64
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.left -= bytes as f64;
        self.reserve = self.reserve.min(self.left.max(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_overdraws_and_time_refills() {
        let start = crate::proto::testing::start();
        let mut budget = BusyBudget::new(start);
        assert!((0..BUSY_FRAMES_BURST).all(|_| budget.spend(start, Cost::Busy)));
        assert!(!budget.spend(start, Cost::Ack));
        let later = start + Duration::from_secs(1);
        let granted =
            (0..BUSY_FRAMES_BURST).take_while(|_| budget.spend(later, Cost::Busy)).count();
        assert_eq!(granted as u64, BUSY_FRAMES_PER_SECOND);
        let later = later + Duration::from_secs(1);
        let granted = (0..BURST).take_while(|_| budget.spend(later, Cost::Ack)).count();
        assert_eq!(granted as u64, BUSY_FRAMES_PER_SECOND * ACKS_PER_BUSY_FRAME);
    }

    #[test]
    fn half_of_what_is_earned_is_kept_until_the_reserve_is_full() {
        let mut budget = DuplicateBudget::new(0.02);
        assert_eq!(budget.unreserved(), budget.left(), "there is no reserve to begin with");
        budget.spend(budget.left());
        budget.earn(10_000_000);
        assert_eq!((budget.left(), budget.unreserved()), (200_000, 100_000));
        budget.spend(150_000);
        assert_eq!((budget.left(), budget.unreserved()), (50_000, 0), "into the reserve");
        budget.earn(1_000_000);
        assert_eq!((budget.left(), budget.unreserved()), (70_000, 10_000));
        budget.earn(1_000_000_000);
        let [all, kept] = [SAVED_BYTES_MAX as u64, RESERVE_BYTES_MAX as u64];
        assert_eq!((budget.left(), budget.unreserved()), (all, all - kept));
    }

    #[test]
    fn without_a_share_nothing_is_sent_twice() {
        let mut budget = DuplicateBudget::new(0.0);
        budget.earn(1_000_000_000);
        assert_eq!((budget.left(), budget.unreserved()), (0, 0));
    }
}
