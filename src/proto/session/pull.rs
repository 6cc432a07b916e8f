//! A lane that pulls: what it may take, and how much it has.

use std::time::Instant;

use crate::proto::ids::LaneId;
use crate::proto::link::RateAllowance;
use crate::proto::wire::LaneBuf;

/// The remainder of a cap is not cut into frames smaller than this.
const FRAME_ROOM_MIN: usize = 512;

/// One lane's pull.
#[derive(Debug)]
pub(super) struct Pull<'a> {
    pub(super) now: Instant,
    pub(super) lane: LaneId,
    /// What the link's cap allows.
    pub(super) allowance: RateAllowance,
    /// Past this, no frame is started.
    pub(super) budget: usize,
    pub(super) out: &'a mut LaneBuf,
}

impl Pull<'_> {
    /// Room for one more frame, if one may be started.
    pub(super) fn left(&self) -> Option<usize> {
        room_left(self.budget, self.allowance, self.out.len())
    }
}

/// Room for one more frame in a pull that may take `budget` bytes and has taken `written`, if one
/// may be started.
pub(super) fn room_left(budget: usize, allowance: RateAllowance, written: usize) -> Option<usize> {
    let left = allowance.bytes.saturating_sub(written);
    (allowance.ready && written < budget && left >= FRAME_ROOM_MIN).then_some(left)
}
