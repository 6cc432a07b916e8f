//! What can go wrong, by what it ends: a lane, a stream, a session.

use std::fmt;

use thiserror::Error;

use super::ids::VarInt;

/// Why a stream, a lane or a session ended, as a number on the wire. Codes below 0x100 are the
/// protocol's own (docs/PROTOCOL.md, "Error codes"); an application's start at 0x100.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(VarInt);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self(VarInt::from_u32($value));)*

            /// What the code means, if it is one of the protocol's own.
            pub const fn meaning(self) -> Option<&'static str> {
                match self.0.into_inner() {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Nothing is wrong: a requested end of a session or lane.
    NONE = 0x00, "no error";
    /// A fault in the implementation that sent it.
    INTERNAL = 0x01, "internal error";
    /// A frame that is not allowed where it appears, or makes no sense.
    PROTOCOL = 0x02, "protocol violation";
    /// More data than credit was given for.
    FLOW_CONTROL = 0x03, "flow control violation";
    /// More streams than were allowed.
    STREAM_LIMIT = 0x04, "stream limit exceeded";
    /// Two final offsets for one stream, or data beyond it.
    FINAL_SIZE = 0x05, "contradictory final size";
    /// An acknowledgement of what was never sent.
    INVALID_ACK = 0x06, "acknowledgement of what was never sent";
    /// A budget of `limits` was exceeded.
    EXCESSIVE_LOAD = 0x07, "excessive load";
    /// No version in common.
    VERSION = 0x08, "no version in common";
    /// The session is unknown or the proof for it is wrong: deliberately one code.
    JOIN_REFUSED = 0x09, "unknown session or wrong proof";
    /// The client's key is not authorised.
    UNAUTHORIZED = 0x0a, "not authorised";
    /// The session had no lane for longer than its grace time.
    GRACE_EXPIRED = 0x0b, "no lane within the grace time";
    /// The lane did not answer.
    LANE_TIMEOUT = 0x0c, "lane timed out";
    /// The end is shutting down.
    SHUTDOWN = 0x0d, "shutting down";
    /// The stream's user abandoned it, as a TCP reset does.
    RESET = 0x20, "connection reset";
    /// The destination refused the connection.
    DIAL_REFUSED = 0x21, "destination refused the connection";
    /// The destination, or the network it is on, cannot be reached.
    DIAL_UNREACHABLE = 0x22, "destination unreachable";
    /// The destination did not answer in time.
    DIAL_TIMEOUT = 0x23, "destination did not answer in time";
    /// The destination's name could not be resolved.
    DIAL_NAME = 0x24, "destination name could not be resolved";
    /// This destination is not allowed.
    DIAL_FORBIDDEN = 0x25, "destination not allowed";
    /// The dialling end is out of descriptors, ports or memory.
    DIAL_RESOURCES = 0x26, "no resources to dial the destination";
    /// The stream's connection broke off: neither direction has anyone at its end.
    BROKEN_OFF = 0x27, "connection broken off";
    /// This client may not listen there.
    LISTEN_FORBIDDEN = 0x28, "listening there is not allowed";
    /// Someone else is listening there.
    LISTEN_IN_USE = 0x29, "the place to listen at is in use";
    /// The system does not allow listening there.
    LISTEN_FAILED = 0x2a, "the system does not let it listen there";
    /// Nothing came or went on a flow for longer than its idle time.
    FLOW_IDLE = 0x2b, "nothing came or went on the flow for too long";
}

impl Code {
    /// An application's own code: `number` + 0x100.
    pub const fn application(number: u32) -> Self {
        // Cannot overflow a VarInt: 2^32 + 0x100 < 2^62; but `from_u32` takes 32 bits only.
        Self(VarInt::from_u32(number.saturating_add(0x100)))
    }

    /// Whether the code says why a destination was not reached.
    pub fn is_dial_failure(self) -> bool {
        (Self::DIAL_REFUSED..=Self::DIAL_RESOURCES).contains(&self)
    }

    /// A code read from the wire.
    pub const fn from_wire(value: VarInt) -> Self {
        Self(value)
    }

    /// The number for the wire.
    pub const fn to_wire(self) -> VarInt {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.meaning() {
            Some(text) => f.write_str(text),
            None => write!(f, "code {:#x}", self.0.into_inner()),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:#x}: {self})", self.0.into_inner())
    }
}

/// Bytes that are not frames. The lane they came on dies; the session does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A frame longer than one TLS record.
    #[error("a frame announces {0} bytes, more than fit in one")]
    TooLong(u64),
    /// A frame's fields do not fit its length.
    #[error("frame of type {0:#x} is malformed")]
    Malformed(u64),
    /// A type this version does not know and may not skip.
    #[error("unknown frame type {0:#x}")]
    UnknownType(u64),
}

/// Why a session ended. Its streams and lanes end with it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The peer broke a rule of docs/PROTOCOL.md; the session was closed with this code.
    #[error("peer misbehaved: {code}: {detail}")]
    PeerMisbehaved {
        /// The code sent to it.
        code: Code,
        /// Which rule, for a log.
        detail: &'static str,
    },
    /// The peer closed the session.
    #[error("closed by peer: {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    ClosedByPeer {
        /// Its code.
        code: Code,
        /// Its reason: bounded, printable characters only.
        reason: String,
    },
    /// This end closed the session.
    #[error("closed: {0}")]
    Closed(Code),
    /// No lane came back within the grace time.
    #[error("no lane came back within the grace time")]
    GraceExpired,
}

/// Bytes of streams, and their ends, that may not have arrived at the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Error)]
#[error("{bytes} bytes of {streams} streams are not known to have arrived")]
#[non_exhaustive]
pub struct Undelivered {
    /// Written and not acknowledged.
    pub bytes: u64,
    /// Streams of which bytes, the end or, where there are any, the opening were not acknowledged.
    pub streams: usize,
}

impl Undelivered {
    /// Whether nothing is missing.
    pub fn is_none(&self) -> bool {
        self.streams == 0
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            streams: self.streams.saturating_add(other.streams),
        }
    }

    /// Turns itself into an error, unless nothing is missing.
    ///
    /// # Errors
    /// Itself.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_none() { Ok(()) } else { Err(self) }
    }
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// No credit or no room now; `Event::Writable` follows.
    #[error("no credit now")]
    Blocked,
    /// The peer wants no more of it, or has reset the whole stream.
    #[error("stopped by peer: {0}")]
    Stopped(Code),
    /// Finished or reset by this end, or forgotten.
    #[error("the stream is closed for writing")]
    Closed,
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Nothing in order yet; `Event::Readable` follows.
    #[error("nothing to read now")]
    Blocked,
    /// The peer abandoned the stream: unread data is gone.
    #[error("reset by peer: {0}")]
    Reset(Code),
    /// Stopped by this end, or forgotten.
    #[error("the stream is closed for reading")]
    Closed,
}

/// Why a datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DatagramError {
    /// It has so many bytes: more than [`DATAGRAM_BYTES_MAX`](super::limits::DATAGRAM_BYTES_MAX).
    #[error("a datagram of {0} bytes is too large")]
    TooLarge(usize),
    /// The flow was ended, by either end.
    #[error("the flow has ended: {0}")]
    Ended(Code),
    /// The flow is none, or forgotten, or the session is over.
    #[error("the flow is closed")]
    Closed,
}
