//! Carries out what `copies` chose to send twice.

use super::Session;
use super::pull::Pull;
use crate::proto::copies::redundant::{self, NextCopy};
use crate::proto::copies::tail;
use crate::proto::count::span;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::Carried;
use crate::proto::scheduler::LaneView;
use crate::proto::stream::Chunk;
use crate::proto::streams::fit_payload;

impl Session {
    /// The lane of this pull was given bytes of a redundant stream, or its opening, for the first
    /// time.
    pub(super) fn note_copy(&mut self, pull: &Pull<'_>, carried: Carried, urgent: bool) {
        let (now, lane) = (pull.now, pull.lane);
        redundant::note(&mut self.lanes, &self.streams, now, lane, carried, urgent);
    }

    /// What other lanes were given first and has not arrived. It is not charged to the duplicate
    /// budget: the stream's user asked for it.
    pub(super) fn write_copies(&mut self, pull: &mut Pull<'_>, mut own: LaneView) {
        while let Some(room) = pull.left()
            && own.in_flight < own.window
            && let Some(copy) = redundant::next(&mut self.lanes, &self.streams, pull.lane, room)
        {
            let before = pull.out.len();
            match copy {
                NextCopy::Open(stream) => self.write_open(pull, stream),
                NextCopy::Data(stream, chunk) => self.copy_data(pull, &own, stream, &chunk),
            }
            own.take(span(before as u64, pull.out.len() as u64));
        }
    }

    fn copy_data(&mut self, pull: &mut Pull<'_>, own: &LaneView, stream: StreamId, chunk: &Chunk) {
        let pending = self.streams.pending();
        self.write_again(pull, own, stream, chunk);
        if let Some(lane) = self.lanes.get_mut(own.id)
            && let Some(entry) = lane.ledger.entries_mut().next_back()
        {
            // A third copy is not worth it; but what the first lane lost is in flight here only.
            entry.duplicated = self.streams.pending() == pending;
        }
    }

    /// Carries what a slower lane would deliver later: the frame that ends at `end` on `lane`.
    pub(super) fn write_tail(&mut self, pull: &mut Pull<'_>, lane: LaneId, end: u64) {
        let Some(own) = self.lanes.view_of(pull.now, pull.lane) else { return };
        let Some(room) = pull.left() else { return };
        let taken = tail::take(&mut self.lanes, &self.streams, (lane, end), room);
        if let Some((stream, chunk)) = taken {
            self.write_twice(pull, &own, stream, &chunk);
        }
    }

    /// Gives the lane copies of another lane's newest frames. If those turn out late, they are sent
    /// again as if there were no copies: these may take long.
    pub(super) fn write_probe(&mut self, pull: &mut Pull<'_>, frames: Vec<(StreamId, Chunk)>) {
        let Some(own) = self.lanes.view_of(pull.now, pull.lane) else { return };
        for (stream, chunk) in frames {
            let payload = chunk.payload();
            let fits = |room| fit_payload(stream, chunk.range.start, room) >= payload;
            if !pull.left().is_some_and(fits) {
                return;
            }
            self.write_twice(pull, &own, stream, &chunk);
        }
    }

    /// Writes on a lane, within the budget, what another was given before.
    fn write_twice(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        stream: StreamId,
        chunk: &Chunk,
    ) {
        self.copies.spend(chunk.payload());
        self.write_again(pull, own, stream, chunk);
    }

    /// Writes on a lane what another was given before.
    fn write_again(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        stream: StreamId,
        chunk: &Chunk,
    ) {
        self.write_stream(pull, own, stream, chunk);
        self.note_payload(pull.lane, chunk.payload(), false);
    }
}

#[cfg(test)]
mod tests;
