//! The client: keeps lanes to a server up, and a session over them.

mod config;
mod connector;
mod current;
mod failure;
mod first_keys;
mod keeper;
mod links;
mod server_key;
mod stagger;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use connector::{Connector, LaneSlot};
use current::{CurrentSession, Established};
use failure::{Failed, Failures, is_final};
use keeper::Keepers;
use links::{Links, Place};
use server_key::ServerKey;

use super::error::{ConnectError, OpenError};
use super::flow::{Flow, FlowOptions};
use super::session::{self, Session};
use super::stream::Stream;
use super::wants::OpenOptions;
use crate::proto::{Code, LanePolicy, LinkId, SessionStats, Tier, Undelivered};
use crate::trust::Fingerprint;

pub use config::{ClientConfig, Link};
pub use links::LinkStatus;

/// What to open.
enum Opening {
    Stream(OpenOptions),
    Flow(FlowOptions),
}

/// A session with one server that is kept alive: lost lanes are dialled again, and a session that
/// was lost (the server was restarted, say) is created anew for streams opened from then on.
///
/// Dropping it stops dialling; streams that are open go on with the lanes there are.
///
/// ```
/// use std::sync::Arc;
///
/// use imux::lane::memory;
/// use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
/// use imux::{Client, ClientConfig, Link, Server, ServerConfig, StreamKind};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = Fingerprint::from_bytes([7; 32]);
/// # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
/// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
/// # let dialer = dialer.with_peer(identity);
/// # let _server = Server::start(listener, ServerConfig::default());
/// let config = ClientConfig::new(Arc::new(PinnedKeys::new([key])));
/// let link = Link::new(Arc::new(dialer), 2);
/// let client = Client::connect(vec![link], config).await?;
/// assert!(client.session().is_some());
///
/// // Another server's key is no server of ours.
/// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
/// # let dialer = dialer.with_peer(identity);
/// # let _server = Server::start(listener, ServerConfig::default());
/// let config = ClientConfig::new(Arc::new(PinnedKeys::new([Fingerprint::from_bytes([8; 32])])));
/// let link = Link::new(Arc::new(dialer), 2);
/// let refused = Client::connect(vec![link], config).await;
/// assert!(matches!(refused, Err(imux::ConnectError::Trust(_))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    current: watch::Receiver<Option<Arc<Established>>>,
    keepers: Arc<Keepers>,
    links: Links,
    /// No more streams are opened.
    draining: watch::Sender<bool>,
}

