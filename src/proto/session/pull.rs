//! A lane that pulls: what it may take, and how much it has.

use std::time::Instant;

use crate::proto::ids::LaneId;
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::link::RateAllowance;
use crate::proto::scheduler::LaneView;
use crate::proto::wire::LaneBuf;

/// A pull takes this much of the lane's time. Less costs more wake-ups; more commits the choice of
/// what to send too early.
const PULL_SECONDS: f64 = 0.002;
/// A slow lane pulls a full frame, unless that takes longer than this: what is pulled together is
/// one TLS record, which arrives as a whole.
const PULL_SECONDS_SLOW: f64 = 0.050;
/// Sixteen full frames: beyond that, saving syscalls or locks gains nothing.
const PULL_BYTES_MAX: f64 = 16.0 * FRAME_BYTES_MAX as f64;

/// A frame takes no more than this much of the lane's time, so that data that becomes urgent
/// meanwhile does not wait behind it.
const FRAME_SECONDS: f64 = 0.010;
/// Smaller frames cost more than they gain.
const FRAME_BYTES_MIN: f64 = 2048.0;

/// On a slow path each packet takes long: a frame and its TLS record fit in one.
const FRAME_BYTES_SLOW: usize = 1280;

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

/// What a lane of this rate, in bytes a second, takes in one pull.
pub(super) fn pull_budget(rate: f64, is_slow: bool) -> usize {
    if is_slow {
        return FRAME_BYTES_SLOW;
    }
    let slow = (rate * PULL_SECONDS_SLOW).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as f64);
    (rate * PULL_SECONDS).clamp(slow, PULL_BYTES_MAX) as usize
}

/// Bytes for the next frame on a lane that has `written` of this pull: the rest of a TLS record, so
/// that full frames align with records; less on a slow lane, and on one that may prove slow: it has
/// to show a sign of life before it is given up.
pub(super) fn frame_room(lane: &LaneView, written: usize) -> usize {
    if lane.slow {
        return FRAME_BYTES_SLOW;
    }
    if !lane.measured {
        return FRAME_BYTES_MIN as usize;
    }
    let slow = (lane.rate * FRAME_SECONDS).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as f64) as usize;
    let rest = FRAME_BYTES_MAX.saturating_sub(written % FRAME_BYTES_MAX);
    // A stub at a record's end is not worth a frame.
    if rest < FRAME_BYTES_MIN as usize { slow } else { slow.min(rest) }
}
