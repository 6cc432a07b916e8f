//! What a session's lane tasks, streams and handles share, and who is woken when it changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};

use super::budget::{self, MemoryBudget};
use super::clock;
use super::lane_event::LaneEvent;
use super::seen::{Ends, Gone, Seen, StreamStatus};
use super::waiters::Waiters;
use crate::proto::ids::StreamId;
use crate::proto::{
    Code, Event, LaneId, LaneStats, Session, SessionError, SessionStats, StreamStats, Undelivered,
};

/// Lane events kept for a slow reader: one for every lane a session may have.
const LANE_EVENTS_KEPT: usize = crate::proto::limits::LANES_MAX;

/// Who waits for one stream, and what became of it, which the core may have forgotten.
#[derive(Debug, Default)]
pub(super) struct StreamWakers {
    pub(super) read: Option<Waker>,
    pub(super) write: Option<Waker>,
    /// Those that wait for a flow's datagrams.
    pub(super) datagrams: Waiters,
    /// Bytes written that are known to have arrived, as of the last query; and whether all have,
    /// the end included.
    pub(super) arrived: u64,
    pub(super) ended: bool,
    /// The peer wants no more of what is written.
    pub(super) stopped: Option<Code>,
    /// Halves that still exist.
    pub(super) halves: u8,
    /// Part of it was given to a lane.
    pub(super) begun: bool,
    /// When this end opened or accepted it, and what its user says of it.
    pub(super) opened: Option<Instant>,
    pub(super) ends: Option<Box<Ends>>,
}

/// A lane's task, as the session knows it.
#[derive(Debug, Default)]
pub(super) struct LaneSlot {
    pub(super) waker: Option<Waker>,
    /// The core has given the lane up.
    pub(super) lost: Option<Code>,
    /// The peer has said that the lane belongs to the session, so it knows it.
    pub(super) proven: bool,
    pub(super) seen: Option<Seen>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) core: Session,
    pub(super) lanes: BTreeMap<LaneId, LaneSlot>,
    /// Lanes that have gone, for whoever looks.
    pub(super) gone: Gone,
    pub(super) streams: BTreeMap<StreamId, StreamWakers>,
    /// Tasks that wait for a stream to accept, for room to open one, for the end.
    pub(super) accepting: Waiters,
    pub(super) opening: Waiters,
    pub(super) closing: Waiters,
    /// Tasks that wait until no stream is open.
    pub(super) draining: Waiters,
    /// Tasks that wait until all that was written has arrived.
    pub(super) delivering: Waiters,
    /// What was written to streams that were dropped without an end.
    pub(super) dropped: Undelivered,
    /// What the server announced last, and who waits for it.
    pub(super) next_key: (Option<Bytes>, Option<Waker>),
    /// Lane events, once somebody wants them and until the session is over.
    pub(super) lane_events: Option<broadcast::Sender<LaneEvent>>,
    /// Whom to tell that express lanes would help.
    pub(super) express: Option<watch::Sender<bool>>,
    pub(super) over: Option<SessionError>,
    /// What it may keep for its peer; nothing once it is over.
    pub(super) memory: Option<budget::Reservation>,
    /// How many keep it from giving way among the sessions of a server.
    pub(super) kept: usize,
    /// Nobody holds the session: it ends when its streams have, and at this time at the latest.
    pub(super) released: Option<Instant>,
    /// When the timer will fire.
    pub(super) armed: Option<Instant>,
}

impl State {
    pub(super) fn new(core: Session, memory: budget::Reservation) -> Self {
        Self {
            core,
            lanes: BTreeMap::new(),
            gone: Gone::default(),
            streams: BTreeMap::new(),
            accepting: Waiters::default(),
            opening: Waiters::default(),
            closing: Waiters::default(),
            draining: Waiters::default(),
            delivering: Waiters::default(),
            dropped: Undelivered::default(),
            next_key: (None, None),
            lane_events: None,
            express: None,
            over: None,
            memory: Some(memory),
            kept: 0,
            released: None,
            armed: None,
        }
    }

    /// Whether there is nothing left to wait for: all has arrived, or never will.
    pub(super) fn is_delivered(&self) -> bool {
        self.over.is_some() || self.core.is_delivered()
    }

    /// Lane events from now on, unless the session is over.
    pub(super) fn subscribe(&mut self) -> Option<broadcast::Receiver<LaneEvent>> {
        let events = || broadcast::Sender::new(LANE_EVENTS_KEPT);
        self.over.is_none().then(|| self.lane_events.get_or_insert_with(events).subscribe())
    }

