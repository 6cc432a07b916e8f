//! Counts of bytes that this end keeps itself.

/// A number of bytes, each added once and taken away at most once.
///
/// Taking what was never added is an accounting bug: debug builds stop there, others continue from
/// zero. A peer's numbers are always checked before they are taken from a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

impl ByteCount {
    pub const ZERO: Self = Self(0);

    pub const fn get(self) -> u64 {
        self.0
    }

    /// Adds this many.
    pub fn add(&mut self, bytes: u64) {
        debug_assert!(self.0.checked_add(bytes).is_some(), "{} and {bytes} bytes", self.0);
        self.0 = self.0.saturating_add(bytes);
    }

    /// Takes this many away.
    pub fn take(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.0, "{bytes} bytes taken from {}", self.0);
        self.0 = self.0.saturating_sub(bytes);
    }

    /// What counted as `before` bytes now counts as `now`.
    pub fn replace(&mut self, before: u64, now: u64) {
        self.take(before);
        self.add(now);
    }
}

/// How many bytes lie between two offsets that this end keeps itself or has checked: debug builds
/// stop where `to` is below `from`, others return zero.
pub fn span(from: u64, to: u64) -> u64 {
    debug_assert!(from <= to, "{to} is below {from}");
    to.saturating_sub(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_can_be_taken_and_replaced() {
        let mut count = ByteCount::ZERO;
        count.add(5);
        count.add(7);
        count.replace(5, 1);
        assert_eq!(count.get(), 8);
        count.take(8);
        assert_eq!(count, ByteCount::ZERO);
    }

    #[test]
    fn a_span_has_its_ends_in_order() {
        assert_eq!((span(3, 3), span(3, 8)), (0, 5));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "3 bytes taken from 2")]
    fn taking_what_was_never_added_stops_a_debug_build() {
        let mut count = ByteCount::default();
        count.add(2);
        count.take(3);
    }
}
