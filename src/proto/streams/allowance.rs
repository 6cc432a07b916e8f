//! What the driver allows a session to keep, what the session asks for, and when it asks.

use std::ops::RangeInclusive;

use crate::proto::limits::FIRST_UNACKED_BYTES;

/// Changes in bookkeeping are told in steps of a quarter of what is allowed, within these.
const BOOKKEEPING_STEP_BYTES: RangeInclusive<u64> = 2 * 1024..=64 * 1024;

/// How much a session may keep for its peer, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowance {
    /// What arrives: unread, out of order, or yet to come on credit that was announced.
    pub receive: u64,
    /// What was sent and is not acknowledged.
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

/// What a session keeps, or may have to, and what it would use if it was allowed to; in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MemoryUse {
    /// Received and unread, or yet to come on credit that was announced.
    pub promised: u64,
    /// Sent and not acknowledged, with what it takes to remember where it went.
    pub unacknowledged: u64,
    /// What pieces out of order and open streams cost besides.
    pub bookkeeping: u64,
    /// What there is use for.
    pub wants: Allowance,
}

/// What is allowed, and how things stood when the driver was told last.
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

    /// More unacknowledged bytes than this, and it is time to ask for more; not before something
    /// has moved, if that was refused.
    pub(super) fn ask_above(&self) -> u64 {
        if self.allowed.send < self.wanted.send {
            u64::MAX
        } else {
            self.allowed.send.saturating_sub(self.allowed.send / 4)
        }
    }

    pub(super) fn bookkeeping_step(&self) -> u64 {
        let (least, most) = BOOKKEEPING_STEP_BYTES.into_inner();
        (self.allowed.sum() / 4).clamp(least, most)
    }

    /// With so few, less will do.
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
