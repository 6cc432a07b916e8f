//! A session as its user holds it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast::error::RecvError;

use super::audit::Subject;
use super::error::OpenError;
use super::lane_event::LaneEvent;
use super::shared::{Handle, Shared};
use super::state::{State, StreamWakers, remember};
use super::stream::Stream;
use super::view::SessionView;
use super::wait::wait;
use super::wants::{self, OpenOptions};
use crate::proto::wire::{StreamKind, Wants};
use crate::proto::{Code, Health, SessionError, SessionStats, Undelivered};
use crate::trust::{Fingerprint, Permit};

/// How long closing a session may take when somebody waits for it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// Many streams over many lanes, with one peer. Cheap to clone; when the last clone and the last
/// stream are gone, what was written is delivered and the session ends.
///
/// Both ends are alike: either may open streams and accept the other's.
///
/// ```
/// # use std::sync::Arc;
/// # use imux::lane::memory;
/// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
/// # use imux::{Client, ClientConfig, Link, Server, ServerConfig};
/// use imux::{Code, SessionError, StreamKind};
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
/// # let ours = client.session().unwrap();
/// # let (theirs, _) = server.accept().await.unwrap();
/// // The server speaks to its client.
/// let mut stream = theirs.open(StreamKind::Raw).await?;
/// stream.write_all(b"hello").await?;
///
/// let mut incoming = ours.accept().await?;
/// assert_eq!(incoming.kind, StreamKind::Raw);
/// let mut five = [0; 5];
/// incoming.stream.read_exact(&mut five).await?;
/// assert_eq!(&five, b"hello");
///
/// ours.close(Code::SHUTDOWN);
/// assert_eq!(ours.closed().await, SessionError::Closed(Code::SHUTDOWN));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Session {
    handle: Arc<Handle>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { handle: Arc::new(Handle { shared }) }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    pub(super) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Opens a stream. Its first bytes travel with the opening: it waits only for room among the
    /// streams the peer allows.
    ///
    /// Cancel safe: no stream is opened before it is ready.
    ///
    /// # Errors
    /// The session is over, or one end is shutting down.
    pub async fn open(&self, options: impl Into<OpenOptions>) -> Result<Stream, OpenError> {
        let options = options.into();
        let (id, awaits) = wait(
            self.shared(),
            |state| &mut state.opening,
            |state| {
                if let Some(over) = &state.over {
                    return Some(Err(OpenError::Session(over.clone())));
                }
                let granted = state.core.granted_wants();
                let listeners = state.core.granted_listeners();
                let flows = state.core.granted_flows();
                let (kind, awaits) = match wants::asked(&options, granted, listeners, flows) {
                    Ok(asked) => asked,
                    Err(refused) => return Some(Err(refused)),
                };
                match state.core.open(kind) {
                    Some(id) => {
                        if options.redundant {
                            state.core.send_stream(id).set_redundant();
                        }
                        state.streams.insert(id, Stream::wakers());
                        if let StreamKind::Named(to) = &options.kind {
                            state.describe(id, "", to);
                        }
                        Some(Ok((id, awaits)))
                    }
                    None => state.core.is_draining().then_some(Err(OpenError::Draining)),
                }
            },
        )
        .await?;
        Ok(Stream::new(self.handle.clone(), id).awaiting_answer(awaits))
    }

    /// The next stream or flow the peer opens. Cancel safe: none is lost.
    ///
    /// # Errors
    /// The session is over.
    pub async fn accept(&self) -> Result<Incoming, SessionError> {
        let accepted = wait(
            self.shared(),
            |state| &mut state.accepting,
            |state| match state.core.accept() {
                Some((id, kind)) => {
                    let stopped = state.core.send_stream(id).stopped();
                    state.streams.insert(id, StreamWakers { stopped, ..Stream::wakers() });
                    let (kind, wants, claim) = wants::heard(kind);
                    let owes = wants.has(Wants::ANSWER);
                    let stream = Stream::new(self.handle.clone(), id).owing_answer(owes);
                    Some(Ok(Incoming { stream, kind, wants, claim }))
                }
                None => state.over.clone().map(Err),
            },
        );
        accepted.await
    }

    /// Waits for the session's end. Cancel safe.
    pub async fn closed(&self) -> SessionError {
        closed(self.shared()).await
    }

    /// Lets open streams finish; the peer may open no more.
    pub fn drain(&self) {
        drain(self.shared());
    }

    /// Waits until one end opens no more streams, or the session is over. Cancel safe.
    pub(crate) async fn draining(&self) {
        let drains = |state: &mut State| state.core.is_draining() || state.over.is_some();
        wait(self.shared(), |state| &mut state.opening, |state| drains(state).then_some(())).await;
    }

    /// While the result lives, the session does not give way to a new one where there are too many.
    pub(crate) fn keep(&self) -> Kept {
        self.shared().ask(|state| state.kept += 1);
        Kept(self.shared().clone())
    }

    /// Whether none of its lanes answers now.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.stats().lanes.iter().all(|lane| lane.health != Health::Good)
    }

    /// Waits until no stream is open, or the session is over. Cancel safe.
    pub async fn drained(&self) {
        drained(self.shared()).await;
    }

    /// The client's key, on the server's side of a session; `None` if it showed none.
    pub fn client(&self) -> Option<Fingerprint> {
        self.shared().admission.as_ref()?.client
    }

    /// What the client may do now, on the server's side of a session; ask at each stream's opening.
    /// `None` if it is no longer authorised. On the client's side, a server may do what any unknown
    /// client may.
    pub fn permit(&self) -> Option<Permit> {
        match &self.shared().admission {
            Some(client) => client.permit(),
            None => Some(Permit::fixed_destination()),
        }
    }

    /// On whose behalf its streams are carried, for the audit trail.
    pub fn subject(&self) -> Subject {
        self.shared().admission.as_ref().map(|client| client.subject.clone()).unwrap_or_default()
    }

    /// Ends the session at once: its streams are cut off, and the peer is told `code`.
    pub fn close(&self, code: Code) {
        self.shared().with(|state, _| state.core.close(code));
    }

    /// Like [`close`](Self::close), then waits until the lanes are closed; a second at most.
    ///
    /// Cancel safe: the session is over at the first poll.
    pub async fn close_and_wait(&self, code: Code) {
        let _ = close_within(self.shared(), code, Duration::ZERO).await;
    }

    /// Waits until everything written to its streams has arrived at the peer, and every end that
    /// was marked.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The session is over, and this much was lost.
    pub async fn delivered(&self) -> Result<(), Undelivered> {
        delivered(self.shared()).await
    }

    /// What happens to its lanes from now on, until it is over. A reader that falls behind misses
    /// the oldest events; nothing waits.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use imux::lane::memory;
    /// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
    /// # use imux::{Client, ClientConfig, Link, Server, ServerConfig};
    /// use futures::StreamExt;
    /// use imux::LaneEvent;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = Fingerprint::from_bytes([7; 32]);
    /// # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
    /// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    /// # let dialer = dialer.with_peer(identity);
    /// # let _server = Server::start(listener, ServerConfig::default());
    /// # let trust = Arc::new(PinnedKeys::new([key]));
    /// # let link = Link::new(Arc::new(dialer.clone()), 1);
    /// # let client = Client::connect(vec![link], ClientConfig::new(trust));
    /// # let client = client.await?;
    /// let session = client.session().unwrap();
    /// let mut events = std::pin::pin!(session.lane_events());
    /// let lane = session.stats().lanes[0].id;
    /// dialer.lanes()[0].reset();
    /// assert_eq!(events.next().await, Some(LaneEvent::Lost(lane)));
    /// // It is dialled again.
    /// assert!(matches!(events.next().await, Some(LaneEvent::Up(_))));
    /// # Ok(())
    /// # }
    /// ```
    pub fn lane_events(&self) -> impl futures::Stream<Item = LaneEvent> + Send + use<> {
        let events = self.shared().ask(State::subscribe);
        futures::stream::unfold(events, async |events| {
            let mut events = events?;
            loop {
                match events.recv().await {
                    Ok(event) => return Some((event, Some(events))),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            }
        })
    }

    /// A look at it that does not hold it open.
    pub fn view(&self) -> SessionView {
        SessionView::new(self.shared().clone())
    }

    /// Statistics of the session and its lanes.
    pub fn stats(&self) -> SessionStats {
        self.shared().peek(|state| state.core.stats())
    }
}

