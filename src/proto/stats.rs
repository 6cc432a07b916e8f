//! Figures for display; no decision depends on them.

use std::time::Duration;

use super::count::span;
use super::flows::{Flow, FlowStats};
use super::ids::{LaneId, LinkId, StreamId};
use super::lane::{Condition, Health, Lane};
use super::policy::Tier;
use super::stream::Stream;

/// One session at one moment. Bytes are stream payload unless stated otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionStats {
    /// Given to lanes, repeats included.
    pub sent_bytes: u64,
    /// Of these, given to a lane for the second time or more.
    pub resent_bytes: u64,
    /// Received, repeats included.
    pub received_bytes: u64,
    /// Of these, received before.
    pub duplicate_bytes: u64,
    /// Waiting for a lane.
    pub pending_bytes: u64,
    /// Written and not acknowledged: kept for sending, possibly again. Now, and the maximum so
    /// far.
    pub held_bytes: u64,
    /// See `held_bytes`.
    pub held_bytes_max: u64,
    /// Memory cost of out-of-order data now, and the maximum so far.
    pub reorder_bytes: u64,
    /// See `reorder_bytes`.
    pub reorder_bytes_max: u64,
    /// Lanes that went down.
    pub lanes_lost: u64,
    /// Times a lane was suspected.
    pub lanes_suspected: u64,
    /// Credit for all streams together.
    pub credit: CreditStats,
    /// Streams open, flows among them.
    pub streams: usize,
    /// Flows open.
    pub flows: usize,
    /// What became of the datagrams of all flows.
    pub datagrams: FlowStats,
    /// Lanes that are up.
    pub lanes: Vec<LaneStats>,
}

/// Session credit as absolute offsets: what this end used and may use, and what it has received,
/// read or dropped, and allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CreditStats {
    /// Bytes written to streams. sent <= sent_max.
    pub sent: u64,
    /// What the peer allows.
    pub sent_max: u64,
    /// Bytes received, gaps before them included. consumed <= received <= announced.
    pub received: u64,
    /// Of these, read by the application or dropped.
    pub consumed: u64,
    /// What the peer was told it may send.
    pub announced: u64,
}

/// One lane at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneStats {
    /// Which.
    pub id: LaneId,
    /// Payload of streams and flows given to it, in bytes.
    pub sent_bytes: u64,
    /// Payload of streams and flows received on it, in bytes.
    pub received_bytes: u64,
    /// The part of `sent_bytes` that another lane had been given before.
    pub resent_bytes: u64,
    /// Bytes of frames not acknowledged.
    pub in_flight_bytes: u64,
    /// Smoothed round-trip time, queues included.
    pub rtt: Duration,
    /// Recent minimum of the round-trip time.
    pub rtt_min: Duration,
    /// Estimated rate in bytes a second.
    pub rate: u64,
    /// Whether it answers.
    pub health: Health,
    /// It answers, but what it carries is overdue, and nothing was acknowledged for a while:
    /// others are preferred.
    pub late: bool,
    /// It carries no bulk for now: the link's active lanes fill its path. It carries urgent data.
    pub standby: bool,
    /// When it carries streams at all.
    pub tier: Tier,
    /// The link it uses, as whoever dialled it numbers links.
    pub link: LinkId,
}

/// One open stream at one moment. Of a flow, bytes are those of datagrams that were sent and read:
/// whether they arrived, and what came and was not read, only `datagrams` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStats {
    /// Which.
    pub id: StreamId,
    /// Bytes written to it at this end, and how many of them have arrived.
    pub written_bytes: u64,
    /// See `written_bytes`. Counted in order: what arrived behind a gap is not among them.
    pub arrived_bytes: u64,
    /// Bytes received, gaps before them included, and how many of them were read or dropped.
    pub received_bytes: u64,
    /// See `received_bytes`.
    pub read_bytes: u64,
    /// Who could make it go on.
    pub waits_for: StreamWait,
    /// What became of a flow's datagrams; `None` for streams of bytes.
    pub datagrams: Option<FlowStats>,
}

/// Whom a stream waits for. Where several hold it up, the first of these that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamWait {
    /// This end's application: it has not read what has arrived.
    Reader,
    /// The peer's application: what was written fills the credit that it has read room for.
    PeerReader,
    /// Lanes: what was written is on its way, or waits for one.
    Lanes,
    /// Either application: there is nothing to carry.
    Writers,
}

impl StreamStats {
    /// `session_is_full`: the credit of all streams together is used up.
    pub(super) fn of(id: StreamId, stream: &Stream, session_is_full: bool) -> Self {
        let (send, recv) = (&stream.send, &stream.recv);
        let full = send.credit_left() == 0 || session_is_full;
        let waits_for = match () {
            () if recv.ready_bytes() > 0 => StreamWait::Reader,
            () if full && send.writer_waits => StreamWait::PeerReader,
            () if send.held_bytes() > 0 => StreamWait::Lanes,
            () => StreamWait::Writers,
        };
        let written_bytes = send.written_bytes();
        Self {
            id,
            written_bytes,
            arrived_bytes: span(send.held_bytes(), written_bytes),
            received_bytes: recv.window.received(),
            read_bytes: recv.window.consumed(),
            waits_for,
            datagrams: None,
        }
    }

    pub(super) fn of_flow(id: StreamId, flow: &Flow) -> Self {
        let stats = flow.stats;
        let waits_for = match () {
            () if flow.inbox.is_readable() => StreamWait::Reader,
            () if !flow.outbox.is_empty() => StreamWait::Lanes,
            () => StreamWait::Writers,
        };
        Self {
            id,
            written_bytes: stats.sent_bytes,
            arrived_bytes: stats.sent_bytes,
            received_bytes: stats.received_bytes,
            read_bytes: stats.received_bytes,
            waits_for,
            datagrams: Some(stats),
        }
    }
}

impl LaneStats {
    pub(super) fn of(lane: &Lane) -> Self {
        Self {
            id: lane.id,
            sent_bytes: lane.payload.sent,
            received_bytes: lane.payload.received,
            resent_bytes: lane.payload.resent,
            in_flight_bytes: lane.ledger.in_flight(),
            rtt: lane.estimate.rtt(),
            rtt_min: lane.estimate.rtt_min(),
            rate: lane.estimate.rate() as u64,
            health: lane.condition.health(),
            late: lane.condition == Condition::Late,
            standby: lane.standby,
            tier: lane.policy.tier,
            link: lane.policy.link,
        }
    }
}
