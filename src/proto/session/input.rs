//! What arrives: one function a frame.

use std::time::Instant;

use bytes::Bytes;

use super::budget::Cost;
use super::{Session, State};
use crate::proto::error::{Code, SessionError};
use crate::proto::event::Event;
use crate::proto::ids::{Dir, LaneId, Side, StreamId};
use crate::proto::limits::{REORDER_OVERHEAD_BYTES, REORDER_OVERHEAD_FACTOR, TINY_PAYLOAD_BYTES};
use crate::proto::mutants::mutant;
use crate::proto::stream::{Misbehaviour, Received};
use crate::proto::wire::{Frame, FrameBatch, StreamKind, printable};

impl Session {
    /// Takes what was decoded on `lane` and leaves the batch empty. A peer that breaks a rule ends
    /// the session: `Event::Closed` tells.
    pub fn handle_frames(&mut self, now: Instant, lane: LaneId, batch: &mut FrameBatch) {
        if self.lanes.contains_key(&lane) {
            let mut eliciting = false;
            for frame in batch.frames.drain(..) {
                if self.state != State::Open {
                    break;
                }
                eliciting |= frame.is_ack_eliciting();
                self.handle_frame(now, lane, frame);
            }
            self.count_arrival(now, lane, batch.wire_bytes, eliciting);
            self.release_kept_back();
        }
        batch.clear();
    }

