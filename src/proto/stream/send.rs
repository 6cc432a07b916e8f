//! The sending direction: what is written, what waits, what has arrived.

use std::ops::Range;

use bytes::Bytes;

use super::credit::SendCredit;
use super::send_buffer::SendBuffer;
use crate::proto::count::span;
use crate::proto::error::{Code, Undelivered, WriteError};
use crate::proto::range_set::RangeSet;

/// Where the end of the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// More may be written.
    Open,
    /// Finished; the FIN is waiting to be sent (again).
    FinWaits,
    /// The FIN is in flight on some lane.
    FinSent,
    /// The FIN has arrived.
    FinAcked,
    /// To be abandoned with this code once everything written has arrived.
    ResetWaits(Code),
    /// Abandoned with this code; the RESET is waiting or in flight.
    Reset(Code),
    /// The RESET has arrived.
    ResetAcked,
}

/// One direction of a stream, at its source.
#[derive(Debug)]
pub struct SendSide {
    buffer: SendBuffer,
    /// Ranges that wait to be sent: never sent, or sent on a lane that did not deliver.
    pending: RangeSet,
    /// Ranges never given to a lane: what is pending and not among them is sent again.
    fresh: RangeSet,
    ending: Ending,
    credit: SendCredit,
    /// The peer's STOP, until the writer has seen it.
    stopped: Option<Code>,
    /// The writer waits for room.
    pub writer_waits: bool,
    /// The user has neither finished nor reset it, and may still ask about its fate.
    held: bool,
    /// The user is to be told when everything before this offset has arrived.
    awaited: Option<u64>,
}

/// One STREAM frame's worth of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub range: Range<u64>,
    pub fin: bool,
}

impl Chunk {
    /// Stream bytes in it.
    pub fn payload(&self) -> u64 {
        span(self.range.start, self.range.end)
    }
}

impl SendSide {
    pub(super) fn new(max: u64) -> Self {
        Self {
            buffer: SendBuffer::default(),
            pending: RangeSet::new(),
            fresh: RangeSet::new(),
            ending: Ending::Open,
            credit: SendCredit::new(max),
            stopped: None,
            writer_waits: false,
            held: true,
            awaited: None,
        }
    }

    /// Whether the writer may still add to it.
    pub fn writable(&self) -> Result<(), WriteError> {
        match (self.stopped, self.ending) {
            (Some(code), _) => Err(WriteError::Stopped(code)),
            (None, Ending::Open) => Ok(()),
            (None, _) => Err(WriteError::Closed),
        }
    }

    /// Bytes the peer has room for beyond what was written.
    pub fn credit_left(&self) -> u64 {
        self.credit.left()
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.buffer.end()
    }

    /// Takes over `data`; the caller has checked credit and room.
    pub fn write(&mut self, data: Bytes) {
        debug_assert!(self.ending == Ending::Open && data.len() as u64 <= self.credit.left());
        let start = self.buffer.end();
        self.credit.take(data.len() as u64);
        self.buffer.write(data);
        self.pending.insert(start..self.buffer.end());
        self.fresh.insert(start..self.buffer.end());
    }

