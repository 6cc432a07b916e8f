//! What the peer's frames do to streams: one function per frame type.

use bytes::Bytes;

use super::{Streams, Violation};
use crate::proto::error::Code;
use crate::proto::event::Event;
use crate::proto::ids::{Dir, StreamId};
use crate::proto::limits::{REORDER_OVERHEAD_BYTES, REORDER_OVERHEAD_FACTOR};
use crate::proto::stream::{Misbehaviour, Received};
use crate::proto::wire::StreamKind;

impl Streams {
    pub fn on_data(
        &mut self,
        id: StreamId,
        offset: u64,
        fin: bool,
        data: Bytes,
    ) -> Result<(), Violation> {
        let len = data.len() as u64;
        self.sums.received.add(len);
        let admitted = self.admit(id);
        let Some(stream) = self.table.get_mut(&id).filter(|_| admitted.is_ok()) else {
            self.sums.duplicate.add(len);
            return admitted;
        };
        let before = stream.recv.reorder_use();
        let received = stream.recv.on_data(offset, data, fin);
        self.sums.reorder.replace(before, stream.recv.reorder_use());
        self.sums.reorder_peak = self.sums.reorder_peak.max(self.sums.reorder.cost());
        self.tune_reordered(id);
        self.on_received(id, received)?;
        let window = self.config.session_window.saturating_mul(REORDER_OVERHEAD_FACTOR);
        if self.sums.reorder.cost() > window.saturating_add(REORDER_OVERHEAD_BYTES) {
            let detail = "too many small pieces out of order";
            return Err(Violation::new(Code::EXCESSIVE_LOAD, detail));
        }
        Ok(())
    }

    pub fn on_reset(&mut self, id: StreamId, code: Code, final_size: u64) -> Result<(), Violation> {
        self.admit(id)?;
        let Some(stream) = self.table.get_mut(&id) else { return Ok(()) };
        let before = stream.recv.reorder_use();
        let received = stream.recv.on_reset(code, final_size);
        self.sums.reorder.replace(before, stream.recv.reorder_use());
        // Report it whether or not the reader waits for bytes: this may be all it waits for.
        stream.recv.reader_waits |= received.is_ok_and(|received| received.readable);
        self.on_received(id, received)
    }

    /// Credit and events after data or a reset.
    fn on_received(
        &mut self,
        id: StreamId,
        received: Result<Received, Misbehaviour>,
    ) -> Result<(), Violation> {
        let received = received?;
        self.sums.duplicate.add(received.duplicate);
        self.window.receive(received.credited).map_err(Misbehaviour::from)?;
        self.window.consume(received.discarded);
        self.heed_credit(id);
        if let Some(stream) = self.table.get_mut(&id)
            && received.readable
            && std::mem::take(&mut stream.recv.reader_waits)
        {
            self.events.push_back(Event::Readable(id));
        }
        self.settle(id);
        Ok(())
    }

    /// Whether it is a new one, to be accepted.
    pub fn on_open(&mut self, id: StreamId, kind: StreamKind) -> Result<bool, Violation> {
        if self.is_local(id) {
            let detail = "an OPEN for a stream of the receiver's";
            return Err(Violation::new(Code::PROTOCOL, detail));
        }
        let draining = self.remote.draining;
        self.admit(id)?;
        let Some(stream) = self.table.get_mut(&id) else { return Ok(false) };
        if std::mem::replace(&mut stream.opened, true) {
            return Ok(false); // repeated: the lane it came on first was lost
        }
        if draining {
            self.reset(id, Code::SHUTDOWN);
            self.stop(id, Code::SHUTDOWN);
            return Ok(false);
        }
        self.accepted.push_back((id, kind));
        self.events.push_back(Event::Opened);
        Ok(true)
    }

    /// A stream that was just opened is not to be accepted.
    pub fn refuse(&mut self, id: StreamId, code: Code) {
        self.accepted.retain(|(accepted, _)| *accepted != id);
        self.reset(id, code);
        self.stop(id, code);
    }

    pub fn on_redundant(&mut self, id: StreamId) -> Result<(), Violation> {
        if self.is_local(id) {
            let detail = "a REDUNDANT for a stream of the receiver's";
            return Err(Violation::new(Code::PROTOCOL, detail));
        }
        self.admit(id)?;
        if let Some(stream) = self.table.get_mut(&id) {
            stream.redundant = true;
        }
        Ok(())
    }

    pub fn on_stop(&mut self, id: StreamId, code: Code) -> Result<(), Violation> {
        self.admit(id)?;
        if let Some(stream) = self.table.get_mut(&id) {
            stream.send.on_stop(code);
            // Report it whether or not the writer waits for room: this may be all it waits for.
            stream.send.writer_waits = false;
            self.events.push_back(Event::Stopped { id, code });
        }
        // RFC 9000, 3.5: answer STOP with a RESET of the same code, unless everything has arrived.
        self.change(id, |stream| stream.say.reset |= stream.send.reset(code));
        Ok(())
    }

    pub fn on_max_data(&mut self, max: u64) {
        if !self.credit.raise(max) {
            return;
        }
        for id in std::mem::take(&mut self.waiters.credit) {
            if let Some(stream) = self.table.get_mut(&id) {
                stream.writer_waits_no_more(&mut self.events, id);
            }
        }
    }

    pub fn on_max_stream_data(&mut self, id: StreamId, max: u64) -> Result<(), Violation> {
        self.admit(id)?;
        if let Some(stream) = self.table.get_mut(&id)
            && stream.send.on_credit(max)
        {
            stream.writer_waits_no_more(&mut self.events, id);
        }
        Ok(())
    }

    pub fn on_max_streams(&mut self, max: u64) {
        self.local.max = self.local.max.max(max);
        self.offer_streams();
    }

    /// More streams, including those already open, start with a larger window.
    pub fn on_early_streams(&mut self, count: u64) {
        let known = self.local.early;
        self.local.early = known.max(count);
        let end = count.min(self.local.next);
        if known >= end {
            return;
        }
        let id = |index| StreamId::new(self.side, Dir::Bi, index);
        for (id, stream) in self.table.range_mut(id(known)..id(end)) {
            if id.initiator() == self.side && stream.send.on_credit(self.peer.early_max_stream_data)
            {
                stream.writer_waits_no_more(&mut self.events, *id);
            }
        }
    }

    /// The peer mentions a stream: checks that it may, and creates a stream that this opens.
    fn admit(&mut self, id: StreamId) -> Result<(), Violation> {
        if id.dir() != Dir::Bi {
            return Err(Violation::new(Code::PROTOCOL, "a unidirectional stream"));
        }
        if self.is_local(id) {
            let detail = "a stream of the receiver's that was never opened";
            let opened = id.index() < self.local.next;
            return opened.then_some(()).ok_or(Violation::new(Code::PROTOCOL, detail));
        }
        if id.index() >= self.remote.announced {
            return Err(Violation::new(Code::STREAM_LIMIT, "more streams than were allowed"));
        }
        let index = id.index();
        if self.remote.seen.insert(index..index.saturating_add(1)) > 0 {
            self.table.insert(id, self.new_stream(id));
            self.on_new_stream(id);
        }
        Ok(())
    }
}
