//! Which of what waits a lane is given: urgent streams first, on whichever lane is soonest; then bulk.

use std::time::Instant;

use super::Session;
use super::output::frame_room;
use crate::proto::scheduler::{self, Grant, LaneView};
use crate::proto::stream::Chunk;

impl Session {
    /// Whether the lane, which is idle, would be given anything if it pulled.
    pub(super) fn would_carry(&self, now: Instant, own: &LaneView, others: &[LaneView]) -> bool {
        let Some(lane) = self.lanes.get(&own.id) else { return false };
        // The same room as in the pull: the choice depends on it, and a lane that is woken for nothing
        // is woken for ever.
        let room = frame_room(own, 0).min(self.caps.allowance(now, &lane.policy).bytes);
        let data = own.in_flight < own.window
            && (!lane.copies.is_empty() || self.choose(own, others, room).is_some());
        data || self.tail_choice(now, own.id).is_some() || self.probe_due(own)
    }

    /// Stream (as its place in the queue) and bytes that the lane shall carry next.
    pub(super) fn choose(
        &self,
        own: &LaneView,
        others: &[LaneView],
        room: usize,
    ) -> Option<(usize, Chunk)> {
        self.choose_urgent(own, others, room).or_else(|| self.choose_bulk(own, others, room))
    }

    /// Of streams that sent little lately, which are divided among all lanes as if there were no bulk.
    fn choose_urgent(
        &self,
        own: &LaneView,
        others: &[LaneView],
        room: usize,
    ) -> Option<(usize, Chunk)> {
        let streams = self.streams.urgent_turns();
        if streams.is_empty() {
            return None;
        }
        let waiting = self.streams.urgent_bytes().max(1);
        let skip = self.skip(own, others.iter(), waiting, room, false)?;
        self.streams.chunk_behind(skip, streams, room)
    }

    /// Of streams that sent much: a lane that is kept free of them carries them only beside its like.
    fn choose_bulk(
        &self,
        own: &LaneView,
        others: &[LaneView],
        room: usize,
    ) -> Option<(usize, Chunk)> {
        let streams = self.streams.bulk_turns();
        let carries = |lane: &&LaneView| own.kept_free || !lane.kept_free;
        if streams.is_empty() || own.kept_free && others.iter().any(|lane| !lane.kept_free) {
            return None;
        }
        let waiting = self.streams.pending().max(1);
        let skip = self.skip(own, others.iter().filter(carries), waiting, room, true)?;
        self.streams.chunk_behind(skip, streams, room)
    }

    /// How far behind the first of the `waiting` bytes the lane's share begins, if it is given any.
    fn skip<'a>(
        &self,
        own: &LaneView,
        others: impl Iterator<Item = &'a LaneView> + Clone,
        waiting: u64,
        room: usize,
        bulk: bool,
    ) -> Option<u64> {
        let chunk = (room as u64).min(waiting);
        match scheduler::decide(self.config.scheduler, own, others, waiting, chunk, bulk) {
            Grant::Skip(skip) => Some(skip),
            Grant::Nothing => None,
        }
    }
}
