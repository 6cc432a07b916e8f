//! Lanes, and the places they are dialled for.

use imux::proto::{Advice, LanePolicy};

use crate::net::{Pipe, Time};

/// One lane: a pipe each way.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) path: usize,
    pub(super) slot: usize,
    pub(super) pipes: [Pipe; 2],
    pub(super) up_at: Time,
    /// When each end asked its kernel last.
    pub(super) measured_at: [Option<Time>; 2],
    /// How each end uses the lane, since its kernel was last asked.
    pub(super) advice: [Option<Advice>; 2],
    /// An RST was answered with already.
    pub(super) refused: bool,
}

/// A place for a lane on a path, dialled again whenever it is empty.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) path: usize,
    pub(super) policy: LanePolicy,
    pub(super) lane: Option<u64>,
    pub(super) failures: u32,
}

impl Slot {
    pub(super) fn new(path: usize, policy: LanePolicy) -> Self {
        Self { path, policy, lane: None, failures: 0 }
    }
}
