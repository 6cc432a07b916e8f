//! One lane: dialled, trusted, and made part of a session, new or existing.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::current::{CurrentSession, Established};
use super::links::LinkState;
use super::server_key::{CREATION_PATIENCE, ServerKey, timed_out};
use crate::driver::budget::{self, Debtor, MemoryBudget};
use crate::driver::clock;
use crate::driver::error::ConnectError;
use crate::driver::greeting;
use crate::driver::lane_task::{self, Attached, LaneEnd, Of};
use crate::driver::owner::Holder;
use crate::driver::session::Session;
use crate::driver::shared::Shared;
use crate::lane::{DialError, Dialer, Lane};
use crate::proto::limits::HANDSHAKE_TIMEOUT;
use crate::proto::{Code, Config, LaneId, LanePolicy, LinkId, Side};
use crate::trust::Fingerprint;

/// Where a lane belongs: how it is dialled, and what it may carry.
pub(super) struct LaneSlot {
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) policy: LanePolicy,
    /// The link's number.
    pub(super) link: usize,
    pub(super) state: Arc<LinkState>,
}

impl LaneSlot {
    fn tell_up(&self, lane: LaneId) {
        let (lane, tier) = (lane.number(), self.policy.tier);
        tracing::info!(lane, via = self.dialer.name(), %tier, "lane up");
    }

    fn of(&self) -> Of {
        Of { via: self.state.name.clone(), totals: self.state.totals.clone() }
    }
}

/// A lane that belongs to a session.
pub(super) struct Ready {
    attached: Attached,
    lane: Box<dyn Lane>,
    proof: Option<greeting::JoinProof>,
}

/// Makes lanes to one server, and the session they carry.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) config: Arc<Config>,
    pub(super) key: Arc<ServerKey>,
    pub(super) current: CurrentSession,
    /// Something urgent had to wait behind bulk: express lanes are kept up from then on.
    pub(super) express: watch::Sender<bool>,
    /// No more lanes are dialled.
    pub(super) stopped: watch::Sender<bool>,
}

impl Connector {
    /// Dials and handshakes, until the lane belongs to a session.
    pub(super) async fn lane(&self, slot: &LaneSlot) -> Result<Ready, ConnectError> {
        let dialer = &slot.dialer;
        // A lane that arrives while a person is asked could only wait for the answer.
        self.key.undisturbed().await;
        let begun = clock::now();
        let mut lane = match dialer.dial().await {
            Err(DialError::KeyRefused { presented }) => {
                // Nothing of ours has been shown to it. A person may know better.
                self.key.hear_of(slot.link, &presented).await?;
                dialer.dial().await?
            }
            dialled => dialled?,
        };
        let dialled_at = clock::now();
        // A TCP and a TLS handshake: two round trips.
        let rtt = dialled_at.duration_since(begun) / 2;
        let presented = lane.peer().ok_or(ConnectError::NoKey)?;
        let key = presented.fingerprint;
        self.key.check_key(key)?;
        if let Some(established) = self.current.living()
            && self.key.trusted_key() == Some(key)
        {
            match Self::join(lane, &established, rtt, slot).await {
                Err(ConnectError::Refused { code: code @ Code::JOIN_REFUSED, .. }) => {
                    self.current.disowned(established.session.shared(), code);
                    lane = dial_again(dialer.as_ref(), key).await?;
                }
                joined => return joined,
            }
        }
        self.key.hear_other_links(slot.link, &presented).await?;
        // One lane creates the session, or has a key decided on; the others wait for it.
        let turn = self.key.turn().await?;
        // Which key is the server's may have been decided while this lane waited.
        self.key.check_key(key)?;
        if self.key.trusted_key() != Some(key) {
            self.key.decide(&presented).await?;
        }
        let established = self.current.living();
        // Only a lane that creates a session makes the others wait.
        let _turn = established.is_none().then_some(turn);
        // A person takes longer to answer than a server waits for a first frame.
        if clock::now().duration_since(dialled_at) > CREATION_PATIENCE {
            lane = dial_again(dialer.as_ref(), key).await?;
        }
        if let Some(established) = established {
            return Self::join(lane, &established, rtt, slot).await;
        }
        // A server that says nothing must not keep the other lanes from trying.
        let created = self.create(lane, rtt, slot);
        let created = tokio::time::timeout(HANDSHAKE_TIMEOUT, created).await;
        created.unwrap_or_else(|_| Err(timed_out()))
    }

    /// Whether a link's path is known to be slow.
    pub(super) fn is_slow(&self, link: LinkId) -> bool {
        let established = self.current.living();
        established.is_some_and(|it| it.session.shared().peek(|state| state.core.is_slow(link)))
    }

