//! Flows: datagrams beside streams. A flow is a stream of a kind of its own, which opens and ends
//! it; its datagrams are in frames of their own, in order and never sent again.
//!
//! What waits is bounded by age, the flow's deadline, and by bytes: the oldest is dropped first.
//! Nothing here knows lanes but by their ids; which of them carries a datagram is
//! `session::plan`'s.
#![allow(
    unreachable_pub,
    reason = "the room is private: `mod.rs` of the core decides what leaves it"
)]

mod cost;
mod flow;
mod inbox;
mod outbox;
mod parts;
mod second;
mod stats;

pub use flow::Flow;
pub use stats::FlowStats;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::cost::cost;
use self::second::Seconds;
use super::count::Count;
use super::error::{Code, DatagramError, ReadError};
use super::ids::{LaneId, Side, StreamId};
use super::limits::{
    DATAGRAM_BYTES_MAX, FLOW_DEADLINE_MAX, FLOWS_BYTES_MAX, FLOWS_PER_SESSION_MAX,
};
use super::scheduler::FairQueue;
use super::wire::Datagram;

/// Timers do not resolve less, nor are flows looked at more often.
const CHECK_EVERY_MIN: Duration = Duration::from_millis(2);

/// While bulk waits, datagrams go first until they have taken so much more than it.
const TURN_BYTES: u64 = 64 * 1024;

/// Changes of what flows keep are told in steps of this.
const TOLD_STEP_BYTES: u64 = 64 * 1024;

/// The flows of one end.
#[derive(Debug)]
pub struct Flows {
    side: Side,
    /// How many the peer lets this end open.
    granted: u64,
    table: BTreeMap<StreamId, Flow>,
    /// Those with something to send.
    queue: FairQueue,
    seconds: Seconds,
    /// What all keep, each way, and may.
    sending: Count,
    receiving: Count,
    bytes_max: u64,
    /// What `bytes` was when the driver was last told.
    told: u64,
    /// Bytes that were sent ahead of bulk that waited.
    turn: u64,
    /// When something is too old, or a flow idle.
    check_at: Option<Instant>,
    /// When to ask sleeping lanes again: the one that is sooner has not taken what waits.
    pub ask_at: Option<Instant>,
    /// What became of the datagrams of flows that are gone.
    past: FlowStats,
}

/// What a frame of the peer's did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is for no flow.
    Unknown,
    /// Nobody has to be told.
    Silent,
    /// The flow's reader has to be told.
    Readable,
}

/// What is done after a check.
#[derive(Debug, Default)]
pub struct Checked {
    /// Flows whose readers have to be told.
    pub readable: Vec<StreamId>,
    /// Flows that are over.
    pub idle: Vec<StreamId>,
}

/// A frame for a lane, and what is needed for a second one.
#[derive(Debug)]
pub struct Outgoing {
    pub datagram: Datagram,
    pub since: Instant,
    pub deadline: Duration,
    /// The other end may not know of the flow: this lane was not given its OPEN.
    pub needs_open: bool,
}

impl Flows {
    /// None yet; the peer grants so many.
    pub fn new(side: Side, granted: u64) -> Self {
        Self {
            side,
            granted,
            table: BTreeMap::new(),
            queue: FairQueue::default(),
            seconds: Seconds::default(),
            sending: Count::ZERO,
            receiving: Count::ZERO,
            bytes_max: FLOWS_BYTES_MAX,
            told: 0,
            turn: 0,
            check_at: None,
            ask_at: None,
            past: FlowStats::default(),
        }
    }

    /// How many the peer lets this end open.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// How many this `side` has opened.
    fn opened_by(&self, side: Side) -> u64 {
        self.table.keys().filter(|id| id.initiator() == side).count() as u64
    }

    /// Whether this end may open another one.
    pub fn may_open(&self) -> bool {
        self.opened_by(self.side) < self.granted
    }

    /// A flow is open. `false`: the peer has opened too many.
    #[must_use]
    pub fn add(&mut self, now: Instant, id: StreamId, deadline_ms: u64) -> bool {
        if id.initiator() != self.side && self.opened_by(id.initiator()) >= FLOWS_PER_SESSION_MAX {
            return false;
        }
        let deadline = Duration::from_millis(deadline_ms.max(1)).min(FLOW_DEADLINE_MAX);
        let flow = Flow::new(now, deadline);
        self.check_by(flow.check_at());
        self.table.insert(id, flow);
        true
    }

    /// The flow's user is done with it.
    pub fn remove(&mut self, id: StreamId) {
        let Some(flow) = self.table.remove(&id) else { return };
        self.sending.take(flow.outbox.bytes());
        self.receiving.take(flow.inbox.bytes());
        self.past = self.past.and(flow.stats);
        self.seconds.forget_flow(id);
    }

    /// The flow's user takes nothing more, unless it is over: then it is still told why.
    pub fn let_go(&mut self, id: StreamId) {
        if self.table.get(&id).is_some_and(|flow| flow.ended.is_none()) {
            self.remove(id);
        }
    }

