//! Streams as the application sees them: opened, accepted, lent.

use std::time::Instant;

use bytes::Bytes;

use super::Session;
use crate::proto::error::{Code, ReadError, Undelivered, WriteError};
use crate::proto::ids::StreamId;
use crate::proto::stream::Stream;
use crate::proto::wire::{StreamKind, Wants};

impl Session {
    /// Opens a stream. Refuses if too many are open or they hold too much (`Event::OpenAvailable`
    /// follows), or if one end is shutting down.
    /// Flows are opened by `open_flow`.
    pub fn open(&mut self, kind: StreamKind) -> Option<StreamId> {
        let flow = matches!(kind, StreamKind::Flow { .. });
        if self.is_closed() || flow { None } else { self.streams.open(kind) }
    }

    /// The wants that the peer grants for a stream opened to it.
    pub fn granted_wants(&self) -> Wants {
        self.streams.granted_wants()
    }

    /// How many streams of the kind [`StreamKind::Listening`] the peer allows to be opened to it.
    pub fn granted_listeners(&self) -> u64 {
        self.streams.granted_listeners()
    }

    /// The next stream the peer opened, oldest first, and what it is for.
    pub fn accept(&mut self) -> Option<(StreamId, StreamKind)> {
        self.streams.accept()
    }

    /// The sending side of a stream.
    pub fn send_stream(&mut self, id: StreamId) -> SendStream<'_> {
        SendStream { session: self, id }
    }

    /// The receiving side of a stream.
    pub fn recv_stream(&mut self, id: StreamId) -> RecvStream<'_> {
        RecvStream { session: self, id }
    }
}

/// The sending side of one stream, lent.
#[derive(Debug)]
pub struct SendStream<'a> {
    session: &'a mut Session,
    id: StreamId,
}

impl SendStream<'_> {
    /// Takes as much from the front of `data` as credit and room allow; returns how much. At least
    /// one byte, or `WriteError::Blocked`, and `Event::Writable` follows.
    pub fn write(&mut self, data: &mut Bytes) -> Result<usize, WriteError> {
        let room = self.capacity()?;
        let taken = data.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        self.session.streams.write(self.id, data.split_to(taken));
        Ok(taken)
    }

    /// How much `write` would take now, above zero; or why it would not.
    pub fn capacity(&mut self) -> Result<u64, WriteError> {
        if self.session.is_closed() {
            return Err(WriteError::Closed);
        }
        let (room, ledger_bytes) =
            (self.session.lanes.send_room(), self.session.lanes.ledger_bytes());
        self.session.streams.capacity(self.id, room, ledger_bytes)
    }

    /// Ends the stream after what was written.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        if self.session.is_closed() {
            return Err(WriteError::Closed);
        }
        self.session.flows.remove(self.id);
        self.session.streams.finish(self.id)
    }

    /// Asks for latency at any price: every byte goes on the two best lanes, over two links if
    /// there are two. The peer is asked to do the same if it has not heard of the stream yet.
    pub fn set_redundant(&mut self) {
        if let Some(stream) = self.session.streams.get_mut(self.id) {
            stream.redundant = true;
        }
    }

    /// Whether one end asked for that.
    pub fn is_redundant(&self) -> bool {
        self.session.streams.get(self.id).is_some_and(|stream| stream.redundant)
    }

    /// Abandons the stream after what was written: once the peer's reader has read all of it, it
    /// gets `code` instead of an end. `reset` still cuts that short.
    pub fn finish_with(&mut self, code: Code) {
        self.session.streams.finish_with(self.id, code);
    }

    /// Abandons the stream at once: unsent data is dropped, and the peer's reader is told.
    pub fn reset(&mut self, code: Code) {
        self.session.flows.remove(self.id);
        self.session.streams.reset(self.id, code);
    }

    /// Whether everything written so far has arrived, and the end if the stream is finished. If
    /// not, `Event::Arrived` follows when it has.
    ///
    /// # Errors
    /// The peer wants no more, or the stream is over. A stream that has arrived in full may be
    /// forgotten: its `Event::Arrived` said so.
    pub fn await_arrival(&mut self) -> Result<bool, WriteError> {
        let stream = self.session.streams.get_mut(self.id).ok_or(WriteError::Closed)?;
        stream.await_arrival()
    }

    /// What was written or finished and may not have arrived.
    pub fn undelivered(&self) -> Undelivered {
        let stream = self.session.streams.get(self.id);
        stream.map(Stream::undelivered).unwrap_or_default()
    }

    /// The code with which the peer stopped the stream, if it has.
    pub fn stopped(&self) -> Option<Code> {
        self.session.streams.get(self.id)?.send.stopped()
    }
}

/// The receiving side of one stream, lent.
#[derive(Debug)]
pub struct RecvStream<'a> {
    session: &'a mut Session,
    id: StreamId,
}

impl RecvStream<'_> {
    /// Takes up to `max` bytes, as one piece; `Ok(None)` is the end of the stream, returned only
    /// when the peer itself has ended it. With `ReadError::Blocked`, `Event::Readable` follows.
    pub fn read(&mut self, now: Instant, max: usize) -> Result<Option<Bytes>, ReadError> {
        let round_trip = self.session.lanes.round_trip_max();
        self.session.streams.read(now, self.id, max, round_trip)
    }

    /// Reads no more: unread data is dropped, and the peer's writer is told.
    pub fn stop(&mut self, code: Code) {
        self.session.flows.let_go(self.id);
        self.session.streams.stop(self.id, code);
    }

    /// Whether the session has forgotten the stream, along with everything left to read.
    pub fn is_gone(&self) -> bool {
        self.session.streams.get(self.id).is_none()
    }

    /// The code with which the peer abandoned the stream, if it has and the reader has not been
    /// told: there may be bytes to read before it.
    pub fn reset_code(&self) -> Option<Code> {
        self.session.streams.get(self.id)?.recv.reset_code()
    }
}