    /// Runs a lane until it ends, or is `outdated`.
    pub(super) async fn run(&self, ready: Ready, via: &str, outdated: impl Future<Output = ()>) {
        let (lane, shared) = (ready.attached.id, ready.attached.shared.clone());
        let end = lane_task::run(ready.attached, ready.lane, ready.proof, outdated).await;
        tracing::info!(lane = lane.number(), via, why = %end, "lane down");
        if let LaneEnd::Refused(code @ Code::JOIN_REFUSED) = end {
            self.current.disowned(&shared, code);
        }
        if shared.peek(|state| state.over.is_some()) {
            self.current.forget(&shared);
        }
    }

    async fn join(
        mut lane: Box<dyn Lane>,
        established: &Established,
        rtt: Duration,
        slot: &LaneSlot,
    ) -> Result<Ready, ConnectError> {
        let number = established.number_lane();
        let proof = greeting::join(&mut lane, &established.agreed, number, slot.policy).await;
        let mut proof = Some(proof.map_err(ConnectError::Handshake)?);
        let shared = established.session.shared();
        let vouched = shared.peek(|state| state.lanes.values().any(|lane| lane.proven));
        // If no other lane says that the server still knows the session, ask before telling it
        // anything: streams that nobody has heard of may then begin in another session.
        if let Some(proof) = proof.take_if(|_| !vouched) {
            let answer = greeting::joined(&mut lane, &proof);
            let answer = tokio::time::timeout(HANDSHAKE_TIMEOUT, answer).await;
            answer.unwrap_or_else(|_| Err(timed_out()))?;
        }
        let attached = Attached::new(shared, number, Some(rtt), slot.policy, slot.of());
        let attached = attached.ok_or_else(session_went)?;
        attached.learn(&*lane);
        slot.tell_up(number);
        Ok(Ready { attached, lane, proof })
    }

    async fn create(
        &self,
        mut lane: Box<dyn Lane>,
        rtt: Duration,
        slot: &LaneSlot,
    ) -> Result<Ready, ConnectError> {
        let memory = self.memory(&*lane)?;
        let config = Arc::new(memory.begin_with(&self.config));
        let agreed = greeting::create(&mut lane, config.params(), slot.policy, None).await?;
        let seed = agreed.seed();
        let core =
            crate::proto::Session::new(Side::Client, config, agreed.peer, seed, clock::now());
        let shared = Shared::spawn(agreed.id, core, None, memory);
        shared.with(|state, _| state.express = Some(self.express.clone()));
        let attached = Attached::new(&shared, LaneId::FIRST, Some(rtt), slot.policy, slot.of());
        let attached = attached.ok_or_else(session_went)?;
        attached.learn(&*lane);
        // Lanes that join from now on need not ask first.
        Attached::prove(&shared, LaneId::FIRST);
        let session = Session::new(shared.clone());
        // Reported before anyone waiting for a first lane goes on.
        slot.tell_up(LaneId::FIRST);
        tokio::spawn(self.key.clone().heed_announcements(shared, agreed.secret.clone()));
        self.current.set(Some(Established::new(session.clone(), agreed)));
        // Closed meanwhile: whoever closed looked for a session either before this one was there,
        // or after.
        if *self.stopped.borrow() {
            session.close(Code::SHUTDOWN);
        }
        Ok(Ready { attached, lane, proof: None })
    }

    /// Room in the process's memory for a session with this lane's server, which the user has
    /// chosen.
    fn memory(&self, lane: &dyn Lane) -> Result<budget::Reservation, ConnectError> {
        let server = lane.peer().ok_or(ConnectError::NoKey)?.fingerprint;
        let debtor = Debtor { holder: Holder::Key(server), listed: true };
        let memory = MemoryBudget::of_process().open(debtor, budget::first_wants(&self.config));
        memory.ok_or_else(|| {
            ConnectError::Handshake(io::Error::other("no memory for one more session"))
        })
    }
}

/// Dials once more, to the same server.
async fn dial_again(dialer: &dyn Dialer, key: Fingerprint) -> Result<Box<dyn Lane>, ConnectError> {
    let lane = dialer.dial().await?;
    let again = lane.peer().ok_or(ConnectError::NoKey)?.fingerprint;
    if again == key { Ok(lane) } else { Err(ConnectError::OtherKey(again)) }
}

/// The session ended while a lane was being made for it.
fn session_went() -> ConnectError {
    ConnectError::Handshake(io::ErrorKind::ConnectionAborted.into())
}
