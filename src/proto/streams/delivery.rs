//! The fate of what was sent for streams: it has arrived, or it may not have.

use std::ops::Range;

use super::Streams;
use crate::proto::event::Event;
use crate::proto::ids::StreamId;
use crate::proto::stream::{Chunk, Stream};

impl Streams {
    /// Bytes of a stream have arrived, and its end with them if `fin`.
    pub fn on_data_acked(&mut self, id: StreamId, range: Range<u64>, fin: bool) {
        self.on_arrival(id, |stream| {
            stream.say.reset |= stream.send.on_acked(&Chunk { range, fin });
        });
    }

    pub fn on_open_acked(&mut self, id: StreamId) {
        self.on_arrival(id, |stream| {
            stream.opening = None;
            stream.say.open = false;
        });
    }

    /// Something of a stream has arrived: tells the user if that is what it waits for.
    fn on_arrival(&mut self, id: StreamId, note: impl FnOnce(&mut Stream)) {
        let mut arrival = None;
        self.change(id, |stream| {
            note(stream);
            arrival = stream.take_arrival();
        });
        if let Some((bytes, ended)) = arrival {
            self.events.push_back(Event::Arrived { id, bytes, ended });
        }
    }

    pub fn on_reset_acked(&mut self, id: StreamId) {
        self.change(id, |stream| {
            stream.send.on_reset_acked();
            stream.say.reset = false;
        });
    }

    /// Bytes of a stream did not arrive, or may not have: what is still missing is queued again.
    pub fn on_data_lost(&mut self, id: StreamId, range: Range<u64>, fin: bool) {
        self.change(id, |stream| stream.send.on_lost(&Chunk { range, fin }));
    }

    pub fn on_open_lost(&mut self, id: StreamId) {
        self.change(id, |stream| {
            stream.say.open = stream.opening.is_some();
        });
    }

    pub fn on_reset_lost(&mut self, id: StreamId) {
        self.change(id, |stream| {
            stream.say.reset = stream.send.reset_due().is_some();
        });
    }

    pub fn on_stop_lost(&mut self, id: StreamId) {
        self.change(id, |stream| {
            stream.say.stop = stream.stop_sent.filter(|_| !stream.recv.is_done());
        });
    }

    pub fn on_max_stream_data_lost(&mut self, id: StreamId) {
        self.change(id, |stream| {
            stream.say.max_stream_data = stream.recv.wants_credit();
        });
    }
}
