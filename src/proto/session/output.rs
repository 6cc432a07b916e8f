//! What goes out: a lane pulls, and gets control frames, then data, then what another lane is late
//! with.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::caps::Allowance;
use super::standing::Standing;
use super::{Session, State};
use crate::proto::error::Code;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::Carried;
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::mutants::mutant;
use crate::proto::scheduler::LaneView;
use crate::proto::stream::Chunk;
use crate::proto::wire::{Frame, LaneBuf};

/// What a pull has yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes appended to the lane's buffer.
    pub bytes: usize,
}

/// A pull takes this much time of the lane's rate: less costs more wake-ups, more takes the choice
/// away from later ...
const PULL_SECONDS: f64 = 0.002;
/// ... but a slow lane's a full frame, unless that takes longer than this: what is pulled together is one TLS record, which
/// arrives as a whole.
const PULL_SECONDS_SLOW: f64 = 0.050;
/// Sixteen full frames: past that neither syscalls nor locks are worth saving.
const PULL_BYTES_MAX: f64 = 16.0 * FRAME_BYTES_MAX as f64;

/// A frame takes no more than this much time of the lane's rate, so that what becomes urgent
/// meanwhile does not wait behind it.
const FRAME_SECONDS: f64 = 0.010;
/// Smaller frames cost more than they gain.
const FRAME_BYTES_MIN: f64 = 2048.0;

/// ... but on a slow path each packet takes long: a frame and its TLS record fit into one.
const FRAME_BYTES_SLOW: usize = 1280;

/// What a stream sends first counts so many times there: with a second of a slow path it is bulk.
const URGENT_FACTOR_SLOW: u64 = 8;

/// What is left of a cap is not cut into frames smaller than this.
const FRAME_ROOM_MIN: usize = 512;

/// One pull in a thousand carries a frame that has to be skipped, so that skipping keeps working.
const RESERVED_FRAME_ODDS: u64 = 1024;

