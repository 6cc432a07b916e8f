//! Identifiers: sessions, links, lanes, and quinn's stream ids.

use std::fmt;

pub use quinn_proto::{Dir, Side, StreamId, VarInt};

/// Names a session on the server that created it. 128 random bits: unguessable, and worthless
/// without the session's secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; Self::LEN]);

impl SessionId {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Wraps the bytes of an id, drawn at random by the server or read from the wire.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes as on the wire.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for SessionId {
    /// The first four bytes in hexadecimal: enough to tell sessions apart in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

/// Names a lane within its session. The client numbers lanes from 0 upwards and never reuses a
/// number, so that what was sent on a dead lane is never attributed to a living one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(u64);

impl LaneId {
    /// The lane that created the session.
    pub const FIRST: Self = Self(0);

    /// Lane number `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number as on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The next number.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {}", self.0)
    }
}

impl fmt::Debug for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneId({})", self.0)
    }
}

/// Names a link within its session. Whoever dials lanes numbers the links; lanes with the same
/// number share a link. The number is only the peer's claim: nothing but equality follows from it.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u64);

impl LinkId {
    /// Link number `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number as on the wire.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkId({})", self.0)
    }
}
