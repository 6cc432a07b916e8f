//! What a stream's opener may want besides a destination.

/// A set of it, one bit each on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Wants(u64);

impl Wants {
    /// To be told when the destination has taken the connection: the first byte that comes back
    /// says so, and is no part of what is carried.
    pub const ANSWER: Self = Self(1);
    /// That the destination is told who connects, as the accepting end sees it: by the PROXY
    /// protocol.
    pub const SOURCE: Self = Self(2);
    /// That the destination may be told who connects as the opener sees it, and says: for whoever
    /// trusts it with that.
    pub const CLAIM: Self = Self(4);
    /// All that this version knows.
    pub const ALL: Self = Self(7);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its bits on the wire.
    pub const fn to_wire(self) -> u64 {
        self.0
    }

    /// `None` if there is a bit that this version does not know.
    pub const fn from_wire(bits: u64) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 { Some(Self(bits)) } else { None }
    }

    /// What this version knows of these bits.
    pub const fn known_of(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }
}
