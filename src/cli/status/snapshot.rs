//! What a process shows of itself: the one form that `status`, `top`, the metrics and the page
//! have.
//!
//! `docs/status.schema.json` describes it. Fields are added, never renamed or removed, so whoever
//! reads it may find fields missing that an older process does not have.

use serde::{Deserialize, Serialize};

/// Of all processes that were asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Of this form: 1.
    pub version: u64,
    pub processes: Vec<Process>,
}

/// A server or a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    pub process: u32,
    /// `client` or `server`.
    pub role: String,
    /// The server it is connected to, or the address where it listens.
    pub place: String,
    pub program_version: String,
    /// A client's links; a server's lanes by tier, since links are what clients call so.
    pub links: Vec<Link>,
    pub sessions: Vec<Session>,
}

/// Rates are of stream payload, in bytes a second; `sent` is from this end to the other.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// As in `--bind`; a server's are called as their tier.
    pub name: String,
    /// A client's links are numbered as they came; lanes say theirs.
    pub number: Option<u64>,
    pub tier: String,
    pub paused: bool,
    pub lanes_up: u64,
    /// How many a client keeps up, express lanes not counted.
    pub lanes_wanted: Option<u64>,
    /// Its cap, in bytes a second.
    pub rate_max: Option<u64>,
    pub sending: u64,
    pub receiving: u64,
    /// Since the process began, lanes that have gone included.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub resent_bytes: u64,
    pub lanes_made: u64,
    pub lanes_lost: u64,
    /// Why a lane could not be made last.
    pub failed: Option<String>,
    pub failed_seconds_ago: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    pub id: String,
    /// The other end's key.
    pub key: Option<String>,
    /// What the server's list of clients says about it.
    pub comment: String,
    /// Where a client's first lane came from.
    pub peer: Option<String>,
    /// RFC 3339.
    pub since: String,
    pub age_seconds: f64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub resent_bytes: u64,
    pub duplicate_bytes: u64,
    /// Written and not acknowledged.
    pub held_bytes: u64,
    /// Waiting for a lane.
    pub pending_bytes: u64,
    pub lanes_lost: u64,
    pub lanes_suspected: u64,
    pub lanes: Vec<Lane>,
    /// Lanes that have gone, the latest last.
    pub gone: Vec<Gone>,
    /// Flows of datagrams among them.
    pub streams_open: u64,
    pub flows_open: u64,
    /// All of them, where they were asked for.
    pub streams: Vec<Stream>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lane {
    pub id: u64,
    /// The link's number in its session, and its name where this end has dialled it.
    pub link: u64,
    pub via: String,
    pub tier: String,
    /// `active`, `standby`, `late` or `suspect`.
    pub state: String,
    pub local: Option<String>,
    pub peer: Option<String>,
    pub made_of: String,
    pub age_seconds: f64,
    pub round_trip_ms: f64,
    pub round_trip_min_ms: f64,
    /// What it is believed to carry at most, in bytes a second.
    pub capacity: u64,
    pub sending: u64,
    pub receiving: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub resent_bytes: u64,
    pub in_flight_bytes: u64,
    /// Segments that TCP has sent again.
    pub retransmits: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gone {
    pub lane: u64,
    pub link: u64,
    pub via: String,
    pub seconds_ago: f64,
    pub why: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stream {
    pub id: u64,
    pub from: String,
    pub to: String,
    pub age_seconds: Option<f64>,
    /// Written at this end, and what of it has arrived.
    pub written_bytes: u64,
    pub arrived_bytes: u64,
    /// Received, and what of it was read.
    pub received_bytes: u64,
    pub read_bytes: u64,
    /// `reader` (the program at this end), `peer-reader` (the one at the other), `lanes`, or
    /// `writers`: there is nothing to carry.
    pub waits_for: String,
    /// Of a flow of datagrams; its bytes are those that were sent and read.
    pub datagrams: Option<Datagrams>,
}

/// What became of a flow's datagrams at this end; all but `sent`, `received` and `missing` were
/// dropped here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Datagrams {
    pub sent: u64,
    pub received: u64,
    /// Too old before a lane took it.
    pub expired: u64,
    /// For lack of room.
    pub crowded: u64,
    /// Came again, or after a later one.
    pub behind: u64,
    /// Without one of its parts.
    pub incomplete: u64,
    /// Never came, or too late.
    pub missing: u64,
    /// Nobody read it in time.
    pub unread: u64,
}

impl Datagrams {
    /// At this end, for whatever reason.
    pub fn dropped(&self) -> u64 {
        let drops = [self.expired, self.crowded, self.behind, self.incomplete, self.unread];
        drops.into_iter().fold(0, u64::saturating_add)
    }
}

impl Status {
    pub const VERSION: u64 = 1;

    pub fn of(processes: Vec<Process>) -> Self {
        Self { version: Self::VERSION, processes }
    }
}
