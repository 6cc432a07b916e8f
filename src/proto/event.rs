//! What the session tells its driver.

use bytes::Bytes;

use super::error::{Code, SessionError};
use super::ids::{LaneId, StreamId};

/// Something that the driver, or the code on top of it, has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream: `Session::accept` has it.
    Opened,
    /// More streams may be opened, after `Session::open` refused.
    OpenAvailable,
    /// Something of a stream that this end opened was given to a lane, for the first time. Until
    /// then the peer cannot know of it.
    Begun(StreamId),
    /// Something can be read that could not before: data, the end, or a reset.
    Readable(StreamId),
    /// A flow's reader waits, and there is a datagram for it, or the flow is over.
    FlowReadable(StreamId),
    /// Something can be written that could not before.
    Writable(StreamId),
    /// What was written to a stream has arrived at the peer: all of it when it is finished, or when
    /// `SendStream::await_arrival` asked.
    Arrived {
        /// Which stream.
        id: StreamId,
        /// How many bytes, from its beginning.
        bytes: u64,
        /// Its end has arrived, too.
        ended: bool,
    },
    /// The peer wants no more of a stream: writing has ended.
    Stopped {
        /// Which stream.
        id: StreamId,
        /// Why.
        code: Code,
    },
    /// The lane is given up: the driver closes it and may dial another.
    LaneLost {
        /// Which.
        lane: LaneId,
        /// Why.
        code: Code,
    },
    /// The lane does not answer; what it owes goes elsewhere.
    LaneSuspect(LaneId),
    /// A lane is silent, and its kernel's figures decide whether it is given up: the driver should
    /// report them soon (`Session::handle_lane_metrics`).
    MetricsWanted(LaneId),
    /// The peer accepts no more streams.
    Draining,
    /// The server announces its next key: as received, still to be verified.
    NextKey(Bytes),
    /// Urgent data waits behind bulk, here or at the server: an express lane on each link would
    /// help. Only clients are told, and once.
    ExpressWanted,
    /// Streams that nobody reads hold much of the session's window, and others get less than they
    /// would like. Told once.
    ReadersPaused {
        /// How many.
        streams: usize,
        /// Bytes that have arrived for them and were not read.
        bytes: u64,
    },
    /// The session is over; no event follows.
    Closed(SessionError),
}
