//! From a connection's first bytes to a lane of a session: CREATE and JOIN.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::config::ServerConfig;
use crate::driver::admission::Admission;
use crate::driver::audit::{Event, Subject, Trail};
use crate::driver::budget::{self, Debtor, MemoryBudget};
use crate::driver::carried::TierTotals;
use crate::driver::door::Source;
use crate::driver::greeting::{self, Agreed, JoinProof};
use crate::driver::handshake_rate::HandshakeRate;
use crate::driver::lane_task::{self, Attached, LaneEnd, Of};
use crate::driver::owner::Owner;
use crate::driver::session::{self, Session};
use crate::driver::shared::Shared;
use crate::driver::table::{Known, Table};
use crate::driver::{chance, clock};
use crate::lane::{Lane, PendingLane};
use crate::proto::wire::{Frame, Params};
use crate::proto::{Code, Config, LaneId, LanePolicy, SessionId, Side, handshake};
use crate::trust::{ClientTrust, Fingerprint, InvitationSecret, NextKey, Permit, SessionSecret};

/// Greets new lanes, and knows the existing sessions.
pub(super) struct Reception {
    pub(super) config: Arc<Config>,
    pub(super) clients: Arc<dyn ClientTrust>,
    pub(super) handshakes: HandshakeRate,
    pub(super) table: Arc<Table>,
    pub(super) totals: Arc<TierTotals>,
    pub(super) trail: Trail,
    pub(super) memory: MemoryBudget,
    pub(super) accepted: mpsc::Sender<(Session, Option<SocketAddr>)>,
    /// No more sessions are created.
    pub(super) draining: AtomicBool,
    /// The key this server will have next.
    pub(super) next: Mutex<Option<Arc<NextKey>>>,
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception").field("table", &self.table).finish_non_exhaustive()
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

impl Reception {
    pub(super) fn new(
        config: ServerConfig,
        accepted: mpsc::Sender<(Session, Option<SocketAddr>)>,
    ) -> Self {
        Self {
            config: Arc::new(config.session),
            clients: config.clients,
            handshakes: HandshakeRate::default(),
            table: Arc::new(Table::new(config.sessions)),
            totals: Arc::default(),
            trail: Trail::default(),
            memory: MemoryBudget::of_process(),
            accepted,
            draining: AtomicBool::new(false),
            next: Mutex::default(),
        }
    }

    /// Shakes hands until the lane belongs to a session.
    pub(super) async fn greet(
        self: &Arc<Self>,
        pending: Box<dyn PendingLane>,
    ) -> io::Result<Greeted> {
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
        // Recorded before its client hears of it, so that the next lane may join at once.
        let params = attached.shared.peek(|state| state.core.config().params());
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

    /// Makes a granted session with its first lane, and gives it a place among the others; or says
    /// why there is none.
    fn begin(
        self: &Arc<Self>,
        agreed: Agreed,
        owner: Owner,
        terms: Terms,
        subject: Subject,
    ) -> Result<(Session, Attached), Refused> {
        let (id, peer, secret) = (agreed.id, agreed.peer, agreed.secret.clone());
        let seed = agreed.seed();
        let debtor = Debtor { holder: owner.holder(), listed: owner.listed };
        let memory = self.memory.open(debtor, budget::first_wants(&self.config));
        let memory = memory.ok_or((Code::EXCESSIVE_LOAD, "no memory for more sessions"))?;
        let config = Arc::new(memory.begin_with(&self.config));
        let core = crate::proto::Session::new(Side::Server, config, peer, seed, clock::now());
        let (client, clients) = (owner.client, self.clients.clone());
        let admission = Admission { client, clients, subject: subject.clone() };
        let shared = Shared::spawn(id, core, Some(admission), memory);
        let session = Session::new(shared.clone());
        // The lane first: a session without one may have to give way to the next that comes.
        let attached = Attached::new(
            &shared,
            LaneId::FIRST,
            Some(terms.rtt),
            terms.policy,
            self.of(terms.policy),
        );
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
            // Draining began while this session was being granted.
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
            // One answer for every reason: an attacker learns nothing about which sessions exist.
            let client = lane.peer().map(|peer| peer.fingerprint);
            let permit = self.clients.permit(client);
            let mut subject = Subject::new(client, permit.as_ref(), lane.peer_addr());
            subject.session = Some(id);
            self.trail.tell(&subject, Event::WrongProof);
            greeting::refuse(&mut lane, Code::JOIN_REFUSED, "").await;
            return Err(io::Error::other("a JOIN for no session, or without proof"));
        };
        let joined = Frame::Joined { mac: proof.mac(Side::Server) };
        let attached =
            Attached::new(&shared, number, Some(terms.rtt), terms.policy, self.of(terms.policy));
        let Some(attached) = attached else {
            // It is the session's own client: do not say that its session is gone.
            greeting::refuse(&mut lane, Code::EXCESSIVE_LOAD, "no room for the lane now").await;
            return Err(io::Error::other("the lane's number is used, or there are too many"));
        };
        greeting::write_frame(&mut lane, &joined).await?;
        if self.table.lock().get_mut(&id).is_some_and(Known::may_give_back) {
            self.handshakes.give_back(Source::of(lane.peer_addr().map(|remote| remote.ip())));
        }
        Ok(Greeted { attached, session: id, lane })
    }

    /// The session, if it exists, its client holds this lane's key, and the proof is right.
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

    fn of(&self, policy: LanePolicy) -> Of {
        Of { via: "".into(), totals: self.totals.of(policy.tier).clone() }
    }

    pub(super) fn recheck(&self) {
        for shared in self.table.living() {
            let Some(admission) = &shared.admission else { continue };
            if admission.permit().is_none() {
                shared.with(|state, _| state.core.close(Code::UNAUTHORIZED));
            }
        }
    }

    fn next_key(&self) -> Option<Arc<NextKey>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a client is told if it gets no session.
type Refused = (Code, &'static str);

/// What is known of a lane before it belongs to a session.
#[derive(Clone, Copy)]
struct Terms {
    rtt: Duration,
    /// What its client has said about it.
    policy: LanePolicy,
}

/// A lane that belongs to a session.
pub(super) struct Greeted {
    attached: Attached,
    session: SessionId,
    lane: Box<dyn Lane>,
}

impl Greeted {
    pub(super) async fn run(self, remote: Option<SocketAddr>) {
        let (session, lane) = (self.session, self.attached.id);
        tracing::info!(%session, lane = lane.number(), from = %place(remote), "lane up");
        let end = lane_task::run(self.attached, self.lane, None, std::future::pending()).await;
        if !matches!(end, LaneEnd::SessionOver) {
            tracing::info!(%session, lane = lane.number(), why = %end, "lane down");
        }
    }
}

/// Announces this server's next key to a session's client.
pub(super) fn announce_to(shared: &Shared, next: &NextKey, secret: &SessionSecret) {
    let announcement = next.announcement(secret).to_vec();
    shared.with(|state, _| state.core.announce_next_key(announcement.into()));
}

/// An address for a log.
pub(super) fn place(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(|| "memory".to_owned(), |remote| remote.to_string())
}

fn random_id() -> io::Result<SessionId> {
    let mut bytes = [0; SessionId::LEN];
    chance::fill(&mut bytes).map_err(|_| io::Error::other("no random numbers"))?;
    Ok(SessionId::new(bytes))
}
