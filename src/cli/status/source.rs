//! Where a process's snapshot comes from, and what can be changed of what is seen.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use imux::{
    Client, Code, FlowStats, Health, LaneGone, LaneStatus, LinkStatus, ServerView, SessionView,
    StreamStatus, StreamWait, Tier,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::snapshot::{Datagrams, Gone, Lane, Link, Process, Session, Stream};
use crate::cli::date;

/// What a process has to show.
#[derive(Debug, Clone)]
pub struct Source {
    role: &'static str,
    place: String,
    seen: Seen,
}

#[derive(Debug, Clone)]
enum Seen {
    Client(Arc<Client>),
    Server(ServerView),
}

/// Whether streams are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    All,
    None,
}

/// What can be done to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    Pause,
    Resume,
    Tier(Tier),
}

impl Source {
    pub fn client(place: &str, client: Arc<Client>) -> Self {
        Self { role: "client", place: place.to_owned(), seen: Seen::Client(client) }
    }

    pub fn server(place: String, server: ServerView) -> Self {
        Self { role: "server", place, seen: Seen::Server(server) }
    }

    /// What it is, in the command line's words.
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// The server it is connected to, as in `--dial`, or the address it listens on.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether it can do its work: a server that listens, a client with a lane.
    pub fn is_ready(&self) -> bool {
        match &self.seen {
            Seen::Client(client) => client.stats().is_some_and(|stats| !stats.lanes.is_empty()),
            Seen::Server(_) => true,
        }
    }

