//! A stream as its user holds it: two halves, each for one direction.

mod read;
mod waiting;
mod write;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::clock;
use super::error::StreamError;
use super::shared::{Handle, Shared};
use super::state::StreamWakers;
use crate::proto::Code;
use crate::proto::ids::StreamId;

pub(super) use waiting::closed;

pub use read::ReadHalf;
pub use write::WriteHalf;

/// A bidirectional byte stream.
///
/// `shutdown` ends the sending direction only (half-close), and waits until everything has arrived;
/// the peer reads the end once it has read everything before it. Dropping that future half-way
/// still marks the end. `flush` waits for nothing; [`acknowledged`](Self::acknowledged) waits for
/// what was written so far. Dropping a half before its end resets it, as closing a TCP socket with
/// unread data does: an unintended end is never taken for an intended one.
///
/// ```
/// # use std::sync::Arc;
/// # use imux::lane::memory;
/// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
/// # use imux::{Client, ClientConfig, Link, Server, ServerConfig};
/// use imux::{Code, StreamKind};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = Fingerprint::from_bytes([7; 32]);
/// # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
/// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
/// # let dialer = dialer.with_peer(identity);
/// # let mut server = Server::start(listener, ServerConfig::default());
/// # let trust = Arc::new(PinnedKeys::new([key]));
/// # let link = Link::new(Arc::new(dialer), 2);
/// # let client = Client::connect(vec![link], ClientConfig::new(trust));
/// # let client = client.await?;
/// # let (session, _) = server.accept().await.unwrap();
/// // A question, ended; then the answer.
/// let mut ours = client.open(StreamKind::Raw).await?;
/// ours.write_all(b"how much?").await?;
/// ours.shutdown().await?;
///
/// let mut theirs = session.accept().await?.stream;
/// let mut question = String::new();
/// theirs.read_to_string(&mut question).await?;
/// theirs.write_all(b"all of it").await?;
/// theirs.shutdown().await?;
///
/// let mut answer = String::new();
/// ours.read_to_string(&mut answer).await?;
/// assert_eq!((&question[..], &answer[..]), ("how much?", "all of it"));
///
/// // A reset is no end.
/// let mut ours = client.open(StreamKind::Raw).await?;
/// ours.write_all(b"half a").await?;
/// session.accept().await?.stream.reset(Code::RESET);
/// let error = ours.read_to_string(&mut answer).await.unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
/// # Ok(())
/// # }
/// ```
#[pin_project]
#[derive(Debug)]
pub struct Stream {
    #[pin]
    read: ReadHalf,
    #[pin]
    write: WriteHalf,
}

impl Stream {
    pub(super) fn new(handle: Arc<Handle>, id: StreamId) -> Self {
        Self { read: ReadHalf::new(handle.clone(), id), write: WriteHalf::new(handle, id) }
    }

    pub(super) fn shared(&self) -> &Shared {
        self.read.shared()
    }

    /// The peer will first say that it is connected.
    pub(super) fn awaiting_answer(mut self, awaits: bool) -> Self {
        self.read.awaits_answer = awaits;
        self
    }

    /// The peer must first be told that it is connected.
    pub(super) fn owing_answer(mut self, owes: bool) -> Self {
        self.write.owes_answer = owes;
        self
    }

    /// Whether one end asked for every byte to go on two lanes.
    pub(crate) fn is_redundant(&self) -> bool {
        self.write.is_redundant()
    }

    /// Waits until the peer says that the destination has accepted the connection; returns at once
    /// if it says no such thing or was not asked. What was written before is sent all the same.
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer has reset the stream, with the reason, or the session is over.
    pub async fn connected(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.read.poll_connected(cx)).await
    }

    /// See [`WriteHalf::answer`].
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub async fn answer(&mut self) -> Result<(), StreamError> {
        self.write.answer().await
    }

    /// A new stream's initial entry in the session.
    pub(super) fn wakers() -> StreamWakers {
        StreamWakers { halves: 2, opened: Some(clock::now()), ..StreamWakers::default() }
    }

    /// Waits until part of it was given to a lane: from then on it belongs to its session. `false`
    /// if that ended first, and the peer cannot have heard of the stream. Nobody may read from it
    /// meanwhile.
    pub(super) async fn begun(&mut self) -> bool {
        self.read.begun().await
    }

    /// See [`WriteHalf::acknowledged`].
    ///
    /// # Errors
    /// The peer wants no more of what is written, or the session is over and not all has arrived.
    pub async fn acknowledged(&mut self) -> Result<(), StreamError> {
        self.write.acknowledged().await
    }

    /// Its number in its session: unique, and the same at both ends.
    pub fn id(&self) -> StreamId {
        self.read.id
    }

    /// The two directions, to be used by different tasks.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// Says where it comes from and where it leads, for whoever looks at the session
    /// ([`SessionView::streams`](crate::SessionView::streams)).
    pub fn describe(&self, from: &str, to: &str) {
        self.read.describe(from, to);
    }

    /// Gives up both directions at once: the peer is told `code`.
    pub fn reset(self, code: Code) {
        self.read.stop(code);
        self.write.reset(code);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().read.poll_read(cx, out)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().write.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().write.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().write.poll_shutdown(cx)
    }
}
