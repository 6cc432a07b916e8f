//! What a stream's opener may want besides a destination.

/// A set of wants, one bit each on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Wants(u64);

impl Wants {
    /// To be told when the destination has accepted the connection: the first byte that comes back
    /// says so, and is not part of the payload.
    pub const ANSWER: Self = Self(1);
    /// That the destination is told, by the PROXY protocol, who connects as the accepting end sees
    /// it.
    pub const SOURCE: Self = Self(2);
    /// That the destination may be told who connects according to the opener: for destinations that
    /// trust it with that.
    pub const CLAIM: Self = Self(4);
    /// All that this version knows.
    pub const ALL: Self = Self(7);

    /// The wants that are in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The wants that are in both.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The wants that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its bits on the wire.
    pub const fn to_wire(self) -> u64 {
        self.0
    }

    /// `None` if a bit is set that this version does not know.
    pub const fn from_wire(bits: u64) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 { Some(Self(bits)) } else { None }
    }

    /// The wants in these bits that this version knows.
    pub const fn known_of(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }
}
