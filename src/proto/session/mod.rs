//! The session: dispatch and the order of things. What streams, lanes, the scheduler and the wire
//! know is in their rooms; this one only brings them together.

mod acked;
mod budget;
mod caps;
mod choice;
mod crowd;
mod express;
mod input;
mod kept;
mod lanes;
mod links;
mod memory;
mod output;
mod probe;
mod redundant;
mod reinject;
mod rest;
mod room;
mod standing;
mod streams;
mod wander;

pub use memory::{Allowance, MemoryUse};
pub use output::Transmit;
pub use streams::{RecvStream, SendStream};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use litemap::LiteMap;

use self::budget::{BusyBudget, DuplicateBudget};
use self::caps::Caps;
use self::links::Links;
use self::memory::Memory;
use self::room::Room;
use self::standing::Answering;
use super::config::Config;
use super::error::{Code, SessionError, Undelivered};
use super::event::Event;
use super::ids::{Dir, LaneId, Side, StreamId};
use super::lane::{Carried, DeadLane, Lane};
use super::limits::NEXT_KEY_BYTES;
use super::mutants::mutant;
use super::range_set::RangeSet;
use super::scheduler::{FairQueue, LaneView};
use super::stats::{CreditStats, LaneStats, SessionStats};
use super::stream::{ReceiveWindow, ReorderUse, SendCredit, Stream};
use super::timer::Timer;
use super::wire::{Params, StreamKind};

/// One end of a session: streams over lanes, without IO, clock, tasks or threads.
///
/// Four kinds of method:
/// - *getters* (`side`, `stats`, `lane_count`, ...) change nothing;
/// - *input*: `handle_lane_up`, `handle_lane_policy`, `handle_lane_metrics`, `handle_frames`,
///   `handle_lane_down`, `handle_timeout` tell what happened outside;
/// - *commands*: `open`, `accept`, `send_stream`, `recv_stream`, `drain`, `announce_next_key`,
///   `close`;
/// - *output*: `poll_event`, `poll_wake`, `poll_transmit`, `poll_timeout`.
///
/// After any input or command the driver drains `poll_event`, wakes every lane that `poll_wake`
/// names, and re-arms its timer from `poll_timeout`. A lane that can take bytes calls
/// `poll_transmit`; if it gets none it sleeps until it is named.
///
/// Invariant: nothing here reads a clock, and two sessions that are given the same calls do the
/// same things.
#[derive(Debug)]
pub struct Session {
    side: Side,
    config: Arc<Config>,
    peer: Params,
    state: State,
    streams: BTreeMap<StreamId, Stream>,
    local: LocalStreams,
    remote: RemoteStreams,
    lanes: LiteMap<LaneId, Lane>,
    dead: VecDeque<DeadLane>,
    /// What all streams together may send, and receive.
    credit: SendCredit,
    window: ReceiveWindow,
    /// How much of that streams were promised.
    room: Room,
    /// Memory that out-of-order data costs.
    reorder: ReorderUse,
    memory: Memory,
    /// Streams whose writer waits for session credit.
    credit_waiters: BTreeSet<StreamId>,
    /// Bytes of streams that wait to be sent.
    pending: u64,
    /// Bytes of streams that are kept: written and not acknowledged.
    held: u64,
    /// Streams whose writer waits for acknowledgements.
    kept_back: BTreeSet<StreamId>,
    data_queue: FairQueue,
    control_queue: VecDeque<StreamId>,
    say: ToSay,
    /// What the peer was told of this server's next key.
    next_key: Option<Bytes>,
    /// Whether an express lane would help, and whoever dials was told.
    express_wanted: bool,
    accepted: VecDeque<(StreamId, StreamKind)>,
    events: VecDeque<Event>,
    busy: BusyBudget,
    duplicates: DuplicateBudget,
    caps: Caps,
    links: Links,
    /// When a lane that was held back by its link's cap may go on.
    paced_until: Option<Instant>,
    /// Lanes given up in a row of which nothing was ever acknowledged.
    futile: u32,
    /// When the last lane went, and the session began to wait for another.
    alone_since: Option<Instant>,
    random: u64,
    totals: Totals,
    /// Room for snapshots of the lanes, so that a pull allocates none.
    view_space: Vec<LaneView>,
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Over; a CLOSE with this code and reason may still have to be given to the lanes.
    Closed {
        tell: Option<(Code, &'static str)>,
        /// What had not arrived.
        lost: Undelivered,
    },
}

/// Control frames of the session that wait to be sent.
#[derive(Clone, Copy, Debug, Default)]
struct ToSay {
    max_data: bool,
    max_streams: bool,
    early_streams: bool,
    drain: bool,
    next_key: bool,
    express: bool,
}

/// Streams this end opens.
#[derive(Debug)]
struct LocalStreams {
    next: u64,
    max: u64,
    /// So many of them may send more than the others in the beginning.
    early: u64,
    /// `open` said no, and wants to hear when it may.
    blocked: bool,
    peer_drains: bool,
}

/// Streams the peer opens.
#[derive(Debug)]
struct RemoteStreams {
    /// Which there were: tells a closed one's late frames from a new one's first.
    seen: RangeSet,
    /// How many are open.
    open: u64,
    /// How many the peer knows it may have opened.
    announced: u64,
    /// How many of these it knows to begin with the full first window, and how many of them have not come.
    early: u64,
    early_unseen: u64,
    draining: bool,
}

impl RemoteStreams {
    /// How many more the peer may open.
    fn unseen(&self) -> u64 {
        self.announced.saturating_sub(self.seen.len())
    }
}

/// Sums over the life of the session, dead lanes included.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    sent_payload: u64,
    resent_payload: u64,
    received_payload: u64,
    duplicate_payload: u64,
    lanes_lost: u64,
    suspected: u64,
    reorder_peak: u64,
    held_peak: u64,
}