impl Session {
    /// Fills `out`, which must be empty, with what `lane` shall carry now; at most about
    /// `max_bytes`. `None`: nothing; `poll_wake` will name the lane when there is.
    #[must_use]
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        lane: LaneId,
        max_bytes: usize,
        out: &mut LaneBuf,
    ) -> Option<Transmit> {
        debug_assert!(out.is_empty());
        let pulling = self.lanes.get_mut(&lane)?;
        pulling.idle = false;
        pulling.waking = mutant!("wake-up-lost");
        if !pulling.ledger.owes() {
            pulling.progress_at = now; // there is room
        }
        if let State::Closed { tell, .. } = self.state {
            let tell = tell.filter(|_| !std::mem::replace(&mut pulling.close_sent, true));
            if let Some((code, reason)) = tell {
                self.write_close(code, reason, out);
            }
            if let Some(lane) = self.lanes.get_mut(&lane) {
                lane.close_sent = true;
                lane.idle = out.is_empty();
            }
            return (!out.is_empty()).then(|| Transmit { bytes: out.len() });
        }
        let budget = match pulling.estimate.is_slow() {
            true => FRAME_BYTES_SLOW,
            false => pull_budget(pulling.estimate.rate()),
        };
        let budget = budget.min(max_bytes);
        let policy = pulling.policy;
        let allowance = self.caps.allowance(now, &policy);
        self.write_all(now, lane, budget, allowance, out);
        if out.is_empty() {
            if let Some(lane) = self.lanes.get_mut(&lane) {
                lane.idle = true;
            }
            return None;
        }
        if self.next_random().is_multiple_of(RESERVED_FRAME_ODDS) {
            let n = (self.next_random() >> 40) as u8;
            self.write(lane, out, |out| out.push_reserved(n));
        }
        self.caps.spend(now, &policy, out.len());
        Some(Transmit { bytes: out.len() })
    }

    /// The last words. Where nothing is wrong they begin with how far every lane has come: the peer may wait for just
    /// that, and whichever lane is first ends the session there.
    fn write_close(&self, code: Code, reason: &'static str, out: &mut LaneBuf) {
        let arrived = self.lanes.iter().map(|(id, lane)| (*id, lane.inbound.position()));
        for (lane, position) in arrived.filter(|(_, position)| reason.is_empty() && *position > 0) {
            out.push(&Frame::Ack { lane, position });
        }
        out.push(&Frame::Close { code, reason: Bytes::from_static(reason.as_bytes()) });
    }

    /// What the lane shall carry, as far as its link's cap allows.
    fn write_all(
        &mut self,
        now: Instant,
        lane: LaneId,
        budget: usize,
        allowance: Allowance,
        out: &mut LaneBuf,
    ) {
        if allowance.bytes == 0 {
            return;
        }
        self.write_control(now, lane, allowance, out);
        if !allowance.ready {
            return;
        }
        let limits = Limits { budget, cap: allowance.bytes };
        self.write_copies(now, lane, limits, out);
        self.write_data(now, lane, limits, out);
        if out.is_empty() || (self.streams.pending() == 0 && out.len() < budget) {
            self.write_tail(now, lane, limits, out);
        }
        if out.is_empty() {
            self.write_probe(now, lane, limits, out);
        }
    }

    /// Acknowledgements, and whatever else is not stream data. A suspect lane carries only what
    /// concerns itself while another one answers.
    fn write_control(&mut self, now: Instant, id: LaneId, allowance: Allowance, out: &mut LaneBuf) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let ping = std::mem::take(&mut lane.ping_due);
        if let Some(position) = lane.inbound.take_ack() {
            self.write(id, out, |out| out.push(&Frame::Ack { lane: id, position }));
        }
        if ping {
            self.write_noted(now, id, out, Carried::Ping, &Frame::Ping);
        }
        if !self.may_carry(id) {
            return;
        }
        self.write_acks_of_others(now, id, out);
        if !allowance.ready {
            return;
        }
        self.write_lane_notices(now, id, out);
        let due = std::mem::take(&mut self.streams.due);
        let say = std::mem::take(&mut self.say);
        if due.max_data {
            let max = self.streams.announce_data();
            self.write_noted(now, id, out, Carried::MaxData, &Frame::MaxData { max });
        }
        if due.max_streams {
            let max = self.streams.announce_streams();
            self.write_noted(now, id, out, Carried::MaxStreams, &Frame::MaxStreams { max });
        }
        if due.early_streams {
            let count = self.streams.announce_early_streams();
            self.write_noted(now, id, out, Carried::EarlyStreams, &Frame::EarlyStreams { count });
        }
        if say.drain {
            self.write_noted(now, id, out, Carried::Drain, &Frame::Drain);
        }
        if say.next_key
            && let Some(announcement) = self.next_key.clone()
        {
            self.write_noted(now, id, out, Carried::NextKey, &Frame::NextKey { announcement });
        }
        if say.express {
            self.write_noted(now, id, out, Carried::Express, &Frame::Express);
        }
        while out.len() < FRAME_BYTES_MAX.min(allowance.bytes)
            && let Some(stream) = self.streams.next_control()
        {
            self.write_stream_control(now, id, stream, out);
        }
    }

    fn write_acks_of_others(&mut self, now: Instant, id: LaneId, out: &mut LaneBuf) {
        let due =
            self.lanes.iter_mut().filter(|(other, _)| **other != id).filter_map(|(other, lane)| {
                lane.inbound.due_elsewhere().filter(|at| *at <= now)?;
                Some((*other, lane.inbound.take_ack_elsewhere()?))
            });
        for (lane, position) in due.collect::<Vec<_>>() {
            self.write(id, out, |out| out.push(&Frame::Ack { lane, position }));
        }
    }

    fn write_lane_notices(&mut self, now: Instant, id: LaneId, out: &mut LaneBuf) {
        let due = self.dead.iter_mut().filter_map(|dead| {
            std::mem::take(&mut dead.notice_due).then_some((dead.id, dead.received, dead.code))
        });
        let notices: Vec<_> = due.collect();
        for (lane, position, code) in notices {
            let frame = Frame::LaneClosed { lane, position, code };
            self.write_noted(now, id, out, Carried::LaneClosed(lane), &frame);
        }
    }

    fn write_stream_control(
        &mut self,
        now: Instant,
        lane: LaneId,
        id: StreamId,
        out: &mut LaneBuf,
    ) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.in_control_queue = false;
        let say = std::mem::take(&mut stream.say);
        let redundant = stream.redundant;
        let reset = stream.send.reset_due().filter(|_| say.reset);
        if say.open {
            self.write_open(now, lane, id, out);
            if redundant {
                self.plan_copy(now, lane, Carried::Open(id), true);
            }
        }
        if let Some((code, final_size)) = reset {
            let frame = Frame::Reset { id, code, final_size };
            self.write_noted(now, lane, out, Carried::Reset(id), &frame);
        }
        if let Some(code) = say.stop {
            self.write_noted(now, lane, out, Carried::Stop(id), &Frame::Stop { id, code });
        }
        if say.max_stream_data
            && let Some(max) = self.streams.announce_stream(id)
        {
            let frame = Frame::MaxStreamData {
                id,
                max: max.saturating_add(u64::from(mutant!("stream-credit-off-by-one"))),
            };
            self.write_noted(now, lane, out, Carried::MaxStreamData(id), &frame);
        }
        self.streams.settle(id);
    }

    /// Writes what opens a stream, unless it has arrived.
    pub(super) fn write_open(
        &mut self,
        now: Instant,
        lane: LaneId,
        id: StreamId,
        out: &mut LaneBuf,
    ) {
        let Some((kind, redundant)) = self.streams.send_open(id) else { return };
        // Before the OPEN, whose acknowledgement then covers it.
        if redundant {
            self.write(lane, out, |out| out.push(&Frame::Redundant { id }));
        }
        self.write_noted(now, lane, out, Carried::Open(id), &Frame::Open { id, kind });
    }

    fn write_data(&mut self, now: Instant, id: LaneId, limits: Limits, out: &mut LaneBuf) {
        self.streams.prune();
        if !self.streams.data_waits() || !self.may_carry(id) {
            return;
        }
        let mut others = std::mem::take(&mut self.view_space);
        others.clear();
        others.extend(self.views(now));
        if let Some(at) = others.iter().position(|view| view.id == id) {
            let mut own = others.swap_remove(at);
            while let Some(left) = limits.left(out)
                && own.in_flight < own.window
                && let room = frame_room(&own, out.len()).min(left)
                && let Some((nth, chunk)) = self.choose(&own, &others, room)
            {
                let bytes = self.write_chunk(now, id, &own, nth, &chunk, out) as f64;
                own.in_flight += bytes;
                own.queue += bytes / own.rate;
                self.streams.prune();
            }
        }
        self.view_space = others;
    }

    fn write_chunk(
        &mut self,
        now: Instant,
        lane: LaneId,
        own: &LaneView,
        nth: usize,
        chunk: &Chunk,
        out: &mut LaneBuf,
    ) -> u64 {
        let Some(id) = self.streams.in_turn(nth) else { return 0 };
        let Some(stream) = self.streams.get(id) else { return 0 };
        let first_time = !stream.send.was_sent(chunk);
        let urgent = self.streams.is_urgent(nth);
        if urgent {
            self.heed_wait(own);
        }
        let bytes = self.write_stream(now, lane, own, id, chunk, out);
        let payload = chunk.payload();
        self.note_payload(lane, payload, first_time);
        if first_time && self.streams.get(id).is_some_and(|stream| stream.redundant) {
            let (range, fin) = (chunk.range.clone(), chunk.fin);
            self.plan_copy(now, lane, Carried::Data { id, range, fin }, urgent);
        }
        let factor = if urgent && own.slow { URGENT_FACTOR_SLOW } else { 1 };
        self.streams.end_turn(nth, bytes.saturating_mul(factor));
        bytes
    }

    /// Writes one STREAM frame; returns its length.
    pub(super) fn write_stream(
        &mut self,
        now: Instant,
        lane: LaneId,
        own: &LaneView,
        id: StreamId,
        chunk: &Chunk,
        out: &mut LaneBuf,
    ) -> u64 {
        if self.streams.get(id).is_none() {
            return 0;
        }
        let before = out.len();
        self.streams.send(id, chunk, out);
        let bytes = out.len().saturating_sub(before) as u64;
        let range = chunk.range.clone();
        self.note(now, lane, Carried::Data { id, range, fin: chunk.fin }, bytes, Some(own));
        self.wake_writer(id);
        bytes
    }

    pub(super) fn note_payload(&mut self, lane: LaneId, payload: u64, first_time: bool) {
        let totals = &mut self.totals;
        totals.sent_payload = totals.sent_payload.saturating_add(payload);
        if first_time {
            self.duplicates.earn(payload);
        } else {
            totals.resent_payload = totals.resent_payload.saturating_add(payload);
        }
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.sent_payload = lane.sent_payload.saturating_add(payload);
            lane.given_at_payload = totals.sent_payload;
            if !first_time {
                lane.resent_payload = lane.resent_payload.saturating_add(payload);
            }
        }
    }

    /// Writes a frame that nobody will miss.
    fn write(&mut self, id: LaneId, out: &mut LaneBuf, push: impl FnOnce(&mut LaneBuf)) {
        let before = out.len();
        push(out);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.ledger.pass(out.len().saturating_sub(before) as u64);
        }
    }

    /// Writes a frame that is sent again if it is lost.
    fn write_noted(
        &mut self,
        now: Instant,
        id: LaneId,
        out: &mut LaneBuf,
        carried: Carried,
        frame: &Frame,
    ) {
        let before = out.len();
        out.push(frame);
        self.note(now, id, carried, out.len().saturating_sub(before) as u64, None);
    }

    fn note(
        &mut self,
        now: Instant,
        id: LaneId,
        carried: Carried,
        bytes: u64,
        view: Option<&LaneView>,
    ) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if !lane.ledger.owes() {
            lane.progress_at = now; // it owed nothing until now
        }
        let rate = lane.estimate.rate().max(1.0);
        let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.0, 3600.0));
        let leaves = lane.leaves_at.map_or(now, |at| at.max(now));
        lane.leaves_at = leaves.checked_add(seconds(bytes as f64 / rate));
        let arrival = view.map_or(lane.estimate.delay(), |v| seconds(v.arrival(bytes as f64)));
        let eta = now.checked_add(arrival).unwrap_or(now);
        let in_flight = lane.ledger.in_flight().saturating_add(bytes) as f64;
        let busy = in_flight >= lane.estimate.bandwidth_delay_bytes();
        let lateness = view.map_or(Duration::ZERO, |view| view.lateness);
        lane.ledger.record(carried, bytes, now, eta, lateness, busy);
    }

    /// Whether the lane may carry what another lane could carry as well.
    pub(super) fn may_carry(&self, id: LaneId) -> bool {
        let standing = self.lanes.get(&id).map(Standing::of);
        standing.is_some_and(|standing| standing >= self.best_standing())
    }

    /// How the best lane stands: only its like are given work.
    pub(super) fn best_standing(&self) -> Standing {
        self.lanes.values().map(Standing::of).max().unwrap_or(Standing::WORST)
    }
}