    /// The session is over.
    pub fn clear(&mut self) {
        let ids: Vec<StreamId> = self.table.keys().copied().collect();
        ids.into_iter().for_each(|id| self.remove(id));
        self.seconds.clear();
        (self.check_at, self.ask_at) = (None, None);
    }

    /// Either end has ended the flow. What has arrived can still be read. `true`: its reader has to
    /// be told.
    pub fn on_end(&mut self, id: StreamId, code: Code) -> bool {
        let Some(flow) = self.table.get_mut(&id) else { return false };
        flow.ended.get_or_insert(code);
        let before = flow.outbox.bytes();
        flow.drop_outbox();
        self.sending.take(before);
        self.seconds.forget_flow(id);
        flow.takes_reader()
    }

    /// Sends a datagram, if the flow is open. The oldest that wait give way to it.
    pub fn send(&mut self, now: Instant, id: StreamId, data: Bytes) -> Result<(), DatagramError> {
        let room = self.room(self.sending.get().saturating_add(self.seconds.bytes()));
        let flow = self.table.get_mut(&id).ok_or(DatagramError::Closed)?;
        if let Some(code) = flow.ended {
            return Err(DatagramError::Ended(code));
        }
        if data.len() > DATAGRAM_BYTES_MAX {
            return Err(DatagramError::TooLarge(data.len()));
        }
        let before = flow.outbox.bytes();
        flow.push(now, data, room);
        let due = flow.check_at();
        self.sending.replace(before, flow.outbox.bytes());
        if !flow.outbox.is_empty() && !std::mem::replace(&mut flow.queued, true) {
            self.queue.push(id);
        }
        self.check_by(due);
        Ok(())
    }

    /// The next datagram that has arrived.
    pub fn recv(&mut self, now: Instant, id: StreamId) -> Result<Bytes, ReadError> {
        let flow = self.table.get_mut(&id).ok_or(ReadError::Closed)?;
        let before = flow.inbox.bytes();
        let read = flow.read(now);
        self.receiving.replace(before, flow.inbox.bytes());
        read
    }

    /// A datagram has come, or a part of one.
    pub fn on_datagram(&mut self, now: Instant, datagram: Datagram) -> Heard {
        let room = self.room(self.receiving.get());
        let Some(flow) = self.table.get_mut(&datagram.id) else { return Heard::Unknown };
        let before = flow.inbox.bytes();
        flow.receive(now, datagram, room);
        let (due, told) = (flow.check_at(), flow.takes_reader());
        self.receiving.replace(before, flow.inbox.bytes());
        self.check_by(due);
        if told { Heard::Readable } else { Heard::Silent }
    }

    /// What one flow may keep where all keep `used`: as much as is left, so that one never has all
    /// of it (dynamic thresholds; Choudhury and Hahne, 1998).
    fn room(&self, used: u64) -> u64 {
        self.bytes_max.saturating_sub(used)
    }

    /// One that is not over.
    pub fn get(&self, id: StreamId) -> Option<&Flow> {
        self.table.get(&id)
    }

    /// What became of all.
    pub fn sums(&self) -> FlowStats {
        self.table.values().fold(self.past, |sum, flow| sum.and(flow.stats))
    }

    /// How long nothing may come or go before the flow ends.
    pub fn set_idle_timeout(&mut self, id: StreamId, idle: Duration) {
        let Some(flow) = self.table.get_mut(&id) else { return };
        flow.idle = idle;
        let due = flow.check_at();
        self.check_by(due);
    }

    /// What they keep, both ways.
    pub fn bytes(&self) -> u64 {
        self.sending.get().saturating_add(self.receiving.get()).saturating_add(self.seconds.bytes())
    }

    /// They may keep so much, each way.
    pub fn set_bytes_max(&mut self, bytes: u64) {
        self.bytes_max = bytes.min(FLOWS_BYTES_MAX);
    }

    /// Whether the driver should hear what they keep.
    pub fn memory_due(&self) -> bool {
        self.bytes().abs_diff(self.told) >= TOLD_STEP_BYTES
    }

    /// The driver hears what they keep.
    pub fn tell_bytes(&mut self) -> u64 {
        self.told = self.bytes();
        self.told
    }
}

/// Sending.
impl Flows {
    /// Whether any datagram waits for a lane; for an exact answer, `prune` first.
    pub fn wait(&self) -> bool {
        !self.queue.is_empty() || !self.seconds.is_empty()
    }

    /// Drops what is next and too old.
    pub fn prune(&mut self, now: Instant) {
        self.prune_queue(now);
        self.seconds.drop_empty();
    }

    /// Finds the first flow with something to send that is not too old.
    fn prune_queue(&mut self, now: Instant) {
        while let Some(id) = self.queue.peek(0) {
            if let Some(flow) = self.table.get_mut(&id) {
                let before = flow.outbox.bytes();
                flow.expire_outbox(now);
                self.sending.replace(before, flow.outbox.bytes());
                if !flow.outbox.is_empty() {
                    break;
                }
                flow.queued = false;
            }
            self.queue.remove(0);
        }
    }

