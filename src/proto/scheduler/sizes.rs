//! How much a lane takes at once: in one pull, and in one frame.

use super::view::LaneView;
use crate::proto::limits::FRAME_BYTES_MAX;

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

/// What a lane of this rate, in bytes a second, takes in one pull.
pub fn pull_budget(rate: f64, is_slow: bool) -> usize {
    if is_slow {
        return FRAME_BYTES_SLOW;
    }
    let slow = (rate * PULL_SECONDS_SLOW).clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX as f64);
    (rate * PULL_SECONDS).clamp(slow, PULL_BYTES_MAX) as usize
}

/// Bytes for the next frame on a lane that has `written` of this pull: the rest of a TLS record, so
/// that full frames align with records; less on a slow lane, and on one that may prove slow: it has
/// to show a sign of life before it is given up.
pub fn frame_room(lane: &LaneView, written: usize) -> usize {
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
