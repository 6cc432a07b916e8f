//! The server: takes lanes, creates sessions with them, and puts further lanes to theirs.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::admission::Admission;
use super::audit::{Event, Subject, Trail};
use super::budget::{self, Debtor, MemoryBudget};
use super::door::{Door, Source};
use super::greeting::{self, Agreed, JoinProof};
use super::handshake_rate::{HandshakeRate, Turn};
use super::lane_task::{self, Attached, LaneEnd};
use super::session::{self, Session};
use super::shared::Shared;
use super::table::{Known, Owner, SessionLimits, Table};
use super::{chance, clock};
use crate::lane::{Lane, Listener, PendingLane};
use crate::proto::wire::{Frame, Params};
use crate::proto::{
    Code, Config, LaneId, LanePolicy, SessionId, Side, Undelivered, handshake, limits,
};
use crate::trust::{
    AnyClient, ClientTrust, Fingerprint, InvitationSecret, NextKey, Permit, SessionSecret,
};

/// After an error of the listening socket (no descriptors left, say) this long is waited.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// ... and this long where a lane gave way.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(5);

/// Clients of sessions that exist are looked at this often, for those that are not authorised any
/// more.
const RECHECK_EVERY: Duration = Duration::from_secs(2);

/// What a server can be set up with.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Settings of every session.
    pub session: Config,
    /// Decides which clients are let in, and what each may do. By default any, and its streams go to
    /// one destination.
    pub clients: Arc<dyn ClientTrust>,
    /// How many sessions there may be.
    pub sessions: SessionLimits,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            session: Config::default(),
            clients: Arc::new(AnyClient),
            sessions: SessionLimits::default(),
        }
    }
}

impl ServerConfig {
    /// Sets [`session`](Self#structfield.session). [`Server::start`] checks it.
    #[must_use]
    pub fn with_session(self, session: Config) -> Self {
        Self { session, ..self }
    }

    /// Sets [`clients`](Self#structfield.clients).
    #[must_use]
    pub fn with_clients(self, clients: Arc<dyn ClientTrust>) -> Self {
        Self { clients, ..self }
    }

    /// Sets [`sessions`](Self#structfield.sessions).
    #[must_use]
    pub fn with_sessions(self, sessions: SessionLimits) -> Self {
        Self { sessions, ..self }
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Accepts sessions on a listener. Dropping it stops taking lanes; sessions that were accepted go
/// on with the lanes they have.
///
/// ```
/// use std::sync::Arc;
///
/// use imux::lane::{TcpOptions, TlsListener};
/// use imux::trust::{Identity, server_config};
/// use imux::{Server, ServerConfig};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // `Identity::load_or_create` keeps the key that clients know.
/// let tls = server_config(&Identity::generate()?)?;
/// let listener = TlsListener::bind("127.0.0.1:0".parse()?, tls, TcpOptions::default())?;
/// let mut server = Server::start(listener, ServerConfig::default());
/// assert_ne!(server.local_addr()?.port(), 0);
///
/// tokio::spawn(async move {
///     while let Some((session, _from)) = server.accept().await {
///         tokio::spawn(imux::tunnel::serve(session, Arc::from("localhost:22")));
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    sessions: mpsc::Receiver<(Session, Option<SocketAddr>)>,
    address: io::Result<SocketAddr>,
    task: AbortHandle,
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    clients: Arc<dyn ClientTrust>,
    handshakes: HandshakeRate,
    door: Door,
    table: Table,
    trail: Trail,
    memory: MemoryBudget,
    accepted: mpsc::Sender<(Session, Option<SocketAddr>)>,
    /// No more sessions are created.
    draining: AtomicBool,
    /// The key this server will have later.
    next: Mutex<Option<Arc<NextKey>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("table", &self.table).finish_non_exhaustive()
    }
}

/// A client's CREATE, and what came with it.
struct Create {
    versions: Vec<u32>,
    params: Params,
    invitation: Option<InvitationSecret>,
    terms: Terms,
    remote: Option<SocketAddr>,
}

