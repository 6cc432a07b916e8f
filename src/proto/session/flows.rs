//! Flows: opened and ended by their streams, their datagrams given to lanes.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Session;
use super::busy::Cost;
use super::pull::Pull;
use crate::proto::error::{Code, DatagramError, ReadError};
use crate::proto::event::Event;
use crate::proto::flows::{FlowStats, Heard, Outgoing};
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::Carried;
use crate::proto::limits::{FLOW_DEADLINE_MAX, TINY_PAYLOAD_BYTES};
use crate::proto::policy::Tier;
use crate::proto::scheduler::{self, LaneView};
use crate::proto::streams::Violation;
use crate::proto::wire::{Datagram, StreamKind, datagram_len};

/// Most bytes that a frame has besides a datagram's payload.
const HEADER_BYTES: usize = 40;

/// While a datagram waits for a lane that is sooner, the others are asked again this often.
const ASK_EVERY: Duration = Duration::from_millis(2);

impl Session {
    /// Opens a flow: datagrams that wait no longer than `deadline`, a millisecond to ten seconds.
    /// Refuses as `open` does, and if the peer allows no more flows (`may_open_flow`); nothing
    /// follows then.
    pub fn open_flow(
        &mut self,
        now: Instant,
        deadline: Duration,
        kind: StreamKind,
    ) -> Option<StreamId> {
        if self.is_closed() || !self.flows.may_open() {
            return None;
        }
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = deadline_ms.clamp(1, FLOW_DEADLINE_MAX.as_millis() as u64);
        let id = self.streams.open(StreamKind::Flow { deadline_ms, kind: Box::new(kind) })?;
        let added = self.flows.add(now, id, deadline_ms);
        debug_assert!(added, "only the peer's are counted there");
        Some(id)
    }

