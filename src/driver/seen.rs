//! What is kept of a session's lanes and streams for whoever looks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::carried::Meter;
use crate::proto::{LaneId, LaneStats, LinkId, StreamStats};

/// Lanes that have gone and are remembered.
const GONE_MAX: usize = 32;

/// One lane at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneStatus {
    /// What the session knows of it.
    pub stats: LaneStats,
    /// What its dialer is bound to; empty at the end that accepted it.
    pub via: Arc<str>,
    /// This end's address.
    pub local: Option<SocketAddr>,
    /// The other end's address.
    pub peer: Option<SocketAddr>,
    /// What it is made of ([`Lane::describe`](crate::lane::Lane::describe)).
    pub made_of: Arc<str>,
    /// How long it has been up.
    pub age: Duration,
    /// Stream payload that it sends now, in bytes a second: the mean of the last half second or
    /// second.
    pub sending: u64,
    /// Stream payload that it receives now, likewise.
    pub receiving: u64,
    /// Segments that its transport has sent again.
    pub retransmits: u64,
}

/// A lane that has gone before its session.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LaneGone {
    /// Which it was.
    pub lane: LaneId,
    /// Its link.
    pub link: LinkId,
    /// As in [`LaneStatus`].
    pub via: Arc<str>,
    /// How long ago it went.
    pub ago: Duration,
    /// Why.
    pub why: Arc<str>,
}

/// One open stream at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamStatus {
    /// What the session knows of it.
    pub stats: StreamStats,
    /// How long it has been open; `None` if its user has let go of it.
    pub age: Option<Duration>,
    /// Where it comes from ([`Stream::describe`](crate::Stream::describe)); may be empty.
    pub from: Arc<str>,
    /// Where it leads. The words may be the peer's.
    pub to: Arc<str>,
}

/// What is kept of a lane for whoever looks.
#[derive(Debug)]
pub(super) struct Seen {
    via: Arc<str>,
    link: LinkId,
    pub(super) local: Option<SocketAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) made_of: Arc<str>,
    begun: Instant,
    pub(super) retransmits: u64,
    pub(super) meter: Meter,
}

impl Seen {
    pub(super) fn new(now: Instant, via: Arc<str>, link: LinkId, meter: Meter) -> Self {
        let made_of = "".into();
        Self { via, link, local: None, peer: None, made_of, begun: now, retransmits: 0, meter }
    }

    pub(super) fn status(&self, now: Instant, stats: LaneStats) -> LaneStatus {
        let (sending, receiving) = self.meter.rates(now, &stats);
        LaneStatus {
            stats,
            via: self.via.clone(),
            local: self.local,
            peer: self.peer,
            made_of: self.made_of.clone(),
            age: now.duration_since(self.begun),
            sending,
            receiving,
            retransmits: self.retransmits,
        }
    }
}

/// The lanes that have gone, and when, oldest first.
#[derive(Debug, Default)]
pub(super) struct Gone(VecDeque<(Instant, LaneGone)>);

impl Gone {
    pub(super) fn iter(&self, now: Instant) -> impl Iterator<Item = LaneGone> {
        let ago = move |at: Instant| now.duration_since(at);
        self.0.iter().map(move |(at, gone)| LaneGone { ago: ago(*at), ..gone.clone() })
    }

    pub(super) fn add(&mut self, now: Instant, lane: LaneId, seen: &Seen, why: &str) {
        if self.0.len() >= GONE_MAX {
            self.0.pop_front();
        }
        let (via, why) = (seen.via.clone(), why.into());
        let gone = LaneGone { lane, link: seen.link, via, ago: Duration::ZERO, why };
        self.0.push_back((now, gone));
    }
}

/// What a stream's user says of it.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) from: Arc<str>,
    pub(super) to: Arc<str>,
}