/// What a pull may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Past it no frame is begun.
    budget: usize,
    /// What the link's cap allows: past it no frame ends.
    cap: usize,
}

impl Limits {
    /// Room for one more frame, if one may be begun.
    pub(super) fn left(&self, out: &LaneBuf) -> Option<usize> {
        let left = self.cap.saturating_sub(out.len());
        (out.len() < self.budget && left >= FRAME_ROOM_MIN).then_some(left)
    }
}

fn pull_budget(rate: f64) -> usize {
    let slow = (rate * PULL_SECONDS_SLOW).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as f64);
    (rate * PULL_SECONDS).clamp(slow, PULL_BYTES_MAX) as usize
}

/// Bytes for the next frame on a lane that has `written` of this pull: the rest of a TLS record, so
/// that full frames fall on records; less on a slow lane, and on one that may turn out to be slow:
/// it has to show a sign of life before it is given up.
pub(super) fn frame_room(lane: &LaneView, written: usize) -> usize {
    if lane.slow {
        return FRAME_BYTES_SLOW;
    }
    if !lane.measured {
        return FRAME_BYTES_MIN as usize;
    }
    let slow = (lane.rate * FRAME_SECONDS).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as f64) as usize;
    let rest = FRAME_BYTES_MAX.saturating_sub(written % FRAME_BYTES_MAX);
    // A stump at a record's end is not worth a frame.
    if rest < FRAME_BYTES_MIN as usize { slow } else { slow.min(rest) }
}
