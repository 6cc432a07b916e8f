//! What the driver allows the session to keep for its peer; `streams::memory` decides.

use super::Session;
use crate::proto::limits::SEGMENT_OVERHEAD_BYTES;
use crate::proto::streams::{Allowance, MemoryUse};

impl Session {
    /// What the session may keep from now on. Ask `memory_due` whether that should be looked at
    /// again.
    pub fn set_allowance(&mut self, allowed: Allowance) {
        self.streams.set_allowance(allowed);
        if !self.is_closed() {
            self.streams.offer_credit();
        }
        self.wake_writers_after_acks();
    }

    /// Whether the session uses, or could use, another allowance than it has: to be asked after
    /// everything that happens.
    pub fn memory_due(&self) -> bool {
        self.streams.memory_due()
    }

    /// No stream has been open for a while: what a session begins with is of use to others, until
    /// one is opened. The first that is finds it again, if there is as much then.
    pub fn lend_first_windows(&mut self) {
        self.streams.lend_first_windows();
    }

    /// Whether it was allowed less than it has use for: others may have let go of some since.
    pub fn memory_refused(&self) -> bool {
        self.streams.memory_refused()
    }

    /// What the session uses, to be told to whoever decides what it may; `set_allowance` follows.
    pub fn use_memory(&mut self) -> MemoryUse {
        self.streams.use_memory(self.ledger_bytes())
    }

    /// How many bytes were kept once and are not any more: read, dropped or acknowledged.
    pub fn moved_bytes(&self) -> u64 {
        self.streams.moved_bytes()
    }

    /// Bytes of streams that are kept now, gaps in them included.
    pub fn kept_bytes(&self) -> u64 {
        self.streams.kept_bytes()
    }

    /// Bytes of streams that the peer may make this end keep: unread ones, and those its credit is
    /// left for, what streams that are not open yet may use included.
    pub fn promised(&self) -> u64 {
        self.streams.promised()
    }

    /// What it costs to remember where bytes went that are not acknowledged.
    pub(super) fn ledger_bytes(&self) -> u64 {
        (self.lanes.frames() as u64).saturating_mul(SEGMENT_OVERHEAD_BYTES)
    }
}
