//! The driver's errors: each type says what is over.

use std::io;

use thiserror::Error;

use crate::lane::DialError;
use crate::proto::{Code, SessionError};
use crate::trust::TrustError;

/// Why there is no session.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No lane could be made; why the last attempt failed.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server is not trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The server showed no key.
    #[error("the server showed no key")]
    NoKey,
    /// A lane's server holds a different key from the one the session was made with.
    #[error(
        "another server answers on this lane: its key is {0}; if that is the server's new key, start the client again, \
         which decides about it anew; if not, what answers is somebody else, and is told nothing"
    )]
    OtherKey(crate::trust::Fingerprint),
    /// Two links lead to servers with different keys, and neither key is known.
    #[error(
        "two links lead to servers with different keys, {0} and {1}, and neither is known: at most \
         one of them is the server"
    )]
    SeveralKeys(crate::trust::Fingerprint, crate::trust::Fingerprint),
    /// The server refused the session or the lane.
    #[error("refused by the server: {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Refused {
        /// Its code.
        code: Code,
        /// Its words: bounded, printable.
        reason: String,
    },
    /// The lane broke during the handshake of the session.
    #[error("the lane broke off while the session was being set up: {0}")]
    Handshake(#[source] io::Error),
    /// A setting of the session makes no sense; nothing was dialled.
    #[error(transparent)]
    Config(#[from] crate::proto::InvalidConfig),
    /// The links have more lanes than a session may; nothing was dialled.
    #[error("{asked} lanes are too many: a session has at most {max}")]
    TooManyLanes {
        /// How many the links have together, express lanes not counted.
        asked: usize,
        /// How many there may be.
        max: usize,
    },
    /// There was no link to dial on.
    #[error("no link was given")]
    NoLinks,
}

/// Why a stream could not be opened.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The session is over.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// One end is shutting down.
    #[error("shutting down: no new streams")]
    Draining,
    /// There is no session, and none came within the time a caller can be asked to wait.
    #[error("no lane to the server")]
    NoLane,
    /// The peer would not tell the destination who connects
    /// ([`Wants::SOURCE`](super::Wants::SOURCE)).
    #[error(
        "the server is of a version that tells no destination who connects: update it, or leave proxy-protocol out"
    )]
    SourceNotTold,
    /// The peer does not listen for others ([`StreamKind::Listening`](super::StreamKind)).
    #[error(
        "the server is of a version that takes no connections for its clients: update it, or leave -R out"
    )]
    ListeningNotKnown,
    /// The peer knows no flows.
    #[error("the peer is of a version that carries no datagrams (UDP): update it")]
    FlowsNotKnown,
    /// As many flows are open as the peer allows.
    #[error("as many flows are open as the peer allows")]
    TooManyFlows,
    /// A flow is opened by `open_flow`, and nothing else is.
    #[error("this kind is not opened in this way: flows by `open_flow`, all others by `open`")]
    WrongKind,
}

/// Why a stream ended before its time.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// The peer gave up sending, or wants no more data.
    #[error("reset by peer: {0}")]
    Reset(Code),
    /// This end has finished, reset or stopped it.
    #[error("the stream is closed")]
    Closed,
    /// The session is over, and the stream with it.
    #[error("session over: {0}")]
    Session(SessionError),
}

impl From<StreamError> for io::Error {
    fn from(error: StreamError) -> Self {
        let kind = match error {
            StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
            StreamError::Closed => io::ErrorKind::BrokenPipe,
            StreamError::Session(_) => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}
