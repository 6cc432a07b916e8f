//! What a session's user may hear about its lanes.

use crate::proto::LaneId;

/// What happened to a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaneEvent {
    /// It carries the session from now on.
    Up(LaneId),
    /// It does not answer: what it owes is sent on other lanes, and it may come back.
    Suspected(LaneId),
    /// It is gone; a client dials another.
    Lost(LaneId),
}
