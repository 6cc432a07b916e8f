//! Numbers of bytes, streams and lanes that this end keeps itself, and distances between them.
//!
//! An accounting bug shows as a number below zero: debug builds stop there, others continue from
//! zero. A peer's numbers are checked before they get here. What may be less than nothing, such as
//! room that shrank, saturates where it is used.

/// How many there are of something, each added once and taken away at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(u64);

impl Count {
    pub const ZERO: Self = Self(0);

    pub const fn get(self) -> u64 {
        self.0
    }

    /// Adds this many.
    pub fn add(&mut self, more: u64) {
        self.0 = end_of(self.0, more);
    }

    /// Takes this many away.
    pub fn take(&mut self, less: u64) {
        debug_assert!(less <= self.0, "{less} taken from {}", self.0);
        self.0 = self.0.saturating_sub(less);
    }

    /// What counted as `before` now counts as `now`.
    pub fn replace(&mut self, before: u64, now: u64) {
        self.take(before);
        self.add(now);
    }
}

/// How many bytes lie between two offsets, or how much the larger of two counts is more: debug
/// builds stop where `to` is below `from`, others return zero.
pub fn span(from: u64, to: u64) -> u64 {
    debug_assert!(from <= to, "{to} is below {from}");
    to.saturating_sub(from)
}

/// The offset behind `len` bytes that begin at `start`, which nothing comes near to exceed.
pub fn end_of(start: u64, len: u64) -> u64 {
    debug_assert!(start.checked_add(len).is_some(), "{len} bytes at {start}");
    start.saturating_add(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_can_be_taken_and_replaced() {
        let mut count = Count::ZERO;
        count.add(5);
        count.add(7);
        count.replace(5, 1);
        assert_eq!(count.get(), 8);
        count.take(8);
        assert_eq!(count, Count::ZERO);
    }

    #[test]
    fn a_span_has_its_ends_in_order() {
        assert_eq!((span(3, 3), span(3, 8), end_of(3, 5)), (0, 5, 8));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "3 taken from 2")]
    fn taking_what_was_never_added_stops_a_debug_build() {
        let mut count = Count::default();
        count.add(2);
        count.take(3);
    }
}
