//! An allowance for peer frames that cause work without moving bytes.

use std::time::Instant;

use crate::proto::limits::{ACKS_PER_BUSY_FRAME, BUSY_FRAMES_BURST, BUSY_FRAMES_PER_SECOND};

/// A token bucket for the peer's busy frames, counted in sixteenths: the cost of an
/// acknowledgement.
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

/// What a frame costs us apart from the bytes it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cost {
    /// A look-up.
    Ack,
    /// Work, memory, or an answer.
    Busy,
}

const BURST: u64 = BUSY_FRAMES_BURST.saturating_mul(ACKS_PER_BUSY_FRAME);
const PER_SECOND: u64 = BUSY_FRAMES_PER_SECOND.saturating_mul(ACKS_PER_BUSY_FRAME);

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
}