    /// Passes a lane event to whoever wants it.
    pub(super) fn tell(&self, event: LaneEvent) {
        if let Some(events) = &self.lane_events {
            // There may be no subscriber.
            let _ = events.send(event);
        }
    }

    /// The stream is dropped without an end.
    pub(super) fn given_up(&mut self, id: StreamId) {
        self.dropped = self.dropped.and(self.core.send_stream(id).undelivered());
    }

    /// Leaves alone what a panic has left behind, and puts in its place a session that is over and
    /// has only to say so on its lanes.
    pub(super) fn abandon(&mut self) {
        tracing::error!("internal error: a session is given up; the others go on");
        let now = clock::now();
        let config = Arc::new(self.core.config().clone());
        let peer = config.params();
        let mut core = Session::new(self.core.side(), config, peer, 0, now);
        for &lane in self.lanes.keys() {
            // They were all in one session before.
            let _ = core.handle_lane_up(now, lane, None);
        }
        core.close(Code::INTERNAL);
        self.core = core;
    }

    /// Tells the budget what is kept for the peer, and the core what may be, if that has changed.
    /// Returns the budget if it is overdrawn: enforce it after releasing the session's lock.
    pub(super) fn account(&mut self, now: Instant) -> Option<MemoryBudget> {
        if self.core.is_closed() {
            self.memory = None;
        }
        let memory = self.memory.as_mut()?;
        memory.note_moved(now, self.core.moved_bytes(), self.core.buffered_bytes());
        if memory.is_unused(now, self.core.stream_count()) {
            self.core.lend_first_windows();
        }
        let again = self.core.memory_refused() && memory.is_time_to_ask(now);
        if !self.core.memory_due() && !again {
            return None;
        }
        let (allowed, overdrawn) = memory.renew(now, &self.core.use_memory());
        self.core.set_allowance(allowed);
        overdrawn
    }

    /// Hands out events and wakes lanes; `true` if the timer has to be set earlier.
    pub(super) fn settle(&mut self, now: Instant, wake: &mut Vec<Waker>) -> bool {
        if self.released.is_some() && self.core.stream_count() == 0 {
            self.core.close(Code::NONE);
        }
        if self.core.stream_count() == 0 {
            self.draining.wake(wake);
        }
        while let Some(event) = self.core.poll_event() {
            self.on_event(event, wake);
        }
        if !self.delivering.is_empty() && self.is_delivered() {
            self.delivering.wake(wake);
        }
        while let Some(lane) = self.core.poll_wake(now) {
            wake.extend(self.lanes.get_mut(&lane).and_then(|slot| slot.waker.take()));
        }
        let next = self.core.poll_timeout().map(|(at, _)| at);
        match (next, self.armed) {
            (Some(next), Some(armed)) => next < armed,
            (next, armed) => next.is_some() || (armed.is_some() && self.over.is_some()),
        }
    }

    fn on_event(&mut self, event: Event, wake: &mut Vec<Waker>) {
        match event {
            Event::Opened => self.accepting.wake(wake),
            Event::OpenAvailable | Event::Draining => self.opening.wake(wake),
            Event::Begun(id) => {
                if let Some(wakers) = self.streams.get_mut(&id) {
                    wakers.begun = true;
                    wake.extend(wakers.read.take());
                }
            }
            Event::Readable(id) => {
                wake.extend(self.streams.get_mut(&id).and_then(|wakers| wakers.read.take()));
            }
            Event::FlowReadable(id) => {
                if let Some(wakers) = self.streams.get_mut(&id) {
                    wakers.datagrams.wake(wake);
                }
            }
            Event::Writable(id) => {
                wake.extend(self.streams.get_mut(&id).and_then(|wakers| wakers.write.take()));
            }
            Event::Arrived { id, bytes, ended } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    (stream.arrived, stream.ended) = (bytes, ended);
                    wake.extend(stream.write.take());
                }
            }
            Event::Stopped { id, code } => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.stopped = Some(code);
                    wake.extend(stream.write.take());
                }
            }
            Event::LaneLost { lane, code } => {
                if let Some(slot) = self.lanes.get_mut(&lane) {
                    slot.lost = Some(code);
                    wake.extend(slot.waker.take());
                }
            }
            Event::LaneSuspect(lane) => {
                tracing::debug!(lane = lane.number(), "lane does not answer");
                self.tell(LaneEvent::Suspected(lane));
            }
            Event::MetricsWanted(lane) => {
                wake.extend(self.lanes.get_mut(&lane).and_then(|slot| slot.waker.take()));
            }
            Event::NextKey(announcement) => {
                self.next_key.0 = Some(announcement);
                wake.extend(self.next_key.1.take());
            }
            Event::ReadersPaused { streams, bytes } => tell_of_paused_readers(streams, bytes),
            Event::ExpressWanted => {
                if let Some(express) = &self.express {
                    express.send_replace(true);
                }
            }
            Event::Closed(error) => self.on_closed(error, wake),
        }
    }

    fn on_closed(&mut self, error: SessionError, wake: &mut Vec<Waker>) {
        wake.extend(self.next_key.1.take());
        let lost = self.core.undelivered();
        tell_of_session(&self.core.stats(), lost, &error);
        if self.released.is_some() {
            tell_of_loss(lost.and(self.dropped));
        }
        self.over = Some(error);
        self.lane_events = None;
        self.accepting.wake(wake);
        self.opening.wake(wake);
        self.closing.wake(wake);
        for wakers in self.streams.values_mut() {
            wake.extend(wakers.read.take());
            wake.extend(wakers.write.take());
            wakers.datagrams.wake(wake);
        }
        wake.extend(self.lanes.values_mut().filter_map(|slot| slot.waker.take()));
    }
}

