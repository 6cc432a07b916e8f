//! What has come of a run.

use std::collections::BTreeMap;

use imux::proto::{LaneId, SessionStats};

use super::{CLIENT, NAMES, SERVER, World};
use crate::net::{MS, Time};
use crate::oracle::copies::Payload;
use crate::oracle::liveness::check_idle;
use crate::oracle::stream::Truth;
use crate::trace::Trace;

/// What has come of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub failure: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub hash: u64,
    pub ended_at: Time,
    /// When everything had arrived.
    pub drained_at: Option<Time>,
    pub events: u64,
    pub trace: Trace,
    pub truths: Vec<[Truth; 2]>,
    pub stats: [SessionStats; 2],
    /// Payload bytes that arrived, by path: towards the server, and back.
    pub path_bytes: Vec<[u64; 2]>,
    /// By lane number: what the client gave each lane, and the server.
    pub lanes: Vec<LaneSum>,
    /// Delays between arrival and being in order, in nanoseconds, for all bytes, waiting or not.
    pub order_delays: Vec<Time>,
}

/// What one lane has carried.
#[derive(Clone, Copy, Debug)]
pub struct LaneSum {
    pub path: usize,
    pub payload: [Payload; 2],
}

impl World {
    pub(super) fn finish(mut self) -> Outcome {
        self.check_idle();
        self.check_copies();
        let stats = [CLIENT, SERVER].map(|end| self.ends[end].session.stats());
        self.count_figures(&stats);
        let events = self.liveness.events;
        let lanes = self.wires.iter().enumerate().map(|(number, wire)| {
            let id = LaneId::new(number as u64);
            LaneSum {
                path: wire.path,
                payload: [0, 1].map(|end: usize| self.copies[end].payload(id)),
            }
        });
        let lanes = lanes.collect();
        Outcome {
            failure: self.failure,
            hash: self.trace.hash() ^ events,
            counts: self.counts,
            ended_at: self.now,
            drained_at: self.liveness.drained_at(),
            events,
            trace: self.trace,
            truths: self.truths,
            stats,
            path_bytes: self.path_bytes,
            lanes,
            order_delays: self.ends.into_iter().flat_map(|end| end.order.delays).collect(),
        }
    }

    fn check_idle(&mut self) {
        let Some(drained_at) = self.liveness.drained_at() else { return };
        let (watched, lanes) = (self.now - drained_at, self.slots.len() as u64);
        let keepalive = self.options.sessions.iter().map(|s| s.keepalive_ms).min().unwrap_or(1);
        for end in [CLIENT, SERVER] {
            let fired = self.ends[end].timers_fired;
            if let Err(broken) = check_idle(fired, watched, lanes, keepalive.max(1) * MS) {
                self.fail(format!("{}: {broken}", NAMES[end]));
            }
        }
    }

    fn count_figures(&mut self, stats: &[SessionStats; 2]) {
        let sums = [
            ("resent", stats.iter().any(|s| s.resent_bytes > 0)),
            ("duplicate received", stats.iter().any(|s| s.duplicate_bytes > 0)),
            ("reordered", stats.iter().any(|s| s.reorder_bytes_max > 0)),
        ];
        for (what, happened) in sums {
            if happened {
                self.count(what);
            }
        }
    }
}
