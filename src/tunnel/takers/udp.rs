//! Takes datagrams: whoever sends some has a flow of its own, by which answers come back.
//!
//! [`Taker`] is the one table of senders, whatever takes the datagrams ([`Port`]) and whatever
//! opens the flows ([`Opener`]). Its task passes datagrams on as it receives them, many at once; a
//! task for each sender passes on the answers.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::wait_out;
use crate::driver::{
    Client, Code, Flow, FlowError, FlowOptions, OpenError, Session, StreamError, StreamKind,
};
use crate::tunnel::flows::{FlowPlace, Flows};
use crate::tunnel::udp_socket::{Received, receive_each};

mod forward;
mod handed;

pub use forward::forward_udp_within;
pub(super) use handed::serve_handed;

/// What is kept of one sender until its flow is open; the oldest give way.
const WAITING_MAX: usize = 16;
const WAITING_BYTES_MAX: usize = Flow::DATAGRAM_BYTES_MAX;

/// A sender whose flow was refused is not asked for again this soon.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Tasks of senders, with those that are about to end.
const TASKS_MAX: usize = 2_048;

/// What takes datagrams and sends the answers.
pub(in crate::tunnel) trait Port: Send + Sync + 'static {
    /// What tells one sender from another: whatever answers need, and where its datagrams lead if
    /// not all go to one place.
    type Sender: Clone + Ord + fmt::Display + Send + Sync + 'static;
    /// Kept as long as a sender has a flow.
    type Ticket: Send + Sync + 'static;

    /// Waits until there may be a datagram. Cancel safe.
    fn readable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// The next datagram's sender, and where in `space` it is; `None`: there was one that nobody is
    /// to get.
    fn try_recv(&self, space: &mut [u8]) -> io::Result<Received<Self::Sender>>;

    /// Sends an answer to a sender, which has its ticket. Cancel safe.
    fn answer(
        &self,
        sender: &Self::Sender,
        ticket: &Self::Ticket,
        answer: &[u8],
    ) -> impl Future<Output = io::Result<()>> + Send;

    /// Whose flows count together with this sender's.
    fn source(&self, sender: &Self::Sender) -> IpAddr;

    /// What its flow is for.
    fn kind(&self, sender: &Self::Sender) -> StreamKind;

    /// Whether it may have one.
    fn admit(&self, sender: &Self::Sender) -> Option<Self::Ticket>;
}

/// What opens flows.
#[derive(Debug)]
pub(in crate::tunnel) enum Opener {
    Client(Arc<Client>),
    Session(Session),
}

impl Opener {
    async fn open(&self, options: FlowOptions) -> Result<Flow, OpenError> {
        match self {
            Self::Client(client) => client.open_flow(options).await,
            Self::Session(session) => session.open_flow(options).await,
        }
    }
}

/// Takes datagrams at a port for whoever sends some.
#[derive(Debug)]
pub(in crate::tunnel) struct Taker<P> {
    port: P,
    opener: Opener,
    /// All but what they are for.
    options: FlowOptions,
    flows: Flows,
    /// Where it takes them, in the log's words.
    at: String,
    /// What was logged last of a refusal.
    told: Mutex<Option<Told>>,
}

/// Why datagrams went nowhere, and where they were to go.
#[derive(Debug)]
struct Told {
    why: String,
    to: String,
}

/// A sender, and how far its flow is.
#[derive(Debug)]
struct Way {
    place: FlowPlace,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// What has come until it is open, and when.
    Opening(VecDeque<(Instant, Bytes)>),
    Open(Arc<Flow>),
    /// Refused, for a while.
    Refused,
    Over,
}

