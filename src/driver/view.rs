//! What can be seen of a session from outside, without holding it open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::seen::{LaneGone, LaneStatus, StreamStatus};
use super::shared::Shared;
use crate::proto::{Code, SessionId, SessionStats, Side};
use crate::trust::Fingerprint;

/// Streams that are looked at under one hold of the session's lock: some hundred microseconds.
const STREAMS_AT_ONCE: usize = 256;

/// A session to look at. It does not hold the session open, and does not see a later one.
#[derive(Clone, Debug)]
pub struct SessionView {
    shared: Arc<Shared>,
}

impl SessionView {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The session's name, the same at both ends.
    pub fn id(&self) -> SessionId {
        self.shared.id
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.shared.peek(|state| state.core.side())
    }

    /// How long it has lasted.
    pub fn age(&self) -> Duration {
        clock::now().duration_since(self.shared.begun)
    }

    /// As [`Session::client`](crate::Session::client).
    pub fn client(&self) -> Option<Fingerprint> {
        self.shared.admission.as_ref()?.client
    }

    /// The comment that its client is listed with, on the server's side.
    pub fn comment(&self) -> &str {
        self.shared.admission.as_ref().map_or("", |client| client.subject.comment())
    }

    /// Where its first lane came from, on the server's side.
    pub fn source(&self) -> Option<SocketAddr> {
        self.shared.admission.as_ref()?.subject.source()
    }

    /// As [`Session::stats`](crate::Session::stats).
    pub fn stats(&self) -> SessionStats {
        self.shared.peek(|state| state.core.stats())
    }

    /// Its lanes that are up, by number.
    pub fn lanes(&self) -> Vec<LaneStatus> {
        let now = clock::now();
        self.shared.ask(|state| {
            let core = &state.core;
            let lanes = state.lanes.iter_mut().filter_map(|(id, slot)| {
                let (stats, seen) = (core.lane_stats(*id)?, slot.seen.as_mut()?);
                seen.meter.note(now, &stats);
                Some(seen.status(now, stats))
            });
            lanes.collect()
        })
    }

    /// Those of its lanes that have gone, the latest last; no more than the latest few.
    pub fn gone(&self) -> Vec<LaneGone> {
        let now = clock::now();
        self.shared.peek(|state| state.gone.iter(now).collect())
    }

    /// Its open streams, by number. They are looked at a few at a time, so that a session with
    /// thousands is held up nowhere; streams that come or go meanwhile may be missing.
    pub fn streams(&self) -> Vec<StreamStatus> {
        let now = clock::now();
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|last: &StreamStatus| last.stats.id);
            let before = all.len();
            // Not while the lock is held: thousands would be moved.
            all.reserve(STREAMS_AT_ONCE);
            self.shared.peek(|state| {
                let some = state.core.stream_stats(after).take(STREAMS_AT_ONCE);
                all.extend(some.map(|stats| state.stream_status(now, stats)));
            });
            if all.len() - before < STREAMS_AT_ONCE {
                return all;
            }
        }
    }

    /// As [`Session::close`](crate::Session::close).
    pub fn close(&self, code: Code) {
        self.shared.with(|state, _| state.core.close(code));
    }
}
