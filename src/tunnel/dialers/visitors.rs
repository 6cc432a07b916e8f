//! Connections that the server accepts for a client: where they lead from here.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::dial::{Failed, connect_fixed, meaning};
use super::{Source, datagrams};
use crate::driver::{
    Client, Code, Incoming, OpenError, OpenOptions, Session, SessionError, Stream, StreamError,
    StreamKind,
};
use crate::trust::{Destination, ProxyHeader};
use crate::tunnel::connections::{self, Connections};
use crate::tunnel::copy::{Ends, copy};

/// The server is asked again this soon after it said no, then less often.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(250);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(10);

/// A place at the server, and where connections to it lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteForward {
    /// Where the server listens: an address of its own, `localhost`, or a Unix socket. With port 0
    /// the server chooses one, which is asked for from then on. If it
    /// [takes datagrams](Destination::is_udp), each of their senders has a flow.
    pub listen: Destination,
    /// Where they go from here: `host:port`, resolved at each dial, or `unix:` and a path, which
    /// takes no datagrams.
    pub to: Arc<str>,
    /// See [`OpenOptions::redundant`]: both ends do that for each connection.
    pub redundant: bool,
    /// Whether that end is told who connects, as the server sees it, and how.
    pub tell_source: Option<ProxyHeader>,
}

/// The server does not listen for this client, and asking again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteForwardError {
    /// It does not support this.
    #[error("{0}")]
    NotKnown(OpenError),
    /// It does not allow it there.
    #[error("the server takes no connections at {place} for this client: {code}")]
    NotAllowed {
        /// Where.
        place: Destination,
        /// What it said.
        code: Code,
    },
}

/// Has the server listen for this client, and carries each connection to where it leads, until the
/// client is [drained](Client::drain) or closed; then returns when they have ended. Streams that
/// the server opens for anything else are refused.
///
/// A place lost with a session, or held by somebody else, is asked for again until it is granted.
/// So is one that the server does not allow, unless it says so the first time and `insists` is
/// false.
///
/// # Errors
/// The server does not support or allow it, and `insists` is false.
pub async fn forward_from_server(
    client: Arc<Client>,
    forwards: Vec<RemoteForward>,
    bound: &Connections,
    insists: bool,
) -> Result<(), RemoteForwardError> {
    let (_never, forwards) = watch::channel(forwards);
    forward_from_server_as(client, forwards, bound, insists).await
}

/// Like [`forward_from_server`], with forwards that may change: then all are asked for anew, and
/// connections that are open go on. Those that come later are insisted on.
///
/// # Errors
/// As [`forward_from_server`].
pub async fn forward_from_server_as(
    client: Arc<Client>,
    mut forwards: watch::Receiver<Vec<RemoteForward>>,
    bound: &Connections,
    insists: bool,
) -> Result<(), RemoteForwardError> {
    let mut visitors = JoinSet::new();
    let first = forwards.borrow_and_update().clone();
    let mut wishes: Vec<_> = first.into_iter().map(|it| Wish::new(it, insists)).collect();
    // All visitors are one client to what is dialled here.
    let dialling = bound.client(None);
    let mut over = None;
    let mut known = Known::default();
    known.add(&wishes);
    loop {
        let session = tokio::select! {
            () = client.stopping() => break,
            session = client.session_after(over.as_ref()) => match session {
                Ok(session) => session,
                Err(_) => break,
            },
        };
        loop {
            let first = known.newest;
            let asking =
                (first..).zip(&mut wishes).map(|(number, wish)| wish.keep_asking(&session, number));
            let changed = tokio::select! {
                () = client.stopping() => break,
                // Without a sender nothing changes any more.
                Ok(()) = forwards.changed() => true,
                _ = take(&session, &known, &dialling, &mut visitors) => false,
                refused = try_join_all(asking) => {
                    refused?;
                    // There is nothing to ask for: whatever the server opens is refused.
                    tokio::select! {
                        () = client.stopping() => break,
                        Ok(()) = forwards.changed() => true,
                        _ = take(&session, &known, &dialling, &mut visitors) => false,
                    }
                }
            };
            if !changed {
                break;
            }
            let wanted = forwards.borrow_and_update().clone();
            wishes = wanted.into_iter().map(|it| Wish::kept_or_new(it, &mut wishes)).collect();
            known.add(&wishes);
        }
        over = Some(session);
    }
    while visitors.join_next().await.is_some() {}
    Ok(())
}

