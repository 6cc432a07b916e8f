//! One stream: the state of its two directions. Knows nothing about lanes.

mod assembler;
mod credit;
mod recv;
mod send;
mod send_buffer;

pub(in crate::proto) use credit::{ReceiveWindow, SendCredit};
pub(in crate::proto) use recv::{Misbehaviour, Received, RecvSide, ReorderUse};
pub(in crate::proto) use send::{Chunk, SendSide};

pub use assembler::{Assembler, InsertError};

use super::error::Code;
use super::wire::StreamKind;

/// Both directions of a stream and the control frames due for it.
#[derive(Debug)]
pub(in crate::proto) struct Stream {
    pub(in crate::proto) send: SendSide,
    pub(in crate::proto) recv: RecvSide,
    pub(in crate::proto) say: ToSay,
    /// For a stream this end opened: what it is for, until the peer has acknowledged it.
    pub(in crate::proto) opening: Option<StreamKind>,
    /// Something of it was given to a lane.
    pub(in crate::proto) begun: bool,
    /// The peer's OPEN has arrived (or this end opened it).
    pub(in crate::proto) opened: bool,
    /// Its bytes go on two lanes, and the peer's should, too.
    pub(in crate::proto) redundant: bool,
    /// The stream is in the queue for control frames.
    pub(in crate::proto) in_control_queue: bool,
    /// The code this end has stopped the peer with.
    pub(in crate::proto) stop_sent: Option<Code>,
    /// The stream is in the queue for data.
    pub(in crate::proto) in_data_queue: bool,
    /// What the session counts as promised to it.
    pub(in crate::proto) promised: u64,
}

/// Control frames that wait to be sent for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proto) struct ToSay {
    pub(in crate::proto) open: bool,
    pub(in crate::proto) reset: bool,
    pub(in crate::proto) stop: Option<Code>,
    pub(in crate::proto) max_stream_data: bool,
}

impl ToSay {
    pub(in crate::proto) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Stream {
    pub(in crate::proto) fn new(send_credit: u64, window: ReceiveWindow) -> Self {
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

    /// Nothing more can happen on the stream: it may be forgotten.
    pub(in crate::proto) fn is_done(&self) -> bool {
        self.send.is_done() && self.recv.is_done() && self.opening.is_none() && self.say.is_empty()
    }
}
