//! Which of what waits a lane is given: urgent streams first, on whichever lane is soonest; then bulk.

use std::ops::Range;
use std::time::Instant;

use super::Session;
use super::output::{fit_payload, frame_room};
use crate::proto::scheduler::{self, Grant, LaneView};
use crate::proto::stream::Chunk;

/// How many streams are looked at for one that has bytes where the lane's share begins.
const STREAMS_LOOKED_AT: usize = 8;

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
        let streams = 0..self.data_queue.urgent_len();
        if streams.is_empty() {
            return None;
        }
        let waiting = self.urgent_bytes().max(1);
        let skip = self.skip(own, others.iter(), waiting, room, false)?;
        self.chunk_behind(skip, streams, room)
    }

    /// Of streams that sent much: a lane that is kept free of them carries them only beside its like.
    fn choose_bulk(
        &self,
        own: &LaneView,
        others: &[LaneView],
        room: usize,
    ) -> Option<(usize, Chunk)> {
        let streams = self.data_queue.urgent_len()..self.data_queue.len();
        let carries = |lane: &&LaneView| own.kept_free || !lane.kept_free;
        if streams.is_empty() || own.kept_free && others.iter().any(|lane| !lane.kept_free) {
            return None;
        }
        let waiting = self.pending.max(1);
        let skip = self.skip(own, others.iter().filter(carries), waiting, room, true)?;
        self.chunk_behind(skip, streams, room)
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

    /// What waits of streams that sent little lately, guessed from the first of them.
    fn urgent_bytes(&self) -> u64 {
        let count = self.data_queue.urgent_len();
        if count == self.data_queue.len() {
            return self.pending;
        }
        let looked_at = count.min(STREAMS_LOOKED_AT);
        let ids = (0..looked_at).filter_map(|nth| self.data_queue.peek(nth));
        let streams = ids.filter_map(|id| self.streams.get(&id));
        let bytes: u64 = streams.map(|stream| stream.send.pending_bytes()).sum();
        let whole = bytes.saturating_mul(count as u64).checked_div(looked_at as u64);
        whole.unwrap_or(0)
    }

    /// The stream (as its place in the queue, one of `turns`) and the chunk that stand about `skip`
    /// bytes behind the first that waits.
    fn chunk_behind(&self, skip: u64, turns: Range<usize>, room: usize) -> Option<(usize, Chunk)> {
        let share = skip.checked_div(turns.len() as u64).unwrap_or(skip);
        let mut nearest = None;
        for nth in turns.take(STREAMS_LOOKED_AT) {
            let Some(id) = self.data_queue.peek(nth) else { break };
            let Some(stream) = self.streams.get(&id) else { continue };
            // A stream with little left has no bytes that far back: its last frame is nearest.
            let last_frame = stream.send.pending_bytes().saturating_sub(room as u64);
            let fit = |offset| fit_payload(id, offset, room);
            let Some(chunk) = stream.send.next_chunk(share.min(last_frame), fit) else { continue };
            if share <= last_frame.saturating_add(room as u64) {
                return Some((nth, chunk));
            }
            nearest = nearest.or(Some((nth, chunk)));
        }
        nearest
    }
}