impl State {
    /// One stream, for whoever looks.
    pub(super) fn stream_status(&self, now: Instant, stats: StreamStats) -> StreamStatus {
        let held = self.streams.get(&stats.id);
        let ends = held.and_then(|held| held.ends.as_deref());
        let words =
            |of: fn(&Ends) -> &Arc<str>| ends.map_or_else(|| "".into(), |it| of(it).clone());
        StreamStatus {
            stats,
            age: held.and_then(|held| Some(now.duration_since(held.opened?))),
            from: words(|ends| &ends.from),
            to: words(|ends| &ends.to),
        }
    }

    /// A lane's transport was asked how it is doing.
    pub(super) fn on_measured(&mut self, now: Instant, id: LaneId, retransmits: u64) {
        let slot = self.lanes.get_mut(&id);
        if let (Some(seen), Some(stats)) =
            (slot.and_then(|slot| slot.seen.as_mut()), self.core.lane_stats(id))
        {
            seen.retransmits = retransmits;
            seen.meter.note(now, &stats);
        }
    }

    /// A lane has gone. `stats` are its last figures, unless the core has given it up before.
    pub(super) fn on_gone(
        &mut self,
        now: Instant,
        lane: LaneId,
        slot: LaneSlot,
        stats: Option<&LaneStats>,
        why: &str,
    ) {
        let Some(mut seen) = slot.seen else { return };
        if let Some(stats) = stats {
            seen.meter.note(now, stats);
        }
        if self.over.is_none() {
            seen.meter.totals.on_lost();
            self.gone.add(now, lane, &seen, why);
        }
    }

    /// Says where a stream comes from and leads.
    pub(super) fn describe(&mut self, id: StreamId, from: &str, to: &str) {
        if let Some(held) = self.streams.get_mut(&id) {
            held.ends = Some(Box::new(Ends { from: from.into(), to: to.into() }));
        }
    }
}

/// Logged, as the streams that are slowed down cannot see why.
fn tell_of_paused_readers(streams: usize, bytes: u64) {
    tracing::warn!(
        streams,
        bytes,
        "connections whose programs do not read hold much of what a session may keep; the others go on with smaller \
         windows: see what those programs wait for, or raise --session-window"
    );
}

/// Logs how a session went and what it cost; `imux-lab` reads the names.
fn tell_of_session(stats: &SessionStats, lost: Undelivered, why: &SessionError) {
    tracing::debug!(
        %why,
        lost_bytes = lost.bytes,
        sent_bytes = stats.sent_bytes,
        resent_bytes = stats.resent_bytes,
        received_bytes = stats.received_bytes,
        duplicate_bytes = stats.duplicate_bytes,
        held_bytes_max = stats.held_bytes_max,
        reorder_bytes_max = stats.reorder_bytes_max,
        lanes_lost = stats.lanes_lost,
        "what the session has cost"
    );
}

/// Logs a loss that nobody waited for, and nobody else will report.
pub(super) fn tell_of_loss(lost: Undelivered) {
    if !lost.is_none() {
        let Undelivered { bytes, streams, .. } = lost;
        tracing::warn!(
            bytes,
            streams,
            "written and lost: the last handle was dropped before it had arrived; wait for `shutdown`, \
             `acknowledged` or `close`"
        );
    }
}

/// Remembers whom to wake, without cloning a waker that is there already.
pub(super) fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}
