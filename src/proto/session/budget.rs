//! Allowances: for frames that make work without moving bytes, and for bytes sent twice.

use std::time::Instant;

use crate::proto::limits::{BUSY_FRAMES_BURST, BUSY_FRAMES_PER_SECOND};

/// A token bucket for busy frames of the peer.
#[derive(Debug)]
pub(super) struct BusyBudget {
    left: u64,
    filled_at: Instant,
}

impl BusyBudget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BUSY_FRAMES_BURST, filled_at: now }
    }

    /// Counts one frame; `false` once the budget is overdrawn.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
            let earned = (seconds * BUSY_FRAMES_PER_SECOND as f64) as u64;
            self.left = earned.min(BUSY_FRAMES_BURST);
            self.filled_at = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

/// What may be sent twice: a share of what was sent once, and a little to begin with.
#[derive(Debug)]
pub(super) struct DuplicateBudget {
    share: f64,
    left: f64,
}

/// What an unknown lane is given at first fits into it twice: a short transfer's tail.
const INITIAL_BYTES: f64 = 128.0 * 1024.0;
/// What can be saved up during a long one.
const SAVED_BYTES_MAX: f64 = 512.0 * 1024.0;

impl DuplicateBudget {
    pub(super) fn new(share: f64) -> Self {
        Self { share, left: if share > 0.0 { INITIAL_BYTES } else { 0.0 } }
    }

    /// `bytes` were sent for the first time.
    pub(super) fn earn(&mut self, bytes: u64) {
        self.left = (self.left + bytes as f64 * self.share).min(SAVED_BYTES_MAX);
    }

    pub(super) fn left(&self) -> u64 {
        self.left.max(0.0) as u64
    }

    pub(super) fn spend(&mut self, bytes: u64) {
        self.left -= bytes as f64;
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
        assert!((0..BUSY_FRAMES_BURST).all(|_| budget.spend(start)));
        assert!(!budget.spend(start));
        let later = start + Duration::from_secs(1);
        let granted = (0..BUSY_FRAMES_BURST).take_while(|_| budget.spend(later)).count();
        assert_eq!(granted as u64, BUSY_FRAMES_PER_SECOND);
    }
}
