//! The receiving direction: what has arrived, what was read, and how it ends.

use bytes::Bytes;

use super::assembler::{Assembler, InsertError};
use super::credit::{Overrun, ReceiveWindow};
use crate::proto::count::{end_of, span};
use crate::proto::error::{Code, ReadError};

/// The state of the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Data is coming.
    Open,
    /// The end was read.
    Finished,
    /// The peer abandoned it; the reader is told once it has read what came in order before.
    Reset(Code),
    /// The peer abandoned it and the reader knows.
    ResetRead,
}

/// One direction of a stream, at its destination.
#[derive(Debug)]
pub struct RecvSide {
    assembler: Assembler,
    pub window: ReceiveWindow,
    /// Where the stream ends, once the peer has said so.
    final_size: Option<u64>,
    /// End of the highest byte received.
    highest: u64,
    state: State,
    /// The reader wants no more: arriving data is counted and dropped.
    stopped: bool,
    /// The reader waits for something to read.
    pub reader_waits: bool,
}

/// What a frame did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Bytes beyond the highest offset before: they count against the session's credit.
    pub credited: u64,
    /// Bytes that were there already.
    pub duplicate: u64,
    /// Bytes that were consumed at once because nobody will read them.
    pub discarded: u64,
    /// The reader has something new to see.
    pub readable: bool,
}

/// What a reader that wants no more leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Bytes dropped unread.
    pub bytes: u64,
    /// The peer has to be told: it may send on.
    pub tell: bool,
}

/// What out-of-order data takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReorderUse {
    /// Memory, its bookkeeping included.
    pub cost: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// A rule the peer broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misbehaviour {
    FlowControl,
    FinalSize,
    Gaps,
}

impl From<Overrun> for Misbehaviour {
    fn from(_: Overrun) -> Self {
        Self::FlowControl
    }
}

impl From<InsertError> for Misbehaviour {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::TooManyGaps => Self::Gaps,
            InsertError::OffsetOverflow => Self::FlowControl,
        }
    }
}

impl RecvSide {
    pub(super) fn new(window: ReceiveWindow) -> Self {
        Self {
            assembler: Assembler::default(),
            window,
            final_size: None,
            highest: 0,
            state: State::Open,
            stopped: false,
            reader_waits: false,
        }
    }

    /// Memory for out-of-order data.
    pub fn reorder_use(&self) -> ReorderUse {
        let (cost, bytes) = (self.assembler.reorder_cost(), self.assembler.reorder_bytes());
        ReorderUse { cost, bytes }
    }

    /// Bytes ready for the reader.
    pub fn ready_bytes(&self) -> u64 {
        self.assembler.ready_bytes()
    }

    /// Takes a STREAM frame's data.
    pub fn on_data(
        &mut self,
        offset: u64,
        data: Bytes,
        fin: bool,
    ) -> Result<Received, Misbehaviour> {
        let len = data.len() as u64;
        let end = offset.checked_add(len).ok_or(Misbehaviour::FlowControl)?;
        self.check_final_size(end, fin)?;
        if matches!(self.state, State::Reset(_) | State::ResetRead) {
            return Ok(Received { duplicate: len, ..Received::default() });
        }
        let mut received = self.advance(end)?;
        let had = self.assembler.ready_bytes();
        let was_final = self.final_size.is_some();
        if fin {
            self.final_size = Some(end);
        }
        if self.stopped {
            received.discarded = received.credited;
            self.window.consume(received.credited);
            // What is beyond a gap is credited with the gap.
            received.duplicate = len.saturating_sub(received.credited);
            return Ok(received);
        }
        let new = self.assembler.insert(offset, data)?;
        received.duplicate = span(new, len);
        received.readable = self.assembler.ready_bytes() > had || (fin && !was_final);
        Ok(received)
    }

