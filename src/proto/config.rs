//! The settings of a session.

mod check;

use std::time::Duration;

use super::limits;
use super::scheduler::SchedulerKind;
use super::wire::{Params, Wants};

pub use check::InvalidConfig;

/// What every stream starts with, in bytes, unless windows are smaller than usual.
const FIRST_WINDOW: u64 = 2 * 1024;

/// Streams that may be opened within one round trip; a larger burst waits another one.
const STREAMS_AHEAD_MAX: u64 = 1024;

/// Settings of one end of a session. The defaults are what the command uses.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Initial credit of a stream while there is room for it, in bytes: what may arrive before
    /// anyone has read. A megabyte leaves a first round trip at 400 Mbit/s and 20 ms unthrottled.
    pub stream_window: u64,
    /// What that credit may grow to for a fast reader, in bytes: the bandwidth-delay product of
    /// 640 Mbit/s at 200 ms. One stream takes half of the session's at most.
    pub stream_window_max: u64,
    /// Credit for all streams together, in bytes: the most this end keeps for a peer. Three
    /// quarters of it are promised to streams; the last keeps the others moving whatever stopped
    /// readers hold.
    pub session_window: u64,
    /// The initial value of that, in bytes: it doubles, up to `session_window`, for a peer whose
    /// bytes are read fast, and grows with the number of streams.
    pub session_window_initial: u64,
    /// How far a stream's writer may be ahead of the lanes, in bytes.
    pub send_buffer_max: u64,
    /// Streams the peer may have open at once.
    pub streams_max: u64,
    /// How long a session is kept without any lane.
    pub grace: Duration,
    /// A lane on which nothing was heard for this long is pinged.
    pub keepalive: Duration,
    /// How a stream is divided among lanes.
    pub scheduler: SchedulerKind,
    /// The fraction of the bytes sent that may be sent twice to save time, of 1.
    pub duplicate_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            stream_window_max: 16 * 1024 * 1024,
            session_window: 128 * 1024 * 1024,
            session_window_initial: 128 * 1024 * 1024,
            send_buffer_max: 16 * 1024 * 1024,
            streams_max: 16_384,
            grace: Duration::from_secs(120),
            keepalive: Duration::from_secs(15),
            scheduler: SchedulerKind::default(),
            duplicate_share: 0.02,
        }
    }
}

impl Config {
    /// The parameters for the peer.
    pub fn params(&self) -> Params {
        Params {
            initial_max_data: self.first_session_window(),
            initial_max_stream_data: self.first_window(),
            initial_max_streams: self
                .streams_max
                .min(self.streams_ahead(self.first_session_window())),
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
            early_max_stream_data: self.early_window(),
            wants: Wants::ALL,
            listeners_max: limits::LISTENERS_PER_CLIENT_MAX as u64,
            flows_max: limits::FLOWS_PER_SESSION_MAX,
        }
    }

    /// The session's initial credit.
    pub(super) fn first_session_window(&self) -> u64 {
        self.session_window_initial.clamp(1, self.session_window.max(1))
    }

    /// What every stream may send before it is promised more. Small, since 16,384 streams that
    /// nobody reads must leave room for others; an ordinary request fits.
    pub(super) fn first_window(&self) -> u64 {
        FIRST_WINDOW.min(self.session_window / 16).min(self.stream_window).max(1)
    }

    /// What streams announced before they are opened may send: the full first window where there is
    /// room, so that a first upload waits for nothing.
    pub(super) fn early_window(&self) -> u64 {
        self.stream_window.min(self.first_session_window() / 16).max(self.first_window())
    }

    /// How many streams the peer may open before it is allowed more, given the session's window:
    /// what they may send takes a thirty-second of that.
    pub(super) fn streams_ahead(&self, session_window: u64) -> u64 {
        let streams = (session_window / 32).checked_div(self.first_window());
        streams.unwrap_or(0).clamp(1, STREAMS_AHEAD_MAX)
    }
}