impl Server {
    /// Begins to take lanes.
    ///
    /// # Panics
    /// Outside of a tokio runtime; and where the settings of its sessions make no sense ([`Config::check`]).
    pub fn start(listener: impl Listener, config: ServerConfig) -> Self {
        if let Err(error) = config.session.check() {
            panic!("{error}");
        }
        let (accepted, sessions) = mpsc::channel(16);
        let address = listener.local_addr();
        let inner = Arc::new(Inner {
            config: Arc::new(config.session),
            clients: config.clients,
            handshakes: HandshakeRate::default(),
            door: Door::default(),
            table: Table::new(config.sessions),
            trail: Trail::default(),
            memory: MemoryBudget::of_process(),
            accepted,
            draining: AtomicBool::new(false),
            next: Mutex::default(),
        });
        let (taking, checking) =
            (inner.clone().take_lanes(listener), inner.clone().keep_checking());
        let task = tokio::spawn(futures::future::join(taking, checking)).abort_handle();
        Self { sessions, address, task, inner }
    }

    /// The address lanes are taken at.
    ///
    /// # Errors
    /// What the listener said when it was asked.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Ends the sessions of clients that are not authorised any more, telling them UNAUTHORIZED. It
    /// happens every few seconds by itself; call it for what must not wait.
    pub fn recheck(&self) {
        self.inner.recheck();
    }

    /// Announces the key that this server will have later to all clients, those to come included,
    /// so that they know it when it comes.
    pub fn announce(&self, next: NextKey) {
        let next = Arc::new(next);
        *self.inner.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
        let living = |known: &Known| Some((known.shared.upgrade()?, known.agreed.secret.clone()));
        let living: Vec<_> = self.inner.table.lock().values().filter_map(living).collect();
        for (shared, secret) in living {
            announce_to(&shared, &next, &secret);
        }
    }

    /// Creates no more sessions and lets no more streams be opened; those that are open go on, and
    /// their sessions' lanes may come and go. Returns how many streams are open.
    pub fn drain(&self) -> usize {
        self.inner.draining.store(true, Ordering::Relaxed);
        let drain = |shared: Arc<Shared>| {
            shared.with(|state, _| {
                state.core.drain();
                state.core.stream_count()
            })
        };
        self.inner.table.living().into_iter().map(drain).sum()
    }

    /// Waits until no session has an open stream. Cancel safe.
    pub async fn drained(&self) {
        let idle = |shared: Arc<Shared>| async move { session::drained(&shared).await };
        futures::future::join_all(self.inner.table.living().into_iter().map(idle)).await;
    }

    /// Creates no more sessions; waits until everything that was written to the streams of those there are has arrived,
    /// and their ends, as long as `patience` lasts; then ends them, telling their clients `code`, and takes no more
    /// lanes. With a patience of zero it is a cut. Returns when the clients have been told, or a second after.
    ///
    /// Not cancel safe: the sessions may go on if it is dropped. Call it again.
    ///
    /// # Errors
    /// Not all is known to have arrived.
    pub async fn close(&self, code: Code, patience: Duration) -> Result<(), Undelivered> {
        self.inner.draining.store(true, Ordering::Relaxed);
        if patience.is_zero() {
            self.task.abort();
        }
        let ends = self.inner.table.living().into_iter().map(|shared| async move {
            let closed = session::close_within(&shared, code, patience).await;
            closed.err().unwrap_or_default()
        });
        let lost = futures::future::join_all(ends).await;
        self.task.abort();
        lost.into_iter().fold(Undelivered::default(), Undelivered::and).into_result()
    }

