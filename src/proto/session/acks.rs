//! An acknowledgement's whole path: from the position the peer names, through the lane's ledger and
//! estimate, to the streams that release what has arrived and the writers that may resume. And the
//! reverse: what a lane owed and did not deliver, or may not have, is queued to be sent again.

use std::time::Instant;

use super::Session;
use crate::proto::error::Code;
use crate::proto::event::Event;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::Carried;

impl Session {
    /// The peer has acknowledged a lane's bytes up to `position`.
    pub(super) fn on_ack(&mut self, now: Instant, id: LaneId, position: u64) {
        let Some(settled) = self.settle_ledger(now, id, position) else {
            self.misbehaved(Code::INVALID_ACK, "more acknowledged on a lane than was sent on it");
            return;
        };
        for carried in &settled {
            self.on_delivered(carried);
        }
    }

    /// What the acknowledgement settles. `None`: it acknowledges what was never sent.
    fn settle_ledger(&mut self, now: Instant, id: LaneId, position: u64) -> Option<Vec<Carried>> {
        let mut settled = Vec::new();
        self.lanes.on_ack(now, id, position, &mut settled).then_some(settled)
    }

    /// A frame arrived at the peer.
    fn on_delivered(&mut self, carried: &Carried) {
        match carried {
            Carried::Data { id, range, fin } => {
                self.streams.on_data_acked(*id, range.clone(), *fin);
                // What was queued to be sent again has arrived after all.
                self.wake_writer(*id);
            }
            Carried::Open(id) => self.streams.on_open_acked(*id),
            Carried::Reset(id) => self.streams.on_reset_acked(*id),
            Carried::LaneClosed(lane) => self.lanes.dead.on_notice_acked(*lane),
            Carried::Stop(_)
            | Carried::MaxStreamData(_)
            | Carried::MaxData
            | Carried::MaxStreams
            | Carried::EarlyStreams
            | Carried::Drain
            | Carried::NextKey
            | Carried::Express
            | Carried::Ping
            | Carried::Datagrams => {}
        }
    }

    /// A frame did not arrive, or may not have: it is sent again if it still matters.
    pub(super) fn on_undelivered(&mut self, carried: &Carried) {
        let streams = &mut self.streams;
        match carried {
            Carried::Data { id, range, fin } => streams.on_data_lost(*id, range.clone(), *fin),
            Carried::Open(id) => streams.on_open_lost(*id),
            Carried::Reset(id) => streams.on_reset_lost(*id),
            Carried::Stop(id) => streams.on_stop_lost(*id),
            Carried::MaxStreamData(id) => streams.on_max_stream_data_lost(*id),
            Carried::MaxData => streams.due.max_data = true,
            Carried::MaxStreams => streams.due.max_streams = true,
            Carried::EarlyStreams => streams.due.early_streams = true,
            Carried::Drain => self.notices.due.drain = true,
            Carried::NextKey => self.notices.due.next_key = true,
            Carried::Express => self.notices.due.express = true,
            Carried::LaneClosed(lane) => self.lanes.dead.on_notice_lost(*lane),
            Carried::Ping | Carried::Datagrams => {}
        }
    }

    /// The peer has given a lane up.
    pub(super) fn on_lane_closed(&mut self, now: Instant, id: LaneId, position: u64, code: Code) {
        self.on_ack(now, id, position);
        if self.is_closed() {
            return;
        }
        if self.lanes.contains(id) {
            self.tell(Event::LaneLost { lane: id, code });
            self.handle_lane_down(now, id, code);
        }
        self.lanes.dead.on_peer_closed(id);
    }

    /// Tells a writer that waits for room when there is enough.
    pub(super) fn wake_writer(&mut self, id: StreamId) {
        if self.streams.writer_waits(id) {
            let low_water = self.lanes.send_low_water();
            self.streams.wake_writer(id, low_water);
        }
    }

    /// Tells writers that wait for acknowledgements when there is enough room.
    pub(super) fn wake_writers_after_acks(&mut self) {
        if self.streams.writers_wait_for_acks() {
            let ledger_bytes = self.lanes.ledger_bytes();
            self.streams.wake_writers_after_acks(ledger_bytes);
        }
    }
}
