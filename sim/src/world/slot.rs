//! Lanes, and the slots they are dialled for.

use imux::proto::{Advice, LanePolicy};

use crate::net::{Pipe, Time};

/// One lane: a pipe each way.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) path: usize,
    pub(super) slot: usize,
    pub(super) pipes: [Pipe; 2],
    pub(super) up_at: Time,
    /// When each end last asked its kernel.
    pub(super) measured_at: [Option<Time>; 2],
    /// How each end uses the lane, from its last kernel sample.
    pub(super) advice: [Option<Advice>; 2],
    /// Already answered with an RST.
    pub(super) refused: bool,
}

/// A slot for a lane on a path, redialled whenever it is empty.
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
