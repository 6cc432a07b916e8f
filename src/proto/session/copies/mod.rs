//! What is sent twice, and why.
//!
//! - `late`: a lane is late with it, so others send it again;
//! - `tail`: it is the last there is, and another lane would deliver it sooner;
//! - `redundant`: the stream's user wants every byte on two lanes;
//! - `probe`: it costs little, and shows what an unused lane can do.
//!
//! All but `redundant` draws on one `budget`, a share of what is sent once.

mod budget;
mod late;
mod probe;
mod redundant;
mod tail;

pub(super) use budget::DuplicateBudget;

use self::budget::cost_twice;
use super::Session;
use super::pull::Pull;
use crate::proto::ids::StreamId;
use crate::proto::scheduler::LaneView;
use crate::proto::stream::Chunk;

impl Session {
    /// Writes on a lane, within the budget, what another was given before.
    fn write_twice(
        &mut self,
        pull: &mut Pull<'_>,
        own: &LaneView,
        stream: StreamId,
        chunk: &Chunk,
    ) {
        self.duplicates.spend(cost_twice(chunk.payload()));
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
