//! What goes out: a lane that pulls gets control frames, then what `plan` returns.

use std::time::Instant;

use bytes::Bytes;

use super::plan::{Candidate, Plan, Stage};
use super::pull::Pull;
use super::{Session, State};
use crate::proto::copies::redundant;
use crate::proto::count::span;
use crate::proto::error::Code;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::{Carried, Task};
use crate::proto::lanes::Notice;
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::scheduler::{LaneView, pull_budget};
use crate::proto::stream::Chunk;
use crate::proto::wire::{Frame, LaneBuf};

/// What a pull has yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes appended to the lane's buffer.
    pub bytes: usize,
}

/// On a slow path a stream's first bytes count this many times: with a second of data it is bulk.
const URGENT_FACTOR_SLOW: u64 = 8;

/// One pull in a thousand carries a frame that must be skipped, so that skipping keeps working.
const RESERVED_FRAME_ODDS: u64 = 1024;

impl Session {
    /// Fills `out`, which must be empty, with what `lane` should carry now; at most about
    /// `max_bytes`. `None`: nothing; `poll_wake` will name the lane when there is something.
    #[must_use]
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        lane: LaneId,
        max_bytes: usize,
        out: &mut LaneBuf,
    ) -> Option<Transmit> {
        debug_assert!(out.is_empty());
        let pulling = self.lanes.get_mut(lane)?;
        pulling.task = Task::Writing;
        if !pulling.ledger.owes() {
            pulling.signs.progress_at = now; // there is room
        }
        if let State::Closed { tell, .. } = self.state {
            return self.transmit_close(lane, tell, out);
        }
        let budget = pull_budget(pulling.estimate.rate(), pulling.estimate.is_slow());
        let policy = pulling.policy;
        let allowance = self.lanes.caps.allowance(now, &policy);
        let mut pull = Pull { now, lane, allowance, budget: budget.min(max_bytes), out };
        if allowance.bytes > 0 {
            self.write_control(&mut pull);
        }
        if allowance.ready {
            self.write_planned(&mut pull);
        }
        if pull.out.is_empty() {
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.task = Task::Asleep;
            }
            return None;
        }
        if self.next_random().is_multiple_of(RESERVED_FRAME_ODDS) {
            let n = (self.next_random() >> 40) as u8;
            self.write(&mut pull, |out| out.push_reserved(n));
        }
        let bytes = pull.out.len();
        self.lanes.caps.spend(now, &policy, bytes);
        Some(Transmit { bytes })
    }

    /// The session is over: a lane pulls only the CLOSE, and only once.
    fn transmit_close(
        &mut self,
        id: LaneId,
        tell: Option<(Code, &'static str)>,
        out: &mut LaneBuf,
    ) -> Option<Transmit> {
        let lane = self.lanes.get_mut(id)?;
        let told = std::mem::replace(&mut lane.close_sent, true);
        if let Some((code, reason)) = tell.filter(|_| !told) {
            self.write_close(code, reason, out);
        }
        if out.is_empty() {
            self.lanes.get_mut(id)?.task = Task::Asleep;
        }
        (!out.is_empty()).then(|| Transmit { bytes: out.len() })
    }

    /// The final frames. Unless something is wrong they start with how far every lane was received:
    /// the peer may wait for just that, and whichever lane arrives first ends the session there.
    fn write_close(&self, code: Code, reason: &'static str, out: &mut LaneBuf) {
        let arrived = self.lanes.values().map(|lane| (lane.id, lane.inbound.position()));
        for (lane, position) in arrived.filter(|(_, position)| reason.is_empty() && *position > 0) {
            out.push(&Frame::Ack { lane, position });
        }
        out.push(&Frame::Close { code, reason: Bytes::from_static(reason.as_bytes()) });
    }

    /// Acknowledgements and everything else but stream data. While another lane answers, a suspect
    /// lane carries only what concerns itself.
    fn write_control(&mut self, pull: &mut Pull<'_>) {
        let id = pull.lane;
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let ping = std::mem::take(&mut lane.signs.ping_due);
        if let Some(position) = lane.inbound.take_ack() {
            self.write(pull, |out| out.push(&Frame::Ack { lane: id, position }));
        }
        if ping {
            self.write_noted(pull, Carried::Ping, &Frame::Ping);
        }
        if !self.lanes.may_carry(id) {
            return;
        }
        self.write_acks_of_others(pull);
        if !pull.allowance.ready {
            return;
        }
        self.write_lane_notices(pull);
        self.write_session_control(pull);
        while pull.out.len() < FRAME_BYTES_MAX.min(pull.allowance.bytes)
            && let Some(stream) = self.streams.next_control()
        {
            self.write_stream_control(pull, stream);
        }
    }

    fn write_acks_of_others(&mut self, pull: &mut Pull<'_>) {
        let due = self.lanes.values_mut().filter(|lane| lane.id != pull.lane);
        let due = due.filter_map(|lane| {
            lane.inbound.due_elsewhere().filter(|at| *at <= pull.now)?;
            Some((lane.id, lane.inbound.take_ack_elsewhere()?))
        });
        for (lane, position) in due.collect::<Vec<_>>() {
            self.write(pull, |out| out.push(&Frame::Ack { lane, position }));
        }
    }

    fn write_lane_notices(&mut self, pull: &mut Pull<'_>) {
        for Notice { lane, position, code } in self.lanes.dead.take_notices() {
            let frame = Frame::LaneClosed { lane, position, code };
            self.write_noted(pull, Carried::LaneClosed(lane), &frame);
        }
    }

    /// Control frames about all streams, and about the session.
    fn write_session_control(&mut self, pull: &mut Pull<'_>) {
        let due = std::mem::take(&mut self.streams.due);
        let own = std::mem::take(&mut self.notices.due);
        if due.max_data {
            let max = self.streams.announce_data();
            self.write_noted(pull, Carried::MaxData, &Frame::MaxData { max });
        }
        if due.max_streams {
            let max = self.streams.announce_streams();
            self.write_noted(pull, Carried::MaxStreams, &Frame::MaxStreams { max });
        }
        if due.early_streams {
            let count = self.streams.announce_early_streams();
            self.write_noted(pull, Carried::EarlyStreams, &Frame::EarlyStreams { count });
        }
        if own.drain {
            self.write_noted(pull, Carried::Drain, &Frame::Drain);
        }
        if own.next_key
            && let Some(announcement) = self.notices.next_key.clone()
        {
            self.write_noted(pull, Carried::NextKey, &Frame::NextKey { announcement });
        }
        if own.express {
            self.write_noted(pull, Carried::Express, &Frame::Express);
        }
    }

    fn write_stream_control(&mut self, pull: &mut Pull<'_>, id: StreamId) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        stream.in_control_queue = false;
        let say = std::mem::take(&mut stream.say);
        let redundant = stream.redundant;
        let reset = stream.send.reset_due().filter(|_| say.reset);
        if say.open {
            self.write_open(pull, id);
            if redundant {
                self.note_copy(pull, Carried::Open(id), true);
            }
        }
        if let Some((code, final_size)) = reset {
            let frame = Frame::Reset { id, code, final_size };
            self.write_noted(pull, Carried::Reset(id), &frame);
        }
        if let Some(code) = say.stop {
            self.write_noted(pull, Carried::Stop(id), &Frame::Stop { id, code });
        }
        if say.max_stream_data
            && let Some(max) = self.streams.announce_stream(id)
        {
            let frame = Frame::MaxStreamData { id, max };
            self.write_noted(pull, Carried::MaxStreamData(id), &frame);
        }
        self.streams.settle(id);
    }

    /// Writes what opens a stream, unless it has arrived.
    pub(super) fn write_open(&mut self, pull: &mut Pull<'_>, id: StreamId) {
        let Some((kind, redundant)) = self.streams.send_open(id) else { return };
        self.flows.on_open_sent(id, pull.lane);
        // Before the OPEN, whose acknowledgement then covers it.
        if redundant {
            self.write(pull, |out| out.push(&Frame::Redundant { id }));
        }
        self.write_noted(pull, Carried::Open(id), &Frame::Open { id, kind });
    }

    /// Carries what `plan` returns, until it returns nothing more.
    fn write_planned(&mut self, pull: &mut Pull<'_>) {
        let mut others = std::mem::take(&mut self.view_space);
        if let Some(mut own) = self.snapshot(pull, &mut others) {
            let mut stage = Stage::Datagrams;
            while let Some(plan) = self.plan(
                pull.now,
                &Candidate {
                    own: &own,
                    others: &others,
                    allowance: pull.allowance,
                    budget: pull.budget,
                    written: pull.out.len(),
                    stage,
                },
            ) {
                match plan {
                    Plan::Datagram => own.take(self.write_datagram(pull, &own)),
                    Plan::Copies => {
                        self.write_copies(pull, own);
                        let Some(anew) = self.snapshot(pull, &mut others) else { break };
                        (own, stage) = (anew, Stage::Data);
                    }
                    Plan::Data { nth, chunk } => {
                        let bytes = self.write_chunk(pull, &own, nth, &chunk);
                        own.take(bytes);
                        self.flows.return_turn(bytes);
                        self.streams.prune();
                        stage = Stage::Data;
                    }
                    Plan::Tail { lane, end } => {
                        self.write_tail(pull, lane, end);
                        stage = Stage::Tail;
                    }
                    Plan::Probe(frames) => {
                        self.write_probe(pull, frames);
                        break;
                    }
                }
            }
        }
        self.view_space = others;
    }

    /// The pulling lane as the scheduler sees it; fills `others` with the lanes that could carry
    /// data alongside it. `None`: it carries nothing that another could.
    fn snapshot(&mut self, pull: &Pull<'_>, others: &mut Vec<LaneView>) -> Option<LaneView> {
        self.streams.prune();
        self.flows.prune(pull.now);
        others.clear();
        let Some(mut own) = self.lanes.view_of(pull.now, pull.lane) else {
            redundant::forget(&mut self.lanes, pull.lane);
            self.flows.forget_lane(pull.lane);
            return None;
        };
        if self.streams.data_waits() || self.flows.wait() {
            others.extend(self.lanes.views(pull.now));
            match others.iter().position(|view| view.id == pull.lane) {
                Some(at) => own = others.swap_remove(at),
                None => own.window = 0.0, // spare for now: no room for data
            }
        }
        Some(own)
    }

    fn write_chunk(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        nth: usize,
        chunk: &Chunk,
    ) -> u64 {
        let Some(id) = self.streams.in_turn(nth) else { return 0 };
        let Some(stream) = self.streams.get(id) else { return 0 };
        let first_time = !stream.send.was_sent(chunk);
        let urgent = self.streams.is_urgent(nth);
        if urgent {
            self.heed_wait(own);
        }
        let bytes = self.write_stream(pull, own, id, chunk);
        let payload = chunk.payload();
        self.note_payload(pull.lane, payload, first_time);
        if first_time && self.streams.get(id).is_some_and(|stream| stream.redundant) {
            let (range, fin) = (chunk.range.clone(), chunk.fin);
            self.note_copy(pull, Carried::Data { id, range, fin }, urgent);
        }
        let factor = if urgent && own.slow { URGENT_FACTOR_SLOW } else { 1 };
        self.streams.end_turn(nth, bytes.saturating_mul(factor));
        bytes
    }

    /// Writes one STREAM frame; returns its length.
    pub(super) fn write_stream(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        id: StreamId,
        chunk: &Chunk,
    ) -> u64 {
        if self.streams.get(id).is_none() {
            return 0;
        }
        let before = pull.out.len();
        self.streams.send(id, chunk, pull.out);
        let bytes = span(before as u64, pull.out.len() as u64);
        let range = chunk.range.clone();
        self.note(pull, Carried::Data { id, range, fin: chunk.fin }, bytes, Some(own));
        self.wake_writer(id);
        bytes
    }

    pub(super) fn note_payload(&mut self, lane: LaneId, payload: u64, first_time: bool) {
        if first_time {
            self.copies.earn(payload);
        }
        self.lanes.on_payload(lane, payload, first_time);
    }

    /// Writes a frame that may be lost.
    fn write(&mut self, pull: &mut Pull<'_>, push: impl FnOnce(&mut LaneBuf)) {
        let before = pull.out.len();
        push(pull.out);
        if let Some(lane) = self.lanes.get_mut(pull.lane) {
            lane.ledger.pass(span(before as u64, pull.out.len() as u64));
        }
    }

    /// Writes a frame that is sent again if it is lost.
    fn write_noted(&mut self, pull: &mut Pull<'_>, carried: Carried, frame: &Frame) {
        let before = pull.out.len();
        pull.out.push(frame);
        self.note(pull, carried, span(before as u64, pull.out.len() as u64), None);
    }

    pub(super) fn note(
        &mut self,
        pull: &Pull<'_>,
        carried: Carried,
        bytes: u64,
        view: Option<&LaneView>,
    ) {
        let expected = view.map(|view| (view.arrival(bytes as f64), view.lateness));
        if let Some(lane) = self.lanes.get_mut(pull.lane) {
            lane.on_sent(pull.now, carried, bytes, expected);
        }
    }
}
