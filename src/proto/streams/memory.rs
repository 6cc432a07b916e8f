//! Memory kept for the peer, and how much the driver allows: it has one budget for all sessions.
//!
//! What was announced to a peer cannot be taken back, so a session announces no more than it is
//! allowed, and asks in time. A smaller allowance takes effect as the peer uses up what it was told
//! before.

use super::Streams;
use super::allowance::{Allowance, MemoryUse};
use crate::proto::count::{end_of, span};
use crate::proto::limits::{FIRST_UNACKED_BYTES, STREAM_OVERHEAD_BYTES};

impl Streams {
    /// What may be kept from now on.
    pub fn set_allowance(&mut self, allowed: Allowance) {
        self.memory.allowed = allowed;
    }

    /// The receive allowance has changed: the peer is told what it may send now.
    pub fn offer_credit(&mut self) {
        self.offer_streams();
        self.due.max_data |= self.window.update_due(self.data_window());
    }

    /// Whether a different allowance would be used.
    pub fn memory_due(&self) -> bool {
        let memory = &self.memory;
        if memory.allowed == Allowance::UNBOUNDED {
            return false;
        }
        let moved = span(memory.told_moved, self.moved_bytes());
        let refused = self.memory_refused();
        let receive = self.receive_wanted();
        moved >= memory.allowed.sum() / 4
            || (!refused && receive > memory.wanted.receive)
            || receive < memory.wanted.receive / 2
            || self.held() >= memory.ask_above()
            || self.held() < memory.ask_below()
            || self.bookkeeping().abs_diff(memory.told_bookkeeping) >= memory.bookkeeping_step()
    }

    /// No stream has been open for a while: others may use the initial allowance until one is
    /// opened.
    pub fn lend_first_windows(&mut self) {
        self.memory.lent = self.table.is_empty();
    }

    /// Whether less was allowed than could be used.
    pub fn memory_refused(&self) -> bool {
        let (allowed, wanted) = (self.memory.allowed, self.memory.wanted);
        allowed.receive < wanted.receive || allowed.send < wanted.send
    }

    /// What is used, for whoever decides the allowance.
    pub fn use_memory(&mut self, ledger_bytes: u64) -> MemoryUse {
        let wants =
            Allowance { receive: self.receive_wanted(), send: self.unacked_wanted(ledger_bytes) };
        self.memory.wanted = wants;
        self.memory.told_moved = self.moved_bytes();
        self.memory.told_bookkeeping = self.bookkeeping();
        MemoryUse {
            promised: self.promised(),
            unacknowledged: self.unacked(ledger_bytes),
            bookkeeping: self.memory.told_bookkeeping,
            wants,
        }
    }

    /// How many bytes are no longer kept: read, dropped or acknowledged.
    pub fn moved_bytes(&self) -> u64 {
        let acknowledged = span(self.held(), self.credit.used());
        end_of(self.window.consumed(), acknowledged)
    }

    /// Bytes kept now, including gaps.
    pub fn buffered_bytes(&self) -> u64 {
        end_of(self.window.unconsumed(), self.held())
    }

    /// The session's window, as it limits promises to streams.
    pub(super) fn allowed_window(&self) -> u64 {
        self.window.wish().min(self.memory.allowed.receive)
    }

    /// The session's window, as it limits announcements: streams promised more under a larger
    /// allowance do not stop the others, which have a quarter on top.
    pub(super) fn data_window(&self) -> u64 {
        let promised = self.promised();
        self.allowed_window().max(promised.saturating_add(promised / 3).min(self.window.wish()))
    }

    /// How much may be kept unacknowledged.
    pub(super) fn unacked_allowed(&self) -> u64 {
        self.memory.allowed.send
    }

    /// Sixteen times what open streams are promised now, so that they always have room to grow, and
    /// twice what streams are promised that the peer has yet to open: that is not taken back, and
    /// must not be in the way of open ones. No more than is wished for: what the session has but
    /// its streams do not use is of use to others.
    fn receive_wanted(&self) -> u64 {
        if self.memory.lent {
            return 0;
        }
        let first = self.config.first_session_window();
        let open = self.promised_to_open().saturating_mul(16).max(first);
        let early = self.promised_early().saturating_mul(2);
        open.saturating_add(early).min(self.window.wish().max(first))
    }

    /// Twice what is unacknowledged now: a sender that it does not hold back doubles that as often
    /// as needed.
    fn unacked_wanted(&self, ledger_bytes: u64) -> u64 {
        let first = if self.memory.lent { 0 } else { FIRST_UNACKED_BYTES };
        self.unacked(ledger_bytes).saturating_mul(2).max(first).min(self.unacked_max())
    }

    fn bookkeeping(&self) -> u64 {
        let streams = (self.table.len() as u64).saturating_mul(STREAM_OVERHEAD_BYTES);
        let reorder = self.sums.reorder;
        end_of(span(reorder.bytes(), reorder.cost()), streams)
    }
}