impl Client {
    /// Dials all links and returns once a first lane carries a session.
    ///
    /// Among several links, one whose server shows a key other than the known or pinned one counts
    /// as down while another shows the right one.
    ///
    /// Cancel safe: dropping it ends all attempts.
    ///
    /// # Errors
    /// Every link's first attempt has failed, the server is not trusted, or it refuses; the
    /// settings make no sense, or the links together have no lane or more than [`Link::LANES_MAX`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(links: Vec<Link>, config: ClientConfig) -> Result<Self, ConnectError> {
        Self::start(links, config, false).await
    }

    /// Like [`connect`](Self::connect), but waits as long as it takes for a server that is away or
    /// shutting down. Dropping it gives up.
    ///
    /// # Errors
    /// What waiting cannot mend: no link shows the right server, or it refuses this client.
    pub async fn keep_connecting(
        links: Vec<Link>,
        config: ClientConfig,
    ) -> Result<Self, ConnectError> {
        Self::start(links, config, true).await
    }

    async fn start(
        links: Vec<Link>,
        config: ClientConfig,
        keeps_trying: bool,
    ) -> Result<Self, ConnectError> {
        config.session.check()?;
        let stopped = watch::Sender::new(false);
        let lanes = links.iter().map(|link| link.lanes);
        let key = ServerKey::new(config.trust, lanes, keeps_trying, stopped.clone());
        let connector = Connector {
            config: Arc::new(config.session),
            key: Arc::new(key),
            current: CurrentSession::none(),
            express: watch::Sender::new(false),
            stopped,
        };
        let current = connector.current.subscribe();
        let keepers = Arc::new(Keepers::new(connector, keeps_trying));
        let (failures, failed) = mpsc::unbounded_channel();
        let draining = watch::Sender::new(false);
        let client = Self { current, keepers, links: Links::default(), draining };
        // Each has its place before the first is dialled.
        let places = links.iter().map(|link| client.links.add(link));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let mut pending = BTreeSet::new();
        for (link, place) in links.iter().zip(places) {
            client.keep_lanes(link, &place, Some(&failures));
            if link.lanes > 0 {
                pending.insert(place.id.number() as usize);
            }
        }
        drop(failures);
        client.first_lane(pending, failed).await.map(|()| client)
    }

    /// Has the lanes of a link dialled, and kept up.
    fn keep_lanes(
        &self,
        link: &Link,
        Place { id, watch: network, state }: &Place,
        failures: Option<&mpsc::UnboundedSender<Failed>>,
    ) {
        let (policy, number) = (link.policy(*id), id.number() as usize);
        let slot = |policy| {
            let (dialer, state) = (link.dialer.clone(), state.clone());
            LaneSlot { dialer, policy, link: number, state }
        };
        for _ in 0..link.lanes {
            let keepers = self.keepers.clone();
            let failures = failures.cloned();
            tokio::spawn(keepers.keep_lane(slot(policy), network.clone(), false, failures));
        }
        if link.express && link.lanes > 0 {
            let policy = LanePolicy { tier: Tier::Express, ..policy };
            let keepers = self.keepers.clone();
            tokio::spawn(keepers.keep_express_lane(slot(policy), network.clone()));
        }
    }

    /// Dials one more link from now on. The links that [`connect`](Self::connect) was given are
    /// numbered in their order, from 0; a number is not used again.
    ///
    /// # Errors
    /// All links together would have more than [`Link::LANES_MAX`] lanes.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use imux::lane::memory;
    /// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
    /// # use imux::{Client, ClientConfig, Server, ServerConfig};
    /// use imux::Link;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = Fingerprint::from_bytes([7; 32]);
    /// # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
    /// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    /// # let dialer = dialer.with_peer(identity);
    /// # let _server = Server::start(listener, ServerConfig::default());
    /// # let trust = Arc::new(PinnedKeys::new([key]));
    /// # let client = vec![Link::new(Arc::new(dialer.clone()), 1)];
    /// # let client = Client::connect(client, ClientConfig::new(trust)).await?;
    /// // A second network has come up, later gets another address, and goes away.
    /// let second = client.add_link(&Link::new(Arc::new(dialer), 4))?;
    /// client.redial_link(second);
    /// assert!(client.remove_link(second));
    /// # Ok(())
    /// # }
    /// ```
    pub fn add_link(&self, link: &Link) -> Result<LinkId, ConnectError> {
        let place = self.links.add(link)?;
        self.keep_lanes(link, &place, None);
        Ok(place.id)
    }

    /// Ends a link's lanes, and dials no more; `false` if there is no such link. What its lanes
    /// have not delivered travels on others, once there are any.
    pub fn remove_link(&self, link: LinkId) -> bool {
        self.links.remove(link)
    }

    /// The network below a link has become another (an address has changed, say): its lanes are
    /// ended without waiting until they are found to be dead, and all are dialled at once.
    pub fn redial_link(&self, link: LinkId) {
        self.links.redial(link);
    }

    /// The network below a link may be back: those of its lanes that are not up are dialled at
    /// once.
    pub fn wake_link(&self, link: LinkId) {
        self.links.wake(link);
    }

    /// Its links as they are now, by number.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.links.status()
    }

    /// Gives up the lanes of a link, and makes none until [`resume_link`](Self::resume_link). What
    /// they had in flight is sent on the others. Without any lane the session waits, and ends after
    /// its grace time. `false`: there is no such link.
    pub fn pause_link(&self, link: LinkId) -> bool {
        self.links.pause(link)
    }

    /// Makes lanes on a link again. `false`: there is no such link.
    pub fn resume_link(&self, link: LinkId) -> bool {
        self.links.resume(link)
    }

    /// Has a link's lanes carry streams as this tier says. The server learns of a lane's tier at
    /// its beginning, so they are dialled anew if the tier is another one. `false`: there is no
    /// such link.
    pub fn set_link_tier(&self, link: LinkId, tier: Tier) -> bool {
        self.links.set_tier(link, tier)
    }

    /// Waits for a session, or for the failure that ends the start; the links in `pending` have
    /// reported no failure yet.
    async fn first_lane(
        &self,
        mut pending: BTreeSet<usize>,
        mut failed: mpsc::UnboundedReceiver<Failed>,
    ) -> Result<(), ConnectError> {
        if pending.is_empty() {
            return Err(ConnectError::NoLinks);
        }
        let keeps_trying = self.keepers.keeps_trying;
        let mut current = self.current.clone();
        let mut failures = Failures::default();
        loop {
            tokio::select! {
                biased;
                up = current.wait_for(Option::is_some) => {
                    failures.tell();
                    // The keepers hold the other end as long as they live.
                    return up.map(|_| ()).map_err(|_| ConnectError::NoLinks);
                }
                Some(failure) = failed.recv() => {
                    let was_last = pending.remove(&failure.link) && pending.is_empty();
                    if is_final(&failure.error, keeps_trying) || was_last && !keeps_trying {
                        // The other lanes will fail as this one did; do not report that as well.
                        self.keepers.connector.stopped.send_replace(true);
                        return Err(failure.error);
                    }
                    failures.add(failure);
                    if pending.is_empty() {
                        failures.tell();
                    }
                    if was_last {
                        tracing::warn!("the server cannot be reached by any link; waiting for it");
                    }
                }
            }
        }
    }

    /// Opens a stream; waits a while for a session if there is none now, then until a lane takes
    /// the stream's first bytes. If the session ends before that (the server was restarted, say),
    /// the stream is unharmed and is opened in the next.
    ///
    /// Cancel safe: a stream that is not returned is reset.
    ///
    /// # Errors
    /// No session came in time, or it is shutting down.
    pub async fn open(&self, options: impl Into<OpenOptions>) -> Result<Stream, OpenError> {
        self.open_any(&Opening::Stream(options.into())).await
    }

    /// Opens a flow of datagrams, as [`open`](Self::open) opens a stream.
    ///
    /// Cancel safe: a flow that is not returned is ended.
    ///
    /// # Errors
    /// No session came in time, or it is shutting down; the server knows no flows, or allows no
    /// more.
    pub async fn open_flow(&self, options: impl Into<FlowOptions>) -> Result<Flow, OpenError> {
        let options = options.into();
        let deadline = options.deadline;
        let stream = self.open_any(&Opening::Flow(options)).await?;
        Ok(Flow::new(stream, deadline))
    }

    async fn open_any(&self, opening: &Opening) -> Result<Stream, OpenError> {
        let patience = self.keepers.patience();
        tokio::pin!(patience);
        let mut over: Option<Session> = None;
        loop {
            if *self.draining.borrow() {
                return Err(OpenError::Draining);
            }
            let opened = async {
                let session = self.session_after(over.as_ref()).await?;
                let opened = match opening {
                    Opening::Stream(options) => session.open(options.clone()).await,
                    Opening::Flow(options) => session.open_as_stream(options).await,
                };
                Ok::<_, OpenError>((session, opened))
            };
            let (session, opened) = tokio::select! {
                opened = opened => opened?,
                () = &mut patience => return Err(OpenError::NoLane),
            };
            match opened {
                Ok(mut stream) => {
                    let begun = tokio::select! {
                        begun = stream.begun() => begun,
                        // No lane for now. The stream shares its session's fate.
                        () = &mut patience => true,
                    };
                    if begun {
                        return Ok(stream);
                    }
                }
                // The session ended while we asked: the next one may do.
                Err(OpenError::Session(_)) => {}
                Err(error) => return Err(error),
            }
            over = Some(session);
        }
    }

    /// Waits for a session that is not this one. Cancel safe.
    pub(crate) async fn session_after(&self, over: Option<&Session>) -> Result<Session, OpenError> {
        let other = |it: &Established| over.is_none_or(|over| !it.is(over.shared()));
        let mut current = self.current.clone();
        let found = current.wait_for(|it| it.as_deref().is_some_and(other)).await;
        let found = found.map_err(|_| OpenError::NoLane)?;
        found.as_ref().map(|it| it.session.clone()).ok_or(OpenError::NoLane)
    }

    /// Statistics of the current session.
    pub fn stats(&self) -> Option<SessionStats> {
        self.current.borrow().as_ref().map(|established| established.session.stats())
    }

    /// Opens no more streams, and lets the server open none; open streams go on. Returns how many
    /// are open.
    pub fn drain(&self) -> usize {
        self.draining.send_replace(true);
        self.session().map_or(0, |session| {
            session.drain();
            session.stats().streams
        })
    }

    /// Waits until [`drain`](Self::drain) or [`close`](Self::close) is called, not until open
    /// streams have ended: for that there is [`Session::drained`]. Cancel safe.
    pub async fn stopping(&self) {
        // The sender lives as long as the client: this cannot fail.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Opens no more streams; waits, for `patience` at most, until everything written to them has
    /// arrived, ends included; then ends the session, telling the server `code`, and dials no more.
    /// A patience of zero cuts it off. Returns when the server has been told, or a second after.
    ///
    /// It waits for the current session only. What the server's application has not read by then
    /// stays readable there on streams that have ended, and is lost on others.
    ///
    /// Not cancel safe: if it is dropped, the session may go on. Call it again.
    ///
    /// # Errors
    /// Not everything is known to have arrived.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use imux::lane::memory;
    /// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
    /// # use imux::{Client, ClientConfig, Link, Server, ServerConfig, StreamKind};
    /// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
    /// use std::time::Duration;
    ///
    /// use imux::Code;
    ///
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = Fingerprint::from_bytes([7; 32]);
    /// # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
    /// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    /// # let mut server = Server::start(listener, ServerConfig::default());
    /// # let trust = Arc::new(PinnedKeys::new([key]));
    /// # let link = Link::new(Arc::new(dialer.with_peer(identity)), 2);
    /// # let client = Client::connect(vec![link], ClientConfig::new(trust));
    /// # let client = client.await?;
    /// let (_read, mut write) = client.open(StreamKind::Raw).await?.into_split();
    /// write.write_all("to whom it may concern".into()).await?;
    /// write.finish()?;
    /// client.close(Code::NONE, Duration::from_secs(10)).await?;
    /// # let mut got = String::new();
    /// # let (session, _) = server.accept().await.unwrap();
    /// # session.accept().await?.stream.read_to_string(&mut got).await?;
    /// # assert_eq!(got, "to whom it may concern");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn close(&self, code: Code, patience: Duration) -> Result<(), Undelivered> {
        self.draining.send_replace(true);
        // Keep dialling lanes for what is still to be delivered, but not for another session
        // afterwards.
        let before = self.session();
        if let Some(session) = &before {
            let _ = tokio::time::timeout(patience, session.delivered()).await;
        }
        self.keepers.connector.stopped.send_replace(true);
        let is_other = |now: &Session| {
            !before.as_ref().is_some_and(|before| Arc::ptr_eq(before.shared(), now.shared()))
        };
        let now = self.session().filter(is_other);
        let mut lost = Undelivered::default();
        for session in before.iter().chain(&now) {
            let closed = session::close_within(session.shared(), code, Duration::ZERO).await;
            lost = lost.and(closed.err().unwrap_or_default());
        }
        lost.into_result()
    }

    /// The server's key, as decided on; every lane has to show it.
    pub fn server_key(&self) -> Option<Fingerprint> {
        self.keepers.connector.key.trusted_key()
    }

    /// The current session.
    pub fn session(&self) -> Option<Session> {
        self.current.borrow().as_ref().map(|established| established.session.clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.keepers.connector.stopped.send_replace(true);
        // The streams hold the session from here on.
        self.keepers.connector.current.set(None);
    }
}
