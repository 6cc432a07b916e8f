//! Why the session wants to be called.

/// The reason for a timeout, for traces and for tests that no timer spins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// An acknowledgement has waited long enough.
    Ack,
    /// A lane that owes has been silent too long.
    Suspect,
    /// Something on a lane is later than it should be.
    Late,
    /// A suspect lane has been silent for good.
    LaneLost,
    /// Nothing was heard on a lane for a while.
    Keepalive,
    /// A link's cap lets it resume.
    Paced,
    /// No lane came back.
    Grace,
    /// A datagram is too old, or a flow idle.
    Flow,
}
