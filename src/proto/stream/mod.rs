//! One stream: the state of its two directions. Knows nothing about lanes.

mod assembler;
mod credit;
mod recv;
mod send;
mod send_buffer;

pub use credit::{ReceiveWindow, SendCredit};
pub use recv::{Misbehaviour, Received, RecvSide, ReorderUse};
pub use send::{Chunk, SendSide};

pub use assembler::{Assembler, InsertError};

use super::error::{Code, Undelivered, WriteError};
use super::wire::StreamKind;

/// Both directions of a stream and the control frames due for it.
#[derive(Debug)]
pub struct Stream {
    pub send: SendSide,
    pub recv: RecvSide,
    pub say: ToSay,
    /// For a stream this end opened: what it is for, until the peer has acknowledged it.
    pub opening: Option<StreamKind>,
    /// Something of it was given to a lane.
    pub begun: bool,
    /// The peer's OPEN has arrived (or this end opened it).
    pub opened: bool,
    /// Its bytes go on two lanes, and the peer's should, too.
    pub redundant: bool,
    /// The stream is in the queue for control frames.
    pub in_control_queue: bool,
    /// The code this end has stopped the peer with.
    pub stop_sent: Option<Code>,
    /// The stream is in the queue for data.
    pub in_data_queue: bool,
    /// What the session counts as promised to it.
    pub promised: u64,
}

/// Control frames that wait to be sent for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ToSay {
    pub open: bool,
    pub reset: bool,
    pub stop: Option<Code>,
    pub max_stream_data: bool,
}

impl ToSay {
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Stream {
    pub fn new(send_credit: u64, window: ReceiveWindow) -> Self {
        Self {
            send: SendSide::new(send_credit),
            recv: RecvSide::new(window),
            say: ToSay::default(),
            opening: None,
            begun: false,
            opened: false,
            redundant: false,
            in_control_queue: false,
            stop_sent: None,
            in_data_queue: false,
            promised: 0,
        }
    }

    /// Whether all that was written has arrived, where the peer's user can read it; see
    /// `SendSide::await_arrival`.
    pub fn await_arrival(&mut self) -> Result<bool, WriteError> {
        self.send.await_arrival(self.opening.is_none())
    }

    /// What the user waits for and has arrived, reported once.
    pub fn take_arrival(&mut self) -> Option<(u64, bool)> {
        self.send.take_arrival(self.opening.is_none())
    }

    /// What has not arrived, of a stream that was not abandoned.
    pub fn undelivered(&self) -> Undelivered {
        self.send.undelivered(self.opening.is_none())
    }

    /// Nothing more can happen on the stream: it may be forgotten.
    pub fn is_done(&self) -> bool {
        self.send.is_done() && self.recv.is_done() && self.opening.is_none() && self.say.is_empty()
    }
}
