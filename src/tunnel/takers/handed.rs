//! One connection, handed over once its far end is known to be there.

use bytes::Bytes;
use tokio::net::UnixStream;

use crate::driver::{Client, OpenError, OpenOptions, Stream, StreamError, StreamKind};
use crate::tunnel::connections::{Connections, Place};
use crate::tunnel::copy::{Ends, copy};
use crate::tunnel::socket::{Socket, SocketOptions};

/// A stream to a destination, with nothing at this end of it yet.
#[derive(Debug)]
pub struct Connected {
    stream: Stream,
    to: String,
    sockets: SocketOptions,
    _place: Place,
}

/// Why there is no such stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The limit on connections is reached.
    #[error("there are as many connections as there may be")]
    Full,
    /// No stream could be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server does not grant it, or did not reach the destination.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Opens a stream and waits until the destination has accepted the connection, if
/// [`Wants::ANSWER`](crate::Wants::ANSWER) is wanted and known.
///
/// Cancel safe: a stream that is not returned is reset.
///
/// # Errors
/// There is no room for one more here, or no connection.
pub async fn connect_within(
    client: &Client,
    options: OpenOptions,
    bound: &Connections,
) -> Result<Connected, ConnectionError> {
    let place = bound.enter().ok_or(ConnectionError::Full)?;
    let to = match &options.kind {
        StreamKind::Named(name) => name.clone(),
        _ => "the server's destination".to_owned(),
    };
    let mut stream = client.open(options).await?;
    stream.connected().await?;
    Ok(Connected { stream, to, sockets: *bound.sockets(), _place: place })
}

impl Connected {
    /// Carries what `socket` sends there, and what comes back, until both have ended; `first` was
    /// read from it before, and `from` says in the log whose it is. Returns why it was broken off
    /// at the far end, if it was.
    pub async fn carry(self, socket: UnixStream, first: Bytes, from: &str) -> Option<StreamError> {
        let ends = Ends { from: from.to_owned(), to: self.to };
        copy(Socket::Unix(socket), first, self.stream, &self.sockets, &ends).await
    }
}