impl Way {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes datagrams on, or keeps them for now; `false`: the flow is over.
    fn pass(&self, datagrams: &mut Vec<Bytes>) -> bool {
        self.place.used();
        match &mut *self.state() {
            State::Opening(waiting) => {
                let now = Instant::now();
                waiting.extend(datagrams.drain(..).map(|datagram| (now, datagram)));
                let bytes = |waiting: &VecDeque<(_, Bytes)>| -> usize {
                    waiting.iter().map(|(_, datagram)| datagram.len()).sum()
                };
                while waiting.len() > WAITING_MAX || bytes(waiting) > WAITING_BYTES_MAX {
                    waiting.pop_front();
                }
                true
            }
            State::Open(flow) => flow.send_all(datagrams.drain(..)).is_ok(),
            State::Refused => {
                datagrams.clear();
                true
            }
            State::Over => false,
        }
    }

    /// Passes on what has come meanwhile and is not too old.
    fn opened(&self, flow: &Arc<Flow>) {
        let mut state = self.state();
        let before = std::mem::replace(&mut *state, State::Open(flow.clone()));
        if let State::Opening(waiting) = before {
            let deadline = flow.deadline();
            let young = waiting.into_iter().filter(|(came, _)| came.elapsed() < deadline);
            // Its end is found by whoever receives.
            let _ = flow.send_all(young.map(|(_, datagram)| datagram));
        }
    }
}

/// Why a sender's flow is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Flow(#[from] FlowError),
}

impl Ended {
    /// Whether the peer has no room for it.
    fn is_for_want_of_room(&self) -> bool {
        let Self::Flow(FlowError::Ended(StreamError::Reset(code))) = self else {
            return matches!(self, Self::Open(OpenError::TooManyFlows));
        };
        *code == Code::EXCESSIVE_LOAD
    }

    /// Whether the peer's rules are in the way.
    fn is_for_want_of_a_rule(&self) -> bool {
        matches!(self, Self::Flow(FlowError::Ended(StreamError::Reset(Code::DIAL_FORBIDDEN))))
    }

    /// Whether it was refused: the next one most likely would be, too.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Open(OpenError::Session(_) | OpenError::Draining) => false,
            Self::Open(_) => true,
            Self::Flow(FlowError::Ended(StreamError::Reset(code))) => {
                !matches!(*code, Code::NONE | Code::FLOW_IDLE | Code::SHUTDOWN)
            }
            Self::Flow(_) => false,
        }
    }
}

/// The senders there are, and a task for each.
struct Senders<P: Port> {
    ways: BTreeMap<P::Sender, Arc<Way>>,
    tasks: JoinSet<(P::Sender, Arc<Way>)>,
}

impl<P: Port> Taker<P> {
    pub(in crate::tunnel) fn new(
        port: P,
        opener: Opener,
        options: FlowOptions,
        flows: Flows,
        at: String,
    ) -> Self {
        Self { port, opener, options, flows, at, told: Mutex::default() }
    }