    /// The next session a client creates, and where its first lane comes from. `None` after the
    /// listener has failed for good. Cancel safe: none is lost.
    pub async fn accept(&mut self) -> Option<(Session, Option<SocketAddr>)> {
        self.sessions.recv().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    async fn take_lanes(self: Arc<Self>, listener: impl Listener) {
        loop {
            match listener.accept().await {
                Ok(pending) => self.take_lane(pending),
                Err(error) => {
                    let short = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
                    // Strangers may hold the descriptors that are missing: the one that gives way frees one.
                    if short && self.door.make_way() {
                        tracing::debug!(%error, "a lane in its handshake gave way");
                        tokio::time::sleep(DESCRIPTOR_PAUSE).await;
                    } else {
                        tracing::warn!(%error, "cannot accept lanes for now");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Lets a connection in, for as long as a handshake may take; or hangs up at once.
    fn take_lane(self: &Arc<Self>, pending: Box<dyn PendingLane>) {
        let remote = pending.remote();
        let source = Source::of(remote.map(|remote| remote.ip()));
        if let Turn::Refused { first } = self.handshakes.take(source, clock::now()) {
            if first {
                let from = place(remote);
                tracing::info!(%from, "too many handshakes from this address: no more for a while");
            }
            return;
        }
        let place = self.door.enter(source);
        let inner = self.clone();
        tokio::spawn(async move {
            let greeted = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT, inner.greet(pending));
            let greeted = tokio::select! {
                biased;
                greeted = greeted => greeted,
                () = place.taken_away() => {
                    tracing::debug!(?remote, "no lane: too many in their handshake");
                    return;
                }
            };
            drop(place);
            match greeted {
                Ok(Ok(greeted)) => greeted.run(remote).await,
                Ok(Err(error)) => tracing::debug!(?remote, %error, "no lane"),
                Err(_) => tracing::debug!(?remote, "no lane: handshake timed out"),
            }
        });
    }

    /// Ends the sessions of clients whose time is over, or who are authorised no more.
    async fn keep_checking(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RECHECK_EVERY).await;
            self.clients.look_again().await;
            self.recheck();
            self.trail.tell_counts(clock::now());
        }
    }

    fn recheck(&self) {
        for shared in self.table.living() {
            let Some(admission) = &shared.admission else { continue };
            if admission.permit().is_none() {
                shared.with(|state, _| state.core.close(Code::UNAUTHORIZED));
            }
        }
    }

    /// Handshakes, until the lane belongs to a session.
    async fn greet(self: &Arc<Self>, pending: Box<dyn PendingLane>) -> io::Result<Greeted> {
        let remote = pending.remote();
        let begun = clock::now();
        let mut lane = pending.handshake().await?;
        let (greeting::Prelude { invitation, policy }, first) =
            greeting::read_first(&mut lane).await?;
        // TLS and the first frame took two round trips, whatever else they took.
        let rtt = clock::now().duration_since(begun) / 2;
        let terms = Terms { rtt, policy };
        match first {
            Frame::Create { versions, params } => {
                self.create(lane, Create { versions, params, invitation, terms, remote }).await
            }
            Frame::Join { session, lane: number, mac } if invitation.is_none() => {
                self.join(lane, session, number, &mac, terms).await
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "neither CREATE nor JOIN")),
        }
    }

    async fn create(
        self: &Arc<Self>,
        mut lane: Box<dyn Lane>,
        asked: Create,
    ) -> io::Result<Greeted> {
        let client = lane.peer().map(|peer| peer.fingerprint);
        let (id, secret) = (random_id()?, greeting::session_secret(lane.as_ref())?);
        let known = self.clients.permit(client);
        let mut subject = Subject::new(client, known.as_ref(), asked.remote);
        let begun = match self.grant(client, &asked).await {
            Ok((version, permit)) => {
                subject = Subject::new(client, Some(&permit), asked.remote);
                subject.session = Some(id);
                let source = Source::of(asked.remote.map(|remote| remote.ip()));
                let owner = Owner { client, source, listed: permit.is_listed() };
                let agreed = Agreed { id, secret, peer: asked.params };
                self.begin(agreed, owner, asked.terms, subject.clone())
                    .map(|begun| (version, begun))
            }
            Err(refused) => Err(refused),
        };
        let (version, (session, attached)) = match begun {
            Ok(begun) => begun,
            Err((code, reason)) => {
                self.trail.tell(&subject, Event::Refused(code));
                greeting::refuse(&mut lane, code, reason).await;
                let client = client.map_or_else(|| "none".to_owned(), |key| key.to_string());
                let from = place(asked.remote);
                tracing::info!(%from, key = %client, why = %code, "session refused");
                return Err(io::Error::other(code.to_string()));
            }
        };
        // Known before it is told of, so that the next lane may join at once.
        let params = attached.shared.look(|state| state.core.config().params());
        let created = Frame::Created { version, session: id, params };
        greeting::write_frame(&mut lane, &created).await?;
        tracing::info!(session = %id, from = %place(asked.remote), "session created");
        self.accepted.send((session, asked.remote)).await.map_err(io::Error::other)?;
        Ok(Greeted { attached, session: id, lane })
    }

    /// Whether a session is granted: the version to speak and what its client may do, or why not.
    async fn grant(
        &self,
        client: Option<Fingerprint>,
        asked: &Create,
    ) -> Result<(u32, Permit), Refused> {
        let version = handshake::choose_version(&asked.versions)
            .ok_or((Code::VERSION, "this server speaks version 1"))?;
        let permit = self.clients.admit(client, asked.invitation.as_ref()).await;
        let permit = permit.ok_or((Code::UNAUTHORIZED, ""))?;
        if self.draining.load(Ordering::Relaxed) {
            return Err((Code::SHUTDOWN, "no new sessions"));
        }
        Ok((version, permit))
    }

    /// Makes a session that was granted, with its first lane, and a place for it among the others; or says why there is
    /// none.
    fn begin(
        self: &Arc<Self>,
        agreed: Agreed,
        owner: Owner,
        terms: Terms,
        subject: Subject,
    ) -> Result<(Session, Attached), Refused> {
        let (id, peer, secret) = (agreed.id, agreed.peer, agreed.secret.clone());
        let seed = seed_of(id);
        let debtor = Debtor { holder: owner.holder(), listed: owner.listed };
        let memory = self.memory.open(debtor, budget::first_wants(&self.config));
        let memory = memory.ok_or((Code::EXCESSIVE_LOAD, "no memory for more sessions"))?;
        let config = Arc::new(memory.begin_with(&self.config));
        let core = crate::proto::Session::new(Side::Server, config, peer, seed, clock::now());
        let (client, clients) = (owner.client, self.clients.clone());
        let admission = Admission { client, clients, subject: subject.clone() };
        let shared = Shared::spawn(core, Some(admission), memory);
        let session = Session::new(shared.clone());
        // The lane first: a session without one may have to give way to the next that comes.
        let attached = Attached::new(&shared, LaneId::FIRST, Some(terms.rtt), terms.policy);
        let attached = attached.ok_or((Code::INTERNAL, "the session is over already"))?;
        let known = Known { agreed, owner, shared: Arc::downgrade(&shared), given_back: 0 };
        if let Err(reason) = self.table.insert(id, &known) {
            session.close(Code::EXCESSIVE_LOAD);
            return Err((Code::EXCESSIVE_LOAD, reason));
        }
        if let Some(next) = self.next_key() {
            announce_to(&shared, &next, &secret);
        }
        if self.draining.load(Ordering::Relaxed) {
            // It began while this session was being granted.
            shared.with(|state, _| state.core.drain());
        }
        self.trail.tell(&subject, Event::Started);
        let inner = self.clone();
        tokio::spawn(async move {
            let why = session::closed(&shared).await;
            inner.table.lock().remove(&id);
            inner.trail.tell(&subject, Event::Ended(&why));
            tracing::info!(session = %id, %why, "session over");
        });
        Ok((session, attached))
    }

    async fn join(
        &self,
        mut lane: Box<dyn Lane>,
        id: SessionId,
        number: LaneId,
        mac: &[u8; 32],
        terms: Terms,
    ) -> io::Result<Greeted> {
        let Some((shared, proof)) = self.verify(lane.as_ref(), id, number, mac)? else {
            // One answer for all of it: an attacker learns nothing about which sessions exist.
            let client = lane.peer().map(|peer| peer.fingerprint);
            let permit = self.clients.permit(client);
            let mut subject = Subject::new(client, permit.as_ref(), lane.peer_addr());
            subject.session = Some(id);
            self.trail.tell(&subject, Event::WrongProof);
            greeting::refuse(&mut lane, Code::JOIN_REFUSED, "").await;
            return Err(io::Error::other("a JOIN for no session, or without proof"));
        };
        let joined = Frame::Joined { mac: proof.mac(Side::Server) };
        let attached = Attached::new(&shared, number, Some(terms.rtt), terms.policy);
        let Some(attached) = attached else {
            // It is the session's own client: not a word that its session is gone.
            greeting::refuse(&mut lane, Code::EXCESSIVE_LOAD, "no room for the lane now").await;
            return Err(io::Error::other("the lane's number is used, or there are too many"));
        };
        greeting::write_frame(&mut lane, &joined).await?;
        if self.table.lock().get_mut(&id).is_some_and(Known::may_give_back) {
            self.handshakes.give_back(Source::of(lane.peer_addr().map(|remote| remote.ip())));
        }
        Ok(Greeted { attached, session: id, lane })
    }

    /// The session, if there is one, its client's key is this lane's, and the proof is right.
    fn verify(
        &self,
        lane: &dyn Lane,
        id: SessionId,
        number: LaneId,
        mac: &[u8; 32],
    ) -> io::Result<Option<(Arc<Shared>, JoinProof)>> {
        let known = self.table.lock();
        let Some(known) = known.get(&id) else { return Ok(None) };
        let same_client = known.owner.client == lane.peer().map(|peer| peer.fingerprint);
        let proof = JoinProof::new(lane, &known.agreed, number)?;
        let proven = proof.verify(Side::Client, mac);
        let shared = known.shared.upgrade().filter(|_| same_client && proven);
        Ok(shared.map(|shared| (shared, proof)))
    }

    fn next_key(&self) -> Option<Arc<NextKey>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a client is told that gets no session.
type Refused = (Code, &'static str);

/// What is known of a lane before it belongs to a session.
#[derive(Clone, Copy)]
struct Terms {
    rtt: Duration,
    /// What its client has said of it.
    policy: LanePolicy,
}

/// A lane that belongs to a session.
struct Greeted {
    attached: Attached,
    session: SessionId,
    lane: Box<dyn Lane>,
}

impl Greeted {
    async fn run(self, remote: Option<SocketAddr>) {
        let (session, lane) = (self.session, self.attached.id);
        tracing::info!(%session, lane = lane.number(), from = %place(remote), "lane up");
        let end = lane_task::run(self.attached, self.lane, None).await;
        if !matches!(end, LaneEnd::SessionOver) {
            tracing::info!(%session, lane = lane.number(), why = %end, "lane down");
        }
    }
}

/// Tells the client of a session which key this server will have later.
fn announce_to(shared: &Shared, next: &NextKey, secret: &SessionSecret) {
    let announcement = next.announcement(secret).to_vec();
    shared.with(|state, _| state.core.announce_next_key(announcement.into()));
}

/// An address for a log.
fn place(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(|| "memory".to_owned(), |remote| remote.to_string())
}

fn random_id() -> io::Result<SessionId> {
    let mut bytes = [0; SessionId::LEN];
    chance::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(SessionId::new(bytes))
}

/// A seed for the core's own choices, of which none is a secret.
pub(super) fn seed_of(id: SessionId) -> u64 {
    id.as_bytes().iter().fold(0, |seed, byte| u64::rotate_left(seed, 8) ^ u64::from(*byte))
}