    pub fn snapshot(&self, streams: Streams) -> Process {
        let now = date::now();
        let sessions = self.sessions();
        let mut sessions: Vec<_> =
            sessions.iter().map(|it| self.session(it, now, streams)).collect();
        sessions.sort_by(|one, other| other.age_seconds.total_cmp(&one.age_seconds));
        let mut links = match &self.seen {
            Seen::Client(client) => client.links().into_iter().map(of_client).collect(),
            Seen::Server(server) => of_server(server),
        };
        for lane in sessions.iter().flat_map(|session| &session.lanes) {
            let own = match &self.seen {
                Seen::Client(_) => links.iter_mut().find(|link| link.number == Some(lane.link)),
                Seen::Server(_) => links.iter_mut().find(|link| link.name == lane.tier),
            };
            if let Some(link) = own {
                link.lanes_up += 1;
                link.sending += lane.sending;
                link.receiving += lane.receiving;
            }
        }
        Process {
            process: std::process::id(),
            role: self.role.to_owned(),
            place: self.place.clone(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            links,
            sessions,
        }
    }

    fn sessions(&self) -> Vec<SessionView> {
        match &self.seen {
            Seen::Client(client) => client.session().map(|it| it.view()).into_iter().collect(),
            Seen::Server(server) => server.sessions(),
        }
    }

    fn session(&self, view: &SessionView, now: SystemTime, streams: Streams) -> Session {
        let (stats, age) = (view.stats(), view.age());
        let key = match &self.seen {
            Seen::Client(client) => client.server_key(),
            Seen::Server(_) => view.client(),
        };
        let since = OffsetDateTime::from(now.checked_sub(age).unwrap_or(now));
        let since = since.replace_nanosecond(0).unwrap_or(since).format(&Rfc3339);
        let all = match streams {
            Streams::All => view.streams().iter().map(stream).collect(),
            Streams::None => Vec::new(),
        };
        Session {
            id: view.id().to_string(),
            key: key.map(|key| key.to_string()),
            comment: view.comment().to_owned(),
            peer: view.source().map(|source| source.to_string()),
            since: since.unwrap_or_default(),
            age_seconds: age.as_secs_f64(),
            sent_bytes: stats.sent_bytes,
            received_bytes: stats.received_bytes,
            resent_bytes: stats.resent_bytes,
            duplicate_bytes: stats.duplicate_bytes,
            held_bytes: stats.held_bytes,
            pending_bytes: stats.pending_bytes,
            lanes_lost: stats.lanes_lost,
            lanes_suspected: stats.lanes_suspected,
            lanes: view.lanes().iter().map(lane).collect(),
            gone: view.gone().iter().map(gone).collect(),
            streams_open: stats.streams as u64,
            flows_open: stats.flows as u64,
            streams: all,
        }
    }

    /// Ends a session of this process: what was done, or why nothing was.
    pub fn close_session(&self, id: &str) -> Result<String, String> {
        let named: Vec<_> =
            self.sessions().into_iter().filter(|it| it.id().to_string() == id).collect();
        match named.as_slice() {
            [one] => {
                one.close(Code::SHUTDOWN);
                Ok(format!("session {id} is closed; its connections are cut off"))
            }
            [] => Err(format!("there is no session {id}")),
            _ => Err(format!("several sessions are called {id}")),
        }
    }

    /// Uses a client's link in another way: what was done, or why nothing was.
    pub fn change_link(&self, name: &str, change: LinkChange) -> Result<String, String> {
        let Seen::Client(client) = &self.seen else {
            return Err("a server's links are its clients'".to_owned());
        };
        let links = client.links();
        let Some(link) = links.iter().find(|link| &*link.name == name) else {
            let names: Vec<_> = links.iter().map(|link| &*link.name).collect();
            return Err(format!("there is no link {name}; there are {}", names.join(", ")));
        };
        match change {
            LinkChange::Pause => client.pause_link(link.id),
            LinkChange::Resume => client.resume_link(link.id),
            LinkChange::Tier(tier) => client.set_link_tier(link.id, tier),
        };
        let alone = client.links().iter().all(|link| link.paused);
        Ok(match change {
            LinkChange::Pause if alone => format!(
                "{name} is paused, as all links are: connections wait, and are cut off if that lasts longer than --grace"
            ),
            LinkChange::Pause => format!("{name} is paused"),
            LinkChange::Resume => format!("{name} is in use"),
            LinkChange::Tier(tier) => format!("{name} is {tier}"),
        })
    }
}

fn of_client(link: LinkStatus) -> Link {
    let LinkStatus { id, name, tier, lanes, rate_max, paused, carried, failed, .. } = link;
    Link {
        name: name.to_string(),
        number: Some(id.number()),
        tier: tier.to_string(),
        paused,
        lanes_wanted: Some(if paused { 0 } else { lanes.into() }),
        rate_max,
        failed_seconds_ago: failed.as_ref().map(|(_, ago)| ago.as_secs_f64()),
        failed: failed.map(|(why, _)| why),
        ..of_carried(carried)
    }
}

fn of_server(server: &ServerView) -> Vec<Link> {
    let link = |(tier, carried): (Tier, _)| Link {
        name: tier.to_string(),
        tier: tier.to_string(),
        ..of_carried(carried)
    };
    server.carried().into_iter().map(link).collect()
}

fn of_carried(carried: imux::Carried) -> Link {
    Link {
        sent_bytes: carried.sent_bytes,
        received_bytes: carried.received_bytes,
        resent_bytes: carried.resent_bytes,
        lanes_made: carried.lanes_made,
        lanes_lost: carried.lanes_lost,
        ..Link::default()
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn lane(lane: &LaneStatus) -> Lane {
    let stats = lane.stats;
    let state = match () {
        () if stats.health == Health::Suspect => "suspect",
        () if stats.late => "late",
        () if stats.standby => "standby",
        () => "active",
    };
    Lane {
        id: stats.id.number(),
        link: stats.link.number(),
        via: lane.via.to_string(),
        tier: stats.tier.to_string(),
        state: state.to_owned(),
        local: lane.local.map(|address| address.to_string()),
        peer: lane.peer.map(|address| address.to_string()),
        made_of: lane.made_of.to_string(),
        age_seconds: lane.age.as_secs_f64(),
        round_trip_ms: ms(stats.rtt),
        round_trip_min_ms: ms(stats.rtt_min),
        capacity: stats.rate,
        sending: lane.sending,
        receiving: lane.receiving,
        sent_bytes: stats.sent_bytes,
        received_bytes: stats.received_bytes,
        resent_bytes: stats.resent_bytes,
        in_flight_bytes: stats.in_flight_bytes,
        retransmits: lane.retransmits,
    }
}

fn gone(gone: &LaneGone) -> Gone {
    Gone {
        lane: gone.lane.number(),
        link: gone.link.number(),
        via: gone.via.to_string(),
        seconds_ago: gone.ago.as_secs_f64(),
        why: gone.why.to_string(),
    }
}

fn stream(stream: &StreamStatus) -> Stream {
    let stats = stream.stats;
    let waits_for = match stats.waits_for {
        StreamWait::Reader => "reader",
        StreamWait::PeerReader => "peer-reader",
        StreamWait::Lanes => "lanes",
        StreamWait::Writers => "writers",
    };
    Stream {
        id: stats.id.into(),
        from: stream.from.to_string(),
        to: stream.to.to_string(),
        age_seconds: stream.age.map(|age| age.as_secs_f64()),
        written_bytes: stats.written_bytes,
        arrived_bytes: stats.arrived_bytes,
        received_bytes: stats.received_bytes,
        read_bytes: stats.read_bytes,
        waits_for: waits_for.to_owned(),
        datagrams: stats.datagrams.map(datagrams),
    }
}

fn datagrams(stats: FlowStats) -> Datagrams {
    Datagrams {
        sent: stats.sent,
        received: stats.received,
        expired: stats.expired,
        crowded: stats.crowded,
        behind: stats.behind,
        incomplete: stats.incomplete,
        missing: stats.missing,
        unread: stats.unread,
    }
}
