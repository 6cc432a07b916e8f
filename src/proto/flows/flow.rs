//! One flow: what it has to send, what has arrived, and for how long nothing has.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cost::cost;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::stats::FlowStats;
use crate::proto::error::{Code, ReadError};
use crate::proto::ids::LaneId;
use crate::proto::wire::Datagram;

/// A flow on which nothing came or went for so long is over, unless its user has said otherwise:
/// what a NAT must keep (RFC 4787, 4.3).
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Flow {
    pub deadline: Duration,
    pub outbox: Outbox,
    pub inbox: Inbox,
    pub stats: FlowStats,
    /// Lanes that were given its OPEN.
    pub opened_on: BTreeSet<LaneId>,
    /// It is in the queue of those with something to send.
    pub queued: bool,
    /// It is over, and why.
    pub ended: Option<Code>,
    pub idle: Duration,
    /// When something last came or went.
    active_at: Instant,
    /// Its reader waits.
    reader_waits: bool,
}

impl Flow {
    pub fn new(now: Instant, deadline: Duration) -> Self {
        Self {
            deadline,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            stats: FlowStats::default(),
            opened_on: BTreeSet::new(),
            queued: false,
            ended: None,
            idle: IDLE_TIMEOUT,
            active_at: now,
            reader_waits: false,
        }
    }

    /// Takes a datagram to send; no more than `room` waits.
    pub fn push(&mut self, now: Instant, data: Bytes, room: u64) {
        self.active_at = now;
        self.expire_outbox(now);
        while self.outbox.bytes().saturating_add(cost(&data)) > room {
            self.stats.crowded = self.stats.crowded.saturating_add(1);
            if !self.outbox.drop_first() {
                return; // itself
            }
        }
        self.outbox.push(now, data);
    }

    pub fn expire_outbox(&mut self, now: Instant) {
        let expired = self.outbox.expire(now, self.deadline);
        self.stats.expired = self.stats.expired.saturating_add(expired);
    }

    /// Nothing more is sent.
    pub fn drop_outbox(&mut self) {
        while self.outbox.drop_first() {
            self.stats.expired = self.stats.expired.saturating_add(1);
        }
    }

    /// Takes what has arrived; no more than `room` is kept.
    pub fn receive(&mut self, now: Instant, datagram: Datagram, room: u64) {
        if self.ended.is_none() {
            self.active_at = now;
            self.inbox.receive(now, datagram, self.deadline, room, &mut self.stats);
        }
    }

    pub fn read(&mut self, now: Instant) -> Result<Bytes, ReadError> {
        if let Some(data) = self.inbox.read(now, &mut self.stats) {
            let (stats, bytes) = (&mut self.stats, data.len() as u64);
            stats.received = stats.received.saturating_add(1);
            stats.received_bytes = stats.received_bytes.saturating_add(bytes);
            return Ok(data);
        }
        if let Some(code) = self.ended {
            return Err(ReadError::Reset(code));
        }
        self.reader_waits = true;
        Err(ReadError::Blocked)
    }

    /// Whether its reader waits and has to be told, once.
    pub fn takes_reader(&mut self) -> bool {
        let news = self.inbox.is_readable() || self.ended.is_some();
        news && std::mem::take(&mut self.reader_waits)
    }

    /// Drops what is too old.
    pub fn expire(&mut self, now: Instant) {
        self.expire_outbox(now);
        self.inbox.expire(now, &mut self.stats);
    }

    /// Whether nothing came or went for too long.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.ended.is_none() && now.saturating_duration_since(self.active_at) >= self.idle
    }

    /// When there is something to drop, to give up, or to end.
    pub fn check_at(&self) -> Option<Instant> {
        let too_old = |since: Instant| since.checked_add(self.deadline)?.checked_add(INSTANT);
        let unsent = self.outbox.first_since().and_then(too_old);
        let unread = self.inbox.expires_at();
        let idle = self.active_at.checked_add(self.idle).filter(|_| self.ended.is_none());
        [unsent, unread, idle].into_iter().flatten().min()
    }
}

/// What is as old as the deadline is not too old.
const INSTANT: Duration = Duration::from_nanos(1);
