//! What the session tells its driver.

use bytes::Bytes;

use super::error::{Code, SessionError};
use super::ids::{LaneId, StreamId};

/// Something happened that the driver, or who sits on top of it, has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream: `Session::accept` has it.
    Opened,
    /// More streams may be opened, after `Session::open` said no.
    OpenAvailable,
    /// Something of a stream that this end opened was given to a lane, for the first time. Until
    /// then nobody can know of it.
    Begun(StreamId),
    /// Something can be read that could not before: data, the end, or a reset.
    Readable(StreamId),
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
    /// The lane does not answer; what it owes travels elsewhere.
    LaneSuspect(LaneId),
    /// A lane is silent, and what its kernel knows of it decides whether it is given up: the driver
    /// tells soon (`Session::handle_lane_metrics`).
    MetricsWanted(LaneId),
    /// The peer accepts no more streams.
    Draining,
    /// The server announces the key it will have later: what came, still to be verified.
    NextKey(Bytes),
    /// What is urgent waits behind bulk, here or at the server: an express lane on each link would
    /// help. Only clients are told, and once.
    ExpressWanted,
    /// Streams that nobody reads hold much of the session's window, and others get less than they
    /// would. Told once.
    ReadersPaused {
        /// How many.
        streams: usize,
        /// What has arrived for them and was not read, in bytes.
        bytes: u64,
    },
    /// The session is over; no event follows.
    Closed(SessionError),
}