    /// Payload of the next frame, and since when it has waited.
    pub fn next(&self) -> Option<(usize, Instant)> {
        let flow = self.table.get(&self.queue.peek(0)?)?;
        flow.outbox.next()
    }

    /// The next frame, for `lane`.
    pub fn take(&mut self, now: Instant, lane: LaneId) -> Option<Outgoing> {
        let id = self.queue.peek(0)?;
        let flow = self.table.get_mut(&id)?;
        let before = flow.outbox.bytes();
        let (datagram, since, last) = flow.outbox.take(now, id)?;
        self.sending.replace(before, flow.outbox.bytes());
        let (stats, bytes) = (&mut flow.stats, datagram.data.len() as u64);
        stats.sent = stats.sent.saturating_add(u64::from(last));
        stats.sent_bytes = stats.sent_bytes.saturating_add(bytes);
        let (deadline, needs_open) = (flow.deadline, !flow.opened_on.contains(&lane));
        if flow.outbox.is_empty() {
            flow.queued = false;
            self.queue.remove(0);
        } else {
            self.queue.charge(0, bytes);
        }
        self.prune_queue(now); // another flow's turn
        Some(Outgoing { datagram, since, deadline, needs_open })
    }

    /// Payload of what the lane is to carry because another was given it first.
    pub fn next_second(&self, now: Instant, lane: LaneId) -> Option<usize> {
        self.seconds.next(now, lane)
    }

    /// What the lane is to carry because another was given it first.
    pub fn take_second(&mut self, now: Instant, lane: LaneId) -> Option<(Datagram, bool)> {
        let datagram = self.seconds.take(now, lane)?;
        let flow = self.table.get(&datagram.id)?;
        Some((datagram, !flow.opened_on.contains(&lane)))
    }

    /// The `lane` is to carry it as well.
    pub fn give_second(&mut self, lane: LaneId, first: Outgoing) {
        let used = self.sending.get().saturating_add(self.seconds.bytes());
        let room = self.bytes_max.saturating_sub(used);
        if cost(&first.datagram.data) <= room {
            self.check_by(first.since.checked_add(first.deadline));
            self.seconds.push(lane, first.datagram, first.since, first.deadline);
        }
    }

    /// The lane is gone, and its number is not used again.
    pub fn on_lane_gone(&mut self, lane: LaneId) {
        self.forget_lane(lane);
        for flow in self.table.values_mut() {
            flow.opened_on.remove(&lane);
        }
    }

    /// The lane gets nothing but what concerns itself.
    pub fn forget_lane(&mut self, lane: LaneId) {
        self.seconds.forget(lane);
    }

    /// The lane was given the flow's OPEN: whatever follows on it finds the flow open.
    pub fn on_open_sent(&mut self, id: StreamId, lane: LaneId) {
        if let Some(flow) = self.table.get_mut(&id) {
            flow.opened_on.insert(lane);
        }
    }

    /// Whether datagrams go ahead of bulk that waits.
    pub fn has_turn(&self) -> bool {
        self.turn < TURN_BYTES
    }

    /// A lane was given so many bytes of datagrams; `bulk`: streams wait.
    pub fn charge_turn(&mut self, bytes: u64, bulk: bool) {
        self.turn = if bulk { self.turn.saturating_add(bytes) } else { 0 };
    }

    /// A lane was given so many bytes of streams.
    pub fn return_turn(&mut self, bytes: u64) {
        self.turn = self.turn.saturating_sub(bytes);
    }
}

/// Time.
impl Flows {
    fn check_by(&mut self, at: Option<Instant>) {
        self.check_at = self.check_at.into_iter().chain(at).min();
    }

    /// When to call `check`.
    pub fn timeout(&self) -> Option<Instant> {
        self.check_at.into_iter().chain(self.ask_at).min()
    }

    /// Drops what is too old, and ends what is idle.
    pub fn check(&mut self, now: Instant) -> Checked {
        let mut checked = Checked::default();
        self.ask_at = self.ask_at.filter(|at| *at > now);
        if self.check_at.is_none_or(|at| at > now) {
            return checked;
        }
        self.seconds.expire(now);
        (self.sending, self.receiving) = (Count::ZERO, Count::ZERO);
        let mut next: Option<Instant> = None;
        for (id, flow) in &mut self.table {
            flow.expire(now);
            self.sending.add(flow.outbox.bytes());
            self.receiving.add(flow.inbox.bytes());
            if flow.is_idle(now) {
                checked.idle.push(*id);
            } else if flow.takes_reader() {
                checked.readable.push(*id);
            }
            next = next.into_iter().chain(flow.check_at()).min();
        }
        let soonest = now.checked_add(CHECK_EVERY_MIN);
        self.check_at = next.and_then(|at| soonest.map(|soonest| at.max(soonest)));
        checked
    }
}

#[cfg(test)]
mod tests;
