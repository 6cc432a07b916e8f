//! The client: keeps lanes to a server up, and a session over them.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{Notify, mpsc, watch};

use super::budget::{self, Debtor, MemoryBudget};
use super::error::{ConnectError, OpenError};
use super::first_keys::FirstKeys;
use super::greeting::{self, Agreed};
use super::lane_task::{self, Attached, LaneEnd};
use super::server::seed_of;
use super::session::{self, OpenOptions, Session};
use super::shared::Shared;
use super::stream::Stream;
use super::table::Holder;
use super::{chance, clock};
use crate::lane::{DialError, Dialer, Lane};
use crate::proto::limits::HANDSHAKE_TIMEOUT;
use crate::proto::{
    Code, Config, LaneId, LanePolicy, LinkId, SessionError, SessionStats, Side, Tier, Undelivered,
};
use crate::trust::{Fingerprint, HostTrust, NextKey, PeerIdentity, Recognised, SessionSecret};

/// A lost lane is dialled again after this long, doubled with each failure ...
const REDIAL_MIN: Duration = Duration::from_millis(200);
/// ... up to this.
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// A lane that lived this long was a good one: the next is dialled soon again.
const LIVED_WELL: Duration = Duration::from_secs(1);
/// How long a lane that is ready waits for another to create the session: less than the server
/// waits for a first frame.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);
/// How long a key of which nothing is known waits for what the other links' servers show: a lost first packet is sent again
/// within it.
const KEYS_PATIENCE: Duration = Duration::from_secs(3);
/// How long `open` waits for a session.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// While somebody waits so, a lane that waits to be dialled is dialled now and then, and not only when its time has come.
const NUDGE_EVERY: Duration = Duration::from_millis(500);

/// A server's next key is recorded this often at most: an honest one has another in years.
const NEXT_KEY_EVERY: Duration = Duration::from_secs(60);

/// How lanes are made over one local address or device, how many of them, and what they may carry.
#[derive(Clone)]
#[non_exhaustive]
pub struct Link {
    /// Makes them.
    pub dialer: Arc<dyn Dialer>,
    /// How many are kept up.
    pub lanes: u16,
    /// When they carry streams at all.
    pub tier: Tier,
    /// Whether primary lanes get one more beside them, of the express tier, once something urgent had to
    /// wait behind bulk.
    pub express: bool,
    /// Most bytes a second that they carry together, in each direction, counted before TLS, TCP and
    /// IP add some 4 %. At least 8,000 (64 kbit/s): less is taken for that.
    pub rate_max: Option<u64>,
}

impl Link {
    /// Most lanes that the links of one client may have together, express lanes not counted.
    pub const LANES_MAX: u16 = 256;

    /// Primary lanes without a cap, and an express lane beside them when it is of use.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use imux::lane::memory;
    /// use imux::{Link, Tier};
    ///
    /// # let (dialer, _listener) = memory::network(memory::DEFAULT_CAPACITY);
    /// let dsl = Link::new(Arc::new(dialer.clone()), 4);
    /// // Used only while the other does not answer, and never for more than 20 Mbit/s.
    /// let lte = Link::new(Arc::new(dialer), 1)
    ///     .with_tier(Tier::Backup)
    ///     .with_rate_max(20_000_000 / 8);
    /// ```
    pub fn new(dialer: Arc<dyn Dialer>, lanes: u16) -> Self {
        Self { dialer, lanes, tier: Tier::default(), express: true, rate_max: None }
    }

    /// Sets [`tier`](Self#structfield.tier).
    #[must_use]
    pub fn with_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// Sets [`express`](Self#structfield.express).
    #[must_use]
    pub fn with_express(self, express: bool) -> Self {
        Self { express, ..self }
    }

    /// Sets [`rate_max`](Self#structfield.rate_max), in bytes a second.
    #[must_use]
    pub fn with_rate_max(self, rate_max: impl Into<Option<u64>>) -> Self {
        Self { rate_max: rate_max.into(), ..self }
    }