    /// A flow's datagrams.
    pub fn flow(&mut self, id: StreamId) -> Flow<'_> {
        Flow { session: self, id }
    }

    /// How many flows the peer allows to be open to it at once; 0: it knows none.
    pub fn granted_flows(&self) -> u64 {
        self.flows.granted()
    }

    /// Whether the peer allows one more.
    pub fn may_open_flow(&self) -> bool {
        self.flows.may_open()
    }

    /// How many flows are open, in either direction.
    pub fn flow_count(&self) -> usize {
        self.flows.len()
    }

    /// What flows keep, both ways: bytes, overhead included.
    pub fn flow_bytes(&self) -> u64 {
        self.flows.bytes()
    }

    /// The peer opens a stream, which may be a flow.
    pub(super) fn on_open(
        &mut self,
        now: Instant,
        id: StreamId,
        kind: StreamKind,
    ) -> Result<(), Violation> {
        let deadline = match &kind {
            StreamKind::Flow { deadline_ms, .. } => Some(*deadline_ms),
            _ => None,
        };
        if self.streams.on_open(id, kind)?
            && let Some(deadline_ms) = deadline
        {
            if !self.flows.add(now, id, deadline_ms) {
                self.streams.refuse(id, Code::EXCESSIVE_LOAD);
            } else if let Some(code) = self.ended_before_open(id) {
                self.end_flow(id, code);
            }
        }
        Ok(())
    }

    /// The opening may come on a slower lane than the end.
    fn ended_before_open(&self, id: StreamId) -> Option<Code> {
        let stream = self.streams.get(id)?;
        stream.recv.reset_code().or(stream.send.stopped())
    }

    pub(super) fn on_datagram(&mut self, now: Instant, lane: LaneId, datagram: Datagram) {
        let (id, bytes) = (datagram.id, datagram.data.len() as u64);
        let tiny = datagram.data.len() < TINY_PAYLOAD_BYTES;
        let heard = self.flows.on_datagram(now, datagram);
        let cost = match heard {
            Heard::Unknown => Some(Cost::Busy),
            _ if tiny => Some(Cost::Ack),
            _ => None,
        };
        if cost.is_some_and(|cost| !self.busy.spend(now, cost)) {
            self.misbehaved(Code::EXCESSIVE_LOAD, "too many datagrams that move nothing");
            return;
        }
        self.count_payload(lane, bytes);
        if heard == Heard::Readable {
            self.tell(Event::FlowReadable(id));
        }
    }

    /// A flow has ended, unless the stream is none.
    pub(super) fn end_flow(&mut self, id: StreamId, code: Code) {
        if self.flows.on_end(id, code) {
            self.tell(Event::FlowReadable(id));
        }
    }

    /// Time has passed.
    pub(super) fn check_flows(&mut self, now: Instant) {
        let checked = self.flows.check(now);
        for id in checked.readable {
            self.tell(Event::FlowReadable(id));
        }
        for id in checked.idle {
            self.streams.reset(id, Code::FLOW_IDLE);
            self.streams.stop(id, Code::FLOW_IDLE);
            self.end_flow(id, Code::FLOW_IDLE);
        }
    }

    /// Datagrams wait, and no sleeping lane takes them: when to ask again. The lane that would be
    /// sooner may not take them either.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let waits = self.flows.wait() && !self.is_closed();
        self.flows.ask_at = waits.then(|| now.checked_add(ASK_EVERY)).flatten();
    }

    /// Whether the lane should carry a datagram now, if there is `left` for it.
    pub(super) fn carries_datagram(
        &self,
        now: Instant,
        own: &LaneView,
        others: &[LaneView],
        left: usize,
    ) -> bool {
        let fits = |payload: usize| payload.saturating_add(HEADER_BYTES) <= left;
        if self.flows.next_second(now, own.id).is_some_and(fits) {
            return true;
        }
        let Some((payload, since)) = self.flows.next().filter(|(payload, _)| fits(*payload)) else {
            return false;
        };
        let waited = now.saturating_duration_since(since).as_secs_f64();
        scheduler::is_soonest(own, others.iter(), payload as f64, waited)
    }

    /// Writes the datagram that `carries_datagram` found; returns the frame's length.
    pub(super) fn write_datagram(&mut self, pull: &mut Pull<'_>, own: &LaneView) -> u64 {
        self.heed_wait(own);
        let (now, lane) = (pull.now, pull.lane);
        if self.flows.next_second(now, lane).is_some() {
            let second = self.flows.take_second(now, lane);
            return second.map_or(0, |(datagram, needs_open)| {
                self.write_datagram_frame(pull, own, &datagram, needs_open)
            });
        }
        let Some(first) = self.flows.take(now, lane) else { return 0 };
        let bytes = self.write_datagram_frame(pull, own, &first.datagram, first.needs_open);
        let stream = self.streams.get(first.datagram.id);
        if stream.is_some_and(|stream| stream.redundant) {
            self.give_second(now, lane, first);
        }
        bytes
    }

    fn write_datagram_frame(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        datagram: &Datagram,
        needs_open: bool,
    ) -> u64 {
        let before = pull.out.len();
        if needs_open {
            self.write_open(pull, datagram.id);
        }
        pull.out.push_datagram(datagram);
        let bytes = datagram_len(datagram) as u64;
        self.note(pull, Carried::Datagrams, bytes, Some(own));
        if let Some(lane) = self.lanes.get_mut(pull.lane) {
            let payload = datagram.data.len() as u64;
            lane.payload.sent = lane.payload.sent.saturating_add(payload);
        }
        let written = pull.out.len().saturating_sub(before) as u64;
        self.flows.charge_turn(written, self.streams.data_waits());
        written
    }

    /// `first` was given a datagram that is to go on two lanes: it is queued for the one that would
    /// deliver it next, over another link if there is one.
    fn give_second(&mut self, now: Instant, first: LaneId, datagram: Outgoing) {
        let Some(link) = self.lanes.get(first).map(|lane| lane.policy.link) else { return };
        let others = self.lanes.views(now).filter_map(|view| {
            let policy = self.lanes.get(view.id)?.policy;
            let may = view.id != first && policy.tier != Tier::Metered;
            may.then_some((policy.link == link, view.arrival(1.0), view.id))
        });
        let second = others.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        if let Some((_, _, second)) = second {
            self.flows.give_second(second, datagram);
        }
    }
}

/// A flow's datagrams, lent.
#[derive(Debug)]
pub struct Flow<'a> {
    session: &'a mut Session,
    id: StreamId,
}

impl Flow<'_> {
    /// Takes a datagram, which may be empty. It is never sent again, and not at all if it waits for
    /// longer than the deadline; where there is no room, the oldest that wait are dropped.
    pub fn send(&mut self, now: Instant, data: Bytes) -> Result<(), DatagramError> {
        self.session.flows.send(now, self.id, data)
    }

    /// The next datagram. With `ReadError::Blocked`, `Event::FlowReadable` follows.
    pub fn recv(&mut self, now: Instant) -> Result<Bytes, ReadError> {
        self.session.flows.recv(now, self.id)
    }

    /// Ends it at both ends, and forgets what has come. What waits to be sent is dropped.
    pub fn close(&mut self, code: Code) {
        self.session.streams.reset(self.id, code);
        self.session.streams.stop(self.id, code);
        self.session.flows.remove(self.id);
    }

    /// How long nothing may come or go before it ends with `Code::FLOW_IDLE`.
    pub fn set_idle_timeout(&mut self, idle: Duration) {
        self.session.flows.set_idle_timeout(self.id, idle);
    }

    /// How long a datagram may wait; `None`: it is over.
    pub fn deadline(&self) -> Option<Duration> {
        self.session.flows.get(self.id).map(|flow| flow.deadline)
    }

    /// What became of its datagrams; `None`: it is over.
    pub fn stats(&self) -> Option<FlowStats> {
        self.session.flows.get(self.id).map(|flow| flow.stats)
    }
}
