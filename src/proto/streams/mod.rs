//! All streams of one end: their table, what waits to be sent, the credit they share, and the
//! totals kept for the peer.
//!
//! Nothing here knows about lanes. What depends on lanes (a round trip, how far a writer may be
//! ahead, the cost of remembering where bytes went) is an argument.

mod allowance;
mod commands;
mod delivery;
mod memory;
mod promises;
mod queues;
mod received;
mod room;
mod unacked;

pub use allowance::{Allowance, MemoryUse};
pub use queues::fit_payload;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::config::Config;
use super::count::{Count, end_of, span};
use super::error::{Code, Undelivered};
use super::event::Event;
use super::ids::{Dir, Side, StreamId};
use super::range_set::RangeSet;
use super::scheduler::FairQueue;
use super::stream::{Misbehaviour, ReceiveWindow, ReorderUse, SendCredit, Stream};
use super::wire::{Params, StreamKind, Wants};

use self::allowance::Memory;
use self::promises::Room;

/// The streams of one end of a session.
#[derive(Debug)]
pub struct Streams {
    side: Side,
    config: Arc<Config>,
    /// The parameters the peer gave when the session was created.
    peer: Params,
    table: BTreeMap<StreamId, Stream>,
    local: LocalStreams,
    remote: RemoteStreams,
    /// What all streams together may send, and receive.
    credit: SendCredit,
    window: ReceiveWindow,
    /// How much of that is promised to streams.
    room: Room,
    memory: Memory,
    sums: Sums,
    waiters: Waiters,
    data_queue: FairQueue,
    control_queue: VecDeque<StreamId>,
    accepted: VecDeque<(StreamId, StreamKind)>,
    /// The session is over: nothing more is sent, nor counted as pending.
    over: bool,
    /// Control frames about all streams that wait to be sent.
    pub due: FramesDue,
    /// Events for the driver, oldest first; the session adds those that are not about streams.
    pub events: VecDeque<Event>,
}

/// Control frames about all streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FramesDue {
    pub max_data: bool,
    pub max_streams: bool,
    pub early_streams: bool,
}

/// Streams this end opens.
#[derive(Debug)]
struct LocalStreams {
    next: u64,
    max: u64,
    /// This many of them may send more than the others at first.
    early: u64,
    /// `open` refused, and wants to know when it may.
    blocked: bool,
    peer_drains: bool,
}

/// Streams the peer opens.
#[derive(Debug)]
struct RemoteStreams {
    /// Which there have been: tells a closed one's late frames from a new one's first.
    seen: RangeSet,
    /// How many are open.
    open: Count,
    /// How many the peer knows it may open in all.
    announced: u64,
    /// How many of these it knows start with the full first window, and how many of those have not
    /// come.
    early: u64,
    early_unseen: Count,
    draining: bool,
}

impl RemoteStreams {
    /// How many more the peer may open.
    fn unseen(&self) -> u64 {
        span(self.seen.len(), self.announced)
    }
}

/// Bytes of all streams together, kept current as each changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Waiting to be sent.
    pub pending: Count,
    /// Written and not acknowledged, now and at most.
    pub held: Count,
    pub held_peak: u64,
    /// What out-of-order data costs, now and at most.
    pub reorder: ReorderSum,
    pub reorder_peak: u64,
    /// Received over the session's life, and received again.
    pub received: Count,
    pub duplicate: Count,
}

/// What out-of-order data of all streams takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReorderSum {
    cost: Count,
    bytes: Count,
}

impl ReorderSum {
    /// Memory, its bookkeeping included.
    pub fn cost(self) -> u64 {
        self.cost.get()
    }

    /// Bytes of streams.
    pub fn bytes(self) -> u64 {
        self.bytes.get()
    }

    /// What took `before` now takes `now`.
    fn replace(&mut self, before: ReorderUse, now: ReorderUse) {
        self.cost.replace(before.cost, now.cost);
        self.bytes.replace(before.bytes, now.bytes);
    }
}

/// Streams whose writers wait for what all streams share.
#[derive(Debug, Default)]
struct Waiters {
    /// For the session's credit.
    credit: BTreeSet<StreamId>,
    /// For acknowledgements.
    acks: BTreeSet<StreamId>,
}

/// The peer broke a rule: the code it gets, and the detail for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub code: Code,
    pub detail: &'static str,
}

impl Violation {
    const fn new(code: Code, detail: &'static str) -> Self {
        Self { code, detail }
    }
}

impl From<Misbehaviour> for Violation {
    fn from(broken: Misbehaviour) -> Self {
        match broken {
            Misbehaviour::FlowControl => {
                Self::new(Code::FLOW_CONTROL, "more data than credit was given for")
            }
            Misbehaviour::FinalSize => Self::new(Code::FINAL_SIZE, "the end of a stream moved"),
            Misbehaviour::Gaps => Self::new(Code::EXCESSIVE_LOAD, "too many gaps in one stream"),
        }
    }
}

impl Streams {
    /// The wants that the peer grants for a stream opened to it.
    pub fn granted_wants(&self) -> Wants {
        self.peer.wants
    }

    /// How many streams of the kind `Listening` the peer allows to be opened to it.
    pub fn granted_listeners(&self) -> u64 {
        self.peer.listeners_max
    }

