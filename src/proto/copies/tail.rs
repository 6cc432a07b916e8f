//! The tail: nothing waits any more, and a free lane carries what slower ones would deliver later.

use std::time::Instant;

use super::Copies;
use crate::proto::count::{end_of, span};
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::{Carried, Lane};
use crate::proto::lanes::Lanes;
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::policy::Tier;
use crate::proto::stream::Chunk;
use crate::proto::streams::{Streams, fit_payload};

/// A frame at the tail is worth sending twice if that saves at least this.
const TAIL_GAIN_MIN: f64 = 0.003;

/// Entries of each lane considered for the tail: the last ones arrive last.
const TAIL_LOOKED_AT: usize = 32;

impl Copies {
    /// Whether there is a tail at all: nothing waits, but something is in flight.
    pub fn tail_possible(&self, lanes: &Lanes, streams: &Streams) -> bool {
        streams.pending() == 0
            && lanes.len() > 1
            && self.budget.unreserved() > 0
            && lanes.values().any(|lane| lane.ledger.payload_in_flight() > 0)
    }

    /// A frame that `id` would deliver sooner: its lane, and where on it the frame ends.
    pub fn tail(
        &self,
        lanes: &Lanes,
        streams: &Streams,
        now: Instant,
        id: LaneId,
    ) -> Option<(LaneId, u64)> {
        let carries_none = |lane: &Lane| lane.is_urgent_only() || lane.policy.tier == Tier::Metered;
        if !self.tail_possible(lanes, streams) || lanes.get(id).is_none_or(carries_none) {
            return None;
        }
        let own = lanes.view_of(now, id)?;
        let link = lanes.get(id)?.policy.link;
        let in_vain = |lane: &Lane| lane.policy.link == link && lane.estimate.is_slow();
        let slower = lanes.values().filter(|lane| lane.id != id && !in_vain(lane));
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
                    let ahead = span(acked, entry.end) as f64 / rate - delay;
                    let forecast = entry.eta.saturating_duration_since(now).as_secs_f64();
                    let gain = ahead.max(forecast) - own.arrival(size);
                    (gain > TAIL_GAIN_MIN.max(own.arrival(size) / 4.0))
                        .then_some((gain, lane.id, entry.end))
                })
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, lane, end)| (lane, end))
    }
}

/// Marks a frame that `Copies::tail` named as sent twice, and returns the part that is still worth
/// sending and fits into `room` bytes.
pub fn take(
    lanes: &mut Lanes,
    streams: &Streams,
    (lane, end): (LaneId, u64),
    room: usize,
) -> Option<(StreamId, Chunk)> {
    let ledger = &mut lanes.get_mut(lane)?.ledger;
    let entry = ledger.entry_mut(end)?;
    entry.duplicated = true;
    let Carried::Data { id, range, fin } = &entry.carried else { return None };
    let chunk = Chunk { range: range.clone(), fin: *fin };
    let mut owed = streams.get(*id)?.send.still_owed(&chunk)?;
    let fits = fit_payload(*id, owed.range.start, room.min(FRAME_BYTES_MAX));
    if owed.payload() > fits {
        owed = Chunk { range: owed.range.start..end_of(owed.range.start, fits), fin: false };
    }
    Some((*id, owed))
}