    /// What its lanes tell the server; `number` is the link's among the client's.
    fn policy(&self, number: usize) -> LanePolicy {
        LanePolicy { tier: self.tier, link: LinkId::new(number as u64), rate_max: self.rate_max }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({} x {}, {})", self.dialer.name(), self.lanes, self.tier)
    }
}

/// What a client is set up with.
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Settings of the session.
    pub session: Config,
    /// Decides whether the server is the right one, once.
    pub trust: Arc<dyn HostTrust>,
}

impl ClientConfig {
    /// The session as usual, with a server that `trust` finds right.
    pub fn new(trust: Arc<dyn HostTrust>) -> Self {
        Self { session: Config::default(), trust }
    }

    /// Sets [`session`](Self#structfield.session). [`Client::connect`] checks it.
    #[must_use]
    pub fn with_session(self, session: Config) -> Self {
        Self { session, ..self }
    }
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig").field("session", &self.session).finish_non_exhaustive()
    }
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
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Established {
    session: Session,
    agreed: Agreed,
    next_lane: AtomicU64,
}

struct Inner {
    config: Arc<Config>,
    trust: Arc<dyn HostTrust>,
    /// The key that was decided on; every lane has to show it.
    trusted: Mutex<Option<Fingerprint>>,
    /// The key that the server has announced: lanes may show it from now on.
    next: Mutex<Option<Fingerprint>>,
    /// What the links have shown as long as there is none.
    first_keys: FirstKeys,
    /// A server that is away at the start is waited for.
    keeps_trying: bool,
    /// Held while a session is being created.
    creating: tokio::sync::Mutex<()>,
    current: watch::Sender<Option<Arc<Established>>>,
    /// What is urgent has had to wait behind bulk: from then on express lanes are kept up, too.
    express: watch::Sender<bool>,
    /// Has one of the lanes dialled that wait for their time, and when it last did.
    nudge: Notify,
    nudged: Mutex<Option<Instant>>,
    /// No more lanes are dialled.
    stopped: watch::Sender<bool>,
    /// No more streams are opened.
    draining: watch::Sender<bool>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

impl Client {
    /// Dials all links and returns once a first lane carries a session.
    ///
    /// Of several links, one whose server shows another key than the known or pinned one counts as down, as long as
    /// another shows the right one.
    ///
    /// Cancel safe: dropping it ends all attempts.
    ///
    /// # Errors
    /// Every link's first attempt has failed, the server is not trusted, or it refuses; the settings make no sense, or
    /// the links have no lane, or more than [`Link::LANES_MAX`] together.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(links: Vec<Link>, config: ClientConfig) -> Result<Self, ConnectError> {
        Self::start(links, config, false).await
    }

