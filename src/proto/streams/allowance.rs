//! How much the driver allows a session to keep, how much the session asks for, and when.

use std::ops::RangeInclusive;

use crate::proto::count::span;
use crate::proto::limits::FIRST_UNACKED_BYTES;

/// Bookkeeping changes are reported in steps of a quarter of what is allowed, in this range.
const BOOKKEEPING_STEP_BYTES: RangeInclusive<u64> = 2 * 1024..=64 * 1024;

/// How much a session may keep for its peer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowance {
    /// What arrives: unread, out of order, or still to come on announced credit.
    pub receive: u64,
    /// What was sent and is unacknowledged.
    pub send: u64,
}

impl Allowance {
    /// No bound but the session's own.
    pub const UNBOUNDED: Self = Self { receive: u64::MAX, send: u64::MAX };

    /// Both directions together.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.receive.saturating_add(self.send)
    }

    /// The larger of the two, for each direction.
    #[must_use]
    pub fn at_least(self, least: Self) -> Self {
        Self { receive: self.receive.max(least.receive), send: self.send.max(least.send) }
    }

    /// The smaller of the two, for each direction.
    #[must_use]
    pub fn at_most(self, most: Self) -> Self {
        Self { receive: self.receive.min(most.receive), send: self.send.min(most.send) }
    }
}

/// What a session keeps, or may have to, and what it would use if allowed; in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Received and unread, or still to come on announced credit.
    pub promised: u64,
    /// Sent and unacknowledged, plus the cost of remembering where it went.
    pub unacknowledged: u64,
    /// What out-of-order pieces and open streams cost on top, and what flows keep.
    pub bookkeeping: u64,
    /// What the session could use.
    pub wants: Allowance,
}

/// What is allowed, and the state last reported to the driver.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) allowed: Allowance,
    /// What was asked for.
    pub(super) wanted: Allowance,
    pub(super) told_moved: u64,
    pub(super) told_bookkeeping: u64,
    /// No stream is open, and none is expected soon.
    pub(super) lent: bool,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            allowed: Allowance::UNBOUNDED,
            wanted: Allowance::default(),
            told_moved: 0,
            told_bookkeeping: 0,
            lent: false,
        }
    }

    /// With more unacknowledged bytes than this it is time to ask for more; if that was refused,
    /// not before something has moved.
    pub(super) fn ask_above(&self) -> u64 {
        if self.allowed.send < self.wanted.send {
            u64::MAX
        } else {
            span(self.allowed.send / 4, self.allowed.send)
        }
    }

    pub(super) fn bookkeeping_step(&self) -> u64 {
        let (least, most) = BOOKKEEPING_STEP_BYTES.into_inner();
        (self.allowed.sum() / 4).clamp(least, most)
    }

    /// With fewer unacknowledged bytes than this, a smaller allowance will do.
    pub(super) fn ask_below(&self) -> u64 {
        if self.allowed.send > FIRST_UNACKED_BYTES { self.allowed.send / 8 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowances_are_added_and_have_a_floor() {
        let some = Allowance { receive: 5, send: 10 };
        assert_eq!(some.sum(), 15);
        assert_eq!(
            some.at_least(Allowance { receive: 7, send: 7 }),
            Allowance { receive: 7, send: 10 }
        );
        assert_eq!(
            some.at_most(Allowance { receive: 7, send: 7 }),
            Allowance { receive: 5, send: 7 }
        );
        assert_eq!(Allowance::UNBOUNDED.sum(), u64::MAX);
    }
}