    /// Ends the stream after what was written.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.writable()?;
        self.ending = Ending::FinWaits;
        self.awaited = Some(self.buffer.end());
        Ok(())
    }

    /// Abandons the stream after what was written: a RESET that overtook it on another lane would
    /// make the peer drop what is in flight. `true` if everything has arrived and the RESET has to
    /// be sent.
    pub fn finish_with(&mut self, code: Code) -> bool {
        if self.ending != Ending::Open {
            return false;
        }
        self.ending = Ending::ResetWaits(code);
        self.reset_if_all_arrived()
    }

    fn reset_if_all_arrived(&mut self) -> bool {
        let Ending::ResetWaits(code) = self.ending else { return false };
        self.buffer.is_empty() && self.reset(code)
    }

    /// Whether everything written so far has arrived, and the end if there is one. Otherwise the
    /// user is told when it has. `opened`: the peer knows of the stream. While it does not, nobody
    /// there can read what has arrived.
    pub fn await_arrival(&mut self, opened: bool) -> Result<bool, WriteError> {
        if self.has_arrived(opened) {
            return Ok(true);
        }
        match (self.stopped, self.ending) {
            (Some(code), _) => return Err(WriteError::Stopped(code)),
            (None, Ending::Reset(_) | Ending::ResetAcked) => return Err(WriteError::Closed),
            (None, _) => {}
        }
        self.awaited = Some(self.buffer.end());
        Ok(false)
    }

    /// How much of what the user waits for has arrived, reported once: how many bytes, and whether
    /// that is the whole stream.
    pub fn take_arrival(&mut self, opened: bool) -> Option<(u64, bool)> {
        let arrived = span(self.buffer.held(), self.buffer.end());
        let ended = self.has_arrived(opened) && self.ending == Ending::FinAcked;
        let due = match self.ending {
            Ending::Open => self.awaited.is_some_and(|awaited| awaited <= arrived),
            _ => self.awaited.is_some() && ended,
        };
        (due && opened).then(|| {
            self.awaited = None;
            (arrived, ended)
        })
    }

    fn has_arrived(&self, opened: bool) -> bool {
        let all = self.buffer.is_empty() && matches!(self.ending, Ending::Open | Ending::FinAcked);
        let nothing = self.buffer.end() == 0 && self.ending == Ending::Open;
        all && (opened || nothing)
    }

    /// What has not arrived, of a stream that was not abandoned.
    pub fn undelivered(&self, opened: bool) -> Undelivered {
        let given_up = matches!(self.ending, Ending::Reset(_) | Ending::ResetAcked);
        if given_up || self.has_arrived(opened) {
            return Undelivered::default();
        }
        Undelivered { bytes: self.buffer.held(), streams: 1 }
    }

    /// Abandons the stream; `true` if a RESET has to be sent.
    pub fn reset(&mut self, code: Code) -> bool {
        if matches!(self.ending, Ending::FinAcked | Ending::Reset(_) | Ending::ResetAcked) {
            return false;
        }
        self.ending = Ending::Reset(code);
        self.buffer.clear();
        self.pending = RangeSet::new();
        self.fresh = RangeSet::new();
        true
    }

    /// The code and final size for a RESET, while one is due.
    pub fn reset_due(&self) -> Option<(Code, u64)> {
        match self.ending {
            Ending::Reset(code) => Some((code, self.buffer.end())),
            _ => None,
        }
    }

    /// The peer wants no more: the writer is told at its next write.
    pub fn on_stop(&mut self, code: Code) {
        self.stopped.get_or_insert(code);
    }

    /// The user has ended it, one way or another, and asks no more.
    pub fn let_go(&mut self) {
        self.held = false;
    }

    /// The code with which the peer stopped the stream.
    pub fn stopped(&self) -> Option<Code> {
        self.stopped
    }

    /// The peer raised its credit; `true` if it grew.
    pub fn on_credit(&mut self, max: u64) -> bool {
        self.credit.raise(max)
    }

    /// Bytes that wait to be sent.
    pub fn pending_bytes(&self) -> u64 {
        self.pending.len()
    }

    /// Bytes held for the peer: everything written from the first unacknowledged byte on.
    pub fn held_bytes(&self) -> u64 {
        self.buffer.held()
    }

    /// Whether a lane could carry something of it now.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty() || self.ending == Ending::FinWaits
    }

    /// Whether the chunk, which is pending, has been given to a lane before; `next_chunk` never
    /// mixes bytes that were with bytes that were not.
    pub fn was_sent(&self, chunk: &Chunk) -> bool {
        !self.fresh.contains(chunk.range.start)
    }

    /// What a lane would carry: after `skip` pending bytes, at most `max`. `fit` shortens the
    /// chunk, given its offset, to what fits in a frame.
    pub fn next_chunk(&self, skip: u64, fit: impl FnOnce(u64) -> u64) -> Option<Chunk> {
        let end = self.buffer.end();
        let Some(range) = self.pending.nth_chunk(skip, u64::MAX) else {
            let bare_fin = self.pending.is_empty() && self.ending == Ending::FinWaits;
            return bare_fin.then_some(Chunk { range: end..end, fin: true });
        };
        let max = fit(range.start);
        let end_max = range.start.saturating_add(max).min(self.fresh.next_change(range.start));
        let range = range.start..range.end.min(end_max);
        let finishing = matches!(self.ending, Ending::FinWaits | Ending::FinSent);
        let fin = finishing && range.end == end;
        (!range.is_empty()).then_some(Chunk { fin, range })
    }

    /// Passes the bytes of a chunk to `take` and marks it as in flight.
    pub fn send(&mut self, chunk: &Chunk, take: impl FnMut(Bytes)) {
        self.pending.remove(chunk.range.clone());
        self.fresh.remove(chunk.range.clone());
        if chunk.fin && self.ending == Ending::FinWaits {
            self.ending = Ending::FinSent;
        }
        self.buffer.copy_to(chunk.range.clone(), take);
    }

    /// The part of a sent chunk that is still worth sending again: the first unacknowledged part
    /// that no lane is about to carry anyway.
    pub fn still_owed(&self, chunk: &Chunk) -> Option<Chunk> {
        self.owed(chunk, |range| !self.pending.gaps_in(range.clone()).is_empty())
    }

    /// The first unacknowledged part of a chunk that was sent, though it may wait to be sent again.
    pub fn not_arrived(&self, chunk: &Chunk) -> Option<Chunk> {
        self.owed(chunk, |_| true)
    }

    fn owed(&self, chunk: &Chunk, worth: impl Fn(&Range<u64>) -> bool) -> Option<Chunk> {
        if matches!(self.ending, Ending::Reset(_) | Ending::ResetAcked) {
            return None;
        }
        let finishing = matches!(self.ending, Ending::FinWaits | Ending::FinSent);
        match self.buffer.unacked_in(chunk.range.clone()).into_iter().find(worth) {
            Some(range) => {
                Some(Chunk { fin: chunk.fin && finishing && range.end == chunk.range.end, range })
            }
            None if chunk.fin && self.ending == Ending::FinSent && self.buffer.is_empty() => {
                Some(Chunk { range: chunk.range.end..chunk.range.end, fin: true })
            }
            None => None,
        }
    }

    /// A lane delivered the chunk. `true` if a RESET that waited for that has to be sent now.
    pub fn on_acked(&mut self, chunk: &Chunk) -> bool {
        if matches!(self.ending, Ending::Reset(_) | Ending::ResetAcked) {
            return false;
        }
        self.pending.remove(chunk.range.clone());
        self.buffer.ack(chunk.range.clone());
        if chunk.fin {
            self.ending = Ending::FinAcked;
        }
        self.reset_if_all_arrived()
    }

    /// A lane did not deliver the chunk: what is not acknowledged is queued again.
    pub fn on_lost(&mut self, chunk: &Chunk) {
        if matches!(self.ending, Ending::Reset(_) | Ending::ResetAcked) {
            return;
        }
        for range in self.buffer.unacked_in(chunk.range.clone()) {
            self.pending.insert(range);
        }
        if chunk.fin && self.ending == Ending::FinSent {
            self.ending = Ending::FinWaits;
        }
    }

    /// A lane delivered the RESET.
    pub fn on_reset_acked(&mut self) {
        if matches!(self.ending, Ending::Reset(_)) {
            self.ending = Ending::ResetAcked;
        }
    }

    /// Everything has arrived, or was abandoned and both the peer and the user know.
    pub fn is_done(&self) -> bool {
        match self.ending {
            Ending::FinAcked => self.buffer.is_empty(),
            Ending::ResetAcked => !self.held,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_and_what_is_new_share_no_chunk() {
        let mut side = SendSide::new(1000);
        let write = |side: &mut SendSide| side.write(Bytes::from_static(&[7; 100]));
        write(&mut side);
        let first = side.next_chunk(0, |_| 1000).unwrap();
        assert!(!side.was_sent(&first));
        side.send(&first, drop);
        side.on_lost(&Chunk { range: 40..100, fin: false });
        write(&mut side);

        let again = side.next_chunk(0, |_| 1000).unwrap();
        assert_eq!((again.range.clone(), side.was_sent(&again)), (40..100, true));
        side.send(&again, drop);
        let new = side.next_chunk(0, |_| 1000).unwrap();
        assert_eq!((new.range.clone(), side.was_sent(&new)), (100..200, false));
    }
}
