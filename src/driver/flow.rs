//! A flow of datagrams as its user holds it.

mod opening;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;

use super::clock;
use super::error::StreamError;
use super::state::State;
use super::stream::{Stream, closed};
use crate::proto::ids::StreamId;
use crate::proto::limits::{DATAGRAM_BYTES_MAX, FLOW_DEADLINE_MAX};
use crate::proto::wire::StreamKind;
use crate::proto::{Code, DatagramError, FlowStats, ReadError};

/// What a flow is for, and how it is carried. A [`StreamKind`] alone is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowOptions {
    /// What it is for: [`Default`](StreamKind::Default), [`Named`](StreamKind::Named),
    /// [`Raw`](StreamKind::Raw) or [`Visitor`](StreamKind::Visitor).
    pub kind: StreamKind,
    /// A datagram that has waited this long for a lane, at either end, is not sent any more. From
    /// a millisecond to ten seconds; 200 ms unless set.
    pub deadline: Duration,
    /// Latency at any price: every datagram, both ways, goes on the two lanes that will have it
    /// there first, over two links if there are two. It costs twice the bytes. Metered lanes carry
    /// no second copy.
    pub redundant: bool,
    /// Once nothing came or went for this long, this end ends the flow with
    /// [`Code::FLOW_IDLE`]; 120 s unless set. The other end decides for itself.
    pub idle_timeout: Duration,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self {
            kind: StreamKind::Default,
            deadline: Duration::from_millis(200),
            redundant: false,
            idle_timeout: Duration::from_secs(120),
        }
    }
}

impl From<StreamKind> for FlowOptions {
    fn from(kind: StreamKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

/// Why a datagram was neither sent nor received.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlowError {
    /// It is longer than [`Flow::DATAGRAM_BYTES_MAX`].
    #[error("a datagram of {0} bytes is too large: {max} are the most", max = Flow::DATAGRAM_BYTES_MAX)]
    TooLarge(usize),
    /// The flow is over: ended or refused by the peer, idle for too long, or its session has ended.
    #[error(transparent)]
    Ended(#[from] StreamError),
}

/// Datagrams, both ways: in order, each at most once and unchanged, and never sent again.
///
/// A datagram goes on the lane that will have it there first. It does not wait behind the bytes of
/// streams. If it waits for longer than the flow's deadline, or if there is no room, the oldest
/// that wait are dropped; so are those on a lane that dies. [`stats`](Self::stats) counts them.
///
/// Everything but [`connected`](Self::connected), [`answer`](Self::answer) and
/// [`reset`](Self::reset) takes `&self`: one task may receive while another sends. Dropping it ends
/// the flow at both ends, and drops what still waits to be sent.
///
/// ```
/// # use std::sync::Arc;
/// # use imux::lane::memory;
/// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
/// # use imux::{Client, ClientConfig, Link, Server, ServerConfig};
/// use std::time::Duration;
///
/// use imux::{Code, FlowError, FlowOptions, StreamError, StreamKind};
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
/// // A voice: what is later than 100 ms is of no use, and a second lane is worth its bytes.
/// let deadline = Duration::from_millis(100);
/// let options = FlowOptions { deadline, redundant: true, ..StreamKind::Raw.into() };
/// let mut ours = client.open_flow(options).await?;
/// ours.send("hello".into())?;
///
/// let incoming = session.accept().await?;
/// let (mut theirs, kind) = incoming.into_flow().unwrap();
/// assert_eq!(kind, StreamKind::Raw);
/// theirs.answer().await?;
/// assert_eq!(theirs.recv().await?, "hello");
/// theirs.send("and hello".into())?;
///
/// ours.connected().await?; // refused, this would say why
/// assert_eq!(ours.recv().await?, "and hello");
/// assert_eq!(ours.stats().sent, 1);
///
/// theirs.reset(Code::NONE);
/// let over = ours.recv().await.unwrap_err();
/// assert_eq!(over, FlowError::Ended(StreamError::Reset(Code::NONE)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Flow {
    /// Opens, answers and ends it. It carries no bytes but the answer.
    stream: Stream,
    deadline: Duration,
}

/// What counts for a shorter deadline.
const DEADLINE_MIN: Duration = Duration::from_millis(1);

/// Most datagrams that one visit to the session takes.
const BATCH_MAX: usize = 256;

impl Flow {
    /// Most bytes of a datagram: what UDP over IPv4 can carry.
    pub const DATAGRAM_BYTES_MAX: usize = DATAGRAM_BYTES_MAX;

    pub(super) fn new(stream: Stream, deadline: Duration) -> Self {
        let deadline = deadline.clamp(DEADLINE_MIN, FLOW_DEADLINE_MAX); // as the core does
        Self { stream, deadline }
    }

    /// Its number in its session: that of its stream.
    pub fn id(&self) -> StreamId {
        self.stream.id()
    }

    /// How long a datagram may wait.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Waits until the peer says that it takes the flow; datagrams may be sent before. Cancel safe.
    ///
    /// # Errors
    /// The peer refuses the flow, or has ended it: [`StreamError::Reset`] says why; or the session
    /// is over.
    pub async fn connected(&mut self) -> Result<(), StreamError> {
        self.stream.connected().await
    }

