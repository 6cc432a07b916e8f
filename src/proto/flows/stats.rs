//! What became of datagrams.

/// What became of a flow's datagrams at this end, or of all flows' of a session. What is dropped is
/// counted once, where it was dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowStats {
    /// Given to a lane.
    pub sent: u64,
    /// Their payload, and that of parts whose rest was dropped.
    pub sent_bytes: u64,
    /// Read by the flow's user.
    pub received: u64,
    /// Their payload.
    pub received_bytes: u64,
    /// Dropped before it was sent: older than the deadline.
    pub expired: u64,
    /// Dropped, at either side of the flow, for lack of room.
    pub crowded: u64,
    /// Came again, or after a later one was delivered: dropped. Parts are counted one by one.
    pub behind: u64,
    /// Dropped because a part was missing.
    pub incomplete: u64,
    /// Sent by the peer, and had not come when a later one was delivered.
    pub missing: u64,
    /// Dropped because nobody read it within the deadline.
    pub unread: u64,
}

impl FlowStats {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            sent_bytes: self.sent_bytes.saturating_add(other.sent_bytes),
            received: self.received.saturating_add(other.received),
            received_bytes: self.received_bytes.saturating_add(other.received_bytes),
            expired: self.expired.saturating_add(other.expired),
            crowded: self.crowded.saturating_add(other.crowded),
            behind: self.behind.saturating_add(other.behind),
            incomplete: self.incomplete.saturating_add(other.incomplete),
            missing: self.missing.saturating_add(other.missing),
            unread: self.unread.saturating_add(other.unread),
        }
    }

    /// Dropped at this end, for whatever reason.
    pub fn dropped(&self) -> u64 {
        let drops = [self.expired, self.crowded, self.behind, self.incomplete, self.unread];
        drops.into_iter().fold(0, u64::saturating_add)
    }
}