    /// The peer abandons its direction.
    pub fn on_reset(&mut self, code: Code, final_size: u64) -> Result<Received, Misbehaviour> {
        self.check_final_size(final_size, true)?;
        if self.state != State::Open {
            return Ok(Received::default());
        }
        let mut received = self.advance(final_size)?;
        self.final_size = Some(final_size);
        received.discarded = if self.stopped { self.discard() } else { self.discard_incomplete() };
        received.readable = true;
        self.state = if self.stopped { State::ResetRead } else { State::Reset(code) };
        Ok(received)
    }

    /// Takes up to `max` bytes; `Ok(None)` is the end of the stream.
    pub fn read(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        match self.state {
            _ if self.stopped => return Err(ReadError::Closed),
            State::Finished => return Ok(None),
            State::ResetRead => return Err(ReadError::Closed),
            State::Open | State::Reset(_) => {}
        }
        if let Some(data) = self.assembler.read(max) {
            self.window.consume(data.len() as u64);
            return Ok(Some(data));
        }
        if let State::Reset(code) = self.state {
            self.state = State::ResetRead;
            return Err(ReadError::Reset(code));
        }
        if self.final_size == Some(self.assembler.read_offset()) {
            self.state = State::Finished;
            return Ok(None);
        }
        Err(ReadError::Blocked)
    }

    /// The code it was abandoned with; the reader may still have to read what came before.
    pub fn reset_code(&self) -> Option<Code> {
        match self.state {
            State::Reset(code) => Some(code),
            _ => None,
        }
    }

    /// Reads no more.
    pub fn stop(&mut self) -> Dropped {
        if std::mem::replace(&mut self.stopped, true) {
            return Dropped::default();
        }
        match self.state {
            State::Finished | State::ResetRead => Dropped::default(),
            State::Reset(_) => {
                self.state = State::ResetRead;
                Dropped { bytes: self.discard(), tell: false }
            }
            State::Open => Dropped { bytes: self.discard(), tell: true },
        }
    }

    /// Whether credit is still of use to the peer.
    pub fn wants_credit(&self) -> bool {
        self.state == State::Open && self.final_size.is_none() && !self.stopped
    }

    /// Bytes that the peer may still make this end keep: unread ones, and remaining credit.
    pub fn promised(&self) -> u64 {
        match self.final_size {
            _ if self.stopped => 0,
            _ if self.state != State::Open => self.window.unconsumed(),
            Some(end) => span(self.window.consumed(), end),
            None => self.window.promised(),
        }
    }

    /// Everything that will ever arrive has arrived, and may still be read.
    pub fn is_whole(&self) -> bool {
        let arrived = end_of(self.assembler.read_offset(), self.assembler.ready_bytes());
        match self.state {
            State::Open => !self.stopped && self.final_size == Some(arrived),
            State::Reset(_) => true,
            State::Finished | State::ResetRead => false,
        }
    }

    /// The end was read, or nobody will read it and everything is accounted for.
    pub fn is_done(&self) -> bool {
        match self.state {
            State::Finished | State::ResetRead => true,
            State::Open => self.stopped && self.final_size.is_some_and(|end| end == self.highest),
            State::Reset(_) => false,
        }
    }

    /// Drops unread data, and counts it and its gaps as consumed.
    fn discard(&mut self) -> u64 {
        let unread = self.window.unconsumed();
        self.assembler.clear();
        self.window.consume(unread);
        unread
    }

    /// Drops what will never be complete; in-order data stays for the reader.
    fn discard_incomplete(&mut self) -> u64 {
        let ready = self.assembler.ready_bytes();
        let lost = span(ready, self.window.unconsumed());
        self.assembler.clear_segments();
        self.window.consume(lost);
        lost
    }

    /// Raises the highest offset; the difference counts against the credit of stream and session.
    fn advance(&mut self, end: u64) -> Result<Received, Misbehaviour> {
        let credited = end.saturating_sub(self.highest);
        self.window.receive(credited)?;
        self.highest = self.highest.max(end);
        Ok(Received { credited, ..Received::default() })
    }

