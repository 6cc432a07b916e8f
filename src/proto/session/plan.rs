//! What a lane carries next, apart from control frames. One function decides, `plan`: a sleeping
//! lane is woken if it returns anything, and a lane that pulls carries what it returns.
//!
//! Datagrams come first, unless they have had more than their share while bulk waits; then urgent
//! streams, on whichever lane is soonest; then bulk; then what another lane is late with; last,
//! copies that show what a lane can do.

use std::time::Instant;

use super::Session;
use super::pull::room_left;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::link::RateAllowance;
use crate::proto::scheduler::{self, Grant, LaneView, frame_room};
use crate::proto::stream::Chunk;

/// What a lane carries next.
#[derive(Debug)]
pub(super) enum Plan {
    /// A datagram, or a part of one.
    Datagram,
    /// What another lane was given first: the stream's user wants it sent twice.
    Copies,
    /// Bytes of the `nth` stream in the queue.
    Data { nth: usize, chunk: Chunk },
    /// The frame that ends at `end` on a slower `lane`, once more.
    Tail { lane: LaneId, end: u64 },
    /// Copies of what others carry, so that the lane can show its rate.
    Probe(Vec<(StreamId, Chunk)>),
}

/// The kinds of plan in order: a pull that has reached one does not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Datagrams,
    Copies,
    Data,
    Tail,
}

/// A lane that may carry something, as it stands in its pull or would start one.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    pub(super) own: &'a LaneView,
    pub(super) others: &'a [LaneView],
    pub(super) allowance: RateAllowance,
    pub(super) budget: usize,
    /// Bytes it has already pulled.
    pub(super) written: usize,
    pub(super) stage: Stage,
}

impl Session {
    /// What the lane carries next, if anything.
    pub(super) fn plan(&self, now: Instant, candidate: &Candidate<'_>) -> Option<Plan> {
        let Candidate { own, others, allowance, budget, written, stage } = *candidate;
        let left = room_left(budget, allowance, written)?;
        if own.in_flight < own.window {
            let lane = self.lanes.get(own.id)?;
            let datagram =
                stage == Stage::Datagrams && self.carries_datagram(now, own, others, left);
            if datagram && self.flows.has_turn() {
                return Some(Plan::Datagram);
            }
            if stage <= Stage::Copies && !lane.copies.is_empty() {
                return Some(Plan::Copies);
            }
            let room = frame_room(own, written).min(left);
            if stage <= Stage::Data
                && let Some((nth, chunk)) = self.choose(own, others, room)
            {
                return Some(Plan::Data { nth, chunk });
            }
            if datagram {
                return Some(Plan::Datagram);
            }
        }
        if let Some((lane, end)) = self.copies.tail(&self.lanes, &self.streams, now, own.id) {
            return Some(Plan::Tail { lane, end });
        }
        let probe = if written == 0 {
            self.copies.probe(&self.lanes, &self.streams, own.id)
        } else {
            Vec::new()
        };
        (!probe.is_empty()).then_some(Plan::Probe(probe))
    }

    /// The stream (as its place in the queue) and bytes that the lane should carry next.
    fn choose(&self, own: &LaneView, others: &[LaneView], room: usize) -> Option<(usize, Chunk)> {
        self.choose_urgent(own, others, room).or_else(|| self.choose_bulk(own, others, room))
    }

    /// For streams that sent little lately: divided among all lanes as if there were no bulk.
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

    /// For streams that sent much: a lane kept free of bulk carries it only if no other may.
    fn choose_bulk(
        &self,
        own: &LaneView,
        others: &[LaneView],
        room: usize,
    ) -> Option<(usize, Chunk)> {
        let streams = self.streams.bulk_turns();
        let carries = |lane: &&LaneView| own.urgent_only || !lane.urgent_only;
        if streams.is_empty() || own.urgent_only && others.iter().any(|lane| !lane.urgent_only) {
            return None;
        }
        let waiting = self.streams.pending().max(1);
        let skip = self.skip(own, others.iter().filter(carries), waiting, room, true)?;
        self.streams.chunk_behind(skip, streams, room)
    }

    /// How far behind the first of the `waiting` bytes the lane's share begins, if it gets one.
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