    /// Tells the opener that its flow is taken. Cancel safe.
    ///
    /// # Errors
    /// The flow has been ended, or the session is over.
    pub async fn answer(&mut self) -> Result<(), StreamError> {
        self.stream.answer().await
    }

    /// Sends a datagram, which may be empty. Waits for nothing: the oldest datagrams that wait for
    /// a lane give way to it.
    ///
    /// # Errors
    /// It is too large, or the flow is over.
    pub fn send(&self, datagram: Bytes) -> Result<(), FlowError> {
        self.send_all([datagram])
    }

    /// Sends several datagrams, in one visit to the session. Those before one that is too large are
    /// sent.
    ///
    /// # Errors
    /// One is too large, or the flow is over.
    pub fn send_all(&self, datagrams: impl IntoIterator<Item = Bytes>) -> Result<(), FlowError> {
        let id = self.id();
        let datagrams: Vec<Bytes> = datagrams.into_iter().collect();
        self.stream.shared().with(|state, now| {
            for datagram in datagrams {
                let sent = state.core.flow(id).send(now, datagram);
                sent.map_err(|error| match error {
                    DatagramError::TooLarge(bytes) => FlowError::TooLarge(bytes),
                    DatagramError::Ended(code) => StreamError::Reset(code).into(),
                    DatagramError::Closed => closed(state).into(),
                })?;
            }
            Ok(())
        })
    }

    /// The next datagram. What arrived before the flow's end comes before the end.
    ///
    /// Cancel safe: nothing is taken before it is ready.
    ///
    /// # Errors
    /// The flow is over.
    pub async fn recv(&self) -> Result<Bytes, FlowError> {
        self.wait(|state| read(state, self.id())).await
    }

    /// Appends the datagrams that are there to `out`: at least one, for which it waits.
    ///
    /// Cancel safe: nothing is taken before one is ready.
    ///
    /// # Errors
    /// The flow is over.
    pub async fn recv_all(&self, out: &mut Vec<Bytes>) -> Result<(), FlowError> {
        let id = self.id();
        self.wait(|state| {
            let mut next = read(state, id)?;
            for _ in 0..BATCH_MAX {
                match next {
                    Ok(datagram) => out.push(datagram),
                    Err(error) => return Some(Err(error)),
                }
                match read(state, id) {
                    Some(Ok(datagram)) => next = Ok(datagram),
                    // The end is told by the next call.
                    Some(Err(_)) | None => return Some(Ok(())),
                }
            }
            out.extend(next.ok());
            Some(Ok(()))
        })
        .await
    }

    /// The next datagram, if there is one now.
    ///
    /// # Errors
    /// The flow is over.
    pub fn try_recv(&self) -> Result<Option<Bytes>, FlowError> {
        self.stream.shared().ask(|state| read(state, self.id())).transpose()
    }

    /// Once nothing came or went for this long, this end ends the flow.
    pub fn set_idle_timeout(&self, idle: Duration) {
        let id = self.id();
        self.stream.shared().with(|state, _| state.core.flow(id).set_idle_timeout(idle));
    }

    /// What became of its datagrams at this end; nothing once the session is over.
    pub fn stats(&self) -> FlowStats {
        let id = self.id();
        self.stream.shared().ask(|state| state.core.flow(id).stats()).unwrap_or_default()
    }

    /// Says where it comes from and where it leads, as [`Stream::describe`].
    pub fn describe(&self, from: &str, to: &str) {
        self.stream.describe(from, to);
    }

    /// Ends it at both ends: the peer is told `code`, [`Code::NONE`] if nothing is wrong.
    pub fn reset(self, code: Code) {
        self.close(code);
    }

    fn close(&self, code: Code) {
        let id = self.id();
        self.stream.shared().with(|state, _| state.core.flow(id).close(code));
    }

    /// Waits until `find` finds something; it looks again whenever the flow can be read.
    async fn wait<T>(&self, mut find: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut place = Place { flow: self, key: None };
        poll_fn(|cx| {
            self.stream.shared().ask(|state| match find(state) {
                Some(found) => Poll::Ready(found),
                None => {
                    place.note(state, cx);
                    Poll::Pending
                }
            })
        })
        .await
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.close(Code::NONE);
    }
}

/// The next datagram, or the end; `None` if there is neither.
fn read(state: &mut State, id: StreamId) -> Option<Result<Bytes, FlowError>> {
    match state.core.flow(id).recv(clock::now()) {
        Ok(datagram) => Some(Ok(datagram)),
        Err(ReadError::Blocked) => None,
        Err(ReadError::Reset(code)) => Some(Err(StreamError::Reset(code).into())),
        Err(ReadError::Closed) => Some(Err(closed(state).into())),
    }
}

/// One that waits for datagrams.
struct Place<'a> {
    flow: &'a Flow,
    key: Option<u64>,
}

impl Place<'_> {
    fn note(&mut self, state: &mut State, cx: &Context<'_>) {
        if let Some(wakers) = state.streams.get_mut(&self.flow.id()) {
            wakers.datagrams.note(&mut self.key, cx);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let id = self.flow.id();
        // Dropping a waker may drop its task, which may hold streams: not under the lock.
        let waker = self.flow.stream.shared().ask(|state| {
            let wakers = state.streams.get_mut(&id);
            wakers.and_then(|wakers| wakers.datagrams.remove(key))
        });
        drop(waker);
    }
}
