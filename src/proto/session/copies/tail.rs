//! The tail: nothing waits any more, and a free lane carries what slower ones would deliver later.

use std::time::Instant;

use crate::proto::byte_count::span;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::{Carried, Lane};
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::policy::Tier;
use crate::proto::session::Session;
use crate::proto::session::pull::Pull;
use crate::proto::stream::Chunk;
use crate::proto::streams::fit_payload;

/// A frame at the tail is worth sending twice if that saves at least this.
const TAIL_GAIN_MIN: f64 = 0.003;

/// Entries of each lane considered for the tail: the last ones arrive last.
const TAIL_LOOKED_AT: usize = 32;

impl Session {
    /// Whether there is a tail at all: nothing waits, but something is in flight.
    pub(in crate::proto::session) fn tail_possible(&self) -> bool {
        self.streams.pending() == 0
            && self.lanes.len() > 1
            && self.duplicates.unreserved() > 0
            && self.lanes.values().any(|lane| lane.ledger.payload_in_flight() > 0)
    }

    /// Carries what a slower lane would deliver later: the frame that ends at `end` on `lane`.
    pub(in crate::proto::session) fn write_tail(
        &mut self,
        pull: &mut Pull<'_>,
        lane: LaneId,
        end: u64,
    ) {
        let Some(own) = self.lanes.view_of(pull.now, pull.lane) else { return };
        let Some(room) = pull.left() else { return };
        if let Some((stream, chunk)) = self.take_tail(lane, end, room) {
            self.write_twice(pull, &own, stream, &chunk);
        }
    }

    /// A frame that `id` would deliver sooner: its lane, and where on it the frame ends.
    pub(in crate::proto::session) fn tail_choice(
        &self,
        now: Instant,
        id: LaneId,
    ) -> Option<(LaneId, u64)> {
        let kept_free = |lane: &Lane| lane.is_kept_free() || lane.policy.tier == Tier::Metered;
        if !self.tail_possible() || self.lanes.get(id).is_none_or(kept_free) {
            return None;
        }
        let own = self.lanes.view_of(now, id)?;
        let link = self.lanes.get(id)?.policy.link;
        let in_vain = |lane: &Lane| lane.policy.link == link && lane.estimate.is_slow();
        let slower = self.lanes.values().filter(|lane| lane.id != id && !in_vain(lane));
        slower
            .filter_map(|lane| {
                let rate = lane.estimate.rate().max(1.0);
                let delay = lane.estimate.delay().as_secs_f64();
                let acked = lane.ledger.acked_position();
                let entries = lane.ledger.entries().rev().take(TAIL_LOOKED_AT);
                entries.filter(|entry| !entry.duplicated).find_map(|entry| {
                    let Carried::Data { range, .. } = &entry.carried else { return None };
                    let size = span(range.start, range.end) as f64;
                    // Everything ahead of it has to get through first; the lane's forecast may be
                    // too optimistic.
                    let ahead = entry.end.saturating_sub(acked) as f64 / rate - delay;
                    let forecast = entry.eta.saturating_duration_since(now).as_secs_f64();
                    let gain = ahead.max(forecast) - own.arrival(size);
                    (gain > TAIL_GAIN_MIN.max(own.arrival(size) / 4.0))
                        .then_some((gain, lane.id, entry.end))
                })
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, lane, end)| (lane, end))
    }

    /// Marks the frame that ends at `end` on `lane` as sent twice, and returns the part that is
    /// still worth sending.
    fn take_tail(&mut self, lane: LaneId, end: u64, room: usize) -> Option<(StreamId, Chunk)> {
        let ledger = &mut self.lanes.get_mut(lane)?.ledger;
        let entry = ledger.entry_mut(end)?;
        entry.duplicated = true;
        let Carried::Data { id, range, fin } = &entry.carried else { return None };
        let chunk = Chunk { range: range.clone(), fin: *fin };
        let mut owed = self.streams.get(*id)?.send.still_owed(&chunk)?;
        let fits = fit_payload(*id, owed.range.start, room.min(FRAME_BYTES_MAX));
        if owed.payload() > fits {
            owed = Chunk {
                range: owed.range.start..owed.range.start.saturating_add(fits),
                fin: false,
            };
        }
        Some((*id, owed))
    }
}