/// Where connections lead, by the numbers that the server was told.
#[derive(Debug, Default)]
struct Known {
    /// The first number of those that are asked for now.
    newest: u64,
    /// One that was never told.
    next: u64,
    forwards: BTreeMap<u64, Arc<RemoteForward>>,
}

impl Known {
    /// From now on these are asked for. Connections to what was asked for just before may be on
    /// their way.
    fn add(&mut self, wishes: &[Wish]) {
        let before = self.newest;
        self.newest = self.next;
        self.next += wishes.len() as u64;
        self.forwards.retain(|number, _| *number >= before);
        let forwards = wishes.iter().map(|wish| wish.forward.clone());
        self.forwards.extend((self.newest..).zip(forwards));
    }

    /// Where a visitor leads, and where it comes from: one with datagrams only where these are
    /// asked for.
    fn of(
        &self,
        kind: &StreamKind,
        is_flow: bool,
    ) -> Option<(Arc<RemoteForward>, Option<SocketAddr>)> {
        let StreamKind::Visitor { number, source } = kind else { return None };
        let forward = self.forwards.get(number).filter(|it| it.listen.is_udp() == is_flow)?;
        let source = source.as_ref().and_then(|source| source.parse().ok());
        Some((forward.clone(), source))
    }
}

/// What is asked for, and what came of it.
#[derive(Debug)]
struct Wish {
    forward: Arc<RemoteForward>,
    /// Where, with the port that the server has chosen.
    listen: Destination,
    /// It was granted once, or is to be asked for whatever the server says.
    granted: bool,
    /// Why not, as last reported.
    told: Option<String>,
}

impl Wish {
    fn new(forward: RemoteForward, insists: bool) -> Self {
        let listen = forward.listen.clone();
        Self { forward: Arc::new(forward), listen, granted: insists, told: None }
    }

    /// The one there is for it, or one that is insisted on.
    fn kept_or_new(forward: RemoteForward, there: &mut Vec<Self>) -> Self {
        match there.iter().position(|wish| *wish.forward == forward) {
            Some(at) => there.swap_remove(at),
            None => Self::new(forward, true),
        }
    }