    /// Takes datagrams until `end`; then all its flows end.
    pub(in crate::tunnel) async fn run(self, end: impl Future<Output = ()>) {
        let this = Arc::new(self);
        let mut senders = Senders { ways: BTreeMap::new(), tasks: JoinSet::new() };
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => return,
                Some(ended) = senders.tasks.join_next() => if let Ok((sender, way)) = ended {
                    senders.forget(&sender, &way);
                },
                ready = this.port.readable() => {
                    let taken = ready.and_then(|()| this.take(&mut senders));
                    if let Err(error) = taken {
                        wait_out(&error).await;
                    }
                }
            }
        }
    }

    /// Takes what there is, and passes on in one go what came in a row from one sender.
    fn take(self: &Arc<Self>, senders: &mut Senders<P>) -> io::Result<()> {
        let mut row: Option<(P::Sender, Vec<Bytes>)> = None;
        let taken = receive_each(
            |space| self.port.try_recv(space),
            |(sender, datagram)| match &mut row {
                Some((of, datagrams)) if *of == sender => datagrams.push(datagram),
                _ => {
                    if let Some((of, datagrams)) = row.replace((sender, vec![datagram])) {
                        self.pass(of, datagrams, senders);
                    }
                }
            },
        );
        if let Some((of, datagrams)) = row {
            self.pass(of, datagrams, senders);
        }
        taken
    }

    fn pass(self: &Arc<Self>, of: P::Sender, mut datagrams: Vec<Bytes>, senders: &mut Senders<P>) {
        if let Some(way) = senders.ways.get(&of)
            && way.pass(&mut datagrams)
        {
            return;
        }
        if senders.tasks.len() >= TASKS_MAX {
            return;
        }
        let Some(ticket) = self.port.admit(&of) else { return };
        let Some(place) = self.flows.enter(self.port.source(&of)) else { return };
        let way = Arc::new(Way { place, state: Mutex::new(State::Opening(VecDeque::new())) });
        way.pass(&mut datagrams);
        senders.ways.insert(of.clone(), way.clone());
        let this = self.clone();
        senders.tasks.spawn(async move {
            this.serve(&of, &ticket, &way).await;
            (of, way)
        });
    }

    /// Has a flow for a sender, until it ends or has to give way.
    async fn serve(&self, sender: &P::Sender, ticket: &P::Ticket, way: &Way) {
        let ended = tokio::select! {
            ended = self.carry(sender, ticket, way) => ended,
            () = way.place.gives_way() => {
                *way.state() = State::Over;
                return;
            }
        };
        let Err(why) = ended;
        if why.is_refusal() {
            *way.state() = State::Refused;
            if why.is_for_want_of_room() {
                self.flows.make_room();
            }
            self.tell(sender, &why);
            sleep(REFUSED_PAUSE).await;
        }
        *way.state() = State::Over;
    }

    /// Opens a flow for a sender, and passes the answers on.
    async fn carry(
        &self,
        sender: &P::Sender,
        ticket: &P::Ticket,
        way: &Way,
    ) -> Result<Infallible, Ended> {
        let kind = self.port.kind(sender);
        let flow = self.opener.open(FlowOptions { kind, ..self.options.clone() }).await?;
        let (flow, to) = (Arc::new(flow), self.leads_to(sender));
        flow.describe(&sender.to_string(), &to);
        way.opened(&flow);
        let mut answers = Vec::new();
        loop {
            flow.recv_all(&mut answers).await?;
            way.place.used();
            self.lock_told().take_if(|told| told.to == to);
            for answer in answers.drain(..) {
                if let Err(error) = self.port.answer(sender, ticket, &answer).await {
                    tracing::debug!(to = %sender, at = self.at, %error, "an answer was not sent");
                }
            }
        }
    }

    fn leads_to(&self, sender: &P::Sender) -> String {
        match self.port.kind(sender) {
            StreamKind::Named(name) => format!("udp:{name} by {}", self.at),
            StreamKind::Visitor { .. } => format!("a client by {}", self.at),
            _ => self.at.clone(),
        }
    }

    /// Logs why datagrams go nowhere: once, as it is the same for most of them.
    fn tell(&self, from: &P::Sender, why: &Ended) {
        let (to, said) = (self.leads_to(from), why.to_string());
        let mut told = self.lock_told();
        if told.as_ref().is_some_and(|told| told.why == said) {
            tracing::debug!(%from, %to, error = said, "nor are these datagrams carried");
            return;
        }
        let advice = match self.port.kind(from) {
            StreamKind::Named(name) if why.is_for_want_of_a_rule() => format!(
                "; the server's owner allows them with dial=\"udp:{name}\" in this client's line, or dial=\"udp:*:*\" for all"
            ),
            _ => String::new(),
        };
        tracing::warn!(%from, %to, error = said, "datagrams are not carried{advice}");
        *told = Some(Told { why: said, to });
    }

    fn lock_told(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Port> Senders<P> {
    fn forget(&mut self, sender: &P::Sender, way: &Arc<Way>) {
        // There may be another for the same sender by now.
        if self.ways.get(sender).is_some_and(|there| Arc::ptr_eq(there, way)) {
            self.ways.remove(sender);
        }
    }
}
