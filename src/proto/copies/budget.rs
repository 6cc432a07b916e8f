//! How much may be sent twice.

/// What may be sent twice: a share of what was sent once, plus a small initial amount.
#[derive(Debug)]
pub struct DuplicateBudget {
    share: f64,
    left: f64,
    /// The part of `left` kept for what is very late. Without it, slight delays, such as TCP
    /// repairing losses, would use up everything before a path becomes slow.
    reserve: f64,
}

/// Enough to duplicate everything an unknown lane is given at first: a short transfer's tail.
const INITIAL_BYTES: f64 = 128.0 * 1024.0;
/// The most that can be saved up during a long transfer.
const SAVED_BYTES_MAX: f64 = 1024.0 * 1024.0;
/// Half of the earnings are reserved until there is this much: what is in flight on a path of 100
/// Mbit/s and 40 ms when it becomes slow.
const RESERVE_BYTES_MAX: f64 = 512.0 * 1024.0;

/// A frame costs at least this, however little it carries: its header, and those of the TLS record
/// and the packet around it.
const FRAME_COST_MIN: u64 = 64;

/// The cost of duplicating a frame with this much payload.
pub fn cost_twice(payload: u64) -> u64 {
    payload.max(FRAME_COST_MIN)
}

impl DuplicateBudget {
    pub fn new(share: f64) -> Self {
        Self { share, left: if share > 0.0 { INITIAL_BYTES } else { 0.0 }, reserve: 0.0 }
    }

    /// `bytes` were sent for the first time.
    pub fn earn(&mut self, bytes: u64) {
        let earned = bytes as f64 * self.share;
        self.left = (self.left + earned).min(SAVED_BYTES_MAX);
        self.reserve = (self.reserve + earned / 2.0).min(RESERVE_BYTES_MAX);
    }

    pub fn left(&self) -> u64 {
        self.left.max(0.0) as u64
    }

    /// The part that is not kept for what is very late.
    pub fn unreserved(&self) -> u64 {
        (self.left - self.reserve).max(0.0) as u64
    }

    pub fn spend(&mut self, bytes: u64) {
        self.left -= bytes as f64;
        self.reserve = self.reserve.min(self.left.max(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
