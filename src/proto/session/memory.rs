//! What the driver allows the session to keep for its peer; `streams::memory` decides.

use super::Session;
use crate::proto::streams::{Allowance, MemoryUse};

/// The part of what a session is allowed that its flows may keep, each way.
const FLOWS_PART: u64 = 3;

impl Session {
    /// What the session may keep from now on. `memory_due` says when to reconsider it.
    pub fn set_allowance(&mut self, allowed: Allowance) {
        self.streams.set_allowance(allowed);
        self.flows.set_bytes_max(allowed.sum() / FLOWS_PART);
        if !self.is_closed() {
            self.streams.offer_credit();
        }
        self.wake_writers_after_acks();
    }

    /// Whether the session uses, or could use, a different allowance: ask after every call.
    pub fn memory_due(&self) -> bool {
        self.streams.memory_due() || self.flows.memory_due()
    }

    /// No stream has been open for a while: others may use the initial allowance until one is
    /// opened. The next stream gets it back, if that much is free then.
    pub fn lend_first_windows(&mut self) {
        self.streams.lend_first_windows();
    }

    /// Whether it was allowed less than it can use: others may have released some since.
    pub fn memory_refused(&self) -> bool {
        self.streams.memory_refused()
    }

    /// What the session uses, for whoever decides its allowance; `set_allowance` follows.
    pub fn use_memory(&mut self) -> MemoryUse {
        let used = self.streams.use_memory(self.lanes.ledger_bytes());
        let datagrams = self.flows.tell_bytes();
        MemoryUse { bookkeeping: used.bookkeeping.saturating_add(datagrams), ..used }
    }

    /// How many bytes are no longer kept: read, dropped or acknowledged.
    pub fn moved_bytes(&self) -> u64 {
        self.streams.moved_bytes()
    }

    /// Stream bytes kept now, including gaps.
    pub fn buffered_bytes(&self) -> u64 {
        self.streams.buffered_bytes()
    }

    /// Stream bytes that the peer may make this end keep: unread ones, and remaining credit,
    /// including that of streams not open yet.
    pub fn promised(&self) -> u64 {
        self.streams.promised()
    }
}
