//! What arrives: one function per frame type.

use std::time::Instant;

use super::busy::Cost;
use super::{Session, State};
use crate::proto::count::end_of;
use crate::proto::error::{Code, SessionError};
use crate::proto::event::Event;
use crate::proto::ids::{LaneId, Side};
use crate::proto::lane::WayBack;
use crate::proto::limits::TINY_PAYLOAD_BYTES;
use crate::proto::streams::Violation;
use crate::proto::wire::{Frame, FrameBatch, printable};

impl Session {
    /// Takes what was decoded on `lane` and leaves the batch empty. A peer that breaks a rule ends
    /// the session: `Event::Closed` follows.
    pub fn handle_frames(&mut self, now: Instant, lane: LaneId, batch: &mut FrameBatch) {
        if self.lanes.contains(lane) {
            let mut eliciting = false;
            for frame in batch.frames.drain(..) {
                if self.state != State::Open {
                    break;
                }
                eliciting |= frame.is_ack_eliciting();
                self.handle_frame(now, lane, frame);
            }
            self.count_arrival(now, lane, batch.wire_bytes, eliciting);
            self.wake_writers_after_acks();
        }
        batch.clear();
    }

    fn count_arrival(&mut self, now: Instant, id: LaneId, bytes: u64, eliciting: bool) {
        let faster_elsewhere = self.lanes.has_faster_way_back(id, now);
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.signs.heard_at = now;
            let (rtt, slow_packet) = (lane.estimate.rtt_min(), lane.estimate.slow_packet());
            let way_back = WayBack { rtt, slow_packet, faster_elsewhere };
            lane.inbound.receive(now, bytes, eliciting, way_back);
        }
    }

    fn handle_frame(&mut self, now: Instant, lane: LaneId, frame: Frame) {
        if cost(&frame).is_some_and(|cost| !self.busy.spend(now, cost)) {
            self.misbehaved(Code::EXCESSIVE_LOAD, "too many frames that move nothing");
            return;
        }
        let streams = &mut self.streams;
        let heeded = match frame {
            Frame::Datagram(datagram) => {
                self.on_datagram(now, lane, datagram);
                Ok(())
            }
            Frame::Stream { id, offset, fin, data } => {
                self.count_payload(lane, data.len() as u64);
                self.streams.on_data(id, offset, fin, data)
            }
            Frame::Open { id, kind } => self.on_open(now, id, kind),
            Frame::Redundant { id } => streams.on_redundant(id),
            Frame::Reset { id, code, final_size } => {
                let heeded = streams.on_reset(id, code, final_size);
                self.end_flow(id, code);
                heeded
            }
            Frame::Stop { id, code } => {
                let heeded = streams.on_stop(id, code);
                self.end_flow(id, code);
                heeded
            }
            Frame::MaxStreamData { id, max } => streams.on_max_stream_data(id, max),
            other => {
                self.handle_control(now, other);
                Ok(())
            }
        };
        if let Err(Violation { code, detail }) = heeded {
            self.misbehaved(code, detail);
        }
    }

    /// A frame that is not about one stream.
    fn handle_control(&mut self, now: Instant, frame: Frame) {
        match frame {
            // The lane is up: its policy was stated before.
            Frame::Ping | Frame::LanePolicy(_) | Frame::Ignored => {}
            Frame::Ack { lane, position } => self.on_ack(now, lane, position),
            Frame::MaxData { max } => self.streams.on_max_data(max),
            Frame::MaxStreams { max } => self.streams.on_max_streams(max),
            Frame::EarlyStreams { count } => self.streams.on_early_streams(count),
            Frame::LaneClosed { lane, position, code } => {
                self.on_lane_closed(now, lane, position, code);
            }
            Frame::Close { code, reason } => {
                let reason = printable(&reason);
                self.end(SessionError::ClosedByPeer { code, reason }, None);
            }
            Frame::Drain => self.streams.on_drain(),
            Frame::NextKey { announcement } => {
                if self.side == Side::Server {
                    self.misbehaved(Code::PROTOCOL, "a client has announced a server's key");
                } else {
                    self.tell(Event::NextKey(announcement));
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
            | Frame::Refused { .. }
            | Frame::Stream { .. }
            | Frame::Datagram(_)
            | Frame::Open { .. }
            | Frame::Redundant { .. }
            | Frame::Reset { .. }
            | Frame::Stop { .. }
            | Frame::MaxStreamData { .. } => {
                self.misbehaved(Code::PROTOCOL, "a handshake frame after the handshake");
            }
        }
    }

    pub(super) fn count_payload(&mut self, lane: LaneId, bytes: u64) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.payload.received = end_of(lane.payload.received, bytes);
        }
    }
}

/// Frames that cost work and move nothing: each is charged to the budget (`limits`).
fn cost(frame: &Frame) -> Option<Cost> {
    match frame {
        Frame::Stream { data, fin, .. } => {
            (data.len() < TINY_PAYLOAD_BYTES && !fin).then_some(Cost::Busy)
        }
        Frame::Ack { .. } => Some(Cost::Ack),
        // Its cost depends on whether there is such a flow.
        Frame::Datagram(_) => None,
        _ => Some(Cost::Busy),
    }
}
