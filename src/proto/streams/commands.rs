//! The application's commands: open, accept, write, read, reset, stop.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Streams;
use crate::proto::count::end_of;
use crate::proto::error::{Code, ReadError, WriteError};
use crate::proto::event::Event;
use crate::proto::ids::{Dir, StreamId};
use crate::proto::stream::Stream;
use crate::proto::wire::StreamKind;

impl Streams {
    /// Opens a stream. Refuses if too many are open or they hold too much (`Event::OpenAvailable`
    /// follows), or if one end is shutting down.
    pub fn open(&mut self, kind: StreamKind) -> Option<StreamId> {
        if self.is_draining() {
            return None;
        }
        if self.local.next >= self.local.max || !self.has_room_for_stream() {
            self.local.blocked = true;
            return None;
        }
        let id = StreamId::new(self.side, Dir::Bi, self.local.next);
        self.local.next = end_of(self.local.next, 1);
        let mut stream = self.new_stream(id);
        stream.opened = true;
        stream.opening = Some(kind);
        stream.say.open = true;
        self.table.insert(id, stream);
        self.on_new_stream(id);
        self.settle(id);
        Some(id)
    }

    /// The next stream the peer opened, oldest first, and what it is for.
    pub fn accept(&mut self) -> Option<(StreamId, StreamKind)> {
        self.accepted.pop_front()
    }

    pub(super) fn new_stream(&self, id: StreamId) -> Stream {
        let early = self.is_local(id) && id.index() < self.local.early;
        let early = if early { self.peer.early_max_stream_data } else { 0 };
        let credit = self.peer.initial_max_stream_data.max(early);
        Stream::new(credit, self.new_window(id))
    }

    /// Takes bytes that `capacity` said there is room for.
    pub fn write(&mut self, id: StreamId, data: Bytes) {
        self.credit.take(data.len() as u64);
        self.change(id, |stream| stream.send.write(data));
    }

    /// How much may be written now, above zero; or why nothing may. `room` is how far the writer
    /// may be ahead of what was sent, `ledger_bytes` the cost of remembering where bytes went.
    pub fn capacity(
        &mut self,
        id: StreamId,
        room: u64,
        ledger_bytes: u64,
    ) -> Result<u64, WriteError> {
        let session_credit = self.credit.left();
        let unacked_left = self.unacked_left(id, ledger_bytes);
        let stream = self.table.get_mut(&id).ok_or(WriteError::Closed)?;
        stream.send.writable()?;
        let room = room.saturating_sub(stream.send.pending_bytes());
        let capacity = room.min(session_credit).min(stream.send.credit_left()).min(unacked_left);
        if capacity == 0 {
            stream.send.writer_waits = true;
            if session_credit == 0 {
                self.waiters.credit.insert(id);
            }
            if unacked_left == 0 {
                self.waiters.acks.insert(id);
            }
            return Err(WriteError::Blocked);
        }
        Ok(capacity)
    }

    /// Ends the stream after what was written.
    pub fn finish(&mut self, id: StreamId) -> Result<(), WriteError> {
        let stream = self.table.get_mut(&id).ok_or(WriteError::Closed)?;
        stream.send.let_go();
        let finished = stream.send.finish();
        self.settle(id);
        finished
    }

    /// Abandons the stream after what was written.
    pub fn finish_with(&mut self, id: StreamId, code: Code) {
        self.change(id, |stream| {
            stream.send.let_go();
            stream.say.reset |= stream.send.finish_with(code);
        });
    }

    /// Abandons the stream at once: unsent data is dropped, and the peer's reader is told.
    pub fn reset(&mut self, id: StreamId, code: Code) {
        self.change(id, |stream| {
            stream.send.let_go();
            stream.say.reset |= stream.send.reset(code);
        });
    }

    /// Takes up to `max` bytes, as one piece; `round_trip` is how long credit may be in flight.
    pub fn read(
        &mut self,
        now: Instant,
        id: StreamId,
        max: usize,
        round_trip: Duration,
    ) -> Result<Option<Bytes>, ReadError> {
        let stream = self.table.get_mut(&id).ok_or(ReadError::Closed)?;
        let read = stream.recv.read(max);
        match &read {
            Ok(Some(data)) => {
                self.window.consume(data.len() as u64);
                self.tune_windows(now, id, round_trip);
                self.heed_credit(id);
                self.settle(id);
            }
            Ok(None) | Err(ReadError::Reset(_)) => self.settle(id),
            Err(ReadError::Blocked) => stream.recv.reader_waits = true,
            Err(ReadError::Closed) => {}
        }
        read
    }

    /// Reads no more: unread data is dropped, and the peer's writer is told.
    pub fn stop(&mut self, id: StreamId, code: Code) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let before = stream.recv.reorder_use();
        let dropped = stream.recv.stop();
        if dropped.tell {
            stream.say.stop = Some(code);
            stream.stop_sent = Some(code);
        }
        let now = stream.recv.reorder_use();
        self.window.consume(dropped.bytes);
        self.heed_credit(id);
        if !self.over {
            self.sums.reorder.replace(before, now);
        }
        self.settle(id);
    }

    /// Whether the stream's writer waits for its queued bytes to be sent.
    pub fn writer_waits(&self, id: StreamId) -> bool {
        self.table.get(&id).is_some_and(|stream| stream.send.writer_waits)
    }

    /// Wakes a writer that waits for room once no more than `low_water` is queued.
    pub fn wake_writer(&mut self, id: StreamId, low_water: u64) {
        let credit = self.credit.left() > 0;
        let Some(stream) = self.table.get_mut(&id) else { return };
        if stream.send.pending_bytes() <= low_water && stream.send.credit_left() > 0 && credit {
            stream.writer_waits_no_more(&mut self.events, id);
        }
    }
}

impl Stream {
    /// Something of the stream is sent. Its opener is told the first time.
    pub(super) fn begins(&mut self, events: &mut VecDeque<Event>, id: StreamId) {
        if !std::mem::replace(&mut self.begun, true) && self.opening.is_some() {
            events.push_back(Event::Begun(id));
        }
    }

    /// Tells the writer, if one waits, that something has changed.
    pub(super) fn writer_waits_no_more(&mut self, events: &mut VecDeque<Event>, id: StreamId) {
        if std::mem::take(&mut self.send.writer_waits) {
            events.push_back(Event::Writable(id));
        }
    }
}