    /// As [`connect`](Self::connect), but a server that is away, or shutting down, is waited for as long as it takes.
    /// Dropped, it gives up.
    ///
    /// # Errors
    /// What waiting does not mend: no link shows the right server, or it refuses this client.
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
        let (asked, max) =
            (links.iter().map(|link| usize::from(link.lanes)).sum(), usize::from(Link::LANES_MAX));
        if asked > max {
            return Err(ConnectError::TooManyLanes { asked, max });
        }
        let (sender, current) = watch::channel(None);
        let inner = Arc::new(Inner {
            config: Arc::new(config.session),
            trust: config.trust,
            trusted: Mutex::default(),
            next: Mutex::default(),
            first_keys: FirstKeys::new(links.iter().map(|link| link.lanes)),
            keeps_trying,
            creating: tokio::sync::Mutex::default(),
            current: sender,
            express: watch::Sender::new(false),
            nudge: Notify::new(),
            nudged: Mutex::default(),
            stopped: watch::Sender::new(false),
            draining: watch::Sender::new(false),
        });
        let (failures, failed) = mpsc::unbounded_channel();
        let mut waiting = 0usize;
        for (number, link) in links.iter().enumerate() {
            let policy = link.policy(number);
            let place = |policy| Place { dialer: link.dialer.clone(), policy, link: number };
            for _ in 0..link.lanes {
                tokio::spawn(inner.clone().keep_lane(place(policy), Some(failures.clone())));
                waiting += 1;
            }
            if link.express && link.tier == Tier::Primary && link.lanes > 0 {
                let policy = LanePolicy { tier: Tier::Express, ..policy };
                tokio::spawn(inner.clone().keep_express_lane(place(policy)));
            }
        }
        drop(failures);
        let client = Self { current, inner };
        client.first_lane(waiting, failed).await.map(|()| client)
    }

    /// Waits for a session, or for the failure that ends the start; `waiting` lanes have not told of any.
    async fn first_lane(
        &self,
        mut waiting: usize,
        mut failed: mpsc::UnboundedReceiver<Failed>,
    ) -> Result<(), ConnectError> {
        if waiting == 0 {
            return Err(ConnectError::NoLinks);
        }
        let keeps_trying = self.inner.keeps_trying;
        let mut current = self.current.clone();
        let mut failures = Vec::new();
        loop {
            tokio::select! {
                biased;
                up = current.wait_for(Option::is_some) => {
                    tell_failures(&failures);
                    // The keepers hold the other end as long as they live.
                    return up.map(|_| ()).map_err(|_| ConnectError::NoLinks);
                }
                Some(failure) = failed.recv() => {
                    waiting = waiting.saturating_sub(1);
                    if is_final(&failure.error, keeps_trying) || waiting == 0 && !keeps_trying {
                        // The other lanes fail as this one did, and that need not be told besides.
                        self.inner.stopped.send_replace(true);
                        return Err(failure.error);
                    }
                    failures.push(failure);
                    if waiting == 0 {
                        tell_failures(&failures);
                        failures.clear();
                        tracing::warn!("the server cannot be reached by any link; waiting for it");
                    }
                }
            }
        }
    }

    /// Opens a stream; waits a while for a session if there is none now, and until a lane takes the first of the stream. A
    /// session that ends before (the server was restarted, say) has not harmed it: it is opened in the next.
    ///
    /// Cancel safe: a stream that is not returned is reset.
    ///
    /// # Errors
    /// No session came in time, or it is shutting down.
    pub async fn open(&self, options: impl Into<OpenOptions>) -> Result<Stream, OpenError> {
        let options = options.into();
        let patience = self.inner.patience();
        tokio::pin!(patience);
        let mut over: Option<Session> = None;
        loop {
            if *self.inner.draining.borrow() {
                return Err(OpenError::Draining);
            }
            let opening = async {
                let session = self.session_after(over.as_ref()).await?;
                let opened = session.open(options.clone()).await;
                Ok::<_, OpenError>((session, opened))
            };
            let (session, opened) = tokio::select! {
                opening = opening => opening?,
                () = &mut patience => return Err(OpenError::NoLane),
            };
            match opened {
                Ok(mut stream) => {
                    let begun = tokio::select! {
                        begun = stream.begun() => begun,
                        // There is no lane for now. It goes as its session goes.
                        () = &mut patience => true,
                    };
                    if begun {
                        return Ok(stream);
                    }
                }
                // It ended while we asked: the next one may do.
                Err(OpenError::Session(_)) => {}
                Err(error) => return Err(error),
            }
            over = Some(session);
        }
    }

    /// Waits for a session that is not this one.
    async fn session_after(&self, over: Option<&Session>) -> Result<Session, OpenError> {
        let other = |it: &Established| {
            over.is_none_or(|over| !Arc::ptr_eq(it.session.shared(), over.shared()))
        };
        let mut current = self.current.clone();
        let found = current.wait_for(|it| it.as_deref().is_some_and(other)).await;
        let found = found.map_err(|_| OpenError::NoLane)?;
        found.as_ref().map(|it| it.session.clone()).ok_or(OpenError::NoLane)
    }

    /// Figures of the session there is now.
    pub fn stats(&self) -> Option<SessionStats> {
        self.current.borrow().as_ref().map(|established| established.session.stats())
    }

    /// Opens no more streams, and lets the server open none; those that are open go on. Returns how
    /// many that are.
    pub fn drain(&self) -> usize {
        self.inner.draining.send_replace(true);
        self.session().map_or(0, |session| {
            session.drain();
            session.stats().streams
        })
    }

    /// Waits until [`drain`](Self::drain) or [`close`](Self::close) is called, and not until what is open has ended: that is
    /// [`Session::drained`]. Cancel safe.
    pub async fn stopping(&self) {
        // The sender lives as long as the client: an error cannot come.
        let _ = self.inner.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// Opens no more streams; waits until everything that was written to them has arrived, and their ends, as long as
    /// `patience` lasts; then ends the session, telling the server `code`, and dials no more. With a patience of zero
    /// it is a cut. Returns when the server has been told, or a second after.
    ///
    /// It is the session there is now that is waited for. What the server's application has not read by then stays
    /// readable there for streams that have come to their end, and is lost of others.
    ///
    /// Not cancel safe: the session may go on if it is dropped. Call it again.
    ///
    /// # Errors
    /// Not all is known to have arrived.
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
        self.inner.draining.send_replace(true);
        // Lanes are dialled while it is waited for what they shall carry, and not for another session afterwards.
        let before = self.session();
        if let Some(session) = &before {
            let _ = tokio::time::timeout(patience, session.delivered()).await;
        }
        self.inner.stopped.send_replace(true);
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

    /// The key of the server, as it was decided on; every lane has to show it.
    pub fn server_key(&self) -> Option<Fingerprint> {
        self.inner.trusted_key()
    }

    /// The session there is now.
    pub fn session(&self) -> Option<Session> {
        self.current.borrow().as_ref().map(|established| established.session.clone())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.inner.stopped.send_replace(true);
        // The streams hold the session from here on.
        self.inner.current.send_replace(None);
    }
}