    fn check_final_size(&self, end: u64, fin: bool) -> Result<(), Misbehaviour> {
        let contradicts = match self.final_size {
            Some(known) => end > known || (fin && end != known),
            None => fin && end < self.highest,
        };
        if contradicts { Err(Misbehaviour::FinalSize) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_once_all_before_it_was() {
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        let late = side.on_data(5, Bytes::from_static(b"world"), true).unwrap();
        assert!(late.readable && late.credited == 10);
        assert_eq!(side.read(99), Err(ReadError::Blocked));
        side.on_data(0, Bytes::from_static(b"hello"), false).unwrap();
        assert_eq!(side.read(7), Ok(Some(Bytes::from_static(b"hellowo"))));
        assert_eq!(side.read(7), Ok(Some(Bytes::from_static(b"rld"))));
        assert!(!side.is_done());
        assert_eq!(side.read(7), Ok(None));
        assert!(side.is_done());
    }

    #[test]
    fn contradictory_ends_are_misbehaviour() {
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        side.on_data(0, Bytes::from_static(b"hello"), true).unwrap();
        let beyond = side.on_data(5, Bytes::from_static(b"!"), false);
        assert_eq!(beyond, Err(Misbehaviour::FinalSize));
        assert_eq!(side.on_reset(Code::RESET, 4), Err(Misbehaviour::FinalSize));
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        side.on_data(0, Bytes::from_static(b"hello"), false).unwrap();
        let short = side.on_data(0, Bytes::from_static(b"he"), true);
        assert_eq!(short, Err(Misbehaviour::FinalSize));
    }

    #[test]
    fn credit_is_neither_lost_nor_made_by_a_reset() {
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        side.on_data(40, Bytes::from_static(b"hello"), false).unwrap();
        let reset = side.on_reset(Code::RESET, 60).unwrap();
        assert_eq!((reset.credited, reset.discarded), (15, 60));
        assert_eq!(side.read(1), Err(ReadError::Reset(Code::RESET)));
        assert!(side.is_done());
        assert_eq!(side.window.announce(100), 160);
    }

    #[test]
    fn what_came_in_order_before_a_reset_is_read_first() {
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        side.on_data(0, Bytes::from_static(b"hello"), false).unwrap();
        side.on_data(9, Bytes::from_static(b"lost"), false).unwrap();
        let reset = side.on_reset(Code::RESET, 20).unwrap();
        assert_eq!((reset.credited, reset.discarded), (7, 15));
        assert_eq!((side.reset_code(), side.is_done()), (Some(Code::RESET), false));
        assert_eq!(side.read(3), Ok(Some(Bytes::from_static(b"hel"))));
        // Nothing more counts, whatever a slower lane still carries.
        let late = side.on_data(5, Bytes::from_static(b"late"), false).unwrap();
        assert_eq!((late.duplicate, late.readable), (4, false));
        assert_eq!(side.read(3), Ok(Some(Bytes::from_static(b"lo"))));
        assert_eq!(side.read(3), Err(ReadError::Reset(Code::RESET)));
        assert!(side.is_done());
        assert_eq!(side.window.unconsumed(), 0);
    }

    #[test]
    fn a_reader_that_leaves_after_a_reset_gives_the_credit_back() {
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        side.on_data(0, Bytes::from_static(b"hello"), false).unwrap();
        side.on_reset(Code::RESET, 5).unwrap();
        assert_eq!(side.stop(), Dropped { bytes: 5, tell: false });
        assert!(side.is_done());
        assert_eq!(side.window.unconsumed(), 0);
    }

    #[test]
    fn a_stopped_stream_consumes_what_still_comes() {
        let mut side = RecvSide::new(ReceiveWindow::new(100, 100, 100));
        side.on_data(0, Bytes::from_static(b"hello"), false).unwrap();
        assert_eq!(side.stop(), Dropped { bytes: 5, tell: true });
        let more = side.on_data(10, Bytes::from_static(b"world"), true).unwrap();
        assert_eq!((more.credited, more.discarded), (10, 10));
        assert!(side.is_done());
        assert_eq!(side.stop(), Dropped::default());
    }
}