/// See [`Session::keep`].
#[derive(Debug)]
pub(crate) struct Kept(Arc<Shared>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.ask(|state| state.kept -= 1);
    }
}

/// Lets open streams finish without holding the session open; returns how many are open.
pub(super) fn drain(shared: &Shared) -> usize {
    let mut wake = Vec::new();
    let streams = shared.with(|state, _| {
        state.core.drain();
        state.opening.wake(&mut wake);
        state.core.stream_count()
    });
    wake.into_iter().for_each(Waker::wake);
    streams
}

/// Waits for the end of a session without holding it open.
pub(super) async fn closed(shared: &Shared) -> SessionError {
    wait(shared, |state| &mut state.closing, |state| state.over.clone()).await
}

/// Waits until all that was written has arrived, without holding the session open.
async fn delivered(shared: &Shared) -> Result<(), Undelivered> {
    let arrived = |state: &mut State| state.is_delivered().then(|| state.core.undelivered());
    wait(shared, |state| &mut state.delivering, arrived).await.into_result()
}

/// Waits until what was written has arrived, for `patience` at most; then ends the session and
/// waits until its lanes are closed, a second at most.
pub(super) async fn close_within(
    shared: &Shared,
    code: Code,
    patience: Duration,
) -> Result<(), Undelivered> {
    if !patience.is_zero() {
        let _ = tokio::time::timeout(patience, delivered(shared)).await;
    }
    shared.with(|state, _| state.core.close(code));
    let lanes_gone =
        wait(shared, |state| &mut state.closing, |state| state.lanes.is_empty().then_some(()));
    // A lane that takes no more bytes is no reason to stay.
    let _ = tokio::time::timeout(CLOSE_PATIENCE, lanes_gone).await;
    shared.peek(|state| state.core.undelivered()).into_result()
}