impl Inner {
    /// Passes the time that `open` has, and has a lane dialled now and then.
    async fn patience(&self) {
        for _ in 0..OPEN_PATIENCE.div_duration_f64(NUDGE_EVERY) as u32 {
            tokio::time::sleep(NUDGE_EVERY).await;
            let now = clock::now();
            let mut nudged = self.nudged.lock().unwrap_or_else(PoisonError::into_inner);
            // However many wait.
            if nudged.is_none_or(|at| now.duration_since(at) >= NUDGE_EVERY) {
                *nudged = Some(now);
                self.nudge.notify_one();
            }
        }
    }

    /// Keeps one lane up for ever.
    async fn keep_lane(
        self: Arc<Self>,
        place: Place,
        mut failures: Option<mpsc::UnboundedSender<Failed>>,
    ) {
        let dialer = &place.dialer;
        let mut backoff = Backoff::default();
        let mut told = None;
        let mut stopped = self.stopped.subscribe();
        loop {
            let dialled = tokio::select! {
                dialled = unharmed(self.lane(&place)) => dialled,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            match dialled.unwrap_or_else(|| Err(panicked())) {
                Ok(ready) => {
                    (failures, told) = (None, None);
                    let begun = clock::now();
                    let _ = unharmed(self.run(ready, &dialer.name())).await;
                    if clock::now().duration_since(begun) >= LIVED_WELL {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => {
                    self.first_keys.failed(place.link);
                    let kind = Some(std::mem::discriminant(&error));
                    let failed = Failed { via: dialer.name(), error };
                    // To whoever waits for the first lane once, and if it is the end of that; then once for each kind
                    // of outage: a server that was away and comes back as another is news.
                    let unheard = match &failures {
                        Some(to)
                            if told.is_none() || is_final(&failed.error, self.keeps_trying) =>
                        {
                            to.send(failed).err().map(|unheard| unheard.0)
                        }
                        _ => Some(failed),
                    };
                    match unheard {
                        None => told = kind,
                        Some(_) if *stopped.borrow() => return,
                        Some(failed) if told != kind => {
                            (failures, told) = (None, kind);
                            failed.tell();
                        }
                        Some(Failed { via, error }) => {
                            tracing::debug!(via, %error, "a lane still cannot be made");
                        }
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = self.nudge.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Keeps one up as soon as it is of use.
    async fn keep_express_lane(self: Arc<Self>, place: Place) {
        let (mut wanted, mut stopped) = (self.express.subscribe(), self.stopped.subscribe());
        tokio::select! {
            _ = wanted.wait_for(|wanted| *wanted) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        self.keep_lane(place, None).await;
    }

    /// Dials and handshakes, until the lane belongs to a session.
    async fn lane(self: &Arc<Self>, place: &Place) -> Result<Ready, ConnectError> {
        let dialer = &place.dialer;
        // A lane that comes while a person is asked could only wait behind the answer.
        self.first_keys.undisturbed().await;
        let begun = clock::now();
        let mut lane = match dialer.dial().await {
            Err(DialError::KeyRefused { presented }) => {
                // Nothing of ours has been shown to it. A person may know better.
                self.hear_of(place.link, &presented).await?;
                dialer.dial().await?
            }
            dialled => dialled?,
        };
        let dialled_at = clock::now();
        // A TCP and a TLS handshake: two round trips.
        let rtt = dialled_at.duration_since(begun) / 2;
        let presented = lane.peer().ok_or(ConnectError::NoKey)?;
        let key = presented.fingerprint;
        self.check_key(key)?;
        if let Some(established) = self.living()
            && self.trusted_key() == Some(key)
        {
            match Self::join(lane, &established, rtt, place).await {
                Err(ConnectError::Refused { code: code @ Code::JOIN_REFUSED, .. }) => {
                    self.disowned(established.session.shared(), code);
                    lane = dial_again(dialer.as_ref(), key).await?;
                }
                joined => return joined,
            }
        }
        self.hear_other_links(place.link, &presented).await?;
        // One lane creates the session, or has a key decided on; the others wait for it.
        let turn = self.turn().await?;
        // Which key is the server's may have been decided while this lane waited.
        self.check_key(key)?;
        if self.trusted_key() != Some(key) {
            self.decide(&presented).await?;
        }
        let established = self.living();
        // Only who creates a session keeps others from it.
        let _turn = established.is_none().then_some(turn);
        // A person takes longer to answer than a server waits for a first frame.
        if clock::now().duration_since(dialled_at) > CREATION_PATIENCE {
            lane = dial_again(dialer.as_ref(), key).await?;
        }
        if let Some(established) = established {
            return Self::join(lane, &established, rtt, place).await;
        }
        // A server that says nothing must not keep the other lanes from trying.
        let created = self.create(lane, rtt, place);
        let created = tokio::time::timeout(HANDSHAKE_TIMEOUT, created).await;
        created.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Of several links one may lead to somebody else: hears what the others' servers show before a key is decided on.
    async fn hear_other_links(
        &self,
        link: usize,
        presented: &PeerIdentity,
    ) -> Result<(), ConnectError> {
        let (keys, key) = (&self.first_keys, presented.fingerprint);
        if !keys.are_several() || self.trusted_key().is_some() {
            return Ok(());
        }
        let Some(recognised) = self.trust.recognise(presented).await? else { return Ok(()) };
        keys.shown(link, key, recognised);
        let patience = match recognised {
            Recognised::Known => return Ok(()),
            Recognised::Another => HANDSHAKE_TIMEOUT,
            Recognised::New => KEYS_PATIENCE,
        };
        let all_shown = tokio::time::timeout(patience, keys.wait()).await.is_ok();
        self.check_key(key)?;
        match recognised {
            // The right one has been shown and is not decided on yet, or may still come.
            Recognised::Another if !all_shown || self.waits_for_others() => {
                Err(ConnectError::OtherKey(key))
            }
            Recognised::New => match keys.other_than(key) {
                Some(other) => Err(ConnectError::SeveralKeys(key, other)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn waits_for_others(&self) -> bool {
        self.keeps_trying && self.first_keys.may_be_right_elsewhere()
    }

    /// Has it decided about a key that was ruled out in the handshake.
    async fn hear_of(&self, link: usize, presented: &PeerIdentity) -> Result<(), ConnectError> {
        self.check_key(presented.fingerprint)?;
        self.hear_other_links(link, presented).await?;
        let _turn = self.turn().await?;
        self.check_key(presented.fingerprint)?;
        if self.trusted_key() == Some(presented.fingerprint) {
            return Ok(());
        }
        self.decide(presented).await
    }

    /// Waits for the turn to create a session or to have a key decided on: a while, and as long as a person is asked.
    async fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, ConnectError> {
        let mut turn = std::pin::pin!(self.creating.lock());
        loop {
            if let Ok(turn) = tokio::time::timeout(CREATION_PATIENCE, &mut turn).await {
                return Ok(turn);
            }
            if !self.first_keys.is_deciding() {
                return Err(timed_out());
            }
            self.first_keys.undisturbed().await;
        }
    }

    /// Has it decided whether this is the server; once, and not by each of the lanes that wait.
    async fn decide(&self, presented: &PeerIdentity) -> Result<(), ConnectError> {
        if *self.stopped.borrow() {
            return Err(ConnectError::Handshake(std::io::ErrorKind::Interrupted.into()));
        }
        let _deciding = self.first_keys.deciding();
        if let Err(refused) = self.trust.decide(presented).await {
            // One whose key was right before may have it again.
            if self.trusted_key().is_none() {
                self.stopped.send_replace(true);
            }
            return Err(refused.into());
        }
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented.fingerprint);
        self.first_keys.decided();
        Ok(())
    }

    async fn join(
        mut lane: Box<dyn Lane>,
        established: &Established,
        rtt: Duration,
        place: &Place,
    ) -> Result<Ready, ConnectError> {
        let number = LaneId::new(established.next_lane.fetch_add(1, Ordering::Relaxed));
        let proof = greeting::join(&mut lane, &established.agreed, number, place.policy).await;
        let mut proof = Some(proof.map_err(ConnectError::Handshake)?);
        let shared = established.session.shared();
        let vouched = shared.look(|state| state.lanes.values().any(|lane| lane.proven));
        // Where no other lane says that the server still knows the session, it is asked before it is told anything:
        // streams that nobody has heard of may then begin in another session.
        if let Some(proof) = proof.take_if(|_| !vouched) {
            let answer = greeting::joined(&mut lane, &proof);
            let answer = tokio::time::timeout(HANDSHAKE_TIMEOUT, answer).await;
            answer.unwrap_or_else(|_| Err(timed_out()))?;
        }
        let attached = Attached::new(shared, number, Some(rtt), place.policy);
        let attached = attached.ok_or_else(session_went)?;
        place.tell_up(number);
        Ok(Ready { attached, lane, proof })
    }

    async fn create(
        self: &Arc<Self>,
        mut lane: Box<dyn Lane>,
        rtt: Duration,
        place: &Place,
    ) -> Result<Ready, ConnectError> {
        let memory = self.memory(&*lane)?;
        let config = Arc::new(memory.begin_with(&self.config));
        let agreed = greeting::create(&mut lane, config.params(), place.policy, None).await?;
        let seed = seed_of(agreed.id);
        let core =
            crate::proto::Session::new(Side::Client, config, agreed.peer, seed, clock::now());
        let shared = Shared::spawn(core, None, memory);
        shared.with(|state, _| state.express = Some(self.express.clone()));
        let attached = Attached::new(&shared, LaneId::FIRST, Some(rtt), place.policy);
        let attached = attached.ok_or_else(session_went)?;
        // Lanes that join from now on need not ask first.
        Attached::prove(&shared, LaneId::FIRST);
        let session = Session::new(shared.clone());
        // Told before anyone who waits for a first lane goes on.
        place.tell_up(LaneId::FIRST);
        let next_lane = AtomicU64::new(LaneId::FIRST.next().number());
        tokio::spawn(self.clone().heed_announcements(shared, agreed.secret.clone()));
        let established = Established { session: session.clone(), agreed, next_lane };
        self.current.send_replace(Some(Arc::new(established)));
        // Closed meanwhile: whoever closes has looked for a session either before this one was there, or after.
        if *self.stopped.borrow() {
            session.close(Code::SHUTDOWN);
        }
        Ok(Ready { attached, lane, proof: None })
    }

    /// A place in the process's memory for a session with the server of this lane, which its user has chosen.
    fn memory(&self, lane: &dyn Lane) -> Result<budget::Place, ConnectError> {
        let server = lane.peer().ok_or(ConnectError::NoKey)?.fingerprint;
        let debtor = Debtor { holder: Holder::Key(server), listed: true };
        let memory = MemoryBudget::of_process().open(debtor, budget::first_wants(&self.config));
        memory.ok_or_else(|| {
            ConnectError::Handshake(io::Error::other("no memory for one more session"))
        })
    }

    async fn run(&self, ready: Ready, via: &str) {
        let (lane, shared) = (ready.attached.id, ready.attached.shared.clone());
        let end = lane_task::run(ready.attached, ready.lane, ready.proof).await;
        tracing::info!(lane = lane.number(), via, why = %end, "lane down");
        if let LaneEnd::Refused(code @ Code::JOIN_REFUSED) = end {
            self.disowned(&shared, code);
        }
        if shared.look(|state| state.over.is_some()) {
            self.forget(&shared);
        }
    }

    /// The server does not know the session. If no other lane says otherwise, it is over.
    fn disowned(&self, shared: &Arc<Shared>, code: Code) {
        tracing::debug!(%code, "the server does not know the session");
        let over = shared.with(|state, _| {
            if !state.lanes.values().any(|lane| lane.proven) {
                state.core.close(code);
            }
            state.core.is_closed()
        });
        if over {
            self.forget(shared);
        }
    }

    /// The session is over: the next lane creates another.
    fn forget(&self, shared: &Arc<Shared>) {
        self.current.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|it| Arc::ptr_eq(it.session.shared(), shared));
            if same {
                match shared.look(|state| state.over.clone()) {
                    // In order, or asked for here: nothing that anybody still wanted.
                    Some(
                        why @ (SessionError::Closed(Code::NONE | Code::SHUTDOWN)
                        | SessionError::ClosedByPeer { code: Code::NONE, .. }),
                    ) => tracing::info!(%why, "session over"),
                    Some(why) => tracing::warn!(%why, "session over; open streams are cut off"),
                    None => {}
                }
                *current = None;
            }
            same
        });
    }

    /// The session there is, unless it is over.
    fn living(&self) -> Option<Arc<Established>> {
        let established = self.current.borrow().clone()?;
        if established.session.shared().look(|state| state.over.is_some()) {
            self.forget(established.session.shared());
            return None;
        }
        Some(established)
    }

    /// Whether a lane's server is the one that was decided on, if one was.
    fn check_key(&self, presented: Fingerprint) -> Result<(), ConnectError> {
        match self.trusted_key() {
            Some(trusted) if trusted != presented && self.next_key() != Some(presented) => {
                Err(ConnectError::OtherKey(presented))
            }
            _ => Ok(()),
        }
    }

    /// Takes what the server announces of its next key, as long as the session lasts.
    async fn heed_announcements(self: Arc<Self>, shared: Arc<Shared>, secret: SessionSecret) {
        while let Some(announcement) = session::next_key(&shared).await {
            let Some(next) = NextKey::verify(&announcement, &secret) else {
                tracing::warn!("the server announces a key without proving that it holds it");
                continue;
            };
            // The session's key, or the one that has taken its place meanwhile.
            let Some(current) = self.trusted_key() else { continue };
            if next == current || self.next_key() == Some(next) {
                continue;
            }
            match self.trust.announced(current, next).await {
                Ok(true) => {
                    tracing::info!(key = %next, "the server has announced its next key");
                    *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
                }
                Ok(false) => tracing::warn!(
                    key = %next,
                    "the server has announced its next key, and nothing here records it: \
                     give it to --pin before the server changes to it"
                ),
                Err(error) => tracing::warn!(key = %next, %error, "the server's next key"),
            }
            // A server with another idea every moment wears out no disk: of what it says meanwhile the last counts.
            tokio::select! {
                () = tokio::time::sleep(NEXT_KEY_EVERY) => {}
                _ = session::closed(&shared) => {}
            }
        }
    }

    fn next_key(&self) -> Option<Fingerprint> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trusted_key(&self) -> Option<Fingerprint> {
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a lane belongs: how it is dialled, and what it may carry.
struct Place {
    dialer: Arc<dyn Dialer>,
    policy: LanePolicy,
    /// The link's number.
    link: usize,
}

/// A lane that could not be made.
struct Failed {
    via: String,
    error: ConnectError,
}

impl Failed {
    fn tell(&self) {
        tracing::warn!(via = %self.via, error = %self.error, "a lane could not be made; trying again");
    }
}

/// Tells of each link once for each kind of failure.
fn tell_failures(failures: &[Failed]) {
    let same = |a: &Failed, b: &Failed| {
        a.via == b.via && std::mem::discriminant(&a.error) == std::mem::discriminant(&b.error)
    };
    for (number, failure) in failures.iter().enumerate() {
        if !failures[..number].iter().any(|before| same(before, failure)) {
            failure.tell();
        }
    }
}

impl Place {
    fn tell_up(&self, lane: LaneId) {
        let (lane, tier) = (lane.number(), self.policy.tier);
        tracing::info!(lane, via = self.dialer.name(), %tier, "lane up");
    }
}

/// A lane that belongs to a session.
struct Ready {
    attached: Attached,
    lane: Box<dyn Lane>,
    proof: Option<greeting::JoinProof>,
}

/// Dials once more, to the same server.
async fn dial_again(dialer: &dyn Dialer, key: Fingerprint) -> Result<Box<dyn Lane>, ConnectError> {
    let lane = dialer.dial().await?;
    let again = lane.peer().ok_or(ConnectError::NoKey)?.fingerprint;
    if again == key { Ok(lane) } else { Err(ConnectError::OtherKey(again)) }
}

/// What becomes of a lane; `None` if it panics, which ends the lane and not its keeper.
async fn unharmed<T>(lane: impl Future<Output = T>) -> Option<T> {
    let caught = AssertUnwindSafe(lane).catch_unwind().await;
    caught.inspect_err(|_| tracing::error!("internal error: a lane is given up")).ok()
}

fn panicked() -> ConnectError {
    ConnectError::Handshake(std::io::Error::other("internal error: a panic"))
}

fn timed_out() -> ConnectError {
    ConnectError::Handshake(std::io::ErrorKind::TimedOut.into())
}

/// The session ended while a lane was made for it.
fn session_went() -> ConnectError {
    ConnectError::Handshake(std::io::ErrorKind::ConnectionAborted.into())
}

/// Trying again would not help. Who `keeps_trying` waits for a server that is busy or being started again, too.
fn is_final(error: &ConnectError, keeps_trying: bool) -> bool {
    match error {
        ConnectError::Refused { code: Code::SHUTDOWN | Code::EXCESSIVE_LOAD, .. } => !keeps_trying,
        ConnectError::Trust(_) | ConnectError::SeveralKeys(..) | ConnectError::Refused { .. } => {
            true
        }
        ConnectError::Dial(error) => {
            matches!(error, DialError::InvalidAddress(..) | DialError::Congestion { .. })
        }
        _ => false,
    }
}

/// Grows with each failure; with jitter, so that many lanes do not come back in step.
#[derive(Debug, Default)]
struct Backoff {
    waits: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let full = REDIAL_MIN.saturating_mul(1 << self.waits.min(5)).min(REDIAL_MAX);
        self.waits = self.waits.saturating_add(1);
        let mut byte = [0];
        // Without randomness the lanes come back in step, which is no worse than a busy second.
        let _ = chance::fill(&mut byte);
        full / 2 + (full / 2).mul_f64(f64::from(byte[0]) / 255.0)
    }
}
