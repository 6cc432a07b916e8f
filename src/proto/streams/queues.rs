//! Which streams wait for a lane, and what each sends next.

use std::ops::Range;

use super::{FramesDue, Streams};
use crate::proto::ids::StreamId;
use crate::proto::stream::Chunk;
use crate::proto::wire::{LaneBuf, StreamKind, stream_header_len};

/// How many streams to search for one with bytes where a lane's share begins.
const STREAMS_LOOKED_AT: usize = 8;

impl Streams {
    /// Whether control frames wait, about one stream or all.
    pub fn control_waits(&self) -> bool {
        self.due != FramesDue::default() || !self.control_queue.is_empty()
    }

    /// The next stream about which control frames wait.
    pub fn next_control(&mut self) -> Option<StreamId> {
        self.control_queue.pop_front()
    }

    /// Whether any stream with bytes to send waits; for an exact answer, `prune` first.
    pub fn data_waits(&self) -> bool {
        !self.data_queue.is_empty()
    }

    /// Whether any waits that sent little lately.
    pub fn urgent_waits(&self) -> bool {
        self.data_queue.urgent_len() > 0
    }

    /// Whether any waits that sent much.
    pub fn bulk_waits(&self) -> bool {
        self.data_queue.urgent_len() < self.data_queue.len()
    }

    /// The places of those that sent little lately.
    pub fn urgent_turns(&self) -> Range<usize> {
        0..self.data_queue.urgent_len()
    }

    /// The places of those that sent much.
    pub fn bulk_turns(&self) -> Range<usize> {
        self.data_queue.urgent_len()..self.data_queue.len()
    }

    /// The stream in the `nth` place.
    pub fn in_turn(&self, nth: usize) -> Option<StreamId> {
        self.data_queue.peek(nth)
    }

    /// Whether the stream in the `nth` place sent little lately.
    pub fn is_urgent(&self, nth: usize) -> bool {
        self.data_queue.is_urgent(nth)
    }

    /// Bytes waiting in streams that sent little lately, estimated from the first of them.
    pub fn urgent_bytes(&self) -> u64 {
        let count = self.data_queue.urgent_len();
        if count == self.data_queue.len() {
            return self.sums.pending.get();
        }
        let looked_at = count.min(STREAMS_LOOKED_AT);
        let ids = (0..looked_at).filter_map(|nth| self.data_queue.peek(nth));
        let streams = ids.filter_map(|id| self.table.get(&id));
        let bytes: u64 = streams.map(|stream| stream.send.pending_bytes()).sum();
        let whole = bytes.saturating_mul(count as u64).checked_div(looked_at as u64);
        whole.unwrap_or(0)
    }

    /// The stream (as its place in the queue, one of `turns`) and the chunk about `skip` bytes
    /// behind the first that waits.
    pub fn chunk_behind(
        &self,
        skip: u64,
        turns: Range<usize>,
        room: usize,
    ) -> Option<(usize, Chunk)> {
        let share = skip.checked_div(turns.len() as u64).unwrap_or(skip);
        let mut nearest = None;
        for nth in turns.take(STREAMS_LOOKED_AT) {
            let Some(id) = self.data_queue.peek(nth) else { break };
            let Some(stream) = self.table.get(&id) else { continue };
            // A stream with little left has no bytes that far back: its last frame is nearest.
            let last_frame = stream.send.pending_bytes().saturating_sub(room as u64);
            let fit = |offset| fit_payload(id, offset, room);
            let Some(chunk) = stream.send.next_chunk(share.min(last_frame), fit) else { continue };
            if share <= last_frame.saturating_add(room as u64) {
                return Some((nth, chunk));
            }
            nearest = nearest.or(Some((nth, chunk)));
        }
        nearest
    }

    /// Drops streams from the head of the queue that have nothing left to send: acknowledged after
    /// all, reset, or gone.
    pub fn prune(&mut self) {
        while let Some(id) = self.data_queue.peek(0) {
            match self.table.get_mut(&id) {
                Some(stream) if stream.send.has_pending() => return,
                Some(stream) => stream.in_data_queue = false,
                None => {}
            }
            self.data_queue.remove(0);
        }
    }

    /// The stream in the `nth` place has sent something: `charge` bytes count against its turn.
    pub fn end_turn(&mut self, nth: usize, charge: u64) {
        let Some(id) = self.data_queue.peek(nth) else { return };
        match self.table.get_mut(&id) {
            Some(stream) if !stream.send.has_pending() => {
                stream.in_data_queue = false;
                self.data_queue.remove(nth);
            }
            _ => self.data_queue.charge(nth, charge),
        }
    }

    /// Writes one STREAM frame.
    pub fn send(&mut self, id: StreamId, chunk: &Chunk, out: &mut LaneBuf) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        stream.begins(&mut self.events, id);
        out.push_stream(id, chunk.range.start, chunk.payload() as usize, chunk.fin);
        let waited = stream.send.pending_bytes();
        stream.send.send(chunk, |piece| out.push_payload(piece));
        let waits = stream.send.pending_bytes();
        self.sums.pending.replace(waited, waits);
    }

    /// What the stream is opened for, unless the peer has it; and whether it is redundant. It is
    /// about to be sent.
    pub fn send_open(&mut self, id: StreamId) -> Option<(StreamKind, bool)> {
        let stream = self.table.get_mut(&id)?;
        let kind = stream.opening.clone()?;
        stream.begins(&mut self.events, id);
        Some((kind, stream.redundant))
    }
}

/// Payload that fits a frame of `room` bytes, at least one.
pub fn fit_payload(id: StreamId, offset: u64, room: usize) -> u64 {
    let header = stream_header_len(id, offset, room);
    room.saturating_sub(header).max(1) as u64
}
