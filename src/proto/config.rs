//! What can be set for a session.

mod check;

use std::time::Duration;

use super::scheduler::SchedulerKind;
use super::wire::Params;

pub use check::InvalidConfig;

/// Settings of one end of a session. The defaults are what the command uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Credit every stream begins with, in bytes: what may arrive before anyone has read. A
    /// megabyte lets a first round trip at 400 Mbit/s and 20 ms go unthrottled.
    pub stream_window: u64,
    /// What that credit may grow to for a fast reader, in bytes: the bandwidth-delay product of
    /// 640 Mbit/s at 200 ms.
    pub stream_window_max: u64,
    /// Credit for all streams together, in bytes: the most this end keeps for a peer. Streams grow
    /// into half of it only, so that many stopped readers do not stop the others.
    pub session_window: u64,
    /// What a stream's writer may be ahead of the lanes, in bytes.
    pub send_buffer_max: u64,
    /// Streams the peer may have open at once.
    pub streams_max: u64,
    /// How long a session is kept without any lane.
    pub grace: Duration,
    /// A lane on which nothing was heard for this long is asked whether it is alive.
    pub keepalive: Duration,
    /// How a stream is divided among lanes.
    pub scheduler: SchedulerKind,
    /// Which part of the bytes sent may be sent twice to save time, of 1.
    pub duplicate_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window: 1024 * 1024,
            stream_window_max: 16 * 1024 * 1024,
            session_window: 128 * 1024 * 1024,
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
    /// What the peer is told of it.
    pub fn params(&self) -> Params {
        Params {
            initial_max_data: self.session_window,
            initial_max_stream_data: self.stream_window.min(self.session_window),
            initial_max_streams: self.streams_max,
            grace_ms: u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
