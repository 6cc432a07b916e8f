//! Memory for what the peer has not acknowledged. Its credit alone does not bound that: it may
//! grant any amount, receive everything, and never acknowledge it.

use super::Streams;
use crate::proto::ids::StreamId;
use crate::proto::limits::UNACKED_WINDOWS;

/// With a smaller window, its own bookkeeping would use up all the room.
const ROOM_MIN: u64 = 256 * 1024;

impl Streams {
    /// How many more bytes may be written to a stream without exceeding what may be kept for the
    /// peer.
    pub(super) fn unacked_left(&self, id: StreamId, ledger_bytes: u64) -> u64 {
        let held = self.table.get(&id).map_or(0, |stream| stream.send.held_bytes());
        let of_stream = self.unacked_max_stream().saturating_sub(held);
        of_stream.min(self.unacked_limit().saturating_sub(self.unacked(ledger_bytes)))
    }

    /// Whether any writer waits for acknowledgements.
    pub fn writers_wait_for_acks(&self) -> bool {
        !self.waiters.acks.is_empty()
    }

    /// Wakes blocked writers once half of the room is free: one at a time, they would be woken for
    /// every acknowledged frame.
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

    /// Bytes written and not acknowledged, plus the cost of remembering where they went.
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

    /// A small window may go with much sending: a writer's lead over the lanes counts as a window,
    /// too.
    fn unacked_max_stream(&self) -> u64 {
        let window = self.config.stream_window_max.max(self.config.send_buffer_max);
        window.max(ROOM_MIN).saturating_mul(UNACKED_WINDOWS)
    }
}