    /// No streams yet; those that may be opened at once are announced.
    pub fn new(side: Side, config: Arc<Config>, peer: Params) -> Self {
        let own = config.params();
        let mut streams = Self {
            side,
            table: BTreeMap::new(),
            local: LocalStreams {
                next: 0,
                max: peer.initial_max_streams,
                early: 0,
                blocked: false,
                peer_drains: false,
            },
            remote: RemoteStreams {
                seen: RangeSet::new(),
                open: Count::ZERO,
                announced: own.initial_max_streams,
                early: 0,
                early_unseen: Count::ZERO,
                draining: false,
            },
            credit: SendCredit::new(peer.initial_max_data),
            window: ReceiveWindow::new(
                own.initial_max_data,
                own.initial_max_data,
                config.session_window,
            ),
            room: Room::new(&config),
            memory: Memory::new(),
            sums: Sums::default(),
            waiters: Waiters::default(),
            data_queue: FairQueue::default(),
            control_queue: VecDeque::new(),
            accepted: VecDeque::new(),
            over: false,
            due: FramesDue::default(),
            events: VecDeque::new(),
            config,
            peer,
        };
        streams.offer_streams();
        streams
    }

    /// How many are open, in either direction.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn get(&self, id: StreamId) -> Option<&Stream> {
        self.table.get(&id)
    }

    /// Those with higher numbers than `after`, by number; without it, all.
    pub fn after(&self, after: Option<StreamId>) -> impl Iterator<Item = (StreamId, &Stream)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.table.range((from, Bound::Unbounded)).map(|(id, stream)| (*id, stream))
    }

    /// For changes that affect no sum or queue; for all others use `change`.
    pub fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.table.get_mut(&id)
    }

    /// Bytes that wait to be sent.
    pub fn pending(&self) -> u64 {
        self.sums.pending.get()
    }

    /// Bytes written and not acknowledged.
    pub fn held(&self) -> u64 {
        self.sums.held.get()
    }

    /// Bytes kept for the peer: received but unread, and sent but unacknowledged.
    pub fn memory(&self) -> u64 {
        let streams = self.table.values().map(|stream| {
            let kept = end_of(stream.recv.ready_bytes(), stream.recv.reorder_use().cost);
            end_of(kept, stream.send.held_bytes())
        });
        streams.fold(0, end_of)
    }

    /// What was written or finished and may not have arrived.
    pub fn undelivered(&self) -> Undelivered {
        let lacking = self.table.values().map(Stream::undelivered);
        lacking.fold(Undelivered::default(), Undelivered::and)
    }

    /// Whether one end accepts no more of them.
    pub fn is_draining(&self) -> bool {
        self.local.peer_drains || self.remote.draining
    }

    /// Refuses new ones from the peer; `false` if it did already.
    pub fn drain(&mut self) -> bool {
        !std::mem::replace(&mut self.remote.draining, true)
    }

    /// The peer refuses new ones.
    pub fn on_drain(&mut self) {
        if !std::mem::replace(&mut self.local.peer_drains, true) {
            self.events.push_back(Event::Draining);
        }
    }

    /// What all of them together keep and have received.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// What all of them together may send.
    pub fn credit(&self) -> SendCredit {
        self.credit
    }

    /// What all of them together may receive.
    pub fn window(&self) -> ReceiveWindow {
        self.window
    }

    /// The session is over. If the peer ended it in order, everything was acknowledged: streams
    /// that arrived in full can still be read. Nothing else is left.
    pub fn end(&mut self, in_order: bool) {
        self.table.retain(|_, stream| in_order && stream.recv.is_whole());
        self.accepted.retain(|(id, _)| self.table.contains_key(id));
        self.waiters = Waiters::default();
        self.control_queue.clear();
        self.data_queue = FairQueue::default();
        self.over = true;
        self.sums.pending = Count::ZERO;
        self.sums.held = Count::ZERO;
        self.sums.reorder = ReorderSum::default();
        // What arrived before remains true.
        self.events.retain(|event| matches!(event, Event::Arrived { .. } | Event::Stopped { .. }));
    }

    /// Changes a stream if it still exists, and updates everything that depends on it: queues, the
    /// sums of pending and held bytes, its end.
    pub fn change(&mut self, id: StreamId, change: impl FnOnce(&mut Stream)) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let (pending, held) = (stream.send.pending_bytes(), stream.send.held_bytes());
        change(stream);
        let (pending_now, held_now) = (stream.send.pending_bytes(), stream.send.held_bytes());
        let sums = &mut self.sums;
        if !self.over {
            sums.pending.replace(pending, pending_now);
            sums.held.replace(held, held_now);
        }
        sums.held_peak = sums.held_peak.max(sums.held.get());
        self.settle(id);
    }

    /// Queues the stream where it belongs, or forgets it.
    pub fn settle(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else { return };
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
        let Some(stream) = self.table.remove(&id) else { return };
        let sums = &mut self.sums;
        if !self.over {
            sums.pending.take(stream.send.pending_bytes());
            sums.held.take(stream.send.held_bytes());
            sums.reorder.replace(stream.recv.reorder_use(), ReorderUse::default());
        }
        let nobody = sums.held != Count::ZERO && self.table.is_empty();
        debug_assert!(!nobody, "{:?} of nobody", sums.held);
        self.waiters.credit.remove(&id);
        self.on_stream_gone(id, &stream);
    }

    fn is_local(&self, id: StreamId) -> bool {
        id.initiator() == self.side && id.dir() == Dir::Bi
    }
}