    fn count_arrival(&mut self, now: Instant, id: LaneId, bytes: u64, eliciting: bool) {
        let faster = self.has_faster_way_back(id, now);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.heard_at = now;
            let rtt = lane.estimate.rtt_min();
            let packet = lane.estimate.slow_packet();
            lane.inbound.receive(now, bytes, eliciting, rtt, packet, faster);
        }
    }

    fn handle_frame(&mut self, now: Instant, lane: LaneId, frame: Frame) {
        if cost(&frame).is_some_and(|cost| !self.busy.spend(now, cost)) {
            self.misbehaved(Code::EXCESSIVE_LOAD, "too many frames that move nothing");
            return;
        }
        match frame {
            // The lane is up: how it may be used was said before.
            Frame::Ping | Frame::LanePolicy(_) | Frame::Ignored => {}
            Frame::Ack { lane, position } => self.on_ack(now, lane, position),
            Frame::Stream { id, offset, fin, data } => self.on_data(lane, id, offset, fin, data),
            Frame::Open { id, kind } => self.on_open(id, kind),
            Frame::Redundant { id } => self.on_redundant(id),
            Frame::Reset { id, code, final_size } => self.on_reset(id, code, final_size),
            Frame::Stop { id, code } => self.on_stop(id, code),
            Frame::MaxData { max } => self.on_max_data(max),
            Frame::MaxStreamData { id, max } => self.on_max_stream_data(id, max),
            Frame::MaxStreams { max } => self.on_max_streams(max),
            Frame::EarlyStreams { count } => self.on_early_streams(count),
            Frame::LaneClosed { lane, position, code } => {
                self.on_lane_closed(now, lane, position, code);
            }
            Frame::Close { code, reason } => {
                let reason = printable(&reason);
                self.end(SessionError::ClosedByPeer { code, reason }, None);
            }
            Frame::Drain => {
                if !self.local.peer_drains {
                    self.local.peer_drains = true;
                    self.events.push_back(Event::Draining);
                }
            }
            Frame::NextKey { announcement } => {
                if self.side == Side::Server {
                    self.misbehaved(Code::PROTOCOL, "a client has announced a server's key");
                } else {
                    self.events.push_back(Event::NextKey(announcement));
                }
            }
            Frame::Express => {
                if self.side == Side::Client {
                    self.want_express();
                }
            }
            Frame::Invitation { .. }
            | Frame::Create { .. }
            | Frame::Created { .. }
            | Frame::Join { .. }
            | Frame::Joined { .. }
            | Frame::Refused { .. } => {
                self.misbehaved(Code::PROTOCOL, "a handshake frame after the handshake");
            }
        }
    }

    fn on_data(&mut self, lane: LaneId, id: StreamId, offset: u64, fin: bool, data: Bytes) {
        let len = data.len() as u64;
        self.totals.received_payload = self.totals.received_payload.saturating_add(len);
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.received_payload = lane.received_payload.saturating_add(len);
        }
        let Some(stream) = self.peers_stream(id).then(|| self.streams.get_mut(&id)).flatten()
        else {
            self.totals.duplicate_payload = self.totals.duplicate_payload.saturating_add(len);
            return;
        };
        let before = stream.recv.reorder_use();
        let received = stream.recv.on_data(offset, data, fin);
        self.reorder.count(before, stream.recv.reorder_use());
        self.totals.reorder_peak = self.totals.reorder_peak.max(self.reorder.cost);
        self.tune_reordered(id);
        self.on_received(id, received);
        let window = self.config.session_window.saturating_mul(REORDER_OVERHEAD_FACTOR);
        if self.reorder.cost > window.saturating_add(REORDER_OVERHEAD_BYTES) {
            self.misbehaved(Code::EXCESSIVE_LOAD, "too many small pieces out of order");
        }
    }

    fn on_reset(&mut self, id: StreamId, code: Code, final_size: u64) {
        if !self.peers_stream(id) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = stream.recv.reorder_use();
        let received = stream.recv.on_reset(code, final_size);
        self.reorder.count(before, stream.recv.reorder_use());
        // Told whether the reader waits for bytes or not: it may wait for just this.
        stream.recv.reader_waits |= received.is_ok_and(|received| received.readable);
        self.on_received(id, received);
    }

    /// Credit and events after data or a reset.
    fn on_received(&mut self, id: StreamId, received: Result<Received, Misbehaviour>) {
        let received = match received {
            Ok(received) => received,
            Err(broken) => return self.stream_misbehaved(broken),
        };
        let duplicates = self.totals.duplicate_payload.saturating_add(received.duplicate);
        self.totals.duplicate_payload = duplicates;
        if self.window.receive(received.credited).is_err() {
            self.stream_misbehaved(Misbehaviour::FlowControl);
            return;
        }
        self.window.consume(received.discarded);
        self.heed_credit(id);
        if let Some(stream) = self.streams.get_mut(&id)
            && received.readable
            && std::mem::take(&mut stream.recv.reader_waits)
        {
            self.events.push_back(Event::Readable(id));
        }
        self.settle(id);
    }

    fn stream_misbehaved(&mut self, broken: Misbehaviour) {
        match broken {
            Misbehaviour::FlowControl => {
                self.misbehaved(Code::FLOW_CONTROL, "more data than credit was given for");
            }
            Misbehaviour::FinalSize => {
                self.misbehaved(Code::FINAL_SIZE, "the end of a stream moved");
            }
            Misbehaviour::Gaps => {
                self.misbehaved(Code::EXCESSIVE_LOAD, "too many gaps in one stream");
            }
        }
    }

    fn on_open(&mut self, id: StreamId, kind: StreamKind) {
        if self.is_local(id) {
            self.misbehaved(Code::PROTOCOL, "an OPEN for a stream of the receiver's");
            return;
        }
        let draining = self.remote.draining;
        if !self.peers_stream(id) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if std::mem::replace(&mut stream.opened, true) {
            return; // said again: the lane it came on first was lost
        }
        if draining {
            self.send_stream(id).reset(Code::SHUTDOWN);
            self.recv_stream(id).stop(Code::SHUTDOWN);
            return;
        }
        self.accepted.push_back((id, kind));
        self.events.push_back(Event::Opened);
    }

    fn on_redundant(&mut self, id: StreamId) {
        if self.is_local(id) {
            self.misbehaved(Code::PROTOCOL, "a REDUNDANT for a stream of the receiver's");
            return;
        }
        if self.peers_stream(id)
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.redundant = true;
        }
    }

    fn on_stop(&mut self, id: StreamId, code: Code) {
        if !self.peers_stream(id) {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.on_stop(code);
            // Told whether the writer waits for room or not: it may wait for just this.
            stream.send.writer_waits = false;
            self.events.push_back(Event::Stopped { id, code });
        }
        // RFC 9000, 3.5: the answer to STOP is a RESET with the same code, unless all has arrived.
        self.with_stream(id, |stream| stream.say.reset |= stream.send.reset(code));
    }

    fn on_max_data(&mut self, max: u64) {
        if !self.credit.raise(max) {
            return;
        }
        if mutant!("credit-waiters-forgotten") {
            self.credit_waiters.clear();
        }
        for id in std::mem::take(&mut self.credit_waiters) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.writer_waits_no_more(&mut self.events, id);
            }
        }
    }

    fn on_max_stream_data(&mut self, id: StreamId, max: u64) {
        if !self.peers_stream(id) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.send.on_credit(max) {
            stream.writer_waits_no_more(&mut self.events, id);
        }
    }

    fn on_max_streams(&mut self, max: u64) {
        self.local.max = self.local.max.max(max);
        self.offer_streams();
    }

    /// More streams, those that are open among them, begin with more.
    fn on_early_streams(&mut self, count: u64) {
        let known = self.local.early;
        self.local.early = known.max(count);
        let end = count.min(self.local.next);
        if known >= end {
            return;
        }
        let id = |index| StreamId::new(self.side, Dir::Bi, index);
        for (id, stream) in self.streams.range_mut(id(known)..id(end)) {
            if id.initiator() == self.side && stream.send.on_credit(self.peer.early_max_stream_data)
            {
                stream.writer_waits_no_more(&mut self.events, *id);
            }
        }
    }

    /// Whether a frame of the peer's is about a stream it may speak of; one that it opens thereby
    /// is made. `false` if the frame broke a rule, and the session is over.
    fn peers_stream(&mut self, id: StreamId) -> bool {
        if id.dir() != Dir::Bi {
            self.misbehaved(Code::PROTOCOL, "a unidirectional stream");
            return false;
        }
        if self.is_local(id) {
            if id.index() >= self.local.next {
                self.misbehaved(Code::PROTOCOL, "a stream of the receiver's that was never opened");
                return false;
            }
            return true;
        }
        if id.index() >= self.remote.announced {
            self.misbehaved(Code::STREAM_LIMIT, "more streams than were allowed");
            return false;
        }
        let index = id.index();
        if self.remote.seen.insert(index..index.saturating_add(1)) > 0 {
            self.streams.insert(id, self.new_stream(id));
            self.on_new_stream(id);
        }
        true
    }
}

/// Frames that cost work and move nothing: each has to be paid for (`limits`).
fn cost(frame: &Frame) -> Option<Cost> {
    match frame {
        Frame::Stream { data, fin, .. } => {
            (data.len() < TINY_PAYLOAD_BYTES && !fin).then_some(Cost::Busy)
        }
        Frame::Ack { .. } => Some(Cost::Ack),
        _ => Some(Cost::Busy),
    }
}
