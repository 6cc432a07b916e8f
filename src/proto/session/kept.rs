//! Memory for what the peer has not acknowledged, which its credit alone does not bound: it may grant
//! any amount, take everything, and never say that it has.

use super::Session;
use crate::proto::ids::StreamId;
use crate::proto::limits::{SEGMENT_OVERHEAD_BYTES, UNACKED_WINDOWS};

/// With windows smaller than this one's own bookkeeping would be all there is room for.
const ROOM_MIN: u64 = 256 * 1024;

impl Session {
    /// How many bytes more may be written to a stream, so that no more is kept for the peer than it may cost.
    pub(super) fn room_to_keep(&self, id: StreamId) -> u64 {
        let held = self.streams.get(&id).map_or(0, |stream| stream.send.held_bytes());
        let of_stream = self.kept_max_stream().saturating_sub(held);
        of_stream.min(self.kept_allowed().saturating_sub(self.kept()))
    }

    /// The stream's writer has to wait for acknowledgements.
    pub(super) fn keep_back(&mut self, id: StreamId) {
        self.kept_back.insert(id);
    }

    /// Lets writers go on that had to wait, once half of the room is free: one by one they would be woken for each frame
    /// that is acknowledged.
    pub(super) fn release_kept_back(&mut self) {
        if self.kept_back.is_empty() || self.kept() > self.kept_allowed() / 2 {
            return;
        }
        let enough = self.kept_max_stream() / 2;
        let (streams, events) = (&mut self.streams, &mut self.events);
        self.kept_back.retain(|&id| {
            let Some(stream) = streams.get_mut(&id) else { return false };
            let waits_on = stream.send.held_bytes() > enough;
            if !waits_on {
                stream.writer_waits_no_more(events, id);
            }
            waits_on
        });
    }

    /// Bytes written and not acknowledged, and what it costs to remember where they went.
    pub(super) fn kept(&self) -> u64 {
        let living = self.lanes.values().map(|lane| lane.ledger.frames());
        let dead = self.dead.iter().map(|dead| dead.ledger.frames());
        let frames = living.chain(dead).fold(0, usize::saturating_add) as u64;
        self.held.saturating_add(frames.saturating_mul(SEGMENT_OVERHEAD_BYTES))
    }

    fn kept_allowed(&self) -> u64 {
        self.kept_max().min(self.unacked_allowed())
    }

    /// Whatever the driver allows.
    pub(super) fn kept_max(&self) -> u64 {
        self.config.session_window.max(ROOM_MIN).saturating_mul(UNACKED_WINDOWS)
    }

    /// Who takes little may send much: what a writer may be ahead of the lanes counts as a window, too.
    fn kept_max_stream(&self) -> u64 {
        let window = self.config.stream_window_max.max(self.config.send_buffer_max);
        window.max(ROOM_MIN).saturating_mul(UNACKED_WINDOWS)
    }
}