    /// Asks for it as long as the session lasts.
    async fn keep_asking(
        &mut self,
        session: &Session,
        number: u64,
    ) -> Result<(), RemoteForwardError> {
        let mut pause = ASK_AGAIN_MIN;
        loop {
            match self.ask(session, number).await {
                Ok(mut stream) => {
                    pause = ASK_AGAIN_MIN;
                    self.granted = true;
                    self.told = None;
                    let (address, to) = (&self.listen, &self.forward.to);
                    tracing::info!(%address, %to, "the server takes connections for this client");
                    self.tell(&ended(&mut stream).await);
                }
                Err(Unheard::Open(OpenError::Session(_) | OpenError::Draining)) => {
                    session.closed().await;
                    return std::future::pending().await;
                }
                Err(why) => {
                    if let Some(why) = why.is_final(&self.forward).filter(|_| !self.granted) {
                        return Err(why);
                    }
                    self.tell(&why);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
    }

    async fn ask(&mut self, session: &Session, number: u64) -> Result<Stream, Unheard> {
        if self.listen.is_udp() && session.flows_granted() == 0 {
            return Err(OpenError::FlowsNotKnown.into());
        }
        let place = self.listen.to_string();
        let kind = StreamKind::Listening { number, place };
        let redundant = self.forward.redundant;
        let mut stream = session.open(OpenOptions { redundant, ..kind.into() }).await?;
        stream.connected().await?;
        if self.listen.leaves_port() {
            let mut port = [0; 2];
            stream.read_exact(&mut port).await.map_err(|error| why(&error))?;
            self.listen = self.listen.clone().with_port(u16::from_be_bytes(port));
        }
        Ok(stream)
    }

    /// Reports why not, once.
    fn tell(&mut self, why: &Unheard) {
        if matches!(why, Unheard::Stream(StreamError::Session(_))) {
            return;
        }
        let said = why.to_string();
        if self.told.as_ref() != Some(&said) {
            let (address, to) = (&self.listen, &self.forward.to);
            tracing::warn!(%address, %to, %why, "the server takes no connections for this client now; it is asked again");
            self.told = Some(said);
        }
    }
}

/// Why the server takes no connections.
#[derive(Debug, thiserror::Error)]
enum Unheard {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl Unheard {
    /// The error, if asking again would not help.
    fn is_final(&self, forward: &RemoteForward) -> Option<RemoteForwardError> {
        match self {
            Self::Open(error @ (OpenError::ListeningNotKnown | OpenError::FlowsNotKnown)) => {
                Some(RemoteForwardError::NotKnown(error.clone()))
            }
            Self::Stream(StreamError::Reset(code)) => {
                let is_final = matches!(
                    *code,
                    Code::LISTEN_FORBIDDEN
                        | Code::LISTEN_FAILED
                        | Code::DIAL_FORBIDDEN
                        | Code::UNAUTHORIZED
                );
                let place = forward.listen.clone();
                is_final.then_some(RemoteForwardError::NotAllowed { place, code: *code })
            }
            _ => None,
        }
    }
}

/// Waits until the server ends a stream; nothing else comes on it.
async fn ended(stream: &mut Stream) -> Unheard {
    match stream.read(&mut [0]).await {
        Ok(_) => Unheard::Stream(StreamError::Closed),
        Err(error) => why(&error),
    }
}

/// Why nothing more is heard on a stream.
fn why(error: &io::Error) -> Unheard {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<StreamError>());
    Unheard::Stream(inner.cloned().unwrap_or(StreamError::Closed))
}

/// Carries the connections that the server accepted, as long as the session lasts. Streams with any
/// other number, or of any other kind, are refused.
async fn take(
    session: &Session,
    known: &Known,
    dialling: &Arc<connections::Client>,
    visitors: &mut JoinSet<()>,
) -> SessionError {
    let mut told = false;
    loop {
        let incoming = tokio::select! {
            accepted = session.accept() => match accepted {
                Ok(incoming) => incoming,
                Err(over) => return over,
            },
            Some(_) = visitors.join_next() => continue,
        };
        let mut tell = |kind: StreamKind| {
            // A server that goes on does not fill the log.
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(?kind, "the server opens what it was not asked for; it is refused");
            }
        };
        let dialling = dialling.clone();
        match incoming.into_flow() {
            Ok((flow, kind)) => match known.of(&kind, true) {
                Some((forward, _)) => {
                    let session = session.clone();
                    drop(visitors.spawn(async move {
                        datagrams::serve_fixed(flow, &forward.to, &session, &dialling).await;
                    }));
                }
                None => {
                    tell(kind);
                    flow.reset(Code::DIAL_FORBIDDEN);
                }
            },
            Err(Incoming { stream, kind, .. }) => match known.of(&kind, false) {
                Some((forward, source)) => {
                    drop(visitors.spawn(visit(stream, source, forward, dialling)));
                }
                None => {
                    tell(kind);
                    stream.reset(Code::DIAL_FORBIDDEN);
                }
            },
        }
    }
}

/// Carries a connection to where it leads.
async fn visit(
    stream: Stream,
    source: Option<SocketAddr>,
    forward: Arc<RemoteForward>,
    dialling: Arc<connections::Client>,
) {
    let told = Source { told: forward.tell_source, address: source };
    let connected = match connect_fixed(&forward.to, &dialling).await {
        Ok((socket, place)) => {
            let told = told.tell(socket).await;
            let failed = |error| Failed::new(&forward.to, meaning(&error), error);
            told.map(|socket| (socket, place)).map_err(failed)
        }
        Err(failed) => Err(failed),
    };
    match connected {
        Ok((socket, _place)) => {
            let from = source.map_or_else(|| "a visitor".to_owned(), |source| source.to_string());
            let ends =
                Ends { from, to: format!("{} by the server's {}", forward.to, forward.listen) };
            copy(socket, Bytes::new(), stream, dialling.sockets(), &ends).await;
        }
        Err(failed) => stream.reset(failed.tell(&dialling)),
    }
}
