//! Memory for what the peer has not acknowledged. Its credit alone does not bound that: it may
//! grant any amount, take everything, and never say that it has.

use super::Streams;
use crate::proto::ids::StreamId;
use crate::proto::limits::UNACKED_WINDOWS;

/// With windows smaller than this one's own bookkeeping would be all there is room for.
const ROOM_MIN: u64 = 256 * 1024;

impl Streams {
    /// How many bytes more may be written to a stream, so that no more is kept for the peer than it
    /// may cost.
    pub(super) fn unacked_left(&self, id: StreamId, ledger_bytes: u64) -> u64 {
        let held = self.table.get(&id).map_or(0, |stream| stream.send.held_bytes());
        let of_stream = self.unacked_max_stream().saturating_sub(held);
        of_stream.min(self.unacked_limit().saturating_sub(self.unacked(ledger_bytes)))
    }

    /// Whether any writer waits for acknowledgements.
    pub fn writers_wait_for_acks(&self) -> bool {
        !self.waiters.acks.is_empty()
    }

    /// Lets writers go on that had to wait, once half of the room is free: one by one they would be
    /// woken for each frame that is acknowledged.
    pub fn wake_writers_after_acks(&mut self, ledger_bytes: u64) {
        if self.waiters.acks.is_empty() || self.unacked(ledger_bytes) > self.unacked_limit() / 2 {
            return;
        }
        let enough = self.unacked_max_stream() / 2;
        let (streams, events) = (&mut self.table, &mut self.events);
        self.waiters.acks.retain(|&id| {
            let Some(stream) = streams.get_mut(&id) else { return false };
            let waits_on = stream.send.held_bytes() > enough;
            if !waits_on {
                stream.writer_waits_no_more(events, id);
            }
            waits_on
        });
    }

    /// Bytes written and not acknowledged, and what it costs to remember where they went.
    pub(super) fn unacked(&self, ledger_bytes: u64) -> u64 {
        self.held().saturating_add(ledger_bytes)
    }

    fn unacked_limit(&self) -> u64 {
        self.unacked_max().min(self.unacked_allowed())
    }

    /// Whatever the driver allows.
    pub(super) fn unacked_max(&self) -> u64 {
        self.config.session_window.max(ROOM_MIN).saturating_mul(UNACKED_WINDOWS)
    }

    /// Who takes little may send much: what a writer may be ahead of the lanes counts as a window,
    /// too.
    fn unacked_max_stream(&self) -> u64 {
        let window = self.config.stream_window_max.max(self.config.send_buffer_max);
        window.max(ROOM_MIN).saturating_mul(UNACKED_WINDOWS)
    }
}