impl Session {
    /// A session with no lane yet. `peer` is what the other end told of itself when the session
    /// was created; `seed` is the source of all its randomness.
    pub fn new(side: Side, config: Arc<Config>, peer: Params, seed: u64, now: Instant) -> Self {
        let own = config.params();
        let mut session = Self {
            side,
            state: State::Open,
            streams: BTreeMap::new(),
            local: LocalStreams {
                next: 0,
                max: peer.initial_max_streams,
                early: 0,
                blocked: false,
                peer_drains: false,
            },
            remote: RemoteStreams {
                seen: RangeSet::new(),
                open: 0,
                announced: own.initial_max_streams,
                early: 0,
                early_unseen: 0,
                draining: false,
            },
            lanes: LiteMap::new(),
            dead: VecDeque::new(),
            credit: SendCredit::new(peer.initial_max_data),
            window: ReceiveWindow::new(
                own.initial_max_data,
                own.initial_max_data,
                config.session_window,
            ),
            room: Room::new(&config),
            reorder: ReorderUse::default(),
            memory: Memory::new(),
            credit_waiters: BTreeSet::new(),
            pending: 0,
            held: 0,
            kept_back: BTreeSet::new(),
            data_queue: FairQueue::default(),
            control_queue: VecDeque::new(),
            say: ToSay::default(),
            next_key: None,
            express_wanted: false,
            accepted: VecDeque::new(),
            events: VecDeque::new(),
            busy: BusyBudget::new(now),
            duplicates: DuplicateBudget::new(config.duplicate_share),
            caps: Caps::default(),
            links: Links::default(),
            paced_until: None,
            futile: 0,
            alone_since: Some(now),
            random: seed | 1,
            totals: Totals::default(),
            view_space: Vec::new(),
            config,
            peer,
        };
        session.offer_streams();
        session
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether one end accepts no more streams.
    pub fn is_draining(&self) -> bool {
        self.local.peer_drains || self.remote.draining
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.state != State::Open
    }

    /// Whether the CLOSE has been given to every lane that is left: the driver may let go.
    pub fn is_close_sent(&self) -> bool {
        self.is_closed() && self.lanes.values().all(|lane| lane.close_sent)
    }

    /// How many lanes are up.
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Since when it has had no lane; `None` while it has one.
    pub fn alone_since(&self) -> Option<Instant> {
        self.alone_since
    }

    /// How many streams are open, in either direction.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Bytes kept for the peer's sake: received and unread, and sent but not acknowledged.
    pub fn memory(&self) -> u64 {
        let streams = self.streams.values().map(|stream| {
            let kept = stream.recv.ready_bytes().saturating_add(stream.recv.reorder_use().cost);
            kept.saturating_add(stream.send.held_bytes())
        });
        streams.fold(0, u64::saturating_add)
    }

    /// What was written, or finished, and is not known to have arrived; once the session is over, what was lost by that.
    pub fn undelivered(&self) -> Undelivered {
        if let State::Closed { lost, .. } = self.state {
            return lost;
        }
        let lacking = self.streams.values().map(|stream| stream.send.undelivered());
        lacking.fold(Undelivered::default(), Undelivered::and)
    }

    /// Whether all that was written and finished has arrived.
    pub fn is_delivered(&self) -> bool {
        self.held == 0 && self.undelivered().is_none()
    }

    /// Figures of the session and its lanes as they are now.
    pub fn stats(&self) -> SessionStats {
        SessionStats {
            sent_bytes: self.totals.sent_payload,
            resent_bytes: self.totals.resent_payload,
            received_bytes: self.totals.received_payload,
            duplicate_bytes: self.totals.duplicate_payload,
            pending_bytes: self.pending,
            held_bytes: self.held,
            held_bytes_max: self.totals.held_peak,
            reorder_bytes: self.reorder.cost,
            reorder_bytes_max: self.totals.reorder_peak,
            lanes_lost: self.totals.lanes_lost,
            lanes_suspected: self.totals.suspected,
            credit: CreditStats {
                sent: self.credit.used(),
                sent_max: self.credit.max(),
                received: self.window.received(),
                consumed: self.window.consumed(),
                announced: self.window.announced(),
            },
            streams: self.streams.len(),
            lanes: self.lanes.values().map(LaneStats::of).collect(),
        }
    }

    /// Lets the open streams finish and refuses new ones from the peer.
    pub fn drain(&mut self) {
        if !self.remote.draining {
            self.remote.draining = true;
            self.say.drain = true;
        }
    }

    /// Announces the key that this server will have later (`limits::NEXT_KEY_BYTES`).
    pub fn announce_next_key(&mut self, announcement: Bytes) {
        debug_assert!(self.side == Side::Server && announcement.len() == NEXT_KEY_BYTES);
        self.next_key = Some(announcement);
        self.say.next_key = true;
    }

    /// Ends the session at once, and tells the peer why.
    pub fn close(&mut self, code: Code) {
        if self.state == State::Open {
            self.end(SessionError::Closed(code), Some((code, "")));
        }
    }

    /// The next event, oldest first.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` has to be called, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        if self.is_closed() {
            return None;
        }
        let alone = self.alone_since.and_then(|since| since.checked_add(self.config.grace));
        let grace = alone.map(|at| (at, Timer::Grace));
        let paced = self.paced_until.map(|at| (at, Timer::Paced));
        let answering = Answering::count(self.lanes.values());
        let lanes = self.lanes.values().filter_map(|lane| self.lane_timeout(lane, answering));
        lanes.chain(grace).chain(paced).min_by_key(|(at, _)| *at)
    }

    /// Time has passed: call at or after the instant `poll_timeout` named.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        // `poll_wake` says how to go on.
        self.paced_until = self.paced_until.filter(|at| *at > now);
        self.check_lanes(now);
        let grace_over = self
            .alone_since
            .is_some_and(|since| now.saturating_duration_since(since) >= self.config.grace);
        if grace_over {
            self.end(SessionError::GraceExpired, None);
        }
    }

    /// The peer broke a rule: the session ends with a code and a reason.
    fn misbehaved(&mut self, code: Code, detail: &'static str) {
        if self.state == State::Open {
            let error = SessionError::PeerMisbehaved { code, detail };
            self.end(error, Some((code, detail)));
        }
    }

    fn end(&mut self, error: SessionError, tell: Option<(Code, &'static str)>) {
        self.state = State::Closed { tell, lost: self.undelivered() };
        // A peer that has gone in order had everything acknowledged: what arrived whole can still
        // be read. Nothing else is left.
        let in_order = matches!(error, SessionError::ClosedByPeer { .. });
        self.streams.retain(|_, stream| in_order && stream.recv.is_whole());
        self.accepted.retain(|(id, _)| self.streams.contains_key(id));
        self.dead.clear();
        self.credit_waiters.clear();
        self.kept_back.clear();
        self.control_queue.clear();
        self.data_queue = FairQueue::default();
        self.pending = 0;
        self.held = 0;
        self.reorder = ReorderUse::default();
        // What arrived before is no less true for it.
        self.events.retain(|event| matches!(event, Event::Arrived { .. } | Event::Stopped { .. }));
        self.events.push_back(Event::Closed(error));
    }

    /// The longest round trip of any lane: how long credit may be on its way.
    fn round_trip_max(&self) -> Duration {
        self.lanes.values().map(|lane| lane.estimate.rtt()).max().unwrap_or_default()
    }

    /// A number from the session's own source (xorshift; Marsaglia 2003).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// A frame arrived at the peer.
    fn on_delivered(&mut self, carried: &Carried) {
        match carried {
            Carried::Data { id, range, fin } => {
                let mut arrival = None;
                self.with_stream(*id, |stream| {
                    let chunk = super::stream::Chunk { range: range.clone(), fin: *fin };
                    stream.say.reset |= stream.send.on_acked(&chunk);
                    arrival = stream.send.take_arrival();
                });
                if let Some((bytes, ended)) = arrival {
                    self.events.push_back(Event::Arrived { id: *id, bytes, ended });
                }
                // What waited to be sent again has arrived after all.
                self.wake_writer(*id);
            }
            Carried::Open(id) => self.with_stream(*id, |stream| {
                stream.opening = None;
                stream.say.open = false;
            }),
            Carried::Reset(id) => self.with_stream(*id, |stream| {
                stream.send.on_reset_acked();
                stream.say.reset = false;
            }),
            Carried::LaneClosed(lane) => {
                if let Some(dead) = self.dead.iter_mut().find(|dead| dead.id == *lane) {
                    dead.notice_acked = true;
                    dead.notice_due = false;
                }
                self.dead.retain(|dead| !dead.is_done());
            }
            Carried::Stop(_)
            | Carried::MaxStreamData(_)
            | Carried::MaxData
            | Carried::MaxStreams
            | Carried::EarlyStreams
            | Carried::Drain
            | Carried::NextKey
            | Carried::Express
            | Carried::Ping => {}
        }
    }

    /// A frame did not arrive, or is not known to have: it is sent again if it still matters.
    fn on_undelivered(&mut self, carried: &Carried) {
        match carried {
            Carried::Data { id, range, fin } => {
                self.with_stream(*id, |stream| {
                    let chunk = super::stream::Chunk { range: range.clone(), fin: *fin };
                    stream.send.on_lost(&chunk);
                });
            }
            Carried::Open(id) => {
                self.with_stream(*id, |stream| {
                    stream.say.open = stream.opening.is_some() && !mutant!("lost-open-not-resent");
                });
            }
            Carried::Reset(id) => {
                self.with_stream(*id, |stream| {
                    stream.say.reset =
                        stream.send.reset_due().is_some() && !mutant!("lost-reset-not-resent");
                });
            }
            Carried::Stop(id) => self.with_stream(*id, |stream| {
                stream.say.stop = stream.stop_sent.filter(|_| !stream.recv.is_done());
            }),
            Carried::MaxStreamData(id) => self.with_stream(*id, |stream| {
                stream.say.max_stream_data =
                    stream.recv.wants_credit() && !mutant!("lost-stream-credit-not-resent");
            }),
            Carried::MaxData => self.say.max_data |= !mutant!("lost-max-data-not-resent"),
            Carried::MaxStreams => self.say.max_streams |= !mutant!("lost-max-streams-not-resent"),
            Carried::EarlyStreams => self.say.early_streams = true,
            Carried::Drain => self.say.drain = true,
            Carried::NextKey => self.say.next_key = true,
            Carried::Express => self.say.express = true,
            Carried::LaneClosed(lane) => {
                if let Some(dead) = self.dead.iter_mut().find(|dead| dead.id == *lane) {
                    dead.notice_due = !dead.notice_acked;
                }
            }
            Carried::Ping => {}
        }
    }

    /// Changes a stream if it is still there, and puts everything right that depends on it: queues,
    /// the sum of what waits, its writer's event, its end.
    fn with_stream(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let (pending, held) = (stream.send.pending_bytes(), stream.send.held_bytes());
        change(stream);
        self.pending = self.pending.saturating_sub(pending);
        self.pending = self.pending.saturating_add(stream.send.pending_bytes());
        self.held = self.held.saturating_sub(held);
        self.held = self.held.saturating_add(stream.send.held_bytes());
        self.totals.held_peak = self.totals.held_peak.max(self.held);
        self.settle(id);
    }

    /// Queues the stream where it has to be, or forgets it.
    fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.is_done() {
            self.forget(id);
            return;
        }
        if !stream.in_data_queue && stream.send.has_pending() {
            stream.in_data_queue = true;
            self.data_queue.push(id);
        }
        if !stream.in_control_queue && !stream.say.is_empty() {
            stream.in_control_queue = true;
            self.control_queue.push_back(id);
        }
    }

    fn forget(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.pending = self.pending.saturating_sub(stream.send.pending_bytes());
        self.held = self.held.saturating_sub(stream.send.held_bytes());
        debug_assert!(self.held == 0 || !self.streams.is_empty(), "{} bytes of nobody", self.held);
        self.reorder.count(stream.recv.reorder_use(), ReorderUse::default());
        self.credit_waiters.remove(&id);
        self.on_stream_gone(id, &stream);
    }

    fn is_local(&self, id: StreamId) -> bool {
        id.initiator() == self.side && id.dir() == Dir::Bi
    }
}