/// Waits for the server to announce its next key; `None` when the session is over.
pub(super) async fn next_key(shared: &Shared) -> Option<Bytes> {
    poll_fn(|cx| {
        shared.with(|state, _| {
            if let Some(announcement) = state.next_key.0.take() {
                return Poll::Ready(Some(announcement));
            }
            if state.over.is_some() {
                return Poll::Ready(None);
            }
            remember(&mut state.next_key.1, cx);
            Poll::Pending
        })
    })
    .await
}

/// Waits until no stream of a session is open, without holding it open.
pub(super) async fn drained(shared: &Shared) {
    let idle = |state: &mut State| state.core.stream_count() == 0 || state.over.is_some();
    wait(shared, |state| &mut state.draining, |state| idle(state).then_some(())).await;
}

/// A stream the peer opened, or a flow.
#[derive(Debug)]
pub struct Incoming {
    /// The stream. Dropping it resets it.
    pub stream: Stream,
    /// What the peer wants of it: never [`StreamKind::Wanting`]. If it is a
    /// [`Flow`](StreamKind::Flow), see [`into_flow`](Self::into_flow).
    pub kind: StreamKind,
    /// What else it wants. The answer goes out before the first byte written, or at
    /// [`WriteHalf::answer`](super::WriteHalf::answer).
    pub wants: Wants,
    /// Who connects, on the peer's word alone.
    pub claim: Option<SocketAddr>,
}
